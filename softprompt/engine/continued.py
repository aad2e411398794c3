"""What transformers' `generate` takes for a model: rows whose contexts have run, and our forward behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from ..base import Block
from ..types import Ids
from .batch import Batch, context_blocks


class Continued(PreTrainedModel, GenerationMixin):
    """What `generate` takes for a model: its first forward reads the contexts' logits, each later one runs one token a row.

    Rows of the same item that begin alike have the same keys and values, so a row of a new step (beams change places) finds
    its own by what has been written so far.
    """

    main_input_name = "input_ids"
    _is_stateful = True  # no assistant model, no contrastive search: they go back in time

    def __init__(self, batch: Batch) -> None:
        # to `generate` whatever runs here is a decoder that reads ids
        config = PreTrainedConfig()
        config.vocab_size = batch.base.shape.vocab_size  # type: ignore[attr-defined]
        super().__init__(config)
        self._batch, self._base = batch, batch.base
        self._rows: dict[tuple[int, Ids], int] = {}
        self._written: list[Tensor] | None = None  # per layer [2, B, G, n, D]
        self._context: list[Block] = []

    @property
    def device(self) -> torch.device:
        """The base's: the model has no parameters of its own."""
        return self._base.device

    @property
    def dtype(self) -> torch.dtype:
        """The base's."""
        return self._base.dtype

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """All ids so far: whose row is whose is seen by them."""
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> CausalLMOutput:
        """Ids [B · beams, 1 + n] written so far to logits [B · beams, 1, V]."""
        rows = input_ids.tolist()
        beams = len(rows) // len(self._batch.lengths)
        items = [place // beams for place in range(len(rows))]
        keys = [(item, tuple(ids[1:])) for item, ids in zip(items, rows, strict=True)]
        index = torch.tensor(items, device=self.device)
        if input_ids.shape[1] > 1 and self._batch.reruns:
            run = self._batch.follow(items, [(*ids, 0) for _, ids in keys])  # the 0 is never run
            states = run[torch.arange(1, len(keys) + 1, device=self.device) * (input_ids.shape[1] - 1) - 1]
        elif input_ids.shape[1] == 1:
            states = self._batch.last.index_select(0, index)
            self._context = [] if self._batch.reruns else context_blocks(self._batch, index)
        else:
            states = self._step([self._rows[item, ids[:-1]] for item, ids in keys], index, input_ids[:, -1])
        self._rows = {key: place for place, key in enumerate(keys)}
        return CausalLMOutput(logits=self._base.logits(states)[:, None])

    def _step(self, came_from: list[int], items: Tensor, tokens: Tensor) -> Tensor:
        """Run one token of every row behind what it has written; last hidden states [B · beams, H]."""
        batch = self._batch
        assert batch.starts is not None
        starts = (batch.starts + torch.tensor(batch.lengths, device=self.device)).index_select(0, items)
        blocks, count = list(self._context), 0
        if self._written is not None:
            order = torch.tensor(came_from, device=self.device)
            self._written = [layer.index_select(1, order) for layer in self._written]
            count = self._written[0].shape[3]
            blocks.append(Block(self._written, starts[:, None] + torch.arange(count, device=self.device)))
        hidden = self._base.forward(self._base.embed(tokens), [1] * len(tokens), starts + count, blocks, record=True)
        assert hidden.kv is not None
        new = hidden.kv
        if self._written is not None:
            new = [torch.cat([old, one], dim=3) for old, one in zip(self._written, new, strict=True)]
        self._written = new
        return hidden.states
