"""PEFT's prompts as methods of ours: prompt tuning, prefix tuning and P-tuning, each with the start that PEFT gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..artifact.files import one_line
from ..base import Base
from ..base.own_cache import prefix_in_peft
from ..methods.base import text_ids
from .fields import refusal

Given = dict[str, Any]
_STARTS = {"RANDOM": "normal", "SAMPLE_VOCAB": "any_tokens", "TEXT": "text"}


def prompt_settings(name: str, given: Given, base: Base, where: str) -> dict[str, Any]:
    """The settings of the method that is one of PEFT's prompts; the task's instruction stays behind it, as with PEFT.

    Args:
        name: PEFT's type, one of `PROMPTS`.
        given: the fields that are not PEFT's defaults.
        where: the configuration's class, for messages.

    Raises:
        ConfigError: a field that is not honoured; a base on which PEFT does not load such a prompt.
    """
    rest = dict(given)
    length = rest.pop("num_virtual_tokens", None)
    if not isinstance(length, int) or length < 1:
        raise refusal(where, "num_virtual_tokens", length, "; give the number of learned tokens")
    loads = base.keeps_positions if name != "PREFIX_TUNING" else prefix_in_peft(base) is not None
    if not loads:
        raise refusal(
            where, "peft_type", name, f", which PEFT does not load on base {base.name!r} as it is learned here"
        )
    _check_sizes(name, rest, base, where)
    settings = {"length": length, "instruction": True, **PROMPTS[name](rest, base, where)}
    if left := next(iter(rest), None):
        raise refusal(where, left, rest[left])
    return settings


def _check_sizes(name: str, rest: Given, base: Base, where: str) -> None:
    """Take out the sizes, which PEFT has from the base where they are not given."""
    shape = base.shape
    prefix = name == "PREFIX_TUNING"
    own = {
        "num_transformer_submodules": 1,
        "num_layers": shape.layers,
        "token_dim": shape.kv_heads * shape.head_size if prefix else shape.embedded,
        "num_attention_heads": shape.kv_heads,
    }
    for key, size in own.items():
        value = rest.pop(key, None)
        plays_no_part = key == "num_attention_heads" and not prefix
        if value not in (None, size) and not plays_no_part:
            raise refusal(where, key, value, f", base {base.name!r} has {size}; leave it out")


def _prompt_tuning(rest: Given, base: Base, where: str) -> Given:
    start, text = rest.pop("prompt_tuning_init", "RANDOM"), rest.pop("prompt_tuning_init_text", None)
    tokenizer, options = rest.pop("tokenizer_name_or_path", None), rest.pop("tokenizer_kwargs", None)
    if start not in _STARTS:
        raise refusal(where, "prompt_tuning_init", start, f"; expected one of {', '.join(_STARTS)}")
    settings = {"name": "soft", "init": _STARTS[start]}
    if start == "TEXT":  # text and tokenizer say nothing otherwise
        settings["text"] = _start_text(str(text), tokenizer, options or {}, base, where)
    return settings


def _start_text(text: str, name: Any, options: Given, base: Base, where: str) -> str:
    """The text whose tokens here are those that PEFT starts from: of its own tokenizer, special ones in front included.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or the base's own makes other tokens of the text.
    """
    tokenizer = base.tokenizer
    if options or name not in (base.name, base.identity.name, base.identity.hub_id):
        from transformers import AutoTokenizer

        safe = {key: value for key, value in options.items() if key != "trust_remote_code"}  # PEFT takes it out, too
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **safe)
        except Exception as error:  # whatever a tokenizer's files hold
            raise refusal(where, "tokenizer_name_or_path", name, f": {one_line(str(error), 200)}") from None
    ids = tokenizer(text)["input_ids"]
    for before in range(min(len(ids), 3)):  # special tokens in front, if the tokenizer puts any
        whole = tokenizer.decode(ids[:before]) + text
        if text_ids(base, whole, len(ids), f"{where}.prompt_tuning_init_text").tolist() == ids:
            return whole
    raise refusal(
        where, "prompt_tuning_init_text", text, f", of which base {base.name!r} makes other tokens than {name!r}"
    )


def _prefix_tuning(rest: Given, base: Base, where: str) -> Given:
    start = rest.pop("init_weights", None)
    if start not in (None, "zero"):
        raise refusal(where, "init_weights", start, "; expected 'zero', or leave it out")
    settings = {"name": "prefix", "init": start or "normal"}
    hidden = rest.pop("encoder_hidden_size", None)  # says nothing without the projection
    if rest.pop("prefix_projection", False):
        width = base.shape.kv_heads * base.shape.head_size
        settings |= {"reparameterization": "projection", "hidden": hidden or width}
    return settings


def _p_tuning(rest: Given, base: Base, where: str) -> Given:
    encoder = rest.pop("encoder_reparameterization_type", "MLP")
    if encoder not in ("MLP", "LSTM"):
        raise refusal(where, "encoder_reparameterization_type", encoder, "; expected MLP or LSTM")
    layers, dropout = rest.pop("encoder_num_layers", 2), rest.pop("encoder_dropout", 0.0)  # PEFT's MLP has neither
    hidden = rest.pop("encoder_hidden_size", None) or base.shape.embedded
    settings = {"name": "p_tuning", "encoder": encoder.lower(), "hidden": hidden, "init": "normal", "residual": False}
    if encoder == "LSTM":
        settings["layers"] = layers
        if dropout:
            raise refusal(where, "encoder_dropout", dropout)
    return settings


PROMPTS: dict[str, Callable[[Given, Base, str], Given]] = {
    "PROMPT_TUNING": _prompt_tuning,
    "PREFIX_TUNING": _prefix_tuning,
    "P_TUNING": _p_tuning,
}
