"""Frozen weights, prepacked once: on the CPU a matrix product of few rows spends most of its time re-ordering the weight.

oneDNN takes a weight that was re-ordered before. For a frozen base that is done once for `x Wᵀ` and, at the first
backward, once for `g W`. Measured on 2 cores (fp32, 576 × 1,536): 2 times faster at 32 tokens, 1.2 times at 583. It costs
the weights once more in memory, twice when training, so the engine asks for it where steps are small: on encoded texts.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_asked = threading.local()
_LINEAR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@contextlib.contextmanager
def prepacked(on: bool) -> Iterator[None]:
    """Whether linear layers that this thread runs meanwhile use their prepacked weights."""
    before = getattr(_asked, "on", False)
    _asked.on = on
    try:
        yield
    finally:
        _asked.on = before


class Prepacked:
    """A linear layer's weight in oneDNN's own order, renewed if somebody changes the weight in place."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self._store: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Prepacked:
        """For a copy of the layer; a weight that both share is prepacked once for both."""
        mine = Prepacked(copy.deepcopy(self.layer, memo))
        if memo.get(id(self.layer.weight)) is self.layer.weight:
            mine._store = self._store
        return mine

    def ahead(self) -> Tensor:
        """For x Wᵀ."""
        return self._prepacked("ahead")

    def back(self) -> Tensor:
        """For g W."""
        return self._prepacked("back")

    def _prepacked(self, way: str) -> Tensor:
        weight = self.layer.weight.detach()
        now = (weight.data_ptr(), self.layer.weight._version)
        if self._store.get("of") != now:
            self._store.clear()
            self._store["of"] = now
        if way not in self._store:
            weight = weight if way == "ahead" else weight.t().contiguous()
            self._store[way] = torch.ops.mkldnn._reorder_linear_weight(weight)
        return self._store[way]

    def forward(self, x: Tensor) -> Tensor:
        """The layer's forward: prepacked if asked for, and if its weight is frozen and on the CPU."""
        weight, bias = self.layer.weight, self.layer.bias
        if not getattr(_asked, "on", False) or weight.requires_grad or not weight.is_cpu or x.dtype != weight.dtype:
            return F.linear(x, weight, bias)
        # as one matrix: of more dimensions oneDNN gives a view, which no model may change in place (RoCBert does)
        return _PrepackedProduct.apply(x.reshape(-1, x.shape[-1]), self, bias).view(*x.shape[:-1], -1)


class _PrepackedProduct(torch.autograd.Function):
    """x Wᵀ + b and its gradient for x; W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, prepacked: Prepacked, bias: Tensor | None) -> Tensor:
        ctx.prepacked = prepacked
        return _product(x, prepacked.ahead(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _product(grad, ctx.prepacked.back(), None), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _LINEAR(x.contiguous(), weight, bias, "none", [], "")


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether all that a layer does is x Wᵀ + b: no subclass, no hook, no forward but its own or the prepacked one."""
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        return False
    forward = vars(layer).get("forward")
    own = forward is None or isinstance(getattr(forward, "__self__", None), Prepacked)
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return own and not any(hooks)


def make_prepackable(model: nn.Module) -> None:
    """Let every plain linear layer of a CPU model use prepacked weights when asked. Parameters stay as they are.

    Layers stay as they are on a GPU, without oneDNN, and where a subclass computes something of its own. So they do in
    a type that oneDNN lacks on this processor (bf16 needs AVX-512).
    """
    if not torch.backends.mkldnn.is_available() or _LINEAR is None:
        return
    types = [torch.float32, *([torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [])]
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.device.type == "cpu"]
    for layer in layers:
        if layer.weight.dtype in types:
            layer.forward = Prepacked(layer).forward  # type: ignore[method-assign, assignment]
