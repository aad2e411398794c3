"""Why a base is refused, in words: what its layers do that the engine cannot follow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import BaseModelError
from .copies import set_attention
from .families import find_body, per_layer
from .interface import UnknownAttention
from .supported import READS_IDS

if TYPE_CHECKING:
    from .model import Base

MISFITS = (
    TypeError, IndexError, KeyError, AttributeError, RuntimeError, ValueError, AssertionError, ArithmeticError
)  # fmt: skip
"""What a foreign architecture may raise when it is run in a way that it was not made for."""

UNREACHED = "its layers do not call transformers' attention interface"
_WATCHED = "softprompt-watched"
_DEVICE = re.compile(
    r"\b(cuda|cudnn|cublas|hip|xpu|mps|npu|devices?|accelerator|out of memory|allocate)\b", re.IGNORECASE
)
_calls: list[int] = []


def of_device(error: Exception) -> bool:
    """Whether an error speaks of a device or its memory, and so not of an architecture."""
    kinds = tuple(getattr(torch, name) for name in ("OutOfMemoryError", "AcceleratorError") if hasattr(torch, name))
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and _DEVICE.search(str(error)) is not None)


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def misfit(base: Base, plain: Any, error: Exception) -> BaseModelError:
    """What to raise where a base's own code failed on the engine; an error of a device says so first.

    Args:
        plain: the untouched copy, which may be run in another attention for it.
    """
    if of_device(error):
        return BaseModelError(f"{first_line(error)} (base {base.name!r}, checked on {base.device})")
    if isinstance(error, UnknownAttention):
        return refused(base, str(error))
    laid = "as a padded grid" if base.own_mask else "end to end"
    reason = _unreached(base, plain) or f"its code does not run on rows of embeddings laid {laid}"
    if reason == UNREACHED and base.own_mask:
        reason += ", nor do they run on padded rows of embeddings"
    return refused(base, reason)


def _unreached(base: Base, plain: Any) -> str | None:
    """Whether its layers attend in a way that the engine does not reach; None where they do as others."""
    if odd := _odd_window(base):
        return odd
    try:
        calls = _watch(base, plain)
    except MISFITS as error:
        return f"transformers itself does not run it on rows of ids alone ({first_line(error)})"
    layers, asked = getattr(base.config, "num_hidden_layers", None), len(set(calls))
    if not asked:
        return UNREACHED
    if base.kind == "causal" and len(calls) > asked:
        return "its layers attend more than once in a forward, to other keys and values each time"
    if base.kind == "causal" and isinstance(layers, int) and asked < layers:
        some = f"only {asked} of its {layers} layers call transformers' attention interface"
        return f"{some}; the others keep no keys and values"
    return None


def _odd_window(base: Base) -> str | None:
    """A sliding window that hides all, or is not given where layers have one."""
    if per_layer(base.config, "sliding_window"):
        return None
    size, kinds = (getattr(base.config, name, None) for name in ("sliding_window", "layer_types"))
    if size or (size is None and "sliding_attention" not in (kinds or ())):
        return None
    named = "null" if size is None else size
    return f"its config.json gives layers with a sliding window, and sliding_window is {named}"


def not_finite(base: Base) -> BaseModelError:
    """What to raise where the plain model's own numbers are none."""
    return BaseModelError(
        f"base {base.name!r} gives no numbers (nan or inf) for plain text, in transformers as well. Some of its weights are "
        "damaged, or too large for fp16; copy it again, or use fp32 or bf16"
    )


def check_numbers(values: Tensor, where: str) -> None:
    """Raise BaseModelError if a value is NaN: no answer can be read from such values.

    Args:
        where: the row, or the base.
    """
    if values.isnan().any():
        raise BaseModelError(
            f"{where}: the base gives no numbers (nan), so there is no answer. They are too large for fp16, or weights of the "
            "base or of the artifact are damaged; use base.dtype: fp32 or bf16"
        )


def refused(base: Base, reason: str) -> BaseModelError:
    """The line for a base that the engine is not exact for."""
    return BaseModelError(
        f"base {base.name!r} ({type(base.model).__name__}) is not supported: {reason}; use another base"
    )


def difference(base: Base, plain: Any, rows: list[Tensor], off: float, allowed: float) -> BaseModelError:
    """What to raise where the engine's numbers are not the plain model's; names the cause where one is known."""
    what = "states" if base.kind == "encoder" else "logits"
    numbers = f"the engine's {what} differ from the plain model's by {off:.3g} (allowed {allowed:.3g})"
    if base.own_mask:
        return refused(
            base, f"a row's numbers depend on the rows beside it, whose padding it does not leave out ({numbers})"
        )
    reason = _odd_window(base) or (_cause(base, plain, rows[0], allowed) if base.kind == "causal" else None)
    reason = reason or _unreached(base, plain) or "its layers, or its head, compute more than the engine knows of"
    return refused(base, f"{reason} ({numbers})")


@torch.no_grad()
def _cause(base: Base, plain: Any, ids: Tensor, allowed: float) -> str | None:
    places = torch.arange(len(ids), device=ids.device)[None]

    def differs(**other: Tensor) -> bool:
        changed = plain(**other, use_cache=False).logits[0].float()
        return not bool((changed - want).abs().max() <= allowed)

    try:
        want = plain(input_ids=ids[None], use_cache=False).logits[0].float()
        if differs(inputs_embeds=plain.get_input_embeddings()(ids)[None]):
            return READS_IDS
        if differs(input_ids=ids[None], position_ids=places):
            return "it does not count positions from 0"
        if not differs(input_ids=ids[None], position_ids=places * places):
            return "it numbers positions by itself, so rows cannot be laid end to end or stand behind a prompt"
        states = find_body(plain, base.kind)(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        if not bool((base.logits(states) - want).abs().max() <= allowed):
            return "its language-model head is more than one output layer"
    except MISFITS:
        return None
    return None


def _watch(base: Base, plain: Any) -> list[int]:
    """Which modules of the plain model call a registered attention function, one after the other."""
    AttentionInterface.register(_WATCHED, _watched)
    AttentionMaskInterface.register(_WATCHED, sdpa_mask)
    set_attention(plain, _WATCHED)
    _calls.clear()
    ids = torch.arange(3, 8, device=base.device)[None]
    with torch.no_grad():
        plain(ids, **({"decoder_input_ids": ids} if base.kind == "seq2seq" else {}))
    return list(_calls)


def _watched(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    _calls.append(id(module))
    return sdpa_attention_forward(module, *args, **{**kwargs, "softcap": None})
