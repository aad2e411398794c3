"""What plain transformers computes: an untouched copy in eager attention, one whole unpadded row at a time.

Learned embeddings go in as `inputs_embeds`. Learned keys and values are joined to those of each layer where its eager
attention is called, so the model's own masks of its own tokens are kept, whatever its cache holds.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

_NAME = "zoo"
_state: dict[str, Any] = {}  # what the attention function below is to do, of the one forward that runs


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *args: Any, **kwargs: Any
) -> Any:
    """The model's own eager attention, with learned keys in front of its own; or only a note of its keys."""
    eager, mask = sys.modules[type(module).__module__].eager_attention_forward, attention_mask
    if id(module) not in _state["modules"] or (_state["queries"] or key.shape[2]) != key.shape[2]:
        return eager(module, query, key, value, mask, *args, **kwargs)
    if _state["learned"] is None:
        _state["keys"].append(key.detach())
        return eager(module, query, key, value, mask, *args, **kwargs)
    seen = _state["layers"]  # ALBERT calls one layer several times
    own = _state["learned"][seen.setdefault(id(module), len(seen))]  # [2, G, P, D]; smaller layers' are padded
    new = [part[None, : held.shape[1], :, : held.shape[3]] for part, held in zip(own, (key, value), strict=True)]
    width, size, least = key.shape[2], own.shape[2], torch.finfo(query.dtype).min
    if mask is None and _state["causal"]:
        mask = torch.full((width, width), least).triu(1)[None, None]
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, least)
        late = (torch.arange(query.shape[2]) < _state["since"])[:, None].expand(-1, size)
        mask = mask.expand(-1, -1, query.shape[2], -1)
        front = torch.zeros(late.shape).masked_fill(late, least)
        mask = torch.cat([front.expand(*mask.shape[:2], -1, -1), mask], dim=-1)
    if (bias := kwargs.get("position_bias")) is not None:
        kwargs["position_bias"] = torch.cat([bias.new_zeros(*bias.shape[:3], size), bias], dim=-1)
    key, value = (torch.cat([part, held], dim=2) for part, held in zip(new, (key, value), strict=True))
    return eager(module, query, key, value, mask, *args, **kwargs)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)


class Truth:
    """One plain model.

    Args:
        model: copied before anybody else lays hands on it.
        kind: `causal`, `masked` or `seq2seq`.
    """

    def __init__(self, model: Any, kind: str) -> None:
        self.model, self.kind = copy.deepcopy(model), kind
        self.model.requires_grad_(False)
        self.model.set_attn_implementation("eager")
        self._turns: dict[int, list[Tensor | None]] = {}

    def embed(self, ids: Sequence[int], written: bool = False) -> Tensor:
        """[n] → [n, H], by the decoder's own layer of what is written by one."""
        part = self.model.get_decoder() if written else self.model
        layer = getattr(part, "get_input_embeddings", self.model.get_input_embeddings)()
        return layer(torch.tensor(ids, dtype=torch.long))

    def logits(self, row: Tensor, kv: Tensor | None = None, start: int = 0, since: int = 0) -> Tensor:
        """Logits [n, V] of a row of embeddings [n, H].

        Args:
            kv: [L, 2, G, P, D] that its tokens from `since` on see.
            start: position of its first token.
        """
        places = {} if start == 0 else {"position_ids": torch.arange(start, start + len(row))[None]}
        with self._joined(self.model, kv, since):
            options = {"use_cache": False} if self.kind == "causal" else {}
            return self.model(inputs_embeds=row[None], **places, **options).logits[0].float()

    def written(self, read: Tensor, write: Tensor, front: Tensor | None = None, answer: Tensor | None = None) -> Tensor:
        """Logits [n, V] of what a decoder writes, [n, H], behind what its encoder reads, [m, H].

        Args:
            front: keys and values of the encoder.
            answer: those of the decoder's self-attention.
        """
        with self._joined(self.model.get_encoder(), front):
            states = self.model.get_encoder()(inputs_embeds=read[None])
        with self._joined(self.model.get_decoder(), answer, queries=len(write)):
            out = self.model(encoder_outputs=states, decoder_inputs_embeds=write[None], use_cache=False)
        return out.logits[0].float()

    def turned(self, kv: Tensor, by: int) -> Tensor:
        """Keys of [L, 2, G, P, D] as the model would have them `by` positions on.

        A linear map, fitted to the keys of tokens that stand alone there; as they are in layers that no such map fits, where
        positions are not in the keys alone.
        """
        if by not in self._turns:
            self._turns[by] = [_fitted(*pair) for pair in zip(self._keys(0), self._keys(by), strict=True)]
        layers = []
        for (keys, values), turn in zip(kv, self._turns[by], strict=True):
            size = 0 if turn is None else len(turn)
            moved = keys if turn is None else torch.cat([keys[..., :size] @ turn, keys[..., size:]], dim=-1)
            layers.append(torch.stack([moved, values]))
        return torch.stack(layers)

    @torch.no_grad()
    def _keys(self, place: int) -> list[Tensor]:
        """Of each layer the keys [n, D] of tokens that stand alone at a position."""
        ids = torch.arange(3, self.model.get_input_embeddings().weight.shape[0])[:, None]
        with self._joined(self.model, None, note=True):
            self.model(input_ids=ids, position_ids=torch.full_like(ids, place), use_cache=False)
        return [keys.flatten(0, 2).double() for keys in _state["keys"]]

    @contextmanager
    def _joined(
        self, part: Any, kv: Tensor | None, since: int = 0, queries: int | None = None, note: bool = False
    ) -> Iterator[None]:
        if kv is None and not note:
            yield
            return
        modules = {id(module) for module in part.modules()}
        _state.update(learned=kv, layers={}, since=since, queries=queries, modules=modules, keys=[])
        _state["causal"] = self.kind == "causal" or queries is not None
        self.model.set_attn_implementation(_NAME)
        try:
            yield
        finally:
            self.model.set_attn_implementation("eager")
        if kv is not None and len(_state["layers"]) != len(kv):
            raise NotJoined(f"{len(_state['layers'])} of {len(kv)} layers called transformers' attention interface")


class NotJoined(Exception):
    """Learned keys did not reach all layers, so there is nothing to compare with."""


def _fitted(near: Tensor, far: Tensor) -> Tensor | None:
    """The linear map [D, D] from keys to keys; None where there is none."""
    turn = torch.linalg.lstsq(near, far).solution
    fits = (near @ turn - far).abs().max() <= 1e-4 * far.abs().max()
    return turn.float() if fits else None
