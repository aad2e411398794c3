"""What a causal model keeps by itself when it generates: that is where plain PEFT puts a prefix's keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .model import Base

_OTHER_LAYOUT = ("bloom", "gpt_bigcode")  # families whose prefixes PEFT lays out in ways of their own


@torch.no_grad()
def prefix_in_peft(base: Base) -> str | None:
    """Where PEFT loads a prefix of this base as it is here: `peft`, or only in rows within a sliding window; None: nowhere.

    PEFT takes the prefix's sizes from the model's config and writes the prefix into the model's own cache. With latent
    attention that cache holds latents. A sliding window hides the prefix like any token that lies further back.
    """
    if base.kind != "causal" or base.config.model_type in _OTHER_LAYOUT:
        return None
    out = base.model(input_ids=torch.tensor([[3]], device=base.device), use_cache=True)
    named = (getattr(out, name, None) for name in ("cache", "past_key_values"))
    layers = getattr(next((cache for cache in named if cache is not None), None), "layers", None)
    if not layers or any(getattr(layer, "keys", None) is None for layer in layers):
        return None
    heads, size = base.shape.kv_heads, base.shape.head_size
    kept = [(layer.keys.shape[1], layer.keys.shape[-1], layer.values.shape[-1]) for layer in layers]
    held = base.config.to_dict()
    set_by_config = (held.get("num_key_value_heads", heads), held.get("head_dim") or size)
    if kept != [(heads, size, size)] * base.shape.layers or set_by_config != (heads, size):
        return None
    windows = [window for layer in layers if (window := getattr(layer, "sliding_window", None))]
    return f"peft within the window of {min(windows)} tokens" if windows else "peft"
