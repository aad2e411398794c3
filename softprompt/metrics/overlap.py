"""Metrics of longer texts that other packages compute: BLEU and chrF (sacrebleu), ROUGE-L (rouge-score)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .measures import Measure, Measured, Rows, jackknife, score_of_sums

# Ideographs with their extensions and compatibility forms, hiragana and katakana: scripts that put no spaces between words.
_UNSPACED = r"\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

Score = Callable[[list[int]], float]  # of sums over rows of their statistics


def corpus(name: str, **settings: Any) -> tuple[Measure, Rows]:
    """A metric of sacrebleu over all rows, from 0 to 100, with its signature (Post 2018).

    Its own bootstrap (`corpus_score(…, n_bootstrap=…)`) gives half the interval's width alone, rounds to float32, holds all
    resamples at once and takes its seed from the environment. So we resample the rows' statistics, by the two functions
    that it does so with; and leave out one row's after another for the pseudo-values.

    Args:
        name: of the class in `sacrebleu.metrics`.
        settings: its arguments.
    """

    def of(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> tuple[Any, np.ndarray, Score]:
        import sacrebleu.metrics

        metric = getattr(sacrebleu.metrics, name)(**settings)
        counts = np.array(metric._extract_corpus_statistics(list(predicted), streams(gold)), dtype=np.int64)

        def score(sums: list[int]) -> float:
            found = float(metric._compute_score_from_stats(sums).score)
            return min(100.0, found)  # BLEU's logarithms give 100.00000000000004

        return metric, counts, score

    def measure(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Measured:
        metric, counts, score = of(gold, predicted)
        point = score(counts.sum(axis=0).tolist())
        return Measured(point, score_of_sums(point, counts, score), str(metric.get_signature()))

    def rows(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> np.ndarray:
        _, counts, score = of(gold, predicted)
        sums = counts.sum(axis=0)
        return jackknife(score(sums.tolist()), np.array([score(left) for left in (sums - counts).tolist()]))

    return measure, rows


def streams(gold: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References as sacrebleu wants them: the k-th of all rows [most references, rows], None where a row has fewer."""
    most = max(len(texts) for texts in gold)
    return [[texts[k] if k < len(texts) else None for texts in gold] for k in range(most)]


def rouge_l(references: Sequence[str], predicted: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004), not stemmed; the best over the references.

    rouge-score's words are runs of the letters a to z and digits: every other script is dropped.
    """
    return float(_scorer(any_script=False).score_multi(references, predicted)["rougeL"].fmeasure)


def rouge_l_zh(references: Sequence[str], predicted: str) -> float:
    """`rouge_l` of tokens of any script: see `Characters`."""
    return float(_scorer(any_script=True).score_multi(references, predicted)["rougeL"].fmeasure)


class Characters:
    """A tokenizer for rouge-score: each Chinese character (and kana) by itself, else runs of letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens in lower case; punctuation is dropped, as by rouge-score's own tokenizer."""
        return _TOKEN.findall(text.lower())


@functools.cache
def _scorer(any_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports NLTK, which takes a second

    return RougeScorer(["rougeL"], tokenizer=Characters() if any_script else None)
