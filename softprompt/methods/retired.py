"""Hooks that methods of earlier versions could define: nothing asks them any more, so a method that does is refused."""

from __future__ import annotations

from ..errors import ConfigError

RETIRED = {
    "share": "what a row counts for is `loss_weight` of the answers' form (softprompt.answers)",
    "loss_weight": "what a row counts for is `loss_weight` of the answers' form (softprompt.answers)",
    "whole": "it is called `trains_whole_model`",
    "points": "what a head reads is said by the answers' form (softprompt.answers)",
}
"""Each hook, and what stands in its place."""


def refuse_retired(kind: type, name: str) -> None:
    """Refuse a method's class that defines a hook which would be ignored in silence.

    Raises:
        ConfigError: names the hook and what to do instead.
    """
    for hook, instead in RETIRED.items():
        if hasattr(kind, hook):
            raise ConfigError(
                f"method {name!r} ({kind.__module__}.{kind.__qualname__}) defines `{hook}`, which is no longer asked: "
                f"{instead}; rename or remove it"
            )
