"""From an evaluation and its rows to a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..answers import Evaluation, Outcome
from ..data import Row
from ..metrics import Estimate, Metric, metric_of
from ..metrics.spans import spans_of
from ..tasks import Task
from ..tasks.multilabel import MultiLabel
from ..tasks.tagging import Tagging
from .curves import Answered, Calibration, Detection, answered, calibration, detection
from .labels import Confusion, LabelScore, confusion, label_scores, set_scores, span_scores

WORST = 10
LETTERS = 200
_QUANTILES = (0, 10, 25, 50, 75, 90, 100)


@dataclass(frozen=True)
class Distribution:
    """The metric of each row by itself.

    Attributes:
        quantiles: by percent of the rows.
        perfect, worst: share of rows at the top and at the bottom of the scale.
    """

    quantiles: dict[int, float]
    perfect: float
    worst: float


@dataclass(frozen=True)
class WorstRow:
    """A row that was answered badly.

    Attributes:
        where: `file:line`, without the file's folder.
        text: what the template reads of it, cut.
        right, given: answers, cut; of several right ones the first.
        probability: of the answer that was given; None where there is none.
        loss: −log-likelihood of the right answer; None where it was not measured.
        score: the metric of this row by itself; None of chosen labels.
    """

    where: str
    text: str
    right: str
    given: str
    probability: float | None
    loss: float | None
    score: float | None


@dataclass(frozen=True)
class Report:
    """What an evaluation says.

    Attributes:
        title: what was evaluated.
        floor: what the metric gives to whoever has learned nothing, and who that is.
        loss: mean −log-likelihood of the right answers; None where none was measured.
        labels: of fixed labels, of those that are decided one by one, and of the labels of tagged spans.
        confusion, answered, calibration: of chosen answers only.
        detections: of two labels, each taken as what is to be found.
        distribution: of texts, tags and sets of labels.
    """

    title: str
    estimate: Estimate
    floor: tuple[float, str]
    loss: float | None
    labels: list[LabelScore]
    confusion: Confusion | None
    answered: list[Answered]
    calibration: Calibration | None
    detections: list[Detection]
    distribution: Distribution | None
    worst: list[WorstRow]

    @property
    def decided(self) -> bool:
        """Whether each label was decided by itself, from some probability on."""
        return any(one.threshold is not None for one in self.labels)

    @property
    def counted(self) -> str:
        """What `labels` counts."""
        return "rows" if self.confusion is not None or self.decided else "spans"

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {**asdict(self), "estimate": self.estimate.as_dict()}


def report_of(title: str, task: Task, evaluation: Evaluation, rows: Sequence[Row]) -> Report:
    """The report.

    Args:
        rows: those of the outcomes, in their order, at least one.

    Raises:
        ValueError: other rows in number.
    """
    outcomes, metric = evaluation.outcomes, metric_of(evaluation.estimate.metric)
    chosen = metric.takes == "labels"
    fixed = fixed_labels(outcomes) if chosen else []
    gold, given = [one.gold for one in outcomes], [one.predicted for one in outcomes]
    probabilities = [math.exp(one.scores[one.predicted]) for one in outcomes] if chosen else []
    hits = [right == told for right, told in zip(gold, given, strict=True)]
    scores = None if chosen else own_scores(metric, gold, given)
    found = [detection(label, gold, [math.exp(one.scores[label]) for one in outcomes]) for label in fixed[:2]]
    if metric.takes == "tags":
        labels = span_scores(gold, given)
    elif isinstance(task, MultiLabel):
        labels = set_scores(task.spec.labels, gold, given, task.thresholds)
    else:
        labels = label_scores(fixed, gold, given) if fixed else []
    return Report(
        title,
        evaluation.estimate,
        task.floor(metric.name, [row.values for row in rows]),
        evaluation.nll if any(one.nll is not None for one in outcomes) else None,
        labels,
        confusion(fixed, gold, given) if fixed else None,
        answered(probabilities, hits) if chosen else [],
        calibration(probabilities, hits) if chosen else None,
        [one for one in found if one is not None] if len(fixed) == 2 else [],
        None if scores is None else _distribution(metric, scores),
        _worst(task, outcomes, rows, scores),
    )


def fixed_labels(outcomes: Sequence[Outcome]) -> list[str]:
    """The labels that all rows share, in the task's order; none where rows have options of their own."""
    first = list(outcomes[0].scores)
    return first if all(list(one.scores) == first for one in outcomes) else []


def own_scores(metric: Metric, gold: Sequence[Any], given: Sequence[Any]) -> list[float]:
    """The metric of each row by itself; a row without spans or labels, of which none were given, has the best value."""
    nothing = metric.takes in ("tags", "sets")
    found = []
    for right, told in zip(gold, given, strict=True):
        value = metric.measure([right], [told]).value
        found.append(metric.top if nothing and list(right) == list(told) else value)
    return found


def _distribution(metric: Metric, scores: Sequence[float]) -> Distribution:
    values = np.array(scores)
    quantiles = np.percentile(values, _QUANTILES)
    perfect, worst = np.isclose(values, metric.top).mean(), np.isclose(values, metric.bottom).mean()
    return Distribution(dict(zip(_QUANTILES, map(float, quantiles), strict=True)), float(perfect), float(worst))


def _worst(
    task: Task, outcomes: Sequence[Outcome], rows: Sequence[Row], scores: Sequence[float] | None
) -> list[WorstRow]:
    """Rows of the lowest scores, or of the highest losses where labels are chosen; of equals those of higher loss."""
    losses = [-math.inf if one.nll is None else one.nll / one.weight for one in outcomes]
    own = [0.0] * len(outcomes) if scores is None else scores
    order = sorted(range(len(outcomes)), key=lambda place: (own[place], -losses[place]))
    found = []
    for one, row, loss, score in [(outcomes[p], rows[p], losses[p], own[p]) for p in order[:WORST]]:
        found.append(
            WorstRow(
                Path(one.where).name,
                cut(text_of(task, row.values)),
                cut(_said(task, row.values, one.gold)),
                cut(_said(task, row.values, one.predicted)),
                math.exp(one.scores[one.predicted]) if one.scores and not isinstance(task, MultiLabel) else None,
                None if loss == -math.inf else loss,
                None if scores is None else score,
            )
        )
    return found


def _said(task: Task, values: dict[str, Any], answer: Any) -> str:
    """An answer as one text: of several right ones the first, of tags the spans that they make, of a set all labels."""
    if isinstance(task, MultiLabel):
        return ", ".join(answer) or "–"
    if isinstance(task, Tagging):
        text, words = task.words_of(values)
        spans = [(text[words[first][0] : words[stop - 1][1]], label) for label, first, stop in spans_of(answer)]
        return ", ".join(f"{span} ({label})" for span, label in spans) or "–"
    return answer if isinstance(answer, str) else str(answer[0])


def text_of(task: Task, values: Mapping[str, Any]) -> str:
    """What the template reads of a row: the text, or each field under its name."""
    seen, fields = task.shown(dict(values)), sorted(task.spec.template.fields)
    if len(fields) == 1:
        return str(seen.get(fields[0], ""))
    return " | ".join(f"{name}: {seen.get(name, '')}" for name in fields)


def cut(text: str) -> str:
    """At most 200 characters, white space as single spaces."""
    one = " ".join(text.split())
    return one if len(one) <= LETTERS else f"{one[: LETTERS - 1]}…"
