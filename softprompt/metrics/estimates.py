"""A metric over rows with its interval, and what it is to be compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from .table import Metric, metric_of


@dataclass(frozen=True)
class Estimate:
    """A metric over rows: its value and the bounds of its 95 % interval.

    Attributes:
        signature: how it was computed, as sacrebleu says it; empty for metrics whose name says all.

    Example:
        >>> print(estimate("accuracy", ["a", "b", "b", "a"], ["a", "b", "b", "b"]))
        0.750 [0.301, 0.954]
    """

    metric: str
    value: float
    interval: tuple[float, float]
    rows: int
    signature: str = ""

    @property
    def error(self) -> float:
        """About one standard error: a quarter of the interval, which is two of them to each side."""
        return (self.interval[1] - self.interval[0]) / 4

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON: {"metric", "value", "interval", "rows"}, and "signature" where there is one."""
        known = {"metric": self.metric, "value": self.value, "interval": list(self.interval), "rows": self.rows}
        return {**known, "signature": self.signature} if self.signature else known

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Estimate:
        """What `as_dict` gave."""
        low, high = data["interval"]
        return Estimate(data["metric"], data["value"], (low, high), data["rows"], data.get("signature", ""))

    def __str__(self) -> str:
        """Three decimals; one on a scale from 0 to 100."""
        low, high = self.interval
        places = 1 if _top(self.metric) == 100 else 3
        return f"{self.value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def _top(name: str) -> float:
    try:
        return metric_of(name).top
    except ConfigError:  # a manifest may hold the metric of a package that is not here
        return 1.0


def estimate(metric: str, gold: Sequence[Any], predicted: Sequence[Any]) -> Estimate:
    """A metric of predictions with its 95 % interval, the same at every call.

    Args:
        gold: the right answers of at least one row. Label metrics: labels [rows]. Text metrics: one or more reference
            texts a row [rows, any]. Tag metrics: a tag for each word [rows, words]. Set metrics: any number of labels a
            row.
        predicted: labels, texts, tags of as many words, or sets, for the same rows.

    Raises:
        ConfigError: no such metric.
        DataError: no rows, or for a text metric rows without a reference.
        ValueError: gold and predicted differ in length.
    """
    found = metric_of(metric)
    _check(found, gold)
    measured = found.measure(gold, predicted)
    interval = measured.interval or (found.bottom, found.top)
    return Estimate(metric, measured.value, interval, len(gold), measured.signature)


def row_scores(metric: str, gold: Sequence[Any], predicted: Sequence[Any]) -> np.ndarray:
    """What each row adds to a metric [n]; the mean is the metric's value. Systems are compared row by row with it.

    For shares this is 0 or 1, for means the row's score, for all else jackknife pseudo-values (see
    `measures.jackknife`).

    Args:
        gold, predicted: as in `estimate`.

    Raises:
        ConfigError: no such metric, or one whose entry has no `rows`.
        DataError, ValueError: see `estimate`.
    """
    found = metric_of(metric)
    _check(found, gold)
    if len(gold) != len(predicted):
        raise ValueError(f"{metric}: {len(gold)} rows are right, {len(predicted)} predicted")
    if found.rows is None:
        raise ConfigError(
            f"metric {found.name!r} does not say what a row adds to it: give its `Metric` a function `rows`"
        )
    return found.rows(gold, predicted)


def majority(metric: str, gold: Sequence[Any]) -> float:
    """The metric of always answering the most frequent label or reference text (among equals the first).

    Args:
        gold: as in `estimate`.

    Raises:
        ConfigError, DataError: see `estimate`.
    """
    found = metric_of(metric)
    _check(found, gold)
    if found.of_majority is not None:
        return found.of_majority(gold)
    texts = [gold] if found.takes == "labels" else [dict.fromkeys(texts) for texts in gold]
    counts = Counter(text for row in texts for text in row)
    return found.measure(gold, [counts.most_common(1)[0][0]] * len(gold)).value


def _check(metric: Metric, gold: Sequence[Any]) -> None:
    if not gold:
        raise DataError(f"{metric.name} needs at least one row")
    if metric.takes != "texts":
        return
    bad = [place for place, texts in enumerate(gold) if isinstance(texts, str) or not texts]
    if bad:
        raise DataError(
            f"{metric.name} needs a list of one or more reference texts for each row; {len(bad)} of {len(gold)} rows "
            f"have none, the first is row {bad[0] + 1}: {gold[bad[0]]!r:.80}"
        )
