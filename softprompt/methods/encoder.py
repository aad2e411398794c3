"""Small networks whose output is a prompt. They ease training and are thrown away after it: only what they give is saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PromptEncoder(nn.Module):
    """An LSTM or MLP over P learned embeddings (Liu et al. 2021, arXiv:2103.10385, §3.2; layers as in PEFT's encoder).

    Args:
        start: [P, H] where the embeddings start.
        kind: `lstm` (bidirectional, two layers by default, then two linear ones) or `mlp` (three linear ones).
        hidden: width of the hidden layers.
        layers: of the LSTM.
        residual: the output is added to `start`, from which it then begins (Razdaibiedina et al. 2023, arXiv:2305.03937);
            otherwise it is the prompt by itself and begins at random.
    """

    def __init__(self, start: Tensor, kind: str, hidden: int, layers: int = 2, residual: bool = True) -> None:
        super().__init__()
        size = start.shape[1]
        self.embedding = nn.Parameter(start.clone())
        self.lstm = None
        if kind == "lstm":
            self.lstm = nn.LSTM(size, hidden, num_layers=layers, bidirectional=True, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, size))
        else:
            self.mlp = nn.Sequential(
                nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, size)
            )
        self.register_buffer("start", start.clone() if residual else None)
        if residual:
            _begin_at_zero(self.mlp[-1])

    def forward(self) -> Tensor:
        """The prompt [P, H]."""
        x = self.embedding
        if self.lstm is not None:
            x = self.lstm(x[None])[0][0]
        out = self.mlp(x)
        return out if self.start is None else self.start + out


class PrefixEncoder(nn.Module):
    """An MLP over P learned embeddings that gives keys and values of all layers (Li & Liang 2021, §4.3).

    Args:
        start: [L, 2, G, P, D] where the prefix begins: the network's output is added to it.
        size: width of the learned embeddings.
        hidden: width of the hidden layer.
        residual: see `PromptEncoder`.
        at_zero: without `start`, the output begins at zero and not at random.
    """

    def __init__(self, start: Tensor, size: int, hidden: int, residual: bool = True, at_zero: bool = False) -> None:
        super().__init__()
        self.layers, _, self.heads, length, self.head_size = start.shape
        self.embedding = nn.Parameter(torch.randn(length, size))
        self.mlp = nn.Sequential(
            nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, self.layers * 2 * self.heads * self.head_size)
        )
        self.register_buffer("start", start.clone() if residual else None)
        if residual or at_zero:
            _begin_at_zero(self.mlp[-1])

    def forward(self) -> Tensor:
        """The prefix [L, 2, G, P, D]."""
        flat = self.mlp(self.embedding)
        out = flat.view(-1, self.layers, 2, self.heads, self.head_size).permute(1, 2, 3, 0, 4)
        return out if self.start is None else self.start + out


def _begin_at_zero(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
