"""Which layers of a base a method acts in, as settings write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from ..base import Base
from ..errors import ConfigError

Layers = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}-([0-9]{1,18})?$")]
"""Layers of the base counted from 0: `20-` from the 21st on, `20-25` those six."""


def layers_of(text: Layers, base: Base) -> range:
    """`20-` or `20-25` as layers of this base.

    Raises:
        ConfigError: the base has no such layers, or two stacks of them.
    """
    if base.has_decoder:
        raise ConfigError(f"base {base.name!r} has layers in its encoder and in its decoder; leave out method.layers")
    first, _, last = text.partition("-")
    found = range(int(first), int(last) + 1 if last else base.shape.layers)
    if not found or found.stop > base.shape.layers:
        raise ConfigError(f"method.layers is {text!r}, but base {base.name!r} has layers 0 to {base.shape.layers - 1}")
    return found
