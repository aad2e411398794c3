"""What a base is, in numbers: precisions, sizes, and what a forward gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BaseShape:
    """Sizes that an artifact must fit: L layers, G key/value heads, D head size, H hidden size, V vocabulary.

    Of an encoder without a language-model head, V is the number of its input embeddings. G and D are 0 where keys and values
    are out of reach.

    Attributes:
        embedding_size: E of a token's embedding where that is not H (ALBERT, ELECTRA).
        even: all keys and values have G heads of size D; else these are the largest, and zeros fill the rest.
    """

    layers: int
    kv_heads: int
    head_size: int
    hidden_size: int
    vocab_size: int
    embedding_size: int | None = None
    even: bool = True

    @property
    def embedded(self) -> int:
        """Size of a token's embedding, and so of a learned embedding."""
        return self.embedding_size or self.hidden_size

    @property
    def kv_per_token(self) -> int:
        """Numbers (not bytes) in one token's keys and values over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_size

    @property
    def kv_size(self) -> tuple[int, int] | None:
        """(G, D) to which keys and values are filled up where not all are of one size; None elsewhere."""
        return None if self.even else (self.kv_heads, self.head_size)

    def as_dict(self) -> dict[str, int]:
        """As written to manifests."""
        sizes = asdict(self)
        del sizes["even"]
        if self.embedding_size is None:
            del sizes["embedding_size"]
        return sizes


UNKNOWN = BaseShape(0, 0, 0, 0, 0)
"""Of a base that has not run yet."""


@dataclass(frozen=True)
class Hidden:
    """What a forward gives: last hidden states [N, H] of the packed live tokens and, if recorded, their K/V.

    `kv`: per layer [2, B, G, Q, D], right-padded; of a decoder that attends to an encoder, those of its self-attention.
    `even`: whether the keys and values that were recorded are of one size in each layer.
    """

    states: Tensor
    kv: list[Tensor] | None
    even: bool = True
