"""Does the learned thing do anything, can it be learned, and is it of a size that the base knows?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..base import Base
from ..engine import Learned, kv_of
from ..findings import Finding
from .case import TOGETHER, Case, far

EFFECT = 1e-5  # of the logits' spread; what nothing sees changes no bit
LOUD = 10.0  # times the 99th percentile of the base's own
_STEP = 1e-2  # of a parameter's size


def effect(case: Case) -> Iterator[Finding]:
    """Every learned segment and the learned weights change the logits of the rows' answers.

    A segment is turned upside down in its place, so that a shift of positions is not taken for an effect.
    """
    if reason := _no_model(case):
        yield Finding("effect", "skipped", reason)
        return
    learned = case.learned
    now, bare = case.logits(learned), case.logits(replace(learned, segments={}, base=None))
    if not torch.isfinite(now).all():
        yield Finding(
            "effect", "error", "logits that are not finite", "lower train.lr, or use base.dtype: fp32 or bf16"
        )
        return
    least = EFFECT * max(1.0, bare.std().item())
    yield from _segments(case, learned, now, least)
    if learned.base is not None:
        moved = far(now, case.logits(replace(learned, base=None)))
        name = case.method.spec.name
        if moved > least:
            yield Finding("effect", "ok", f"the weights of {name!r} change the logits by up to {moved:.3g}")
        elif case.held is None:
            yield Finding("effect", "ok", f"the weights of {name!r} have no effect yet: their update starts at zero")
        else:
            yield Finding(
                "effect",
                "error",
                f"the trained weights of {name!r} change no logit (by {moved:.3g}, over {len(now)} answer tokens)",
                "its update is zero: was it trained, or exported before the first step?",
            )
    if learned.segments and not far(now, bare) > least:
        yield Finding(
            "effect", "error", "the logits equal those of the bare base", "train longer, or start from a text"
        )


def _segments(case: Case, learned: Learned, now: Tensor, least: float) -> Iterator[Finding]:
    places = {slot.name: slot for slot in case.slots if slot.learned}
    for name in sorted(set(places) | set(learned.segments)):
        if name not in places or name not in learned.segments:
            lacking = "no slot of the row" if name in learned.segments else "nothing to stand there"
            yield Finding(
                "effect",
                "error",
                f"segment {name!r} has {lacking} (slots {sorted(places)}, segments {sorted(learned.segments)})",
                "let Method.segments and Method.learned use the same names",
            )
            continue
        value = learned.segments[name]
        turned = replace(learned, segments={**learned.segments, name: torch.where(value == 0, 1.0, -value)})
        moved = far(now, case.logits(turned))
        shape = list(value.shape)
        if moved > least:
            total = far(now, case.logits(replace(learned, segments=_without(learned, name))))
            yield Finding(
                "effect",
                "ok",
                f"segment {name!r} {shape} changes the logits by up to {total:.3g} against the same row without it",
            )
        else:
            yield Finding(
                "effect",
                "error",
                f"no token sees segment {name!r} {shape}: negated, it changes the logits by {moved:.3g}",
                "check where Method.segments puts it: in front of the answer, in layers that run",
            )


def gradient(case: Case) -> Iterator[Finding]:
    """The loss of a few rows has a finite gradient for every group of parameters.

    Where some parameters have none (LoRA's A while B is zero), the others take a small step first; what is still without one
    then will not be trained.
    """
    if reason := _no_model(case):
        yield Finding("gradient", "skipped", reason)
        return
    parameters = case.method.parameters()
    if case.held is not None or not parameters:
        reason = "the artifact is trained already" if case.held else f"{case.method.spec.name!r} has no parameters"
        yield Finding("gradient", "skipped", reason)
        return
    found = _gradients(case, parameters)
    still = _without_gradient(found)
    if still and len(still) < len(parameters):
        still &= _without_gradient(_after_a_step(case, parameters, found))
    idle = {id(parameter) for parameter in case.method.may_lack_gradient()}
    still = {place for place in still if id(parameters[place]) not in idle}
    names = _names(case, parameters)
    size = math.sqrt(sum(float(value.double().square().sum()) for value in found if value is not None))
    if not math.isfinite(size):
        broken = [name for name, value in zip(names, found, strict=True) if value is not None and not _finite(value)]
        yield Finding(
            "gradient",
            "error",
            f"no finite number for {_some(broken)}",
            "use base.dtype: fp32 or bf16, or shorter rows",
        )
        return
    dead = [
        group for group, _ in case.method.groups() if group and all(id(p) in _ids(parameters, still) for p in group)
    ]
    if dead:
        whole = "all parameters" if len(still) == len(parameters) else "a whole group of parameters"
        count = sum(len(group) for group in dead)
        yield Finding(
            "gradient",
            "error",
            f"{whole} ({count} of {len(parameters)} tensors) have a gradient of zero, so nothing would be learned",
            "check that learned() is computed from parameters() without detach() or no_grad()",
        )
    elif still:
        lost = _some([names[place] for place in sorted(still)])
        yield Finding(
            "gradient",
            "warning",
            f"{len(still)} of {len(parameters)} parameter tensors have none: {lost}",
            "they will keep their initial values; leave them out of parameters(), or use them",
        )
    else:
        yield Finding("gradient", "ok", f"norm {size:.3g} over {len(parameters)} parameter tensors")


def norms(case: Case) -> Iterator[Finding]:
    """Learned embeddings are about as large as the vocabulary's, learned keys and values as those of a text.

    Far beyond that a prompt drowns the text, and the base is outside of what it was trained on.
    """
    places = {slot.name: slot for slot in case.slots if slot.learned}
    if not places or not case.rows:
        yield Finding("norms", "skipped", f"{case.method.spec.name!r} learns no segment")
        return
    for name, value in case.learned.segments.items():
        if name not in places:
            continue
        if places[name].learned == "embeddings":
            yield _loudest(name, [("the vocabulary's", value.float().norm(dim=-1).max(), _vocabulary(case))])
        else:
            side = case.base if places[name].decoder else case.base.reader
            yield _loudest(name, _per_layer(case, side, value.float()))


def _loudest(name: str, pairs: Sequence[tuple[str, Tensor, Tensor]]) -> Finding:
    whose, mine, own = max(pairs, key=lambda pair: float(pair[1] / pair[2].clamp_min(1e-12)))
    times = float(mine / own.clamp_min(1e-12))
    what = f"segment {name!r}: largest norm {float(mine):.3g}, {times:.2g} times the 99th percentile of {whose} ({own:.3g})"
    if times <= LOUD:
        return Finding("norms", "ok", what)
    return Finding(
        "norms", "warning", what, f"lower train.lr or train fewer steps: beyond {LOUD:g} times it drowns the text"
    )


@torch.no_grad()
def _vocabulary(case: Case) -> Tensor:
    size = case.base.model.get_input_embeddings().weight.shape[0]
    parts = torch.arange(size, device=case.base.device).split(8192)
    return torch.quantile(torch.cat([case.base.embed(ids).float().norm(dim=-1) for ids in parts]), 0.99)


@torch.no_grad()
def _per_layer(case: Case, base: Base, value: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Of learned [L, 2, G, P, D], per layer and for keys and values: whose norms, the largest learned, the base's own."""
    longest = max((run.text for row in case.rows for run in row.runs), key=len)
    ids = torch.tensor([*case.bound.prefix_ids, *longest], device=base.device)
    text = kv_of(base, base.embed(ids))
    found = []
    for layer, mine in enumerate(value):
        for index, what in enumerate(("keys", "values")):
            own = torch.quantile(text[layer][index].norm(dim=-1).flatten(), 0.99)
            found.append((f"a text's {what} in layer {layer}", mine[index].norm(dim=-1).max(), own))
    return found


def _no_model(case: Case) -> str:
    """Why the learned thing cannot be run, or nothing."""
    if not case.ready.engine.plan.learns:
        return f"{case.method.spec.name!r} learns nothing that the model runs"
    return "" if case.rows else "there are no labelled rows to run"


def _without(learned: Learned, name: str) -> dict[str, Tensor]:
    return {key: value for key, value in learned.segments.items() if key != name}


def _gradients(case: Case, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    loss, weight = case.form.loss(case.engine, case.rows[:TOGETHER], case.method.learned())
    loss = loss / weight
    if not loss.requires_grad:
        return [None] * len(parameters)
    return list(torch.autograd.grad(loss, parameters, allow_unused=True))


def _after_a_step(
    case: Case, parameters: Sequence[nn.Parameter], found: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients after a small step of those that have one; the parameters are put back, to the bit."""
    moving = [(p, g) for p, g in zip(parameters, found, strict=True) if g is not None and bool(g.any())]
    kept = [parameter.detach().clone() for parameter, _ in moving]
    try:
        with torch.no_grad():
            for parameter, value in moving:
                parameter.sub_(value * (_STEP * parameter.norm().clamp_min(1.0) / value.norm()))
        return _gradients(case, parameters)
    finally:
        with torch.no_grad():
            for (parameter, _), before in zip(moving, kept, strict=True):
                parameter.copy_(before)


def _without_gradient(found: Sequence[Tensor | None]) -> set[int]:
    return {place for place, value in enumerate(found) if value is None or not bool(value.any())}


def _ids(parameters: Sequence[nn.Parameter], places: set[int]) -> set[int]:
    return {id(parameters[place]) for place in places}


def _names(case: Case, parameters: Sequence[nn.Parameter]) -> list[str]:
    """As the model names them, or their number and shape."""
    base = case.learned.base
    named = {} if base is None else {id(value): name for name, value in base.model.named_parameters()}
    return [named.get(id(p), f"parameter {place} {list(p.shape)}") for place, p in enumerate(parameters)]


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
