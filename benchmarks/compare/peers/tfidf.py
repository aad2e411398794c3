"""Logistic regression on TF-IDF as a contender: what a few lines of scikit-learn give, without a language model."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from softprompt.answers import Outcome, summarize
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.record import Record, Rows, Seconds, keep_tests
from softprompt.benchmarks.compare.runs import Run
from softprompt.config import Strict, parse
from softprompt.data import Row
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Task

_FEW_BLANKS = 0.05  # of the characters: fewer mean a script that does not part words, such as Chinese


class TfIdfSpec(Strict):
    """Settings of the row `tfidf`.

    Attributes:
        analyzer: `word`, or `char_wb` (characters within words); null: characters where most texts part no words by blanks.
        ngrams: least and most words or characters of a feature; null: 1 and 2 words, 1 to 3 characters.
        strength: scikit-learn's C. Like the others it does well from 32 to 400 short texts, where the default of 1 is too weak.
        max_iter: steps of the solver at most.
    """

    analyzer: Literal["word", "char_wb"] | None = None
    ngrams: tuple[PositiveInt, PositiveInt] | None = None
    strength: PositiveFloat = Field(default=10.0)
    max_iter: PositiveInt = 2000

    def filled(self, texts: Sequence[str]) -> TfIdfSpec:
        """With what the texts decide."""
        analyzer = self.analyzer or ("word" if _parts_words(texts) else "char_wb")
        ngrams = self.ngrams or ((1, 2) if analyzer == "word" else (1, 3))
        return self.model_copy(update={"analyzer": analyzer, "ngrams": ngrams})

    def pipeline(self) -> Pipeline:
        """Both steps, not fitted; of a filled spec."""
        words = TfidfVectorizer(analyzer=self.analyzer, ngram_range=self.ngrams, sublinear_tf=True)
        return make_pipeline(words, LogisticRegression(C=self.strength, max_iter=self.max_iter))


def _parts_words(texts: Sequence[str]) -> bool:
    shares = [sum(map(str.isspace, text)) / max(1, len(text)) for text in texts]
    return float(np.median(shares)) >= _FEW_BLANKS


def run_tfidf_row(run: Run, context: RunContext, record: Record) -> dict[str, Rows]:
    """Fit on the run's labelled rows, dev rows too, as nothing is chosen by them; measure on the tests.

    Raises:
        ConfigError: the task is no classification.
        DataError: no word that could be counted, or rows of one label only.
    """
    cell, task = run.cell, Task.load(run.cell.task)
    if task.form != "chosen" or not task.words:
        raise ConfigError(f"tfidf takes rows with a label; task {task.name!r} is another kind")
    rows = context.rows(run)
    labelled = [*rows["train"], *rows["dev"]]
    texts, labels = [task.content(row) for row in labelled], [str(task.gold(row.values)) for row in labelled]
    spec = parse(TfIdfSpec, cell.contender.method, "tfidf").filled(texts)
    model, began = spec.pipeline(), time.perf_counter()
    try:
        model.fit(texts, labels)
    except ValueError as error:
        raise DataError(f"{task.name}: tfidf learns nothing from these rows: {error}") from None
    fitted = time.perf_counter()
    tests = context.tests(run, rows["test"])
    held = keep_tests(
        record,
        {name: summarize(task.spec.metric, _outcomes(task, model, part)) for name, part in tests.items()},
    )
    record.seconds = Seconds(train=fitted - began, test=time.perf_counter() - fitted)
    weights = model[-1]
    record.trained = record.stored = weights.coef_.size + weights.intercept_.size
    record.artifact_bytes = len(pickle.dumps(model))
    record.config = {
        "task": task.spec.model_dump(mode="json", exclude_none=True),
        "tfidf": spec.model_dump(mode="json"),
        "rows": {name: len(rows[name]) for name in ("train", "dev")},
    }
    return held


def _outcomes(task: Task, model: Any, rows: Sequence[Row]) -> list[Outcome]:
    """Labels with their log-probabilities; one that no training row has is never given, and has a floor."""
    least = np.finfo(np.float64).tiny
    chances = np.log(np.clip(model.predict_proba([task.content(row) for row in rows]), least, 1.0))
    floor = float(np.log(least))
    found = []
    for row, own in zip(rows, chances, strict=True):
        scores = dict(zip(map(str, model.classes_), map(float, own), strict=True))
        gold = str(task.gold(row.values))
        best = max(scores, key=lambda label: scores[label])
        found.append(Outcome(row.where, gold, best, scores, -scores.get(gold, floor)))
    return found
