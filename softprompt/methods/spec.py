"""What the settings of all methods share, and the values with which a manifest says what a method stores."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ..config import Strict
from ..errors import ConfigError

Stores = Literal["embeddings", "kv", "head", "weights", "other", "none"]
"""What the tensors of a method are; `other`: only the method knows."""
Place = Literal["front", "infix", "other", "none"]
"""Where they stand: in front of the text, between text and answer, elsewhere, or nowhere."""


class MethodSpec(Strict):
    """What every method's settings share.

    Attributes:
        name: the method, as in the run file.
        head: learn a classifier on the base's states, instead of answering with the base's own words. Null: only on a
            base without words (encoders such as minilm).
    """

    name: str = Field(examples=["infix"])
    head: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_nameless(cls, data: Any) -> Any:
        """
        Raises:
            ConfigError: settings that are made in Python have no name, and their class gives none.
        """
        if isinstance(data, dict) and "name" not in data and cls.model_fields["name"].is_required():
            raise ConfigError(
                f"{cls.__name__}: name is missing; give the method's name in run files, e.g. {cls.__name__}(name='…'), or "
                "set it in the class: name: str = '…'"
            )
        return data
