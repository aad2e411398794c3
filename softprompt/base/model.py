"""The base: a pretrained causal model and its tokenizer, loaded once, frozen, never changed.

`Base.forward` is the only place where the model runs. It takes packed live tokens and blocks of earlier K/V (see
`attention.py`) and returns hidden states; `Base.logits` applies the LM head to those that are scored, and no others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from ..config import suggest
from ..errors import BaseModelError
from ..types import Progress, ignore_progress, megabytes
from . import bundled, quantized
from .attention import KV, NAME, Block, Call
from .fingerprint import model_digest, tokenizer_digest
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
        from .check import check_exact, check_supported

        check_supported(model.config, name)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        model.requires_grad_(False)
        model.eval()  # int8 on the CPU and dropout both compute something else in train()
        model.set_attn_implementation(NAME)
        make_packable(model)
        self.quantization, self.isolated = quantized.take_over(model, name)
        if model.device.type == "cpu":
            keep_freed_memory()
        self._packed = False
        self.config = model.config.get_text_config(decoder=True)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        with quantized.whole(model):
            self.shape = check_exact(self)
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
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` …
            progress: told while a bundled base is fetched, the first time.
            quantization: hold the linear layers' weights as `int8` or `nf4` (see `quantized.py`); `dtype` is then that of
                everything else. The digest stays that of the checkpoint, so artifacts go from one to the other.
            isolated: False lets int8 work as bitsandbytes does, where a row's result depends on the rows beside it.

        Raises:
            BaseModelError: nothing of that name, no such device, not a causal model, or not exact on the engine.
            MissingExtraError: a quantisation without bitsandbytes.
        """
        if dtype not in DTYPES:
            raise BaseModelError(f"dtype {dtype!r} is not known{suggest(dtype, DTYPES)}")
        quantized.check_asked(quantization, isolated)
        where = _device(device)
        is_bundled = str(name) in bundled.BUNDLED
        source = str(bundled.get(str(name), megabytes(f"fetching {name}", progress))) if is_bundled else str(name)
        was_bar = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(source)
            _refuse_other_kinds(config, str(name))
            tokenizer = AutoTokenizer.from_pretrained(source)
            options: dict[str, Any] = {"dtype": DTYPES[dtype]}
            digest = None
            if quantization is not None:
                if hasattr(config, "quantization_config"):
                    raise ValueError(f"it is quantised already; leave quantization {quantization!r} out")
                options["quantization_config"] = quantized.loading(quantization, isolated, DTYPES[dtype])
                # the checkpoint as it is, for its digest; a few values of each tensor are read from the mapped file
                digest = model_digest(AutoModelForCausalLM.from_pretrained(source, dtype="auto"))
            if quantization is not None or hasattr(config, "quantization_config"):
                options["device_map"] = {"": where}  # such models cannot be moved afterwards
            model = AutoModelForCausalLM.from_pretrained(source, **options)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise BaseModelError(_not_loadable(str(name), error)) from error
        finally:
            if was_bar:
                transformers_logging.enable_progress_bar()
        if "device_map" not in options:
            model.to(where)  # type: ignore[arg-type]
        return cls(model, tokenizer, str(name), digest)

    @property
    def max_positions(self) -> int:
        """Longest sequence that the position encoding was made for."""
        return int(getattr(self.config, "max_position_embeddings", None) or 1 << 20)

    def for_small_steps(self) -> Base:
        """The same base, the same weights, with its matrix products made for few tokens at a time (see `packed.py`)."""
        same = copy.copy(self)
        same._packed = True
        return same

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
    ) -> Hidden:
        """Run live tokens through all layers.

        Args:
            embeddings: [N, H] of all rows' live tokens, end to end.
            lengths: live tokens of each row (sum = N).
            starts: [B] position of each row's first live token.
            blocks: earlier keys and values, in order (see `Block`).
            record: also return the live tokens' K/V.
        """
        call = Call(lengths, starts, blocks, record)
        with packed(self._packed):
            out = self._decoder(
                inputs_embeds=embeddings[None].to(self.dtype),
                position_ids=call.positions[None],
                # four dimensions tell transformers that the mask is made already; ours lives in the call
                attention_mask=embeddings.new_zeros(1, 1, 1, 1),
                use_cache=False,
                softprompt=call,
            )
        return Hidden(out.last_hidden_state[0], call.recorded if record else None)

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
        with packed(self._packed):
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
        parts = [str(self.dtype), self.quantization, None if self.isolated else "batched"]
        return " ".join(part for part in parts if part)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BaseModelError(f"device {name!r} cannot be used ({reason}); take auto, cpu or cuda") from None
    return device


def _refuse_other_kinds(config: PretrainedConfig, name: str) -> None:
    architectures = list(getattr(config, "architectures", None) or [])
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    causal = any(item in known for item in architectures) if architectures else True
    if getattr(config, "is_encoder_decoder", False) or not causal:
        kind = architectures[0] if architectures else config.model_type
        raise BaseModelError(f"base {name!r} is a {kind}, not a causal language model; take one such as 'smollm2'")


def _not_loadable(name: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(name).is_dir():
        return f"base {name!r}: the folder does not hold a loadable model ({reason})"
    return (
        f"base {name!r} is neither a bundled name{suggest(name, bundled.BUNDLED)}, a local folder, nor a reachable "
        f"hub id ({reason})"
    )
