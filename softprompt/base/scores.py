"""From queries, keys and values to what a row reads: grouped heads, attention sinks, capped scores, heads of any size.

Shapes: as in `attention.py`; A query heads, G key/value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """How a layer makes weights of its scores.

    Attributes:
        scaling: of the products of queries and keys; None: D^-½.
        dropout: of the weights.
        sinks: [A], for each query head one more score, whose value is zero (gpt-oss); None in most models.
        softcap: scores s become c · tanh(s / c) (Gemma 2); None in most models.
    """

    scaling: float | None = None
    dropout: float = 0.0
    sinks: Tensor | None = None
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether weights are the softmax of scaled products and nothing else."""
        return self.sinks is None and self.softcap is None and not self.dropout


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, how: Scoring) -> Tensor:
    """[B, A, Q, D] over keys [B, G, S, D] and values [B, G, S, d] → [B, A, Q, d].

    Args:
        mask: bool or added, [B or 1, 1 or A, Q or 1, S].
    """
    # Grouped heads: the query heads of one group become further queries of the same keys, so K/V are never repeated.
    groups, (heads, width) = keys.shape[1], query.shape[1:3]
    folds = heads // groups
    if folds > 1:
        query = query.reshape(query.shape[0], groups, folds * width, query.shape[-1])
        if mask is not None and mask.shape[1] == heads:
            mask = mask.unflatten(1, (groups, folds)).flatten(2, 3)
        elif mask is not None and mask.shape[2] == width:
            mask = mask.repeat(1, 1, folds, 1)
    if how.sinks is not None:
        sinks = how.sinks.to(query.dtype).view(1, groups, folds, 1).expand(-1, -1, -1, width).flatten(2)[..., None]
        keys, values, mask = _with_sinks(keys, values, mask, sinks)
    if how.softcap is None:
        out = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, dropout_p=how.dropout, scale=how.scaling
        )
    else:
        out = _capped(query, keys, values, mask, how, how.softcap)
    return out.reshape(out.shape[0], heads, width, out.shape[-1]) if folds > 1 else out


def attend_behind(
    query: Tensor, shared: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, mask: Tensor | None, how: Scoring
) -> Tensor:
    """As `attend`, behind keys and values that all rows share, which are not copied for each row.

    All rows' queries meet the shared keys in one product. The scores are put beside those of the rows' own keys before the
    softmax, so the result is the same.

    Args:
        shared: keys and values [1, G, P, D].
        mask: bool [B or 1, 1, Q or 1, P + S].
    """
    (rows, heads, width, size), groups = query.shape, keys.shape[1]
    folded = query.reshape(rows, groups, -1, size) * (
        size**-0.5 if how.scaling is None else how.scaling
    )  # [B, G, fQ, D]
    together = folded.transpose(0, 1).flatten(1, 2)  # [G, B·f·Q, D]
    before = (together @ shared[0][0].transpose(-1, -2)).unflatten(1, (rows, -1)).transpose(0, 1)  # [B, G, fQ, P]
    scores = torch.cat([before, folded @ keys.transpose(-1, -2)], dim=-1)
    if mask is not None:
        # a padded query may see nothing at all, and must stay finite
        hidden = ~mask.repeat(1, 1, heads // groups if mask.shape[2] == width else 1, 1)
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    first, own = weights.split([shared[0].shape[2], keys.shape[2]], dim=-1)
    out = first.transpose(0, 1).flatten(1, 2) @ shared[1][0]  # [G, B·f·Q, d]
    out = out.unflatten(1, (rows, -1)).transpose(0, 1) + own @ values
    return out.reshape(rows, heads, width, -1)


def _with_sinks(keys: Tensor, values: Tensor, mask: Tensor | None, sinks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One more key and value of zeros, seen by all: its score is what the mask adds.

    Args:
        sinks: [1, G, queries, 1].
    """
    if mask is None:
        mask = sinks.new_zeros(1, 1, 1, keys.shape[2])
    elif mask.dtype == torch.bool:
        mask = sinks.new_zeros(()).masked_fill(~mask, float("-inf"))
    shape = torch.broadcast_shapes(mask.shape[:3], sinks.shape[:3])
    mask = torch.cat([mask.to(sinks.dtype).expand(*shape, -1), sinks.expand(*shape, -1)], dim=-1)
    return F.pad(keys, (0, 0, 0, 1)), F.pad(values, (0, 0, 0, 1)), mask


def _capped(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, how: Scoring, cap: float) -> Tensor:
    """What no fused attention does on every device: between product and softmax the scores are capped."""
    scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if how.scaling is None else how.scaling)
    if how.sinks is not None:  # they are no products, so they are not capped
        scores = torch.cat([torch.tanh(scores[..., :-1] / cap) * cap, scores[..., -1:]], dim=-1)
    else:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        # a padded query may see nothing at all, and must stay finite: the next layer multiplies it by 0
        least = torch.finfo(scores.dtype).min
        hidden = ~mask if mask.dtype == torch.bool else mask == float("-inf")
        scores = scores if mask.dtype == torch.bool else scores + mask
        scores = scores.masked_fill(hidden, least)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, how.dropout, training=how.dropout > 0) @ values


def joined(parts: Sequence[Tensor], like: Tensor, rows: int) -> Tensor:
    """Earlier keys or values [b, ≥ G, S, ≥ D], b = B or 1, and the live ones `like` [B, G, Q, D], as one [B, G, ΣS, D].

    What is kept is padded with zeros where heads differ in number or size (see `stacked`).
    """
    if not parts:
        return like
    heads, size = like.shape[1], like.shape[3]
    own = [part if part.shape[1::2] == (heads, size) else part[:, :heads, :, :size] for part in parts]
    return torch.cat([*(part.expand(rows, -1, -1, -1) for part in own), like], dim=2)


def stacked(key: Tensor, value: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Keys and values [B, g, Q, d] of one layer as one tensor [2, B, G, Q, D].

    Args:
        size: (G, D) of a base whose layers, or keys and values, differ in heads or sizes: the largest. Zeros fill the rest, so
            that what is kept of any base is one tensor; None: the larger of these two.
    """
    heads, width = size or (key.shape[1], max(key.shape[3], value.shape[3]))
    if key.shape[1] == heads and key.shape[3] == value.shape[3] == width:
        return torch.stack((key, value))
    return torch.stack([F.pad(x, (0, width - x.shape[3], 0, 0, 0, heads - x.shape[1])) for x in (key, value)])
