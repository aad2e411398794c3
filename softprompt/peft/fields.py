"""Fields of PEFT's configurations: which of them say something, and how one is refused."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig

from ..adapters.options import as_json
from ..artifact.files import one_line
from ..errors import ConfigError

_OF_THE_FOLDER = ("peft_type", "peft_version", "auto_mapping", "task_type", "base_model_name_or_path", "revision")
"""What PEFT sets from the model that it is given, whatever it was, and what is looked at by itself."""


def changed(config: PeftConfig) -> dict[str, Any]:
    """The fields that are set to something else than PEFT's default and decide what is learned, as JSON holds them."""
    usual = {key: as_json(value) for key, value in type(config)().to_dict().items()}
    values = {key: as_json(value) for key, value in config.to_dict().items() if key not in _OF_THE_FOLDER}
    return {key: value for key, value in values.items() if key not in usual or value != usual[key]}


def refusal(where: str, key: str, value: Any, why: str = ", which is not honoured here; leave it out") -> ConfigError:
    """The error that names a field and its value, and says why it is refused or what to do.

    Args:
        where: the configuration's class.
    """
    return ConfigError(f"{where}.{key} is {one_line(repr(as_json(value)), 100)}{why}")
