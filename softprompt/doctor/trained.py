"""Is an artifact sound, and is what it is said to reach true and worth something?"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..answers import evaluate
from ..artifact import check_base
from ..errors import ArtifactError
from ..findings import Finding, above_majority
from ..metrics import Estimate
from .case import Case

_SPLIT = "dev"


def artifact(case: Case) -> Iterator[Finding]:
    """It loads, its numbers are finite, and it belongs to this base and tokenizer."""
    if case.held is None:
        yield Finding("artifact", "skipped", "there is none before training")
        return
    held, base = case.held, case.base
    try:
        check_base(held.manifest, base)
    except ArtifactError as error:
        yield Finding("artifact", "error", str(error))
        return
    broken = [name for name, value in held.tensors.items() if not torch.isfinite(value).all()]
    if broken:
        yield Finding("artifact", "error", f"{broken[0]} is not finite", "train it again with a lower train.lr")
        return
    numbers = sum(value.numel() for value in held.tensors.values())
    yield Finding(
        "artifact",
        "ok",
        f"{len(held.tensors)} tensors, {numbers:,} finite numbers, of base {held.manifest.base.id!r} "
        f"(digest {base.digest[:12]})",
    )


def majority(case: Case) -> Iterator[Finding]:
    """The recorded dev metric is above what always answering the most frequent label gives, by its interval."""
    recorded = None if case.held is None else case.held.manifest.metrics.get(_SPLIT)
    dev = case.ready.splits.get(_SPLIT, [])
    if recorded is None or not dev:
        reason = "the dev rows are not at hand" if recorded else "there is no dev metric yet"
        yield Finding("majority", "skipped", reason)
        return
    yield above_majority(case.bound.task, dev, Estimate.from_dict(recorded.model_dump()))


def metric(case: Case) -> Iterator[Finding]:
    """The artifact reaches its recorded dev metric again on the run's own data (`full` only: it takes an evaluation)."""
    recorded = None if case.held is None else case.held.manifest.metrics.get(_SPLIT)
    dev = case.ready.splits.get(_SPLIT, [])
    if recorded is None or not dev or not case.full:
        missing = (
            "this needs an evaluation: ask for it with --full" if recorded and dev else "no dev metric, or no dev rows"
        )
        yield Finding("metric", "skipped", missing)
        return
    found = evaluate(case.ready, dev).estimate
    gap = abs(found.value - recorded.value)
    what = f"dev {found.metric} {found} on {found.rows} rows, recorded {recorded.value:.3f} on {recorded.rows}"
    if found.rows != recorded.rows:
        yield Finding("metric", "error", what, "these are not the rows of the training: name its data")
    elif gap == 0:
        yield Finding("metric", "ok", what)
    elif gap <= 2 / found.rows:
        yield Finding("metric", "warning", what, "rounding on another dtype or device changes a row or two")
    else:
        yield Finding("metric", "error", what, "data, task or base differ from those of the training")
