"""Templates: Jinja2 text in an immutable sandbox that turns a row into a prompt, and a prompt into ids by segment.

The pieces are `instruction`, `input` (the only one that reads the row), `cue` and `answer`. Demonstrations stand between
instruction and input. Soft slots may stand in all of the first three (see `slots.py`). `Prompter` tokenizes the whole prompt as
one text, so the ids are those that a plain forward would see, and finds where the row's own part begins and ends.
"""

from .prompter import RULES, Prompter, Tokens
from .sandbox import render, variables
from .slots import Group, MaskSlot, SoftSlot
from .spec import TemplateSpec
from .turns import answer_frame

__all__ = [
    "RULES",
    "Group",
    "MaskSlot",
    "Prompter",
    "SoftSlot",
    "TemplateSpec",
    "Tokens",
    "answer_frame",
    "render",
    "variables",
]
