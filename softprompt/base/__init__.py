"""Bases: the only part that knows the internals of transformers."""

from .attention import KV, Block, LivePrefix
from .families import KINDS, Kind
from .model import Base
from .reasons import check_numbers
from .shape import BaseShape, Hidden

__all__ = ["KINDS", "KV", "Base", "BaseShape", "Block", "Hidden", "Kind", "LivePrefix", "check_numbers"]
