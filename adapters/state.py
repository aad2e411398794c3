"""What PEFT saves of a model and puts back into it; each of its tuners refuses settings in its own way."""

from __future__ import annotations

from collections.abc import Mapping

import peft
import torch
from peft import PeftModel
from torch import Tensor, nn

from softprompt.adapters.guards import first_line, quiet_peft
from softprompt.artifact.checks import check_number
from softprompt.base import Base
from softprompt.errors import ConfigError


def saved(model: PeftModel, kind: str) -> dict[str, Tensor]:
    """PEFT's state dict, as it lies in the model.

    Args:
        kind: PEFT's name of the tuner, for messages.

    Raises:
        ConfigError: PEFT cannot save these settings (DELORA does not find its own tensors with `bias`).
    """
    try:
        with quiet_peft():
            return dict(peft.get_peft_model_state_dict(model))
    except Exception as error:
        raise ConfigError(f"PEFT cannot save {kind} with these settings ({first_line(error)}); change them") from error


def put(model: PeftModel, tensors: Mapping[str, Tensor], kind: str) -> None:
    """Fill the model with a state dict of PEFT's.

    Raises:
        ConfigError: PEFT cannot (of modules to save that lie in each other it does not find its own tensors).
    """
    try:
        with quiet_peft():
            peft.set_peft_model_state_dict(model, dict(tensors))
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"PEFT cannot load {kind} with these settings ({reason}); change them") from error


def check_goes_round(model: PeftModel, kind: str) -> None:
    """What is trained must be saved and found again at the end, so this is tried before.

    Raises:
        ConfigError: PEFT cannot save it or load it, or there are more tensors than an artifact holds.
    """
    tensors = saved(model, kind)
    check_number(tensors, f"PEFT's {kind}")
    put(model, tensors, kind)


def asks_numbers(error: Exception) -> bool:
    """Whether an error only says that a tuner reads numbers as it begins, which an outline does not have."""
    return isinstance(error, RuntimeError) and "meta" in str(error).lower()


@torch.no_grad()
def check_merged(model: nn.Module, learned: Tensor, base: Base, kind: str) -> None:
    """A merged model must have the base's weights by name, and compute what it computed with PEFT's modules.

    Args:
        learned: the logits (of encoders the states) of `probe` before the merge.

    Raises:
        ConfigError: PEFT left modules of its own in it, or changed a weight twice that two layers share.
    """
    why = "modules of PEFT's stay in it" if set(model.state_dict()) != set(base.model.state_dict()) else None
    if why is None and not base.quantization:
        off, scale = (probe(model, base) - learned).abs().max(), learned.abs().max().clamp(min=1)
        if not off <= scale * (1e-3 if base.dtype == torch.float32 else 0.2):  # merged weights are rounded
            why = "the merged model computes something else, as layers of it share a weight"
    if why:
        raise ConfigError(f"PEFT cannot merge {kind} with these settings ({why}); serve the artifact instead")


@torch.no_grad()
def probe(model: nn.Module, base: Base) -> Tensor:
    """What a model gives for a few tokens from all over the vocabulary, in fp32."""
    ids = torch.linspace(0, base.shape.vocab_size - 1, 16, device=base.device).long()[None]
    found = model(input_ids=ids, **({"decoder_input_ids": ids} if base.has_decoder else {}))
    return (found.last_hidden_state if not base.has_words else found.logits).float()
