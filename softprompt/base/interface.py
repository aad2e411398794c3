"""The one function through which K/V enters any architecture.

transformers (≥ 4.48) lets a model call a registered attention function instead of its own. Which forward it belongs to, and
so what the rows see, is found by `attention.current`. Shapes: as in `attention.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .attention import Call, current
from .scores import Scoring, attend, attend_behind, joined, stacked

NAME = "softprompt"
UNCOPIED = 128  # shared keys from which on they are not copied for each row
SCORES_AT_ONCE = 64_000_000  # numbers that are held then
CROSS = "attends_to_encoder"  # marks the attention modules of a decoder that attend to an encoder's states
# keywords that change no score: of flash attention, of outputs beside the states, of a cache that is never there
_HARMLESS = {
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "deterministic",
    "is_causal",  # the call says who sees what; eager attention does not read it either
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "past_key_values",
    "position_ids",
    "return_dict",
    "seq_idx",
    "use_cache",
}


class UnknownAttention(ValueError):
    """A model's attention asks for something by keywords that we do not know.

    Attributes:
        keywords: their names.
    """

    def __init__(self, keywords: list[str]) -> None:
        super().__init__(f"its attention asks for {', '.join(keywords)}, which the engine does not know")
        self.keywords = keywords


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered attention function. Outside of `running` it is what transformers' own would be.

    Args:
        query: [1, A, N, D]; key, value: [1, G, N, D], keys already rotated. Of a `Grid` [B, A, Q, D] and [B, G, Q or M, D].
        position_bias: [1, A, Q, own keys], added to the scores.
        s_aux, softcap: see `Scoring`.

    Returns:
        ([1, N, A, D] or [B, Q, A, D], None).

    Raises:
        UnknownAttention: a model asks for something that we do not know.
    """
    how = Scoring(scaling, dropout, s_aux, softcap)
    call = current()
    if call is None or call.own_mask:
        if s_aux is None and softcap is None:
            given = {"dropout": dropout, "scaling": scaling, "sliding_window": sliding_window, **kwargs}
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, position_bias=position_bias, **given
            )
        if attention_mask is None:  # SDPA's sign for "what is before" or "all"
            attention_mask = _triangle(query, key) if getattr(module, "is_causal", True) else None
        return attend(query, key, value, attention_mask, how).transpose(1, 2).contiguous(), None
    if unknown := sorted(name for name, given in kwargs.items() if given is not None and name not in _HARMLESS):
        raise UnknownAttention(unknown)
    if call.parts:
        cut = zip(call.parts, *(packed.split(call.tokens, dim=2) for packed in (query, key, value)), strict=True)
        parts = [_of_rows(part, module, q, k, v, how, sliding_window, position_bias) for part, q, k, v in cut]
        return torch.cat(parts, dim=1), None
    return _of_rows(call, module, query, key, value, how, sliding_window, position_bias), None


def _of_rows(
    call: Call,
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Scoring,
    window: int | None,
    bias: Tensor | None,
) -> Tensor:
    """What the rows of one grid read, packed as they came."""
    query, key, value = call.to_rows(query), call.to_rows(key), call.to_rows(value)
    if getattr(module, CROSS, False):  # nothing is learned or kept between an encoder's states and a decoder
        return call.to_packed(attend(query, key, value, call.with_bias(call.encoder_mask, bias, 0), how))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if call.record and len(call.recorded) == layer - call.first:  # not when a layer is computed again
        call.even = call.even and key.shape == value.shape
        call.recorded.append(stacked(key, value, call.kv_size))
    if call.handed is not None:
        call.handed += [(key, value)] * (layer + 1 - len(call.handed))  # nothing looks at layers that do not run
        call.handed[layer] = (key, value)  # also when a layer is computed again
    past: list[tuple[Tensor, Tensor]] = [tuple(block.kv[layer]) for block in call.blocks]
    mask = call.mask(call.window(module, window))
    if bias is None and how.plain and past and _uncopied(past[0], query, key, value):
        first, *past = past
        keys, values = joined([k for k, _ in past], key, call.rows), joined([v for _, v in past], value, call.rows)
        return call.to_packed(attend_behind(query, first, keys, values, mask, how))
    keys, values = joined([k for k, _ in past], key, call.rows), joined([v for _, v in past], value, call.rows)
    return call.to_packed(attend(query, keys, values, call.with_bias(mask, bias, keys.shape[2] - key.shape[2]), how))


def _uncopied(shared: tuple[Tensor, Tensor], query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether keys and values that all rows share cost more to copy for each row than attention without a fused kernel does.

    Only on the CPU, and where nothing is learned: no gradients are kept of its scores.
    """
    rows, heads, width, _ = query.shape
    size = shared[0].shape[2]
    fits = all(a.shape[1::2] == b.shape[1::2] for a, b in zip(shared, (key, value), strict=True))
    on_cpu = query.device.type == "cpu" and not torch.is_grad_enabled()
    few = rows * heads * width * size <= SCORES_AT_ONCE
    return rows > 1 and len(shared[0]) == 1 and size >= UNCOPIED and fits and on_cpu and few


def _triangle(query: Tensor, key: Tensor) -> Tensor:
    """[1, 1, Q, S]: each of the last Q tokens sees what is before it, and itself."""
    queries, keys = query.shape[2], key.shape[2]
    seen = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
    return seen.tril(keys - queries)[None, None]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
