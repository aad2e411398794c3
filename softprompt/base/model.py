"""The base: a pretrained causal model and its tokenizer, loaded once, frozen, never changed.

`Base.forward` is the only place where the model runs. It takes packed live tokens and blocks of earlier K/V (see
`attention.py`) and returns hidden states; `Base.logits` applies the LM head to those that are scored, and no others.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BaseModelError
from ..types import Progress, ignore_progress
from . import quantized
from .attention import KV, NAME, Block, Call
from .fingerprint import model_digest, tokenizer_digest
from .layers import find_layers, gate_layers
from .memory import keep_freed_memory
from .packed import make_packable, packed
from .rotary import find_rotary

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BaseShape:
    """Sizes that an artifact must fit: L layers, G key/value heads, D head size, H hidden size, V vocabulary."""

    layers: int
    kv_heads: int
    head_size: int
    hidden_size: int
    vocab_size: int

    @property
    def kv_per_token(self) -> int:
        """Numbers (not bytes) in one token's keys and values over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_size

    def as_dict(self) -> dict[str, int]:
        """As written to manifests."""
        return asdict(self)


@dataclass(frozen=True)
class Hidden:
    """What a forward gives: last hidden states [N, H] of the packed live tokens and, if recorded, their K/V.

    `kv`: per layer [2, B, G, Q, D], right-padded.
    """

    states: Tensor
    kv: list[Tensor] | None


class Base:
    """A frozen causal language model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, name: str = "in-memory", digest: str | None = None) -> None:
        """Take a loaded model over: freeze it, put it in eval(), route its attention through ours and check the result.

        Args:
            model: any causal model of transformers, also one that bitsandbytes has quantised as int8 or nf4.
            digest: of the checkpoint, where the model's own weights are not it any more (default: `model_digest(model)`).

        Attributes:
            quantization, isolated: see `load`.

        Raises:
            BaseModelError: the engine would not be exact on this architecture.
        """
        from .check import check_exact, check_layers, check_supported

        check_supported(model.config, name)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        model.requires_grad_(False)
        model.eval()  # int8 on the CPU and dropout both compute something else in train()
        model.set_attn_implementation(NAME)
        make_packable(model)
        self.quantization, self.isolated = quantized.take_over(model, name)
        if model.device.type == "cpu":
            keep_freed_memory()
        self.packed = self.recompute = False
        self.autocast: torch.dtype | None = None
        self.config = model.config.get_text_config(decoder=True)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        gated = gate_layers(self._decoder, self.config.num_hidden_layers)
        with quantized.whole(model):
            self.shape = check_exact(self)
            self.gated = gated and check_layers(self)
            self._rotary = find_rotary(self)
        self.digest = digest or model_digest(model)
        self.tokenizer_digest = tokenizer_digest(tokenizer)

    @classmethod
    def load(
        cls,
        name: str | Path = "smollm2",
        dtype: str = "fp32",
        device: str = "auto",
        progress: Progress = ignore_progress,
        quantization: str | None = None,
        isolated: bool = True,
    ) -> Base:
        """Load by bundled name (`smollm2`), local folder or hub id.

        Args:
            dtype: `fp32` or `bf16` (or `fp16` on a GPU).
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` … Of several processes each takes its own GPU
                for `auto` and `cuda`.
            progress: told while a bundled base is fetched, the first time.
            quantization: hold the linear layers' weights as `int8` or `nf4` (see `quantized.py`); `dtype` is then that of
                everything else. The digest stays that of the checkpoint, so artifacts go from one to the other.
            isolated: False lets int8 work as bitsandbytes does, where a row's result depends on the rows beside it.

        Raises:
            BaseModelError: nothing of that name, no such device, not a causal model, or not exact on the engine.
            MissingExtraError: a quantisation without bitsandbytes.
        """
        from .loading import load_model

        return cls(*load_model(str(name), dtype, device, progress, quantization, isolated))

    @property
    def max_positions(self) -> int:
        """Longest sequence that the position encoding was made for."""
        return int(getattr(self.config, "max_position_embeddings", None) or 1 << 20)

    def view(
        self, packed: bool | None = None, recompute: bool | None = None, autocast: torch.dtype | None = None
    ) -> Base:
        """The same base, the same weights, run another way. What is not given stays as it is.

        Args:
            packed: its matrix products made for few tokens at a time (see `packed.py`).
            recompute: each layer is computed again in the backward instead of kept (gradient checkpointing).
            autocast: bf16 or fp16: matrix products in this type, sums and weights in the base's own.

        Raises:
            BaseModelError: this architecture's layers cannot be computed again one by one.
        """
        if recompute and not self.gated:
            raise BaseModelError(
                f"base {self.name!r}: gradient checkpointing does not reach this architecture's layers"
            )
        same = copy.copy(self)
        same.packed = self.packed if packed is None else packed
        same.recompute = self.recompute if recompute is None else recompute
        same.autocast = autocast or self.autocast
        return same

    def same(self, other: Base) -> bool:
        """Whether the other is the same model, run the same way."""
        mine, theirs = ((b.model, b.packed, b.recompute, b.autocast) for b in (self, other))
        return mine[0] is theirs[0] and mine[1:] == theirs[1:]

    def branch(self, own: Callable[[str], bool] = lambda name: False) -> Base:
        """The same frozen weights under modules of their own, so that adapters can be put in without touching this base.

        Args:
            own: names of the parameters that the branch gets a copy of, which may be trained; all others are shared.
        """
        shared: dict[int, Any] = {id(x): x for x in [*self.model.buffers(), *quantized.shared_tensors(self.model)]}
        shared.update((id(weight), weight) for name, weight in self.model.named_parameters() if not own(name))
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model, shared)
        other.rewire()
        return other

    def rewire(self) -> None:
        """Look again for decoder and head, after modules were put in."""
        self._decoder, self._head = self.model.get_decoder(), self.model.get_output_embeddings()

    def layer(self, index: int) -> torch.nn.Module:
        """The decoder's layer of that index.

        Raises:
            BaseModelError: this architecture keeps its layers in a way that we do not know.
        """
        layers = find_layers(self._decoder, self.shape.layers)
        if layers is None:
            raise BaseModelError(f"base {self.name!r}: its layers are not found; leave out method.layers")
        return layers[index]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [N] → embeddings [N, H], through the model's own layer (some models scale in it)."""
        return self.model.get_input_embeddings()(ids)

    def forward(
        self,
        embeddings: Tensor,
        lengths: list[int],
        starts: Tensor,
        blocks: Sequence[Block] = (),
        record: bool = False,
        first: int = 0,
        stop: int | None = None,
    ) -> Hidden:
        """Run live tokens through all layers.

        Args:
            embeddings: [N, H] of all rows' live tokens, end to end; the states that enter layer `first` where that is not 0.
            lengths: live tokens of each row (sum = N).
            starts: [B] position of each row's first live token.
            blocks: earlier keys and values, in order (see `Block`).
            record: also return the live tokens' K/V.
            first, stop: only run these layers; with `stop` the states that enter it are returned, without the final norm.
        """
        inputs = embeddings[None].to(self.dtype)
        states = inputs if first else None
        call = Call(lengths, starts, blocks, record, first, stop, states, self.recompute, self.packed)
        with self._way():
            out = self._decoder(
                inputs_embeds=inputs,
                position_ids=call.positions[None],
                # four dimensions tell transformers that the mask is made already; ours lives in the call
                attention_mask=embeddings.new_zeros(1, 1, 1, 1),
                use_cache=False,
                softprompt=call,
            )
        last = out.last_hidden_state if stop is None else call.kept
        assert last is not None
        return Hidden(last[0], call.recorded if record else None)

    @contextlib.contextmanager
    def _way(self) -> Iterator[None]:
        """How the model's own code runs meanwhile."""
        with packed(self.packed), torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            yield

    def turn(self, kv: Sequence[KV] | Tensor, by: Tensor) -> Sequence[KV] | Tensor:
        """Move keys onwards by `by` [B] positions; the same where positions are no rotations of keys (see `rotary.py`).

        Args:
            kv: per layer keys and values [b, G, S, D], b = B or 1.

        Returns:
            per layer keys [B, G, S, D] and values [b, G, S, D].
        """
        return kv if self._rotary is None else self._rotary.turn(kv, by)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [K, H] → logits [K, V] in fp32, with the scalings that some families apply after the head."""
        with self._way():
            logits = self._head(hidden).float()
        if (scale := getattr(self.config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (divisor := getattr(self.config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / divisor
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    @property
    def label_of_dtype(self) -> str:
        """How most weights are held: `fp32`, `bf16`, `fp16`, `int8` or `nf4`."""
        return self.quantization or next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def arithmetic(self) -> str:
        """All that decides the numbers beside the checkpoint; what was computed under one serves no other."""
        autocast = f"autocast {self.autocast}" if self.autocast else None
        parts = [str(self.dtype), self.quantization, None if self.isolated else "batched", autocast]
        return " ".join(part for part in parts if part)
