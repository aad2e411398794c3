"""How a task of the harness wants its answers written (`generation_kwargs`), as settings of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import parse
from ..engine import before_stops
from ..tasks.generation import GenerationSpec
from ..types import Ids

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What the harness calls the most tokens that are written; the first that is given counts."""

_SAMPLED = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Writing:
    """How answers are written.

    Attributes:
        settings: as `engine.generate` takes them.
        ends: tokens that end an answer.
        stops: texts that end one.
    """

    settings: dict[str, Any]
    ends: Ids
    stops: tuple[str, ...]

    def cut(self, text: str) -> str:
        """An answer up to the first text that ends it."""
        return before_stops(text, self.stops)


def writing(asked: Mapping[str, Any], limit: int, tokenizer: Any, ends: Sequence[int]) -> Writing:
    """Read `generation_kwargs`: greedy unless they say `do_sample` or a temperature above 0.

    Args:
        limit: tokens that are written where nothing is said.
        ends: tokens that the base says end a text.

    Raises:
        ConfigError: a setting that is not known, or a value that it cannot have.
    """
    values = dict(asked)
    until = values.pop("until", None) or []
    stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
    limits = [value for name in LIMITS if (value := values.pop(name, None)) is not None]
    temperature = values.get("temperature")
    if values.get("do_sample") is None:
        values["do_sample"] = bool(temperature)
    if not values["do_sample"]:
        values = {name: value for name, value in values.items() if name not in _SAMPLED}
    spec = parse(
        GenerationSpec, {**values, "stop": stops, "max_new_tokens": limits[0] if limits else limit}, "generation_kwargs"
    )
    # special tokens are no text of an answer, so one that ends it must be looked for as a token
    alone = [tokenizer.encode(stop, add_special_tokens=False) for stop in stops]
    special = [ids[0] for ids in alone if len(ids) == 1 and ids[0] in tokenizer.all_special_ids]
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return Writing(spec.settings(), tuple(dict.fromkeys([*own, *ends, *special])), tuple(stops))
