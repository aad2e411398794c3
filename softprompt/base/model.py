"""The base: a pretrained model and its tokenizer, loaded once, frozen, never changed.

`Base.forward` is the only place where the model runs. It takes packed live tokens and blocks of earlier K/V (see
`attention.py`) and returns hidden states; `Base.logits` applies the LM head to those that are scored, and no others.
What kinds of models there are, and where in them live tokens run, is in `families.py`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BaseModelError
from ..surroundings import plain_torch
from ..types import Ids, Progress, ignore_progress
from . import quantized
from .abilities import Abilities
from .attention import KV, Block, Call, LivePrefix, running
from .check import check_base
from .copies import copy_modules, set_attention, untouched
from .earlier import EarlierNames
from .families import Kind, find_body, find_config, find_embeddings, kind_of, positions_of, starts_of
from .fingerprint import Checkpoint, Identity
from .grid import check_given, run
from .groups import Ordered, order
from .heads import make_head
from .interface import NAME
from .layers import find_layers
from .memory import keep_freed_memory
from .norms import make_norms_fast
from .numerics import Numerics
from .prepacked import make_prepackable, prepacked
from .shape import UNKNOWN, BaseShape, Hidden
from .supported import check_supported, check_tokens, no_embedding


class Base(Abilities, EarlierNames, Numerics):
    """A frozen language model, or encoder, with its tokenizer."""

    @plain_torch()
    def __init__(
        self, model: Any, tokenizer: Any, name: str = "in-memory", checkpoint: Checkpoint | None = None
    ) -> None:
        """Take a loaded model over: freeze it, put it in eval(), route its attention through ours and check the result.

        Args:
            model: a language model, encoder or sequence-to-sequence model of transformers, also in bitsandbytes' int8 or nf4.
            checkpoint: what is known of the files that the model was read from.

        Attributes:
            kind: which of these it is (see `families.py`).
            mask_id: the token at which a masked model guesses a word; None in other kinds.
            start_ids: the tokens with which a sequence-to-sequence model's decoder begins; none in other kinds.
            quantization, isolated: see `load`.
            own_mask: its layers attend by themselves, so nothing can be put in front of a row (see `grid.py`).

        Raises:
            BaseModelError: the engine would not be exact on this model.
        """
        check_supported(model, name)
        check_tokens(tokenizer, len(model.get_input_embeddings().weight), name)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.kind: Kind = kind_of(model, name)
        self.mask_id: int | None = tokenizer.mask_token_id if self.kind == "masked" else None
        self.start_ids: Ids = starts_of(model, name) if self.has_decoder else ()
        model.requires_grad_(False)
        model.eval()  # int8 on the CPU and dropout both compute something else in train()
        self.quantization, self.isolated = quantized.take_over(model, name)
        plain = untouched(model)
        set_attention(model, NAME)
        make_prepackable(model)
        make_norms_fast(model)
        keep_freed_memory(model.device)
        self.prepacked = self.gradient_checkpointing = self._of_encoder = self.own_mask = False
        self.autocast: torch.dtype | None = None
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self.config: Any = find_config(model, self.kind)
        self.shape: BaseShape = UNKNOWN  # until the check
        self.rewire()
        self.gated, self._rotary, self._proven_encoder = check_base(self, plain)
        self.identity = Identity(model, tokenizer, name, checkpoint)
        self.digest, self.tokenizer_digest = self.identity.model, self.identity.tokenizer

    @classmethod
    def load(
        cls,
        name: str | Path = "smollm2",
        dtype: str = "fp32",
        device: str = "auto",
        progress: Progress = ignore_progress,
        quantization: str | None = None,
        isolated: bool = True,
        kind: str | None = None,
    ) -> Base:
        """Load by bundled name (`smollm2`, `minilm`), local folder, GGUF file or hub id.

        Args:
            dtype: `fp32` or `bf16` (or `fp16` on a GPU).
            device: `auto` (a GPU if there is one), `cpu`, `cuda` (each of several processes its own), `cuda:1` …
            progress: called while a bundled base is fetched for the first time.
            quantization: store the linear layers' weights as `int8` or `nf4` (see `quantized.py`); `dtype` is then the
                type of everything else. The digest stays that of the checkpoint, so artifacts fit with and without it.
            isolated: False uses bitsandbytes' own int8, where a row's result depends on the other rows of its batch.
            kind: `causal`, `masked`, `encoder` or `seq2seq`, if the config says another (e.g. a masked model).

        Raises:
            BaseModelError: no such base or device, no text model, no model of that `kind`, or the engine is not exact
                on it.
            MissingExtraError: a quantisation without bitsandbytes.
        """
        from .loading import load_model

        return cls(*load_model(str(name), dtype, device, progress, quantization, isolated, kind))

    @property
    def max_positions(self) -> int:
        """Longest sequence that the position encoding was made for."""
        return positions_of(self.config, self.body)

    @property
    def encoder(self) -> Base:
        """The encoder side of a sequence-to-sequence base, as a base of kind `encoder`; it follows views and branches.

        Raises:
            BaseModelError: a base of another kind.
        """
        if not self.has_decoder:
            raise BaseModelError(f"base {self.name!r} is of kind {self.kind}: it has no encoder beside a decoder")
        side = self.encoder_side()
        assert self._proven_encoder is not None
        side.shape, side.gated = self._proven_encoder
        return side

    @property
    def reader(self) -> Base:
        """The base that reads a row's text: the encoder of a sequence-to-sequence base, else the base itself."""
        return self.encoder if self.has_decoder else self

    def encoder_side(self) -> Base:
        """The encoder before its sizes are known, for the check."""
        side = copy.copy(self)
        side.kind, side._of_encoder, side.start_ids = "encoder", True, ()
        side.config = find_config(self.model, self.kind, of_encoder=True)
        side.rewire()
        return side

    def view(
        self,
        prepacked: bool | None = None,
        gradient_checkpointing: bool | None = None,
        autocast: torch.dtype | None = None,
    ) -> Base:
        """The same base, the same weights, run another way. What is not given stays as it is.

        Args:
            prepacked: use matrix products made for few tokens at a time (see `prepacked.py`).
            gradient_checkpointing: each layer is computed again in the backward instead of kept.
            autocast: bf16 or fp16: matrix products in this type, sums and weights in the base's own.

        Raises:
            BaseModelError: this architecture's layers cannot be computed again one by one.
        """
        if gradient_checkpointing and not self.gated:
            raise BaseModelError(f"base {self.name!r}: gradient checkpointing does not reach its layers")
        same = copy.copy(self)
        given = {"prepacked": prepacked, "gradient_checkpointing": gradient_checkpointing, "autocast": autocast}
        vars(same).update({name: value for name, value in given.items() if value is not None})
        return same

    def __deepcopy__(self, memo: dict[int, Any]) -> Base:
        """Itself: nothing ever changes it, and its weights need no second place."""
        return self

    def same(self, other: Base) -> bool:
        """Whether the other is the same model, run the same way."""
        mine, theirs = ((b.kind, b.prepacked, b.gradient_checkpointing, b.autocast) for b in (self, other))
        return self.model is other.model and mine == theirs

    def branch(self, own: Callable[[str], bool] = lambda name: False) -> Base:
        """The same frozen weights in modules of their own, so that adapters can be added without touching this base.

        Args:
            own: names of parameters of which the branch gets its own, trainable copy; all others are shared.
        """
        other = copy.copy(self)
        other.model = copy_modules(self.model, own)
        other.rewire()
        return other

    def rewire(self) -> None:
        """Find body, embeddings and head again after modules were replaced."""
        self.body = find_body(self.model, self.kind, self._of_encoder)
        self._embeddings = find_embeddings(self.model, self.body, self.kind, self._of_encoder)
        self._head = make_head(self.model, self.kind, self.config)

    def layer(self, index: int) -> torch.nn.Module:
        """The layer of that index.

        Raises:
            BaseModelError: the layers of this architecture cannot be found.
        """
        layers = find_layers(self.body, self.shape.layers)
        if layers is None:
            raise BaseModelError(f"base {self.name!r}: its layers are not found; leave out method.layers")
        return layers[index]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [N] → embeddings [N, H], through the model's own layer (some models scale in it).

        Raises:
            BaseModelError: a token that the base does not have, such as a special one of its tokenizer in a template.
        """
        try:
            return self._embeddings(ids)
        except IndexError:
            raise no_embedding(self.name, int(ids.max())) from None

    def forward(
        self,
        embeddings: Tensor,
        lengths: list[int],
        starts: Tensor,
        blocks: Sequence[Block] = (),
        record: bool = False,
        first: int = 0,
        stop: int | None = None,
        encoder_hidden_states: Sequence[Tensor] | None = None,
        live_prefix: LivePrefix | None = None,
    ) -> Hidden:
        """Run live tokens through all layers (in a sequence-to-sequence base: the decoder's).

        Args:
            embeddings: [N, H] of all rows' live tokens, end to end; with `first` > 0 the states that enter that layer.
            lengths: live tokens of each row (sum = N).
            starts: [B] position of each row's first live token; 0 in bases that are not causal.
            blocks: earlier keys and values, in order (see `Block`).
            record: also return the live tokens' K/V.
            first, stop: only run these layers; with `stop` the states that enter it are returned, without the final norm.
            encoder_hidden_states: for each row [m_b, H]; only in a sequence-to-sequence base.
            live_prefix: a shared prefix that runs with the rows of a causal base: its tokens come first in
                `embeddings`, and are not in the result.

        Raises:
            ValueError: positions or encoder states that this kind of base does not have.
        """
        check_given(self.kind, lengths, starts, encoder_hidden_states)
        inputs = embeddings.to(self.dtype)
        if self.kind != "causal":
            return run(self, inputs, encoder_hidden_states, (lengths, starts, blocks, record, first, stop))
        rows = Ordered(inputs, lengths, starts) if record else order(inputs, lengths, starts, blocks, live_prefix)
        states = rows.inputs[None] if first else None
        how = (blocks, record, first, stop, states, self.gradient_checkpointing, self.prepacked)
        call = Call(rows.lengths, rows.starts, *how, rows.cuts, live_prefix, self.shape.kv_size)
        with self.way(), running(call):
            out = self.body(
                inputs_embeds=rows.inputs[None],
                position_ids=call.positions[None],
                attention_mask=embeddings.new_zeros(1, 1, 1, 1),  # with four dimensions it counts as made already
                use_cache=False,
            )
        last = out.last_hidden_state if stop is None else call.kept
        assert last is not None
        return Hidden(rows.restore(last[0]), call.recorded if record else None, call.even)

    @contextlib.contextmanager
    def way(self) -> Iterator[None]:
        """How the model's own code runs meanwhile."""
        with (
            prepacked(self.prepacked),
            torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None),
        ):
            yield

    def rotate(self, kv: Sequence[KV] | Tensor, by: Tensor) -> Sequence[KV] | Tensor:
        """Rotate keys by `by` [B] positions, as `Rotary.rotate`; unchanged where positions are no rotations of keys."""
        return kv if self._rotary is None else self._rotary.rotate(kv, by)

    @property
    def rotated_in_format_1(self) -> bool:
        """Whether artifacts of format 1 have rotated keys here; that version did not know some families' rotations."""
        return self._rotary is None or self._rotary.since_format_1

    def logits(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Hidden states [K, H] → logits in fp32 [K, V], or of some tokens [K, C], by all that follows the last layer.

        Raises:
            BaseModelError: an encoder, which has no language-model head.
        """
        if self._head is None:
            what = "use a causal, masked or seq2seq base, or a method with a head of its own"
            raise BaseModelError(f"base {self.name!r} has no language-model head; {what}")
        with self.way():
            return self._head(hidden, tokens)
