"""Bidirectional models and decoders with an encoder: rows run as a padded grid instead of packed end to end.

Their modules number positions themselves, 0 to Q-1 in each row (BERT, BART, T5's distances), so each row has to be a row of
the batch. Outside, `Base.forward` stays as it is: packed live tokens in, packed states out.

Shapes: as in `attention.py`; M the longest row of encoder states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..errors import BaseModelError
from .attention import Call, running
from .families import Kind
from .shape import Hidden

if TYPE_CHECKING:
    from .model import Base

NOTHING_IN_FRONT = (
    "this base's layers do not call transformers' attention interface, so no learned keys and values can stand in front of a "
    "text; use soft, p_tuning, lora, full or probe"
)


class Grid(Call):
    """A forward over rows as a grid [B, Q, …], right-padded.

    Attributes:
        bidirectional: live tokens of a row see each other both ways; else each sees what is before it.
        encoder_hidden_states: what the rows attend to, [B, M, H], right-padded; None where there is no encoder.
        encoder_mask: bool [B, 1, 1, M], True where a state counts; None when all do.
        own_mask: the model attends by itself, with a mask of the padding; nothing can stand in front of the rows.
    """

    def __init__(
        self,
        *args: Any,
        bidirectional: bool,
        encoder_hidden_states: Sequence[Tensor] | None = None,
        own_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.bidirectional, self.own_mask = bidirectional, own_mask
        self.encoder_hidden_states: Tensor | None = None
        if encoder_hidden_states is not None:
            self.encoder_hidden_states = pad_sequence(list(encoder_hidden_states), batch_first=True)
            sizes = torch.tensor([len(states) for states in encoder_hidden_states], device=self.starts.device)
            inside = torch.arange(self.encoder_hidden_states.shape[1], device=sizes.device) < sizes[:, None]
            self.encoder_mask = None if bool(inside.all()) else inside[:, None, None]
        self._biases: dict[int, tuple[Tensor, Tensor]] = {}

    def lay_out(self, packed: Tensor) -> Tensor:
        """[N, H] → [B, Q, H], zeros in the padding."""
        if not self.ragged:
            return packed.unflatten(0, (self.rows, self.width))
        grid = packed.new_zeros(self.rows * self.width, packed.shape[1])
        return grid.index_copy(0, self.cells, packed).unflatten(0, (self.rows, self.width))

    def take_up(self, grid: Tensor) -> Tensor:
        """[B, Q, H] → [N, H]."""
        flat = grid.flatten(0, 1)
        return flat.index_select(0, self.cells) if self.ragged else flat

    def to_rows(self, packed: Tensor) -> Tensor:
        """[B, heads, Q, D], as it is."""
        return packed

    def to_packed(self, rows: Tensor) -> Tensor:
        """[B, heads, Q, D] → [B, Q, heads, D], the shape that transformers expects back."""
        return rows.transpose(1, 2).contiguous()

    def own(self, window: int | None) -> Tensor:
        if not self.bidirectional:
            return super().own(window)
        # padded queries see what real ones see, and nothing reads them
        seen = self.inside[:, None, :].expand(-1, self.width, -1)
        if window is None:
            return seen if self.ragged else seen[:1]
        index = torch.arange(self.width, device=self.starts.device)
        return seen & self.near(index[:, None] - index[None, :], window)

    def window(self, module: torch.nn.Module, given: int | None) -> int | None:
        # both ways a config names the tokens on each side; what attention is called with has one more, or not (T5Gemma)
        if given is None or not self.bidirectional:
            return given
        return int(module.config.sliding_window) + 1  # type: ignore[union-attr, arg-type]

    def near(self, distance: Tensor, window: int) -> Tensor:
        return (distance.abs() if self.bidirectional else distance) < window

    def with_bias(self, mask: Tensor | None, bias: Tensor | None, earlier: int) -> Tensor | None:
        """A mask with the biases that a model adds to its scores (T5), zero for keys that stand in front of its own.

        Args:
            mask: bool, broadcasts to [B, A, Q, earlier + own keys].
            bias: [1, A, Q, own keys]; layers share one tensor, so what is made of it is made once.

        Returns:
            what is added to the scores, or the mask as it is where there is no bias.
        """
        if bias is None:
            return mask
        if id(bias) not in self._biases:
            whole = F.pad(bias, (earlier, 0))
            self._biases[id(bias)] = (bias, whole if mask is None else whole.masked_fill(~mask, float("-inf")))
        return self._biases[id(bias)][1]  # the bias is kept beside it, so its id is no other's


def check_given(kind: Kind, lengths: list[int], starts: Tensor, states: Sequence[Tensor] | None) -> None:
    """Refuse positions and an encoder's states that a base of this kind has not.

    Raises:
        ValueError: says what it takes.
    """
    if kind != "causal" and bool(starts.any()):
        raise ValueError(f"rows of a base of kind {kind} start at position 0; learned keys take no positions")
    fits = states is None or (len(states) == len(lengths) and all(len(one) for one in states))
    if not fits or (states is None) is (kind == "seq2seq"):
        raise ValueError(
            "a sequence-to-sequence base, and no other, takes the encoder's states of each row, one at least"
        )


def run(base: Base, embeddings: Tensor, states: Sequence[Tensor] | None, how: tuple[Any, ...]) -> Hidden:
    """Run live tokens [N, H] through an encoder or a decoder with an encoder (see `Base.forward`).

    Args:
        how: the other arguments of `Call` up to `stop`.

    Raises:
        BaseModelError: blocks on a base that has no place for them.
    """
    call = Grid(
        *how,
        gradient_checkpointing=base.gradient_checkpointing,
        prepacked=base.prepacked,
        kv_size=base.shape.kv_size,
        bidirectional=base.bidirectional,
        encoder_hidden_states=None if states is None else [one.to(base.dtype) for one in states],
        own_mask=base.own_mask,
    )
    if call.own_mask and call.blocks:
        raise BaseModelError(NOTHING_IN_FRONT)
    # four dimensions tell transformers that a mask is made already; ours lives in the call
    made = call.inside.long() if call.own_mask else embeddings.new_zeros(1, 1, 1, 1)
    given: dict[str, Any] = {"inputs_embeds": call.lay_out(embeddings), "attention_mask": made}
    if call.first:
        call.states = given["inputs_embeds"]
    if call.encoder_hidden_states is not None:
        given.update(encoder_hidden_states=call.encoder_hidden_states, encoder_attention_mask=made, use_cache=False)
    with base.way(), running(call):
        out = base.body(**given)
    last = out.last_hidden_state if call.stop is None else call.kept
    assert last is not None
    return Hidden(call.take_up(last), call.recorded if call.record else None, call.even)
