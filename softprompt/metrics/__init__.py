"""Metrics with 95 % intervals. Never a number without one. What each is and where it is from: docs/metrics.md."""

from .estimates import Estimate, estimate, majority, row_scores
from .measures import Measured
from .paired import Difference, difference
from .table import METRICS, Metric, metric_of, metrics_for

__all__ = [
    "METRICS",
    "Difference",
    "Estimate",
    "Measured",
    "Metric",
    "difference",
    "estimate",
    "majority",
    "metric_of",
    "metrics_for",
    "row_scores",
]
