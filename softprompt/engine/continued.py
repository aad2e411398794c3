"""What transformers' `generate` takes for a model: rows whose contexts have run, and our forward behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, StoppingCriteria
from transformers.modeling_outputs import CausalLMOutput

from ..base import Block
from ..types import Ids
from .batch import BatchOutput, context_blocks
from .draws import Draws
from .texts import stops_in, text_of


class GenerationAdapter(PreTrainedModel, GenerationMixin):
    """What `generate` takes for a model: its first forward reads the contexts' logits, each later one runs one token a row.

    Rows of one item that begin alike have the same keys and values. Beams change places between steps, so a row finds
    its own keys and values by the tokens written so far.

    Args:
        draws: where beams draw their continuations.
    """

    main_input_name = "input_ids"
    _is_stateful = True  # no assistant model, no contrastive search: they go back in time

    def __init__(self, batch: BatchOutput, draws: Draws | None = None) -> None:
        # to `generate` whatever runs here is a decoder that reads ids
        config = PreTrainedConfig()
        config.vocab_size = batch.base.shape.vocab_size  # type: ignore[attr-defined]
        super().__init__(config)
        self._batch, self._base, self._draws = batch, batch.base, draws
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

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Keys are kept here."""
        return False

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """All ids so far: whose row is whose is seen by them."""
        return {"input_ids": input_ids}

    def _get_top_k_continuations(  # type: ignore[override]
        self, accumulated_log_probs: Tensor, do_sample: bool, beams_to_keep: int, **kwargs: Any
    ) -> Any:
        """Transformers' own, among continuations that each item draws by its own numbers."""
        if do_sample:
            assert self._draws is not None
            drawn = self._draws(accumulated_log_probs, beams_to_keep)
            rest = torch.full_like(accumulated_log_probs, -torch.inf)
            accumulated_log_probs = rest.scatter(1, drawn, accumulated_log_probs.gather(1, drawn))
        return super()._get_top_k_continuations(
            accumulated_log_probs, do_sample=False, beams_to_keep=beams_to_keep, **kwargs
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> CausalLMOutput:
        """Ids [B · beams, n] written so far to logits [B · beams, 1, V]."""
        rows = input_ids.tolist()
        beams = len(rows) // len(self._batch.lengths)
        items = [place // beams for place in range(len(rows))]
        keys = [(item, tuple(ids)) for item, ids in zip(items, rows, strict=True)]
        index = torch.tensor(items, device=self.device)
        count = input_ids.shape[1]
        if count and self._batch.reruns:
            run = self._batch.follow(items, [(*ids, 0) for _, ids in keys])  # the 0 is never run
            states = run[torch.arange(1, len(keys) + 1, device=self.device) * count - 1]
        elif not count:
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


class Stops(StoppingCriteria):
    """Ends a row once a text stands at the end of what it has written, wherever its tokens begin and end."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        # a token may be one byte, and some are no text at all
        self._window = max(len(stop.encode()) for stop in stops) + 8

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Of ids [B, n] that have been written: which rows end, [B]."""
        rows = input_ids[:, -self._window :].tolist()
        return torch.tensor(
            [stops_in(text_of(self._tokenizer, ids), self._stops) for ids in rows], device=input_ids.device
        )
