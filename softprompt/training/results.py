"""`result.json`: what a run has measured. Called again, a run drops none of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import artifact as artifacts
from ..errors import SoftpromptError, TrainingError
from ..metrics import Estimate
from ..prepared import Prepared
from ..storage import digest_of, write_json
from ..types import digested
from .places import ARTIFACT, RESULT

if TYPE_CHECKING:
    from .result import Result  # which saves itself through this module


@dataclass(frozen=True)
class Recorded:
    """What a run left in its folder.

    Attributes:
        run: digest of all that decided the result.
        artifact: digest of its artifact.
        rows: of each split that was measured, the digest of its rows.
        metrics: of each, an `Estimate` as a mapping.
        tensors: digest of what was measured (empty in files of earlier versions).
    """

    run: str
    artifact: str
    rows: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: str = ""

    def estimates(self) -> dict[str, Estimate]:
        """The metrics by split."""
        return {name: Estimate.from_dict(found) for name, found in self.metrics.items()}


def recorded(folder: Path, run: str) -> Recorded | None:
    """What this run left when it ended earlier; None where it did not.

    Raises:
        TrainingError: the folder holds what another run has measured, or the file is damaged.
    """
    try:
        held = json.loads((folder / RESULT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{folder / RESULT}: is damaged (no JSON); restore it, or remove it and the run measures dev again"
        ) from error
    try:
        found = Recorded(held["run"], held["artifact"], held["rows"], held["metrics"], held.get("tensors", ""))
        found.estimates()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = Recorded("", "")  # of an earlier version, or not ours
    if found.run != run:
        raise TrainingError(
            f"{folder} holds results of a run with other settings, data, base or version; use another --out, or --fresh to "
            "start over"
        )
    return found


def is_whole(folder: Path, found: Recorded) -> bool:
    """Whether the artifact is still the one that was measured."""
    try:
        return artifacts.load(folder / ARTIFACT).digest == found.artifact
    except SoftpromptError:
        return False


def carried(folder: Path, found: Recorded | None, result: Result) -> dict[str, dict[str, Any]]:
    """Earlier metrics that are still true of what the run holds now, where it has not measured them again."""
    if found is None:
        return {}
    now = result.prepared.method.export()
    if found.tensors:
        same = found.tensors == tensors_digest(now)
    else:
        try:
            before = artifacts.load(folder / ARTIFACT).tensors
        except SoftpromptError:
            return {}
        same = before.keys() == now.keys() and all(
            torch.equal(before[name], now[name].float().cpu()) for name in before
        )
    return {name: value for name, value in found.metrics.items() if name not in result.metrics} if same else {}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of what a method holds, as fp32."""
    kept = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    return digest_of(
        {name: [list(one.shape), hashlib.sha256(one.numpy().data).hexdigest()] for name, one in kept.items()}
    )


def write_result(folder: Path, found: Recorded, result: Result) -> None:
    """Write the file; `found` is what the run holds now."""
    told = {"metrics": found.metrics, "seconds": result.seconds, "best_step": result.best_step}
    write_json(
        folder / RESULT,
        {**told, "run": found.run, "artifact": found.artifact, "rows": found.rows, "tensors": found.tensors},
    )


def rows_digest(ready: Prepared, split: str) -> str:
    """Of a split's rows; empty where the run has not read them."""
    rows = ready.splits.get(split)
    return digest_of(list(map(digested, rows))) if rows else ""
