"""A configuration of PEFT's as a method of ours: each of its fields is honoured as it is, or refused by its name."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig

from ..adapters.options import as_json, known_options, types
from ..adapters.targets import choice_of_peft
from ..artifact.files import one_line
from ..base import Base
from ..errors import ConfigError
from ..training.importing import lora_settings, tuner_settings
from ..values import kind
from .fields import changed, refusal
from .prompts import PROMPTS, prompt_settings

_TASK_TYPES = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
_WHERE = ("layers_to_transform", "alora_invocation_tokens")
_EVERYWHERE = ("modules_to_save", "trainable_token_indices", "bias", "target_parameters")
"""What acts in other layers as well, or on all tokens."""


def method(config: PeftConfig, base: Base) -> dict[str, Any]:
    """The settings, for `train`, of the method that learns what PEFT would learn with a configuration.

    Args:
        config: PEFT's configuration of a tuner or of a prompt (PromptTuningConfig, PrefixTuningConfig,
            PromptEncoderConfig).
        base: the model to train on.

    Raises:
        ConfigError: not a PEFT configuration, an unsupported one, or an unsupported field (the message has its value).
    """
    if not isinstance(config, PeftConfig):
        raise ConfigError(f"config is {kind(config)}; expected one of PEFT's, e.g. peft.LoraConfig(r=8)")
    where, name = type(config).__name__, str(as_json(config.peft_type))
    if name not in PROMPTS and name not in types():
        known = ", ".join([*PROMPTS, *types()])
        raise refusal(where, "peft_type", name, f", which is not learned here; use one of {known}")
    wanted, given = _TASK_TYPES.get(base.kind, "FEATURE_EXTRACTION"), as_json(config.task_type)
    if given not in (None, wanted):
        raise refusal(where, "task_type", given, f"; on base {base.name!r} ({base.kind}) it is {wanted}")
    if name in PROMPTS:
        return prompt_settings(name, changed(config), base, where)
    settings = _tuner_method(name, changed(config), type(config), where)
    if name == "LORA" and not (settings.get("target_modules") or settings["options"].get("target_parameters")):
        settings["target_modules"] = choice_of_peft(base)  # our own default is another
    return settings


def _tuner_method(name: str, given: dict[str, Any], config: type[PeftConfig], where: str) -> dict[str, Any]:
    """The settings of a tuner's method."""
    known = known_options(config)
    options = {key: value for key, value in given.items() if key in known and value is not None}
    placed = {key: given[key] for key in _WHERE if given.get(key) is not None}
    if left := [key for key in given if key not in known and key not in placed]:
        raise refusal(where, left[0], given[left[0]])
    if placed and (wide := [key for key in _EVERYWHERE if key in options]):
        beside, chosen = next(iter(placed.items()))
        why = f" beside {beside} {one_line(repr(chosen), 60)}, outside of which nothing is learned here; leave out one of them"
        raise refusal(where, wide[0], options[wide[0]], why)
    settings = tuner_settings(name, options, placed, where)
    if name == "LORA":  # the method of its own has the defaults of training that suit it
        settings = {
            **lora_settings(options),
            **{key: settings[key] for key in ("activate", "layers") if key in settings},
        }
    return settings
