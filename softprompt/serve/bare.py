"""Bases as models: what they write behind a text, or as the next turn of a conversation, without any artifact."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ..answers import compiled
from ..base import Base
from ..engine import CacheConfig
from ..ensemble import Together
from ..methods import make_method
from ..prepared import bind
from ..runtime import Runtime
from ..tasks import Task

_TEMPLATES: Mapping[bool, dict[str, Any]] = {
    False: {"input": "{{ prompt }}", "answer": "{{ answer }}"},
    True: {"messages": "messages", "answer": "{{ answer }}"},
}
_prompts: WeakKeyDictionary[Base, dict[bool, Together]] = WeakKeyDictionary()
_lock = threading.Lock()


def bare_names(runtime: Runtime) -> list[str]:
    """Bases that write, by name. An artifact of the same name goes first."""
    return [base.name for base in runtime.bases if base.mixes_prompts and base.name not in runtime.names]


def bare_prompt(runtime: Runtime, name: str, chat: bool) -> Together:
    """A base with nothing learned.

    Args:
        chat: it reads a conversation through its own chat template; else a text as it stands.

    Raises:
        ConfigError: it has no chat template.
    """
    base = next(one for one in runtime.bases if one.name == name)
    with _lock:
        own = _prompts.setdefault(base, {})
        if chat not in own:
            settings: dict[str, Any] = {
                "name": "chat" if chat else "text",
                "type": "generation",
                "template": _TEMPLATES[chat],
                "generation": {"max_new_tokens": 256 if chat else 16, "stop": []},
            }
            prompt = bind(base, Task.load(settings), make_method("hard"), CacheConfig(ram=0, disk=0))
            own[chat] = Together((compiled(prompt),))
        return own[chat]
