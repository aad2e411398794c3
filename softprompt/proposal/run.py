"""The run that is proposed for a file: its task as a mapping, and its rows as that task reads them."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..base.bundled import BUNDLED
from ..data import Row
from ..data.splits import LEAST
from ..errors import DataError
from ..storage import cached_file
from ..tasks import Task
from ..tasks.phrases import phrases_for
from ..tasks.proposed import propose, task_name
from ..values import text_of
from .looking import Seen

BASE = "smollm2"
SPLIT = {"train": 0.7, "dev": 0.15, "test": 0.15, "seed": 0}
_TAKEN = {
    "label",
    "answer",
    "answers",
    "tags",
    "entities",
    "tokens",
    "starts",
    "choices",
    "soft",
    "mask",
    "options",
    "labels",
}
"""Names that mean something else to a task or a template than what a column is called."""
_ANSWERS = {"classification": "label", "generation": "answer", "span": "answers", "multilabel": "labels"}
"""What a task calls the answer of a row."""


@dataclass
class Proposal:
    """A run for a file.

    Attributes:
        seen: the file.
        run: as a run file holds it.
        splits: its rows.
        notices: what was left out, and what is odd, a line each.
        lengths: tokens of the texts (as the template shows them), sorted; empty where the base is not here yet.
        word_lengths: tokens of each label's answer.
        begins: labels whose answer is, in tokens, the beginning of another's, each with that one.
    """

    seen: Seen
    run: dict[str, Any]
    splits: dict[str, list[Row]]
    notices: list[str]
    lengths: list[int] = field(default_factory=list)
    word_lengths: dict[str, int] = field(default_factory=dict)
    begins: list[tuple[str, str]] = field(default_factory=list)

    @property
    def task(self) -> dict[str, Any]:
        """The task as a mapping."""
        task: dict[str, Any] = self.run["task"]
        return task


def default_run(kind: str) -> dict[str, Any]:
    """Base and method for a type of task: tags and sets of labels are read by a head, for which an encoder serves."""
    if kind == "multilabel":
        return {"base": "minilm", "method": "probe", "train": {}}
    if kind == "tagging":
        return {"base": "minilm", "method": "prefix", "train": {"epochs": 15}}
    return {"base": BASE, "method": "infix", "train": {}}


def propose_run(seen: Seen, base: str | None = None) -> Proposal:
    """The run for a file that was looked at; its source is an absolute path.

    Args:
        base: the run's base, with which tokens are counted; by default that of the type of task.

    Raises:
        DataError: too few rows that can be used.
        ConfigError: no task can be made of its labels.
    """
    roles = seen.roles
    names = {column: _field(column, seen) for column in roles.fields}
    kind = default_run(roles.kind)
    phrases = phrases_for(text_of(row.values.get(column)) for row in seen.rows for column in names)
    task = propose(roles.kind, list(names.values()), list(seen.labels), name=task_name(seen.path.stem), phrases=phrases)
    columns = {ours: column for column, ours in names.items() if ours != column and roles.kind != "tagging"}
    ours = _ANSWERS.get(roles.kind)
    if ours is not None and not roles.marked and ours != roles.answer:
        columns[ours] = roles.answer
    data: dict[str, Any] = {"source": str(seen.path.resolve())}
    if columns:
        data["columns"] = columns
    if seen.separator is not None:
        task["separator"] = seen.separator
    data |= {"split": {**SPLIT}, "on_bad_rows": "skip"}
    task = {**{key: task[key] for key in ("version", "name", "type")}, "data": data, **task}
    run = {"base": base or kind["base"], "task": task, "method": kind["method"], "train": kind["train"], "seed": 0}
    return _tried(seen, run)


def _tried(seen: Seen, run: dict[str, Any]) -> Proposal:
    """The proposal with its rows, which are read as training will read them."""
    task = Task.load(run["task"])
    try:
        splits = task.load_data()
    except DataError as error:
        if error.problems:
            advice = "name other columns with --text and --label, or another --type"
            raise DataError(f"{str(error).partition(', too many for')[0]}; {advice}", error.problems) from None
        raise
    rows = sum(map(len, splits.values()))
    if rows < LEAST:
        left = f" (left out: {task.left_out})" if task.left_out else ""
        raise DataError(f"{seen.path}: has {rows} different rows that can be used{left}; {LEAST} or more are needed")
    if not task.left_out.unusable:
        del run["task"]["data"]["on_bad_rows"]
    # paths as they were given; how the file is read was told when it was looked at
    notices = [line.replace(str(seen.path.resolve()), str(seen.path)) for line in task.notices]
    found = Proposal(seen, run, splits, [line for line in notices if line not in seen.told])
    _measure(found, task)
    return found


def _field(column: str, seen: Seen) -> str:
    """A column as a template can name it: itself, or an identifier made of it."""
    if column.isidentifier() and not keyword.iskeyword(column) and column not in _TAKEN:
        return column
    if seen.roles.kind == "span" and column in ("question", "context"):
        return column
    name = re.sub(r"\W+", "_", column).strip("_") or "text"
    name = name if name.isidentifier() and not keyword.iskeyword(name) else f"column_{name}"
    taken = {one.name for one in seen.columns} | _TAKEN
    while name in taken:
        name += "_"
    return name


def _measure(found: Proposal, task: Task) -> None:
    """Count tokens, where the base's tokenizer is here already: nothing is fetched for it."""
    counted = _tokenizer(found.run["base"])
    if counted is None:
        return
    template = task.spec.template
    rows = [row for part in found.splits.values() for row in part]
    texts = [" ".join(text_of(row.values.get(name)) for name in sorted(task.fields)) for row in rows]
    found.lengths = sorted(len(one.ids) for one in counted.encode_batch(texts, add_special_tokens=False))
    words = found.task.get("verbalizer", {})
    answers = [template.answer.replace("{{ answer }}", word) for word in words.values()]
    ids = [one.ids for one in counted.encode_batch(answers, add_special_tokens=False)]
    found.word_lengths = {label: len(own) for label, own in zip(words, ids, strict=True)}
    order = sorted(zip(ids, words, strict=True))
    found.begins = [(one, other) for (ids, one), (more, other) in pairwise(order) if more[: len(ids)] == ids]


def _tokenizer(base: str) -> Any:
    """The base's tokenizer from its folder, or None where it is not on this machine."""
    folder = cached_file("bases", base) if base in BUNDLED else Path(base)
    file = None if folder is None else folder / "tokenizer.json"
    if file is None or not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()  # some are stored with a length that all texts are cut or filled up to
    tokenizer.no_truncation()
    return tokenizer
