"""The report as CSV: a line a reported run and test, and a line a place and test with what may be said of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from softprompt.benchmarks.compare.record import Place
from softprompt.benchmarks.compare.report.gather import Report

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def runs(report: Report) -> str:
    """`report.csv`: one line per reported run and test."""
    lines = []
    for one in sorted(
        report.finals, key=lambda one: (one.place.base, one.place.task, report.names.index(one.place.contender))
    ):
        for test, found in one.tests.items():
            lines.append(
                {
                    **_place(one.place),
                    "test": test,
                    "seed": one.seed,
                    "metric": found.metric,
                    "value": found.value,
                    "low": found.interval[0],
                    "high": found.interval[1],
                    "rows": found.rows,
                    "nll": found.nll,
                    "dev": one.dev.value if one.dev else None,
                    "lr": one.lr,
                    "trained": one.trained,
                    "stored": one.stored,
                    "artifact_bytes": one.artifact_bytes,
                    "best_step": one.best_step,
                    "steps": one.steps,
                    "truncated": one.truncated,
                    **{f"seconds_{name}": value for name, value in one.seconds.model_dump().items()},
                    "seconds_in_all": one.seconds_in_all,
                    **{f"tokens_{name}": value for name, value in one.tokens.model_dump().items()},
                    "peak_rss": one.peak_rss,
                    "peak_cuda": one.peak_cuda,
                    "commit": one.commit,
                    "dirty": one.dirty,
                    "when": one.when,
                    "id": one.id,
                }
            )
    return _csv(lines)


def summary(report: Report) -> str:
    """`summary.csv`: one line per place and test; one without a size is there for each table it stands in."""
    lines = []
    for table in report.tables:
        for rank, line in enumerate(table.lines, 1):
            found, mean = line.comparison, line.mean
            lines.append(
                {
                    **_place(line.place),
                    "test": table.test,
                    "table_size": table.size,
                    "rank": rank,
                    "metric": table.metric.name,
                    "mean": mean.value,
                    "low": mean.interval[0],
                    "high": mean.interval[1],
                    "seeds": mean.seeds,
                    "rows": mean.rows,
                    "reference": table.reference.name if table.reference else None,
                    "difference": found.difference if found else None,
                    "difference_low": found.interval[0] if found else None,
                    "difference_high": found.interval[1] if found else None,
                    "p": found.p if found else None,
                    "p_holm": found.p_holm if found else None,
                    "p_mcnemar": found.p_mcnemar if found else None,
                    "p_permutation": found.p_permutation if found else None,
                    "smallest": found.smallest if found else None,
                    "verdict": found.verdict if found else None,
                    "words": found.words if found else None,
                    "trained": line.over_seeds("trained"),
                    "artifact_bytes": line.over_seeds("artifact_bytes"),
                    "working_seconds": line.working_seconds,
                    "tokens_per_second": line.over_seeds("tokens.per_second"),
                }
            )
    return _csv(lines)


def _place(place: Place) -> dict[str, Any]:
    factors = json.dumps(place.factors, ensure_ascii=False) if place.factors else None
    return {
        **{name: getattr(place, name) for name in ("base", "task", "contender", "family", "size")},
        "factors": factors,
    }


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _safe(value) for name, value in line.items()})
    return file.getvalue()


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
