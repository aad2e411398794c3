"""What keeps PEFT from the base: its weights stay as they are, and settings are tried where nothing is allocated."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.artifact.files import one_line
from softprompt.base import Base
from softprompt.errors import ConfigError


def outline(base: Base) -> PreTrainedModel:
    """The base's model without numbers (torch's meta device), for what only needs names and shapes."""
    own = [*base.model.parameters(), *base.model.buffers()]
    memo: dict[int, Tensor] = {
        id(value): nn.Parameter(value.to("meta"), False) if isinstance(value, nn.Parameter) else value.to("meta")
        for value in own
    }
    with torch.device("meta"):
        model: PreTrainedModel = copy.deepcopy(base.model, memo)
    return model


def own_modules(model: nn.Module) -> Iterator[nn.Module]:
    """PEFT's tuner layers and what they hold, without the base's layers that they stand round."""
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            inside = getattr(layer, "base_layer", None)
            base = {id(module) for module in inside.modules()} if isinstance(inside, nn.Module) else set()
            yield from (module for module in layer.modules() if id(module) not in base)


@contextlib.contextmanager
def kept_frozen(base: Base) -> Iterator[None]:
    """PEFT marks what it trains, which may be the base's own weight before the branch has a copy of it."""
    try:
        yield
    finally:
        base.model.requires_grad_(False)


@contextlib.contextmanager
def base_kept(branch: Base, name: str) -> Iterator[None]:
    """Undo and refuse what replaces the base's own weights, which the branch shares with everybody.

    Raises:
        ConfigError: a weight was replaced.
    """
    before = [(weight, weight.data) for weight in branch.model.parameters()]
    yield
    changed = [(weight, data) for weight, data in before if weight.data_ptr() != data.data_ptr()]
    for weight, data in changed:
        weight.data = data
    if changed:
        raise ConfigError(
            f"PEFT's {name} with these settings starts by changing the base's own weights, which must stay frozen here; "
            "use another start"
        )


def first_line(error: Exception) -> str:
    """What an error of PEFT's says, as one bounded line."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0], 300)


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Without PEFT's advice on how it might be called otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
