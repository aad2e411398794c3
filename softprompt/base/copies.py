"""Copies of a model's modules over the same tensors: for branches, and for the proof that a base runs exactly.

The proof at load compares with a model in transformers' own eager attention, into which nothing of ours was put. It runs few
tokens: sliding windows are made narrow on both sides, and weights in half precision are held as fp32, one module at a time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from . import quantized
from .layers import Gate
from .norms import Norm
from .prepacked import Prepacked

HALVES = (torch.bfloat16, torch.float16)


def copy_modules(model: Any, own: Callable[[str], bool] = lambda name: False) -> Any:
    """A model of its own over the same tensors.

    Args:
        own: names of the parameters that the copy gets for itself; all others are shared.
    """
    shared: dict[int, Any] = {id(x): x for x in [*model.buffers(), *quantized.shared_tensors(model)]}
    shared.update((id(weight), weight) for name, weight in model.named_parameters() if not own(name))
    return copy.deepcopy(model, shared)


def untouched(model: Any) -> Any:
    """A copy in eager attention without gates and fast paths, also of a model that another base has taken over before."""
    plain = copy_modules(model)
    for module in plain.modules():
        forward = vars(module).get("forward")
        if isinstance(getattr(forward, "__self__", None), Gate | Norm | Prepacked):
            del module.forward
    set_attention(plain, "eager")
    return plain


def set_attention(model: Any, name: str) -> None:
    """Let a model attend by this function, where it can; where not, the check says so, and better than a warning would."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model.set_attn_implementation(name)
    finally:
        transformers_logging.set_verbosity(level)


def has_windows(model: Any, tokens: int) -> bool:
    """Whether a config names a sliding window of more tokens, whatever a family calls it."""
    return any(size > tokens for config in _configs(model) for size in _windows(config).values())


def narrow_windows(model: Any, tokens: int) -> None:
    """Let the sliding windows of a copy be `tokens` wide, and no wider than that.

    Masks read the configs, attention reads the modules. Both get narrower by the same number, because some families add
    one to the window on one side.
    """
    sizes = [size for config in _configs(model) for size in _windows(config).values() if size > tokens]
    for config in _configs(model):
        for name, size in _windows(config).items():
            setattr(config, name, min(size, tokens))
    for module in model.modules():
        for name, value in _windows(module).items():
            if near := [size for size in sizes if abs(size - value) <= 1]:
                setattr(module, name, value - near[0] + tokens)


def _configs(model: Any) -> list[Any]:
    found = [model.config, *(module.config for module in model.modules() if hasattr(module, "config"))]
    return list({id(config): config for config in found}.values())


def _windows(holder: Any) -> dict[str, int]:
    """Attributes that are sizes of windows; `sliding_window_pattern` and `max_window_layers` count layers."""
    return {
        name: value
        for name, value in vars(holder).items()
        if type(value) is int and value > 0 and "window" in name and "layer" not in name and "pattern" not in name
    }


@contextlib.contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Run a model in half precision as if its weights were held in fp32; those of a layer are made when it is called.

    Embeddings are looked up as they are, and only what is found is converted: a table is the largest of all weights.
    """
    handles: list[Any] = []
    for unit, modules in _units(model):
        if isinstance(unit, nn.Embedding):
            handles.append(unit.register_forward_hook(_widen))
        else:
            wide = _Wide(modules)
            handles.append(unit.register_forward_pre_hook(wide.enter))
            handles.append(unit.register_forward_hook(wide.leave, always_call=True))
    compute = [module for module in model.modules() if getattr(module, "compute_dtype", None) in HALVES]
    before = [module.compute_dtype for module in compute]  # of bitsandbytes' 4 bits
    try:
        for module in compute:
            module.compute_dtype = torch.float32  # type: ignore[assignment]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, dtype in zip(compute, before, strict=True):
            module.compute_dtype = dtype


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """What is converted at once, when it is called: (module, modules in it).

    A layer is converted as a whole, because its code may look at any of its weights. Outside of layers each module is
    converted alone.
    """
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child, list(child.modules())
        else:
            yield from _units(child)
    if module._parameters or module._buffers:
        yield module, [module]


class _Wide:
    """The weights of some modules as fp32 while one of them runs."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._held: list[tuple[dict[str, Any], str, Tensor]] = []

    def enter(self, unit: nn.Module, args: Any) -> None:
        """Convert them."""
        for module in self._modules:
            for held in cast(list[dict[str, Any]], [module._parameters, module._buffers]):
                for name, x in held.items():
                    if x is not None and x.dtype in HALVES:
                        self._held.append((held, name, x))
        for held, name, x in self._held:
            held[name] = x.float()

    def leave(self, unit: nn.Module, args: Any, out: Any) -> None:
        """Put them back."""
        for held, name, x in self._held:
            held[name] = x
        self._held.clear()


def _widen(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return out.float()
