"""What a way is in a user's hands: its run file, or the lines of scikit-learn that do it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from softprompt.benchmarks.compare.peers.tfidf import TfIdfSpec
from softprompt.benchmarks.ways.suite import SHOTS, Way
from softprompt.proposal import Proposal, command_of, written
from softprompt.schema import BESIDE, as_json, modeline
from softprompt.storage import write_text
from softprompt.tasks import Task

_READS = {".tsv": 'read_csv({}, sep="\\t")', ".jsonl": "read_json({}, lines=True)", ".json": "read_json({})"}
_READS |= {".parquet": "read_parquet({})"}


def write_run(way: Way, proposal: Proposal, file: Path) -> str | None:
    """Write the way's run file.

    Returns:
        the command that trains it; None of a way that is none of ours, or learns nothing.
    """
    if "method" not in way.settings:
        return None
    task = copy.deepcopy(proposal.task)
    if way.settings.get("demonstrations"):
        task["demonstrations"] = {"k": SHOTS}
    run = {**proposal.run, "base": way.base, "task": task, "method": way.settings["method"], "train": {}}
    command = command_of(file, Path("runs") / task["name"])
    write_text(file.with_name(BESIDE), as_json("run"))
    write_text(file, modeline(BESIDE) + written(replace(proposal, run=run), file.parent, command))
    return command


def in_scikit_learn(proposal: Proposal) -> list[str]:
    """TF-IDF and logistic regression on the file, without this package."""
    seen = proposal.seen
    fields = list(seen.roles.fields)
    task = Task.load(proposal.task)
    spec = TfIdfSpec().filled([task.content(row) for part in proposal.splits.values() for row in part])
    read = _READS.get(seen.path.suffix.lower(), "read_csv({})").format(repr(str(seen.path)))
    text = f"rows[{fields[0]!r}]" if len(fields) == 1 else f'rows[{fields!r}].astype(str).agg(" ".join, axis=1)'
    words = "" if spec.analyzer == "word" else f"analyzer={spec.analyzer!r}, "
    return [
        "import pandas",
        "from sklearn.feature_extraction.text import TfidfVectorizer",
        "from sklearn.linear_model import LogisticRegression",
        "from sklearn.pipeline import make_pipeline",
        f"rows = pandas.{read}",
        f"model = make_pipeline(TfidfVectorizer({words}ngram_range={spec.ngrams}, sublinear_tf=True), "
        f"LogisticRegression(C={spec.strength:g}, max_iter={spec.max_iter}))",
        f"model.fit({text}, rows[{seen.roles.answer!r}])",
    ]
