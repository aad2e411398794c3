"""What was answered: confusion of labels, agreement of contenders, and rows where they part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from softprompt.benchmarks.compare.report.gather import Line, Table
from softprompt.benchmarks.compare.report.numbers import as_text

MOST_LABELS = 12
EXAMPLES = 12
LETTERS = 240


@dataclass(frozen=True)
class Confusion:
    """A contender's answers by what is right, summed over seeds.

    Attributes:
        counts: [right, answered].
        recall, precision: of each label; None where it never was right, or never was answered.
    """

    name: str
    labels: list[str]
    counts: list[list[int]]
    recall: list[float | None]
    precision: list[float | None]

    def shade(self, row: int, column: int) -> float:
        """Share of a row's answers, 0 to 1."""
        return self.counts[row][column] / (sum(self.counts[row]) or 1)


@dataclass(frozen=True)
class Example:
    """A row that contenders answer differently.

    Attributes:
        answers: (contender, what most of its seeds answered, whether it is right; None where that is no yes or no).
        text: cut; empty where it is not known.
    """

    where: str
    gold: str
    text: str
    answers: list[tuple[str, str, bool | None]]


def confusions(table: Table) -> tuple[list[str], list[Confusion]]:
    """(labels, a matrix for each contender); none where the metric is not of labels or there are more than 12."""
    if table.metric.takes != "labels":
        return [], []
    gold = [str(label) for label in table.lines[0].tested.gold]
    answered = {answer for line in table.lines for run in line.tested.predicted for answer in run}
    labels = sorted(set(gold) | answered)
    if len(labels) > MOST_LABELS:
        return labels, []
    return labels, [_confusion(line, gold, labels) for line in table.lines]


def _confusion(line: Line, gold: list[str], labels: list[str]) -> Confusion:
    pairs = Counter(pair for run in line.tested.predicted for pair in zip(gold, run, strict=True))
    counts = np.array([[pairs[right, answer] for answer in labels] for right in labels])
    right = counts.diagonal()
    of = [_share(right[i], counts[i].sum()) for i in range(len(labels))]
    among = [_share(right[i], counts[:, i].sum()) for i in range(len(labels))]
    return Confusion(line.name, labels, counts.tolist(), of, among)


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def agreement(table: Table) -> np.ndarray:
    """Share of rows to which two contenders' seeds mostly give the same answer [lines, lines]."""
    codes: dict[str, int] = {}
    votes = np.array([[codes.setdefault(answer, len(codes)) for answer in line.answers] for line in table.lines])
    return np.asarray((votes[:, None] == votes[None]).mean(axis=2))


def examples(table: Table, texts: Mapping[str, str] | None) -> list[Example]:
    """Rows where learned contenders part most: by the entropy of their labels, or the spread of their texts' scores."""
    lines = [line for line in table.lines if line.learned]
    lines = lines if len(lines) > 1 else table.lines
    votes = [line.answers for line in lines]
    if table.metric.takes == "labels":
        spread = np.array([stats.entropy(list(Counter(row).values())) for row in zip(*votes, strict=True)])
    else:
        spread = np.array([line.scores.mean(axis=0) for line in lines]).std(axis=0)
        spread[[len(set(row)) == 1 for row in zip(*votes, strict=True)]] = 0.0
    order = [int(i) for i in np.argsort(-spread, kind="stable")[:EXAMPLES] if spread[i] > 1e-9]
    shown = {line.name: line.answers for line in table.lines}
    tested = table.lines[0].tested
    found = []
    for i in order:
        gold = tested.gold[i]
        answers = [(name, cut(given[i]), _right(table, given[i], gold)) for name, given in shown.items()]
        right = " / ".join(_right_texts(table, gold))
        text = "" if texts is None else texts.get(tested.where[i], "")
        found.append(Example(tested.where[i], cut(right), cut(text), answers))
    return found


def _right(table: Table, answer: str, gold: Any) -> bool | None:
    if table.metric.takes == "labels":
        return bool(answer == gold)
    return True if answer in _right_texts(table, gold) else None


def _right_texts(table: Table, gold: Any) -> list[str]:
    """All right answers of a row, in the form of `Line.answers`."""
    if isinstance(gold, str) or table.metric.takes == "tags":
        return [as_text(gold)]
    return [str(text) for text in gold]


def cut(text: str) -> str:
    """At most 240 characters, white space as single spaces."""
    one = " ".join(str(text).split())
    return one if len(one) <= LETTERS else f"{one[: LETTERS - 1]}…"
