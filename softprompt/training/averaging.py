"""The mean of what several artifacts of one task have learned, as one artifact: it answers at the price of one.

Of full fine-tuning this is a model soup (Wortsman et al. 2022, arXiv:2203.05482). A probe's mean is exact: its logits are the
mean of the members' logits. So is a LoRA's: its update is the mean of theirs. Everything else is a mean of parameters whose
effect is not linear in them, so it may answer badly, above all if training began in different places. Measure it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from .. import artifact as artifacts
from ..artifact import Artifact, Manifest
from ..artifact.card import model_card
from ..base import Base
from ..errors import ArtifactError, ConfigError
from ..methods import Method, make_method
from ..prepared import bind, with_head
from ..surroundings import plain_torch
from ..tasks import Task
from ..tasks.multilabel import MultiLabel
from ..version import __version__
from .saving import PACKAGES, loads_in

MAX_MEMBERS = 64
_APART = ("name", "data", "thresholds")  # of the task; thresholds are chosen on each training's own dev rows
_STARTS = ("init", "text", "artifact")  # where training began, which the finished tensors do not show


@dataclass(frozen=True)
class Average:
    """The mean of artifacts, in memory. A `Runtime` takes it in place of a folder.

    Attributes:
        manifest: all but metrics.
        tensors: in fp32 on the CPU.
        config: PEFT's configuration, where PEFT can load it.
        files: see `Method.files`.
    """

    manifest: Manifest
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    files: dict[str, bytes]

    def as_artifact(self) -> Artifact:
        """The artifact as `load` gives it.

        Raises:
            ArtifactError: a tensor is not finite.
        """
        with TemporaryDirectory() as folder:
            return replace(self.save(Path(folder) / "artifact"), path=None)

    def save(self, folder: str | Path, metrics: Mapping[str, Mapping[str, Any]] | None = None) -> Artifact:
        """Write it.

        Args:
            metrics: by split, as `Estimate.as_dict` gives them.

        Raises:
            ArtifactError: a tensor is not finite, or the folder holds something else.
        """
        found = {split: dict(one) for split, one in (metrics or {}).items()}
        manifest = Manifest.model_validate({**self.manifest.as_dict(), "metrics": found})
        return artifacts.save(folder, manifest, self.tensors, model_card(manifest), self.config, self.files)


def save_average(
    folder: str | Path,
    members: Sequence[tuple[str | Path | Artifact, float]],
    base: Base,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
) -> Artifact:
    """Save the weighted mean of what several artifacts of one task have learned, as one artifact.

    Of methods whose effect is not linear in what they learn, a mean may answer badly: evaluate it.

    Args:
        members: artifacts (or folders of them, or of runs) of one method, shape, base and task, and their weights, ≥ 0, whose
            sum is 1.
        metrics: of the average, by split, as `Estimate.as_dict` gives them.

    Raises:
        ArtifactError: members that differ in more than what they learned, or the folder holds something else.
        ConfigError: weights that do not fit, or a method that has no mean.

    Example:
        >>> base = Base.load("smollm2")
        >>> mean = save_average("runs/mean", [("runs/movies", 0.5), ("runs/movies", 0.5)], base)
        >>> list(mean.tensors)
        ['infix_kv']
    """
    held = [(source if isinstance(source, Artifact) else artifacts.load(source), weight) for source, weight in members]
    return average(held, base).save(folder, metrics)


@plain_torch()
def average(members: Sequence[tuple[Artifact, float]], base: Base) -> Average:
    """The mean of artifacts.

    Args:
        members: see `save_average`.

    Raises:
        ArtifactError, ConfigError: see `save_average`.
    """
    held, weights = [one for one, _ in members], [weight for _, weight in members]
    check_alike({f"member {place}": one.manifest for place, one in enumerate(held, 1)})
    if not all(weight >= 0 for weight in weights) or abs(sum(weights) - 1) > 1e-6:
        raise ConfigError(f"the weights are {weights!s:.80}; they must be ≥ 0, and their sum 1")
    first = held[0].manifest
    artifacts.check_base(first, base)
    task = _task(first)
    method = with_head(make_method(first.method), base, task)
    tensors = method.mean_of([one.tensors for one in held], weights)
    method.restore(tensors, base)
    method.bound_to(bind(base, task, method).bound)
    config, files = method.adapter_config(base), method.files()
    changes = {
        "softprompt": __version__,
        "method": _settings(method, held),
        "task": _task_of_mean(held, weights),
        "tensors": {name: {"shape": list(value.shape)} for name, value in tensors.items()},
        "tensors_sha256": None,
        "files": {},
        "loads_in": "transformers" if files else loads_in(config, base),
        "metrics": {},
        "training": {"averaged": [_named(one, weight) for one, weight in members]},
        "data": first.data if all(one.manifest.data == first.data for one in held) else None,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "parameters": {**first.parameters, "stored": sum(value.numel() for value in tensors.values())},
        "manifest_sha256": None,
    }
    return Average(Manifest.model_validate({**first.as_dict(), **changes}), tensors, config, files)


def check_alike(members: Mapping[str, Manifest]) -> None:
    """Refuse artifacts whose tensors have no common mean.

    Args:
        members: manifests by the names that messages give them.

    Raises:
        ConfigError: fewer than two, or more than an average takes.
        ArtifactError: one learned nothing, names no task, or differs from the first in more than what it learned.
    """
    if not 2 <= len(members) <= MAX_MEMBERS:
        raise ConfigError(f"an average has 2 to {MAX_MEMBERS} members, not {len(members)}")
    (first, own), *others = ((name, _facts(name, manifest)) for name, manifest in members.items())
    for name, facts in others:
        for what in dict.fromkeys([*own, *facts]):
            if own.get(what) != facts.get(what):
                raise ArtifactError(
                    f"{name}: has another {what} than {first} ({_short(facts, what)}, not {_short(own, what)}). Only artifacts "
                    "of one method, shape, base and task have an average; softprompt ensemble combines others"
                )


def _facts(name: str, manifest: Manifest) -> dict[str, str]:
    """What artifacts must share, each as text."""
    if manifest.task is None:
        raise ArtifactError(f"{name}: the artifact names no task, so an average of it could not be measured")
    if not manifest.tensors:
        raise ArtifactError(f"{name}: method {manifest.method['name']!r} has learned no tensors that could be averaged")
    settings = make_method(manifest.method, name).spec.model_dump(mode="json", exclude_none=True)
    task = _task(manifest).spec.model_dump(mode="json", exclude_none=True)
    facts: dict[str, Any] = {
        "method": manifest.method["name"],
        "kind of base": manifest.kind,
        "base": manifest.base.digest,
        "tokenizer": manifest.base.tokenizer_digest,
        "format version": manifest.format_version,
        **{f"method.{key}": value for key, value in settings.items() if key not in _STARTS},
        "layout": manifest.layout.model_dump(),
        "shape": {key: value.shape for key, value in manifest.tensors.items()},
        **{f"task.{key}": value for key, value in task.items() if key not in _APART},
    }
    # the order of labels counts: a head's rows stand in it
    return {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}


def _short(facts: Mapping[str, str], what: str) -> str:
    return f"{facts.get(what, 'none'):.80}"


def _task(manifest: Manifest) -> Task:
    assert manifest.task is not None
    return Task.of_artifact(manifest.task, manifest.format_version)


def _task_of_mean(held: Sequence[Artifact], weights: Sequence[float]) -> dict[str, Any] | None:
    """The first one's task, with the mean of all thresholds of labels where they differ."""
    first, *others = [_task(one.manifest) for one in held]
    own = held[0].manifest.task
    if own is None or not isinstance(first, MultiLabel):
        return own
    each = [first.thresholds, *(one.thresholds for one in others if isinstance(one, MultiLabel))]
    if all(one == each[0] for one in each):
        return own
    means = np.average(each, axis=0, weights=weights)
    return {**own, "thresholds": dict(zip(first.spec.labels, means.tolist(), strict=True))}


def _settings(method: Method, held: Sequence[Artifact]) -> dict[str, Any]:
    """The method's settings, without where training began if members began in different places."""
    settings: dict[str, Any] = method.spec.model_dump(mode="json", exclude_none=True)
    apart = {key for key in _STARTS if len({str(one.manifest.method.get(key)) for one in held}) > 1}
    return {key: value for key, value in settings.items() if key not in apart}


def _named(held: Artifact, weight: float) -> dict[str, Any]:
    """A member as the manifest of the average names it."""
    named = {"digest": held.digest, "weight": weight}
    seed = held.manifest.training.get("seed")
    return named if seed is None else {**named, "seed": seed}
