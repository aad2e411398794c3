"""A task, a base and a method together: what does not go together is refused, what does is bound."""

from __future__ import annotations

from ..base import Base
from ..errors import ConfigError
from ..tasks import BoundTask, Task
from ..types import Ids
from .base import Method
from .headed import Headed


def bind(task: Task, base: Base, method: Method) -> BoundTask:
    """The task bound to a base as the method wants its rows, with all of the base's positions for room.

    The caller reserves `method.positions` of it, once the method is attached or restored.
    """
    reader = base.reader
    writes = base.max_positions - len(base.start_ids) if base.kind == "seq2seq" else None
    how = (method.keeps_instruction, method.learns_slots, reader.bidirectional)
    bound = task.bind(base.tokenizer, reader.max_positions, *how, writes, _ends(base))
    bound.points = method.points
    bound.learns = method.stores != "none"
    return bound


def _ends(base: Base) -> Ids:
    """Tokens that the base's `generation_config` says end a text (Llama 3 and Gemma name several)."""
    named = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    some = named if isinstance(named, (list, tuple)) else [named]
    return tuple(token for token in some if isinstance(token, int) and 0 <= token < base.shape.vocab_size)


def refuse_unfit(base: Base, task: Task, method: Method) -> None:
    """Say what a base cannot do with a task, before anything runs.

    Raises:
        ConfigError: names what would work.
    """
    if task.answering == "generated" and base.bidirectional and not method.points:
        raise ConfigError(
            f"task {task.name!r} (type {task.spec.type!r}) writes its answers, which base {base.name!r} ({base.kind}) cannot; "
            "take a causal base such as smollm2 or a sequence-to-sequence one, type classification or choice, or for type span "
            "method.head: true"
        )
    if task.spec.template.end and base.kind == "causal":
        raise ConfigError(
            f"template.end is {task.spec.template.end[:40]!r}, but base {base.name!r} ({base.kind}) answers at the end of the "
            "text; leave it out, or take a masked base"
        )
    if base.kind == "masked" and base.mask_id is None and not isinstance(method, Headed):
        raise ConfigError(f"base {base.name!r} has no mask token to answer at; set method.head: true")
