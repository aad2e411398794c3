"""Bases: the only part that knows the internals of transformers."""

from .attention import Block
from .model import Base, BaseShape, Hidden

__all__ = ["Base", "BaseShape", "Block", "Hidden"]
