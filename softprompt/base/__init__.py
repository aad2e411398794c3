"""Bases: the only part that knows the internals of transformers."""

from .attention import KV, Block
from .model import Base, BaseShape, Hidden

__all__ = ["KV", "Base", "BaseShape", "Block", "Hidden"]
