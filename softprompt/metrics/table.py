"""All metrics by name. A new one is one entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..config import suggest
from ..errors import ConfigError
from . import answers, labels, overlap, sets, spans
from .measures import Measure, Rows, mean_of, share_of

Takes = Literal["labels", "texts", "tags", "sets"]


@dataclass(frozen=True)
class Metric:
    """A metric: which answers it compares, its scale, and how it is computed.

    Attributes:
        name: as task files have it.
        title: one line for people.
        takes: `labels`: gold is one label a row; `texts`: one or more reference texts a row; `tags`: a tag for each word;
            `sets`: any number of labels a row.
        measure: its value and interval from (gold, predicted).
        rows: what each row adds, from the same [n]; the mean is the value. None: systems cannot be compared row by row.
        top: the best value, of a perfect system.
        bottom: the worst value.
        of_majority: the value of always answering the most frequent label (or tag), from gold. None: it is measured.
    """

    name: str
    title: str
    takes: Takes
    measure: Measure
    rows: Rows | None = None
    top: float = 1.0
    bottom: float = 0.0
    of_majority: Callable[[Sequence[Any]], float] | None = None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "share of right labels",
            "labels",
            labels.accuracy,
            labels.accuracy_rows,
            of_majority=labels.accuracy_of_majority,
        ),
        Metric(
            "macro_f1",
            "mean F1 of the labels",
            "labels",
            labels.macro_f1,
            labels.macro_f1_rows,
            of_majority=labels.macro_f1_of_majority,
        ),
        Metric(
            "mcc",
            "Matthews correlation",
            "labels",
            labels.mcc,
            labels.mcc_rows,
            bottom=-1.0,
            of_majority=labels.mcc_of_majority,
        ),
        Metric("exact_match", "share of right answers (SQuAD)", "texts", *share_of(answers.exact_match)),
        Metric("exact_text", "share of right answers, to the letter", "texts", *share_of(answers.exact_text)),
        Metric(
            "final_number", "share of right final answers (GSM8K, MetaMathQA)", "texts", *share_of(answers.final_number)
        ),
        Metric("f1", "F1 of the answers' words (SQuAD)", "texts", *mean_of(answers.f1)),
        Metric(
            "exact_match_zh", "share of right answers, Chinese (CMRC 2018)", "texts", *share_of(answers.exact_match_zh)
        ),
        Metric("f1_zh", "F1 of the longest common run, Chinese (CMRC 2018)", "texts", *mean_of(answers.f1_zh)),
        Metric("chrf", "character n-gram F-score, any language", "texts", *overlap.corpus("CHRF"), top=100.0),
        Metric(
            "bleu", "word n-gram precision", "texts", *overlap.corpus("BLEU", tokenize="13a", force=True), top=100.0
        ),
        Metric("bleu_zh", "BLEU of Chinese", "texts", *overlap.corpus("BLEU", tokenize="zh", force=True), top=100.0),
        Metric("rouge_l", "F of the longest common subsequence, English", "texts", *mean_of(overlap.rouge_l)),
        Metric("rouge_l_zh", "F of the longest common subsequence, any script", "texts", *mean_of(overlap.rouge_l_zh)),
        Metric(
            "span_f1",
            "F1 of tagged spans, exact (CoNLL)",
            "tags",
            spans.span_f1,
            spans.span_f1_rows,
            of_majority=spans.span_f1_of_majority,
        ),
        Metric(
            "micro_f1",
            "F1 over all rows and labels, of sets of labels",
            "sets",
            sets.micro_f1,
            sets.micro_f1_rows,
            of_majority=sets.micro_f1_of_majority,
        ),
        Metric(
            "macro_f1_sets",
            "mean F1 of the labels, of sets of labels",
            "sets",
            sets.macro_f1,
            sets.macro_f1_rows,
            of_majority=sets.macro_f1_of_majority,
        ),
        Metric(
            "subset_accuracy",
            "share of rows whose set of labels is right",
            "sets",
            sets.subset_accuracy,
            sets.subset_accuracy_rows,
            of_majority=sets.subset_accuracy_of_majority,
        ),
    )
}
"""All metrics by name; docs/metrics.md describes them."""

_AGREEMENT = re.compile(r"agreement(?: \((\w+)\))?")


def metric_of(name: str) -> Metric:
    """The metric of that name. `agreement` and `agreement (NAME)` are accuracy and NAME, the gold being another's answers.

    Raises:
        ConfigError: no such metric; with the nearest name.
    """
    if found := _AGREEMENT.fullmatch(name):
        name = found[1] or "accuracy"
    if name not in METRICS:
        raise ConfigError(f"no metric {name!r}{suggest(name, list(METRICS))}")
    return METRICS[name]


def metrics_for(kind: Takes) -> list[str]:
    """Names of the metrics that take `labels`, `texts`, `tags` or `sets`."""
    return [metric.name for metric in METRICS.values() if metric.takes == kind]
