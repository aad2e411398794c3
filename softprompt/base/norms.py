"""RMSNorm in few passes: one operation after the other it takes a tenth of a training step on the CPU.

Zhang & Sennrich 2019, arXiv:1910.07467: y = r · x ∘ w with r = (mean(x²) + ε)^-½ over the last dimension. Its gradients:
dx = r · (g ∘ w) − x · r³ · Σ(g ∘ w ∘ x) / H and dw = Σ r · g ∘ x over all tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_NEAR = 1e-5  # of the largest value, between a model's own code and ours


class _Normed(torch.autograd.Function):
    """x [..., H], w [H] → [..., H]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        x, scale, weight = ctx.saved_tensors
        of_weight = (x * scale).mul_(grad).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        grad = grad * weight
        along = torch.linalg.vecdot(grad, x)[..., None]
        return grad.mul_(scale).addcmul_(x, along.mul_(scale**3), value=-1 / x.shape[-1]), of_weight, None


class Norm:
    """A model's RMSNorm; its own code runs where anything is held in another type than fp32."""

    def __init__(self, layer: nn.Module, eps: float, offset: float) -> None:
        self.layer, self.eps, self.offset = layer, eps, offset
        self._forward = layer.forward

    def forward(self, x: Tensor) -> Tensor:
        """x [..., H] → [..., H]."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        if not x.dtype == weight.dtype == torch.float32:
            return self._forward(x)
        return _Normed.apply(x, weight + self.offset if self.offset else weight, self.eps)


@torch.no_grad()
def make_norms_fast(model: nn.Module) -> None:
    """Let every RMSNorm of a CPU model, proved to be one on values of its own size, run in few passes."""
    for layer in model.modules():
        eps = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
        weight = getattr(layer, "weight", None)
        if "RMSNorm" not in type(layer).__name__ or not isinstance(eps, float) or not isinstance(weight, Tensor):
            continue
        if weight.device.type != "cpu" or weight.dim() != 1 or "forward" in vars(layer):
            continue
        if weight.dtype != torch.float32:  # its own code would run, and prove nothing about the offset
            continue
        x = torch.linspace(-1, 1, 3 * len(weight)).sin().view(3, -1) * torch.tensor([[1e-4], [1.0], [30.0]])
        for offset in (0.0, 1.0):
            norm = Norm(layer, eps, offset)
            want, found = layer(x), norm.forward(x)
            if (found - want).abs().max() <= _NEAR * want.abs().max():  # false where a weight is NaN
                layer.forward = norm.forward
                break
