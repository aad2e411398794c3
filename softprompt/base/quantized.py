"""Quantised bases: what knows bitsandbytes, which is imported only where one is asked for.

`int8` (Dettmers et al. 2022, arXiv:2208.07339): 8 bits a weight, one scale per output. By default (`isolated`)
activations are not rounded (`int8.py`). So a row never depends on the other rows of its batch, and CPU and GPU compute
the same. With `isolated: false` bitsandbytes rounds activations too, and spares columns that it chooses over the whole
batch. There the other rows moved a logit by up to 2.5 of a spread of 5. `nf4` (Dettmers et al. 2023, arXiv:2305.14314):
4 bits a weight, one scale per 64 of them, isolated always. Embeddings, norms, biases and the LM head stay as they are
in both.

Measured on the bundled base, KL of the next token from fp32 (4 texts): int8 0.008, not isolated 0.035, nf4 0.87.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..config import suggest
from ..errors import BaseModelError, MissingExtraError
from .int8 import multiply_whole

QUANTIZATIONS = ("int8", "nf4")
_OUTLIER = 6.0  # activations above it are spared by bitsandbytes' own int8 (its default)
_HARMLESS = {
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",  # once per layer and call
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # an optional kernel that we do not use
}


def check_asked(quantization: str | None, isolated: bool) -> None:
    """Refuse (BaseModelError) an unknown quantisation, and `isolated=False` for another than int8."""
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise BaseModelError(f"quantization {quantization!r} is not known{suggest(str(quantization), QUANTIZATIONS)}")
    if not isolated and quantization != "int8":
        raise BaseModelError("isolated=False is for quantization='int8'; rows of all other bases never meet")


def loading(quantization: str, isolated: bool, dtype: torch.dtype) -> Any:
    """The `quantization_config` for transformers.

    Args:
        dtype: what activations are held in, and what nf4 weights are multiplied in.

    Raises:
        MissingExtraError: bitsandbytes (or accelerate, which transformers loads through) is not installed.
    """
    quiet()
    try:
        import accelerate  # noqa: F401
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        extra = "pip install 'softprompt[quant]'"
        raise MissingExtraError(f"quantization {quantization!r} needs {error.name}: {extra}") from error
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0 if isolated else _OUTLIER)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def take_over(model: Any, name: str) -> tuple[str | None, bool]:
    """Find out how a model is quantised and settle how its layers multiply, before it runs for the first time.

    Returns:
        `int8`, `nf4` or None, and whether its rows never depend on each other.

    Raises:
        BaseModelError: quantised in a way that is not exact here.
    """
    if getattr(model, "is_loaded_in_8bit", False):
        quiet()
        layers = _layers(model, "Linear8bitLt")
        for layer in layers:
            _check_held(layer, "CB", "int8", name)
            if layer.weight.CB is not None:  # else the first forward moves it, and copies made before have nothing
                layer.init_8bit_state()
        isolated = all(layer.state.threshold == 0 for layer in layers)
        if isolated:
            multiply_whole(layers)
        return "int8", isolated
    if getattr(model, "is_loaded_in_4bit", False):
        quiet()
        for layer in _layers(model, "Linear4bit"):
            _settle_4bit(layer, name)
        return "nf4", True
    return None, True


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Activations are not rounded meanwhile, so that a check of the architecture is not about the company of rows."""
    layers = [layer for layer in _layers(model, "Linear8bitLt") if "forward" not in vars(layer)]
    multiply_whole(layers)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def shared_tensors(module: nn.Module) -> list[Any]:
    """What quantised layers hold outside their parameters: tensors, and bitsandbytes' `QuantState`s.

    Put into the memo of `copy.deepcopy` beside all parameters, they let a copy share every weight.
    """
    held: list[Any] = []
    for layer in _layers(module, "Linear8bitLt"):
        held += [layer.state.CB, layer.state.SCB, layer.weight.CB, layer.weight.SCB]
    for layer in _layers(module, "Linear4bit"):
        held += [layer.quant_state, layer.weight.quant_state]
    return list({id(item): item for item in held if item is not None}.values())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights, buffers and scales, each once."""
    found: list[Any] = [*model.parameters(), *model.buffers(), *shared_tensors(model)]
    for state in [item for item in found if not isinstance(item, Tensor)]:
        found += [*vars(state).values(), *getattr(state.state2, "__dict__", {}).values()]
    return sum({x.data_ptr(): x.numel() * x.element_size() for x in found if isinstance(x, Tensor)}.values())


def _check_held(layer: Any, what: str, quantization: str, name: str) -> None:
    """Refuse (BaseModelError) a layer whose weights its config.json, and nothing else, calls quantised."""
    if not hasattr(layer.weight, what):
        raise BaseModelError(
            f"base {name!r}: its config.json says that its weights are quantised, but they are plain numbers; remove "
            f"quantization_config from it, and give quantization: {quantization}"
        )


def _settle_4bit(layer: Any, name: str) -> None:
    _check_held(layer, "quant_state", "nf4", name)
    state = layer.weight.quant_state
    if state.quant_type != "nf4":
        raise BaseModelError(f"base {name!r} is quantised as {state.quant_type}; use int8 or nf4")
    if layer.weight.device.type != "cpu":
        return
    if layer.in_features % state.blocksize:  # it would crash, or give other numbers
        sizes = f"has a layer of {layer.in_features} inputs; nf4 on the CPU needs multiples of {state.blocksize}"
        raise BaseModelError(f"base {name!r} {sizes}; use int8")
    if getattr(state, "packing_format_for_cpu", False):
        raise BaseModelError(f"base {name!r} has run before, and bitsandbytes has re-packed its weights; load it again")
    # in eval() bitsandbytes would re-pack the weights in place at the first forward, for products without gradients
    layer.support_avx512bf16_for_cpu = False


def _layers(model: nn.Module, kind: str) -> list[Any]:
    return [layer for layer in model.modules() if type(layer).__name__ == kind]


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_HARMLESS[record.name])


def quiet() -> None:
    """Without bitsandbytes' remarks that are no news; to be called before anything imports it."""
    for name in _HARMLESS:
        logging.getLogger(name).addFilter(_is_news)
