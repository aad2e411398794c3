"""Pruning learned tokens: rank them by what the loss would feel, keep the best, train these on for a moment.

XPrompt (Ma et al. 2022, arXiv:2210.04457, §3.2) puts a mask m = 1 on every learned token and takes the expected gradient for
it (Michel et al. 2019, arXiv:1905.10650, eq. 2) as the token's importance:

    I_i = E_rows |∂L/∂m_i| = E_rows |Σ ∂L/∂x_i · x_i|

where x_i is all that is learned of token i (its embedding, or its keys and values in all layers) and m_i x_i stands in its
place. L is one row's cross-entropy. What is kept is trained on: rewinding, as XPrompt does, would need the run's past.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..answers import evaluate
from ..artifact import Artifact
from ..base import Base
from ..config import parse
from ..control import Control
from ..data import Row
from ..engine import Engine, Learned
from ..errors import ConfigError, DataError
from ..methods import Method, make_method
from ..methods.base import LearnedTensor
from ..metrics import Estimate
from ..parallel import processes
from ..prepared import Prepared, prepare, restored
from ..runfile import CacheSpec, TrainSpec
from ..storage import write_json
from ..surroundings import plain_torch
from ..tasks import Task
from ..types import Example, Notice, Progress, ignore_notice, ignore_progress, named
from .places import check_run_folders, earlier_report, work_folder
from .result import Result
from .run import train as run_training
from .saving import save

IMPORTANCE_ROWS = 128
REPORT = "prune.json"
WRITTEN = (REPORT, "prune.png")


@dataclass(frozen=True)
class Pruned:
    """One length.

    Attributes:
        length: N.
        kept: which tokens of the unpruned prompt, in their order.
        start: dev metric before training on (of the unpruned prompt: as it is).
        dev: dev metric after it.
        artifact: its folder.
    """

    length: int
    kept: list[int]
    start: Estimate
    dev: Estimate
    artifact: Path

    def as_dict(self) -> dict[str, Any]:
        """As written to `prune.json`, without paths."""
        return {
            "length": self.length,
            "kept": self.kept,
            "start": self.start.as_dict(),
            "dev": self.dev.as_dict(),
        }


@dataclass(frozen=True)
class Pruning:
    """All lengths, the unpruned first, and every token's importance."""

    importance: list[float]
    lengths: list[Pruned]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As written to `prune.json`."""
        return {
            "importance": self.importance,
            "lengths": [one.as_dict() for one in self.lengths],
            "seconds": self.seconds,
        }


@plain_torch()
def prune(
    base: Base,
    task: Task,
    artifact: Artifact,
    to: Sequence[int],
    out: str | Path,
    *,
    train: TrainSpec | dict[str, Any] | None = None,
    cache: CacheSpec | None = None,
    seed: int = 0,
    rows: dict[str, list[Row]] | None = None,
    importance_rows: int = IMPORTANCE_ROWS,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
) -> Pruning:
    """Drop the least important learned tokens of an artifact, for every length asked for.

    Args:
        artifact: whose method learns P tokens (`soft`, `prefix`, `infix`, `p_tuning`).
        to: lengths N, each 1 ≤ N < P.
        out: one run folder `N/` a length (with what it starts from in `N/start`), and `prune.json`.
        train: of the short run on what is kept; by default one epoch.
        importance_rows: training rows that the importance is taken over.

    Raises:
        ConfigError: a method without learned tokens, a length that is none, no dev rows.
        ArtifactError: the artifact belongs to another base.
    """
    processes().only_one("prune")
    began = time.perf_counter()
    method = restored(artifact, base)
    lengths, folder = _checked(method, to), Path(out)
    before = _before(folder, artifact)
    assert isinstance(method, LearnedTensor)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    if spec.epochs is None:
        spec = spec.model_copy(update={"epochs": 1})
    with work_folder(folder, WRITTEN):
        check_run_folders([folder / str(length) for length in lengths])
        rows = rows if rows is not None else task.load_data(progress)
        kept = (cache or CacheSpec()).config()
        whole = prepare(base, task, method, kept, rows, splits=("train", "dev"))
        if not whole.splits.get("dev") or not whole.splits.get("train"):
            raise DataError(
                "pruning ranks tokens on training rows and compares lengths on dev rows; the task lacks one"
            )
        whole.engine.encode([*whole.splits["train"], *whole.splits["dev"]], progress)
        dev = evaluate(whole, whole.splits["dev"], Control(progress)).estimate
        ranked = importance(whole.engine, method, whole.splits["train"][:importance_rows], progress)
        assert artifact.path is not None
        found = [Pruned(method.length, list(range(method.length)), dev, dev, artifact.path)]
        for length in lengths:
            found.append(_one(whole, task, ranked, length, folder, spec, cache, seed, rows, progress, notice))
        report = Pruning(ranked.tolist(), found, time.perf_counter() - began)
        told = report.as_dict()
        told["lengths"] += [one for one in before if one["length"] not in {pruned.length for pruned in found}]
        write_json(folder / REPORT, {**told, "artifact": artifact.digest})
    return report


def _before(folder: Path, artifact: Artifact) -> list[dict[str, Any]]:
    """What earlier calls have found of this artifact at other lengths.

    Raises:
        ConfigError: they were of another one.
    """
    before = earlier_report(folder / REPORT)
    if before and before.get("artifact") != artifact.digest:
        raise ConfigError(f"{folder} holds lengths of another artifact (or version); use another --out")
    return before.get("lengths", [])


def importance(
    engine: Engine, method: LearnedTensor, examples: Sequence[Example], progress: Progress = ignore_progress
) -> Tensor:
    """Each learned token's importance [P]: the mean over rows of |∂L/∂m| for a mask on the token (see the module)."""
    if engine.plan.first_layer:  # a token goes from all layers, so none of them is taken from what is kept
        how = replace(engine.plan, first_layer=0)
        engine = Engine(engine.base, how, engine.prefix_ids, engine.cue, question=engine.question)
    whole = method.value.detach()
    mask = torch.ones(method.length, device=whole.device, requires_grad=True)
    total = torch.zeros_like(mask)
    for done, example in enumerate(examples, 1):  # row by row: the absolute value is taken of each row's gradient
        # tokens are the last dimension but one, of embeddings and K/V
        masked = Learned({"prompt": whole * mask[:, None]})
        loss, tokens = engine.loss([example], masked)
        total += torch.autograd.grad(loss / tokens, mask)[0].abs()
        progress("ranking learned tokens", done, len(examples))
    return total / len(examples)


def keep(base: Base, method: LearnedTensor, kept: Sequence[int]) -> LearnedTensor:
    """The same method with these of its tokens.

    A prefix takes positions: its keys are turned, so that the text sees those that stay at the distance it saw them at.
    """
    whole = method.value.detach()
    value = whole.index_select(-2, torch.tensor(list(kept), device=whole.device))
    if method.stores == "kv" and method.positions:
        by = torch.tensor([len(kept) - method.length], device=value.device)
        value = torch.stack([torch.cat(tuple(layer)) for layer in base.rotate(value.unsqueeze(2), by)])
    settings = {**method.spec.model_dump(exclude_none=True), "length": len(kept), "init": "text"}
    settings.pop("artifact", None)
    smaller = make_method(settings)
    assert isinstance(smaller, LearnedTensor)
    smaller.make(value)
    return smaller


def _checked(method: Method, to: Sequence[int]) -> list[int]:
    """The lengths, longest first.

    Raises:
        ConfigError: see `prune`.
    """
    if not isinstance(method, LearnedTensor) or method.stores not in ("embeddings", "kv"):
        raise ConfigError(
            f"method {method.spec.name!r} has no learned tokens to leave out; prune soft, prefix, infix or p_tuning"
        )
    if getattr(method.spec, "groups", None):
        raise ConfigError(
            "this prompt stands in soft slots, whose lengths its template sets; write shorter slots and train again"
        )
    if wrong := [length for length in to if not 1 <= length < method.length]:
        raise ConfigError(
            f"cannot prune to {wrong[0]}: the artifact has {method.length} learned tokens; give --to 1 to {method.length - 1}"
        )
    if not to:
        raise ConfigError(f"no length to prune to; give --to, e.g. --to {max(1, method.length // 2)}")
    return sorted(set(to), reverse=True)


def _one(
    whole: Prepared,
    task: Task,
    ranked: Tensor,
    length: int,
    out: Path,
    spec: TrainSpec,
    cache: CacheSpec | None,
    seed: int,
    rows: dict[str, list[Row]],
    progress: Progress,
    notice: Notice,
) -> Pruned:
    """Keep the `length` most important tokens, measure them, train them on."""
    base, method = whole.base, whole.method
    assert isinstance(method, LearnedTensor)
    kept = sorted(ranked.argsort(descending=True, stable=True)[:length].tolist())
    smaller = keep(base, method, kept)
    ready = prepare(base, task, smaller, (cache or CacheSpec()).config(), rows, [whole], ("train", "dev"))
    start = evaluate(ready, ready.splits["dev"], Control(progress))
    folder = out / str(length)
    save(Result(ready, {"dev": start}, None, {}, smaller.value.numel(), 0, ready.bound.cut), folder / "start")
    settings = {**smaller.spec.model_dump(exclude_none=True), "init": "artifact", "artifact": str(folder / "start")}
    if "residual" in settings:
        settings["residual"] = True  # or the encoder would begin at random, not at what is kept

    result = run_training(
        base,
        task,
        settings,
        folder,
        train=spec,
        cache=cache,
        seed=seed,
        rows=rows,
        reuse=[ready],
        progress=named(progress, f"{length} tokens"),
        notice=notice,
        check=False,  # what it starts from was trained before
    )
    assert result.artifact is not None
    return Pruned(length, kept, start.estimate, result.metrics["dev"].estimate, result.artifact)
