"""How a layer's keys rotate with their position: which dimensions make a plane, and by how much each plane rotates.

Both are read off the keys. Rates come from the model's own tables of frequencies where one of them fits, else from the keys at
growing distances. Families differ in everything else: planes of halves or pairs, of all dimensions or some of them, in either
direction, with a norm behind the rotation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .layers import find_layers

if TYPE_CHECKING:
    from .model import Base

Layout = Literal["halves", "pairs"]
Keys = Callable[[Sequence[int]], Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class Rotation:
    """The rotation of one layer's keys, or of several alike.

    Attributes:
        rates: [D] radians by which each dimension's plane rotates per position; 0 where a dimension is in no plane.
        quarter: [D, D] rotates every plane by 90°: `k @ quarter`.
        common: whether it is of the kind that was rotated from the first format on: all planes, onwards, no norm behind.
        layout: of its planes.
    """

    rates: Tensor
    quarter: Tensor
    common: bool
    layout: Layout

    def matrix(self, by: Tensor) -> Tensor:
        """k @ R[b] is the key k rotated by `by[b]` positions, [B, D, D]."""
        angles = by[:, None] * self.rates  # [B, D]
        one = torch.eye(len(self.rates), device=by.device)
        return one * angles.cos()[:, None] + self.quarter * angles.sin()[:, None]


def _make_rotation(
    rates: Tensor, size: int, layout: Layout, start: int, sign: int, scale: Tensor | None, common: bool
) -> Rotation:
    """Planes from dimension `start` on, rotated by `rates` [n].

    Args:
        layout: planes (i, i + n), as in Llama, or (2i, 2i + 1), as in Cohere's models.
        scale: [D] what each dimension is multiplied by after the rotation.
    """
    count = len(rates)
    step = torch.arange(count, device=rates.device)
    one, other = (step, step + count) if layout == "halves" else (2 * step, 2 * step + 1)
    all_rates, quarter = rates.new_zeros(size), rates.new_zeros(size, size)
    all_rates[start + one] = all_rates[start + other] = rates
    quarter[start + one, start + other] = float(sign)
    quarter[start + other, start + one] = -float(sign)
    if scale is not None:
        quarter = quarter * scale[None, :] / scale[:, None]
    return Rotation(all_rates, quarter, common and start == 0 and sign == 1 and scale is None, layout)


def find_rotations(
    base: Base,
    keys: Sequence[Tensor],
    places: Sequence[int],
    limits: Sequence[float],
    still: Sequence[bool],
    keys_at: Keys,
) -> list[Rotation | None]:
    """For each layer the rotation that fits its keys best, at all of the places; None where none is within its limit.

    Args:
        keys: of each layer its keys at place 0 and at the places, [1 + places, n, D].
        limits: of each layer how far its keys may be off.
        still: layers whose keys do not move.
        keys_at: the like at other places.
    """
    found: list[Rotation | None] = [None] * len(keys)
    best = list(limits)
    at = torch.tensor(places, device=keys[0].device)

    def try_on(rotation: Rotation, layers: Sequence[int]) -> None:
        matrices = rotation.matrix(at)
        for layer in layers:
            here, there = keys[layer][0], keys[layer][1:]
            if here.shape[1] == len(rotation.rates):
                off = float((here @ matrices - there).abs().max())
                if off < best[layer]:
                    found[layer], best[layer] = rotation, off

    moving = [layer for layer, is_still in enumerate(still) if not is_still]
    starts = {layer: _first_moving(keys[layer], limits[layer]) for layer in moving}
    tables, modules = _tables(base), find_layers(base.body, len(keys))
    for size, start in dict.fromkeys((keys[layer].shape[2], starts[layer]) for layer in moving):
        for rotation in _known(tables, size, start, None):
            try_on(rotation, moving)
    for layer in moving:
        if found[layer] is None and modules is not None:
            for scale in _norms(modules[layer], keys[layer].shape[2]):
                for rotation in _known(tables, len(scale), starts[layer], scale):
                    try_on(rotation, [layer])
    if rest := [layer for layer in moving if found[layer] is None]:
        steps = [2**power for power in range(int(math.log2(places[-1])) + 1)]
        more = keys_at([0, *steps])
        for layer in rest:
            for rotation in _measured(more[layer], steps, limits[layer]):
                if found[layer] is None:
                    try_on(rotation, [other for other in rest if found[other] is None])
    return found


def _tables(base: Base) -> list[Tensor]:
    """The model's own frequencies, each table once."""
    found: list[Tensor] = []
    for name, table in base.body.named_buffers():
        if "inv_freq" in name.rpartition(".")[2] and table.dim() == 1:
            new = table.detach().float()
            if not any(len(new) == len(old) and torch.equal(new, old) for old in found):
                found.append(new)
    return found


def _first_moving(keys: Tensor, limit: float) -> int:
    """The first dimension that rotates: before it stand those of latent attention without a position."""
    return int(((keys[1:] - keys[0]).abs().amax((0, 1)) > limit).nonzero()[0])


def _known(tables: Sequence[Tensor], size: int, start: int, scale: Tensor | None) -> Iterator[Rotation]:
    """Planes from dimension `start` on that rotate by a table of the model's, in all layouts."""
    for rates in tables:
        if start + 2 * len(rates) <= size:
            for sign in (1, -1):
                for layout in ("halves", "pairs"):
                    yield _make_rotation(rates, size, layout, start, sign, scale, common=True)


def _norms(layer: torch.nn.Module, size: int) -> list[Tensor]:
    """Weights of norms over a head: one of them may stand behind the rotation (Hunyuan)."""
    weights = [weight for weight in layer.parameters() if weight.shape == (size,)]
    return [weight.detach().float() for weight in weights if bool((weight != 0).all())]


def _measured(keys: Tensor, steps: Sequence[int], limit: float) -> Iterator[Rotation]:
    """Planes whose rates are read off a layer's keys at place 0 and 1, 2, 4, … places further on, [1 + steps, n, D]."""
    here, there = keys[0], keys[1:]
    size, start = here.shape[1], _first_moving(keys, limit)
    room = size - start
    layouts: list[tuple[Layout, int]] = [("pairs", room // 2), *(("halves", n) for n in range(room // 2, 1, -1))]
    for layout, count in layouts:
        step = torch.arange(count, device=here.device)
        one, other = (step, step + count) if layout == "halves" else (2 * step, 2 * step + 1)
        at = torch.complex(here[:, start + one].double(), here[:, start + other].double())
        rates = torch.zeros(count, dtype=torch.float64, device=here.device)
        for distance, part in zip(steps, there, strict=True):
            now = torch.complex(part[:, start + one].double(), part[:, start + other].double())
            # the rotation beyond what the rates so far say: small, so that full turns are counted right
            beyond = (at.conj() * now).sum(0) * torch.polar(torch.ones_like(rates), -rates * distance)
            rates = rates + beyond.angle() / distance
        yield _make_rotation(rates.float(), size, layout, start, 1, None, common=False)


def rotated_before(base: Base, rotations: Sequence[Rotation | None]) -> bool:
    """Whether artifacts of format 1 had their keys rotated on this base.

    They had where all layers rotated alike, by cosines and sines laid out as the planes are, one for each dimension.
    """
    kinds = {rotation.layout for rotation in rotations if rotation is not None and rotation.common}
    module = getattr(base.model.get_decoder(), "rotary_emb", None)
    if module is None or len(kinds) != 1 or any(rotation is None or not rotation.common for rotation in rotations):
        return False
    like, at = torch.zeros(1, 1, device=base.device), torch.tensor([[3]], device=base.device)
    for kind in dict.fromkeys((None, *(getattr(base.config, "layer_types", None) or ()))):
        with contextlib.suppress(TypeError, KeyError, AttributeError):  # not how this module is called
            cos = module(like, at, *([] if kind is None else [kind]))[0][0, 0]
            half = len(cos) // 2
            return bool(torch.equal(cos[:half], cos[half:])) == (kinds == {"halves"})
    return False
