"""Tokens of the training texts that are hidden in a step (Kondratyuk & Straka 2019, arXiv:1904.02099, §3.3).

With few rows a word's tag is learned by heart; where the word is hidden at times, it is also read off its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..base import Base
from ..errors import ConfigError
from ..types import Example

_OTHER = 0x5EED_0F_3A5C


def check_word_dropout(share: float | None, base: Base) -> None:
    """
    Raises:
        ConfigError: tokens are to be hidden, and the base has nothing to put in their place, or keeps what it read of them.
    """
    if share and base.blank_id is None:
        raise ConfigError(
            f"train.word_dropout needs a base that reads both ways and has a mask token, {base.name!r} ({base.kind}) does "
            "not; leave it out"
        )


def with_hidden_words(rows: Sequence[Example], share: float, base: Base, seed: int) -> list[Example]:
    """The rows with about this share of their texts' tokens hidden; special tokens stay.

    Args:
        seed: decides which; rows that are the same, in the same order, lose the same tokens.
    """
    blank = base.blank_id
    assert blank is not None
    # other numbers than those by which the rows were drawn, and by which a step's dropout is
    draws = torch.Generator().manual_seed(seed ^ _OTHER)
    special = set(base.tokenizer.all_special_ids)
    hidden = []
    for row in rows:
        chosen = (torch.rand(len(row.text), generator=draws) < share).tolist()
        ids = zip(row.text, chosen, strict=True)
        hidden.append(replace(row, text=tuple(blank if gone and one not in special else one for one, gone in ids)))
    return hidden
