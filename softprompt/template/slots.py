"""Slots in a template: `{{ soft(…) }}`, where learned tokens stand, and `{{ mask }}`, where a masked-LM base answers.

Soft tokens anywhere in a template are P-tuning's (Liu et al. 2021, arXiv:2103.10385, §3.1). A slot is read from the template
once; in a rendered text a private mark stands in its place, at which the text is split before it is tokenized. So a slot is
a border of tokens on both sides, and no mark is ever seen by the model.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jinja2 import nodes

from ..errors import ConfigError
from ..types import Ids
from .sandbox import RESERVED, parse, variables

MARK = f"\ufdd0{secrets.token_hex(8)}\ufdd1"
"""Stands where a slot is: noncharacters (no text has them) round what a row cannot guess; another one in each process."""

Marked = tuple[str, ...]
"""A text split at its slots: one piece more than it has slots."""

Start = Literal["text", "vocabulary", "labels", "random"]
MAX_LENGTH = 4096  # tokens of one slot; more than any base would be served with
MAX_SLOTS = 256  # of one text
_OPENS = re.compile(r"\{\{[-+]?\s*(?:soft\s*\(|mask\s*[-+]?\}\})")
_SLOT = re.compile(
    r"\{\{\s*(?:mask|soft\s*\((?:[^\"'{}]|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')*?\))\s*\}\}", re.DOTALL
)


@dataclass(frozen=True)
class SoftSlot:
    """`soft(length, text, init)`: a group of learned tokens.

    Attributes:
        length: learned tokens; None: as many as the text has.
        text: what it starts from, and what methods that do not learn it read here.
        init: where it starts without a text: `vocabulary`, `labels`, `random`, or `text` (the task's instruction or labels);
            None: as the method does.
    """

    length: int | None = None
    text: str | None = None
    init: Start | None = None


@dataclass(frozen=True)
class MaskSlot:
    """`mask`: where the answer stands in the middle of a masked-LM base's text."""


AnySlot = SoftSlot | MaskSlot


@dataclass(frozen=True)
class Group:
    """A soft slot as it is learned: `name` (`soft0`, …), `length` in tokens, and where it starts (see `SoftSlot`)."""

    name: str
    length: int
    text: str | None = None
    init: Start | None = None


Fill = str | tuple[str, Ids]
"""What stands in a slot: a hole, by its name, or a text with its ids."""
NAMES: dict[str, Callable[..., str] | str] = {"soft": lambda *_args, **_names: MARK, "mask": MARK}
"""What a template's input is rendered with, beside the row's fields. Which slot a mark stands for says its order."""


def join(*texts: Marked) -> Marked:
    """One text behind the other."""
    found = [""]
    for pieces in texts:
        found[-1] += pieces[0]
        found += pieces[1:]
    return tuple(found)


def in_plain(text: str) -> tuple[Marked, tuple[AnySlot, ...]]:
    """Slots of a text that is not rendered (`instruction`, `cue`), and the text between them.

    Exactly `{{ soft(` … `) }}` and `{{ mask }}` are slots, whatever white space is inside; all other braces are text.

    Raises:
        ValueError: a slot that opens (`{{ soft(`) and cannot be read.
    """
    pieces: list[str] = []
    found: list[AnySlot] = []
    start = 0
    for begin, end, slot in _slots_of(text):
        pieces.append(text[start:begin])
        found.append(slot)
        start = end
    return (*pieces, text[start:]), tuple(found)


def has_slot(text: str) -> bool:
    """Whether a slot opens in a text."""
    return _OPENS.search(text) is not None


def in_input(text: str) -> tuple[AnySlot, ...]:
    """Slots of a Jinja2 text, in order.

    Raises:
        ValueError: a slot in a loop, a condition, a filter or an expression: all rows must have the same slots.
    """
    tree = parse(text)
    outputs = [part for node in tree.body if isinstance(node, nodes.Output) for part in node.nodes]
    found = tuple(slot for part in outputs if (slot := _slot_of(part)) is not None)
    named = [node for node in tree.find_all(nodes.Name) if node.name in RESERVED]
    own = {node.name for node in named}
    if len(named) != len(found) or not own <= variables(text):
        raise ValueError(
            "soft(...) and mask are slots, not fields; each must stand by itself as {{ soft(5) }} or {{ mask }}, outside of "
            "loops, conditions, filters and expressions. Rename a field of that name with data.columns"
        )
    return found


def fixed(text: str) -> tuple[Marked, str]:
    """The fixed beginning of a Jinja2 text, split at the soft slots in it, and the white space that followed it.

    White space goes with the row: it belongs to its first token.
    """
    pieces: list[str] = []
    start = 0
    while True:
        begin = text.find("{", start)
        match = None if begin < 0 else _SLOT.match(text, begin)
        if begin < 0 or match is None or isinstance(_read(match[0]), MaskSlot):
            rest = "" if begin < 0 else text[start:begin]
            return (*pieces, rest.rstrip()), rest[len(rest.rstrip()) :]
        pieces.append(text[start:begin])
        start = match.end()


def fill(
    areas: Sequence[tuple[AnySlot, ...]], ids_of: Callable[[str], Ids], soft: bool, closing: bool
) -> tuple[tuple[Group, ...], list[list[Fill]]]:
    """The groups that are learned; and for each area what its slots hold.

    Args:
        ids_of: ids of a slot's text.
        soft, closing: as in `Prompter`.

    Raises:
        ConfigError: a slot that this base or method cannot fill.
    """
    groups: list[Group] = []
    fills: list[list[Fill]] = []
    for area in areas:
        mine: list[Fill] = []
        for slot in area:
            if isinstance(slot, MaskSlot):
                if not closing:
                    raise ConfigError(
                        "the template holds {{ mask }}, but this base goes on behind the text; remove it, or use a "
                        "masked-LM base"
                    )
                mine.append("mask")
            elif soft:
                length = slot.length or len(ids_of(slot.text or ""))
                if not length:
                    raise ConfigError(f"soft({slot.text!r}): the text has no tokens on this base; give a length")
                groups.append(Group(f"soft{len(groups)}", length, slot.text, slot.init))
                mine.append(groups[-1].name)
            elif slot.text is None:
                raise ConfigError(
                    "the template has a soft slot without a text, which this method does not learn; train soft or p_tuning, "
                    'or give the slot a text: {{ soft(5, "…") }}'
                )
            else:
                mine.append((slot.text, ids_of(slot.text)))
        fills.append(mine)
    return tuple(groups), fills


def _slots_of(text: str) -> Iterator[tuple[int, int, AnySlot]]:
    place = 0
    if len(_OPENS.findall(text)) > MAX_SLOTS:
        raise ValueError(f"holds more than {MAX_SLOTS} slots")
    while (opening := _OPENS.search(text, place)) is not None:
        match = _SLOT.match(text, opening.start())
        if match is None:
            shown = text[opening.start() : opening.start() + 30]
            raise ValueError(f"the slot {shown!r} cannot be read; write {{{{ soft(5) }}}} or {{{{ mask }}}}")
        yield match.start(), match.end(), _read(match[0])
        place = match.end()


def _read(source: str) -> AnySlot:
    """One `{{ … }}` by itself."""
    try:
        tree = parse(source)
    except ValueError as error:
        raise ValueError(f"the slot {source[:60]!r} cannot be read: it {error}") from None
    parts = [part for node in tree.body if isinstance(node, nodes.Output) for part in node.nodes]
    slot = _slot_of(parts[0]) if len(parts) == 1 else None
    if slot is None:
        raise ValueError(f"the slot {source!r} cannot be read; write {{{{ soft(5) }}}} or {{{{ mask }}}}")
    return slot


def _slot_of(node: nodes.Node) -> AnySlot | None:
    """What a part of a template's output is, None for other parts."""
    if isinstance(node, nodes.Name) and node.name == "mask":
        return MaskSlot()
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "soft":
        return _soft(node)
    return None


def _soft(call: nodes.Call) -> SoftSlot:
    given = [*call.args, *(pair.value for pair in call.kwargs)]
    if call.dyn_args or call.dyn_kwargs or not all(isinstance(value, nodes.Const) for value in given):
        raise ValueError("soft(...) takes numbers and texts only, as it is the same for all rows")
    values: dict[str, Any] = {}
    named = [(pair.key, pair.value) for pair in call.kwargs]
    places = ["text"] if call.args and isinstance(_const(call.args[0]), str) else ["length", "text"]
    if len(call.args) > len(places):
        raise ValueError("soft(...) takes a length and a text; name the third: init='vocabulary'")
    for key, node in [*zip(places, call.args, strict=False), *named]:
        if key in values or key not in ("length", "text", "init"):
            raise ValueError(f"soft(...) has no {key!r}, or has it twice (known: length, text, init)")
        values[key] = _const(node)
    return _checked(values.get("length"), values.get("text"), values.get("init"))


def _checked(length: Any, text: Any, init: Any) -> SoftSlot:
    if length is not None and (
        isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_LENGTH
    ):
        raise ValueError(f"soft(...): the length is {length!r}; give 1 to {MAX_LENGTH} tokens")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise ValueError(f"soft(...): the text is {text!r}; give a text with words, or none")
    if init is not None and init not in get_args(Start):
        raise ValueError(f"soft(...): init is {init!r} (known: {', '.join(get_args(Start))})")
    if length is None and text is None:
        raise ValueError("soft(...) needs a length or a text, e.g. soft(5)")
    if text is not None and init not in (None, "text"):
        raise ValueError(f"soft(...) has a text and init {init!r}; a slot with a text starts from it")
    return SoftSlot(length, text, init)


def _const(node: nodes.Node) -> Any:
    assert isinstance(node, nodes.Const)
    return node.value
