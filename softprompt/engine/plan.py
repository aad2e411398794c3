"""What must run when: segments of a row, and the plan that follows from two facts about each.

A row is a sequence of slots, e.g. `[prefix_ids][text][cue][answer]`, into which a method puts its learned one. A slot is
*shared* when everything up to and including it is the same for all rows, and *frozen* when nothing learned stands at or
before it. On a causal model these two facts decide its whole cost:

|        | shared                                            | per row                                        |
| ------ | ------------------------------------------------- | ---------------------------------------------- |
| frozen | `shared_frozen`: run once per task                | `row_frozen`: run once per row, K/V kept       |
| live   | `shared_live`: run once per step as a batch of one | `row_live`: run every step                     |

Where learning begins in an upper layer (`first_layer`), everything below it is frozen in every box. The states that
enter that layer are computed once (per task or per row) and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ..base import Base
from ..errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """One place in a row's sequence.

    Attributes:
        name: which ids stand here: `prefix_ids` (in front of the text), `text`, `question`, `cue`, `answer`, `tail` or
            `start`. The learned slot is `prompt`; `tail` stands behind everything that is read both ways, `start` begins a
            decoder.
        same: its ids are the same for all rows of a task.
        learned: what a learned slot holds: `embeddings` [P, H] or `kv` [L, 2, G, P, D]; None for ids.
        start, stop: the part of the named ids that stands here (as in a Python slice).
        takes_positions: whether the text after it counts it (a learned K/V between cue and text does not).
        adapted: whether the method's own weights act from here on.
        part: which part of the row's text stands here, where slots stand in the text (see `Example.part`); None: all of it.
        decoder: it stands on the decoder's side of a sequence-to-sequence base.
        rotated: whether a learned K/V's keys are rotated to where each row has come (see `base/rotary.py`).
    """

    name: str
    same: bool = False
    learned: Literal["embeddings", "kv"] | None = None
    start: int | None = None
    stop: int | None = None
    takes_positions: bool = True
    adapted: bool = False
    part: int | None = None
    decoder: bool = False
    rotated: bool = True


@dataclass(frozen=True)
class Learned:
    """What a method brings to a step.

    Attributes:
        segments: by slot name, embeddings [P, H] or keys and values [L, 2, G, P, D], with gradients.
        base: what live tokens run through where the method changes weights; None: the frozen base itself.
        head: reads answers off states, one a row or one a token, [N, H] → logits [N, K]; None: the base's own words are the
            answers.
    """

    segments: Mapping[str, Tensor] = field(default_factory=dict)
    base: Base | None = None
    head: Callable[[Tensor], Tensor] | None = None


NOTHING = Learned()


SLOTS = (Slot("prefix_ids", same=True), Slot("text"), Slot("cue", same=True), Slot("answer"))

FIRST_NAMES = {"prefix_ids": "head"}
"""Slots by the names that they had first, for digests: rows that are kept on disk are still theirs."""


def lay_out(
    names: Mapping[str, Sequence[str]],
    holes: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
    question: bool = False,
    tail: bool = False,
    decoder: bool = False,
) -> tuple[Slot, ...]:
    """The slots of a template: `SLOTS`, with the template's own where they stand.

    Args:
        names: for `prefix_ids`, `text` and `cue` the template's slots there, in order; `mask` is where the answer stands.
        holes, sizes: of `prefix_ids` and `cue`: the offset of each such slot, and how many ids there are.
        question: whether ids stand between text and cue in which nothing is learned.
        tail: whether ids stand behind everything that is read both ways.
        decoder: the answer is written by a decoder, behind tokens that it starts with.

    Raises:
        ConfigError: a mask, where a decoder writes.
    """
    masked = any("mask" in some for some in names.values())
    if masked and decoder:
        raise ConfigError(
            "the template holds {{ mask }}, but this base's decoder writes the answer; remove it (a T5's own marks, such as "
            "<extra_id_0>, can be written as text)"
        )

    def own(name: str) -> Slot:
        return Slot("answer") if name == "mask" else Slot(name, learned="embeddings")

    def shared(area: str) -> list[Slot]:
        found: list[Slot] = []
        start = None
        for name, stop in zip(names[area], holes[area], strict=True):
            if stop > (start or 0):
                found.append(Slot(area, same=True, start=start, stop=stop))
            found.append(own(name))
            start = stop
        if start is None or start < sizes[area]:
            found.append(Slot(area, same=True, start=start))
        return found

    text = [Slot("text", part=0 if names["text"] else None)]
    for place, name in enumerate(names["text"]):
        text += [own(name), Slot("text", part=place + 1)]
    asked = [Slot("question", same=True)] if question else []
    found = [*shared("prefix_ids"), *text, *asked, *shared("cue")]
    ends = [Slot("tail", same=True)] if tail else []
    if decoder:
        return (*found, *ends, Slot("start", same=True, decoder=True), Slot("answer", decoder=True))
    return (*found, *([] if masked else [Slot("answer")]), *ends)


@dataclass(frozen=True)
class Plan:
    """The slots of a row by what they cost. In order: shared prefix (frozen, live), then row (frozen, live)."""

    shared_frozen: tuple[Slot, ...]
    shared_live: tuple[Slot, ...]
    row_frozen: tuple[Slot, ...]
    row_live: tuple[Slot, ...]
    first_layer: int = 0

    @property
    def learns(self) -> bool:
        """Whether anything in it is learned."""
        return any(slot.learned or slot.adapted for slot in (*self.shared_live, *self.row_live))

    @property
    def keeps_texts(self) -> bool:
        """Whether something learned follows what is frozen per row, so that encoding rows once pays."""
        return bool(self.row_frozen) and any(slot.learned or slot.adapted for slot in self.row_live)

    @property
    def keeps_rows(self) -> bool:
        """Whether anything of a row is computed once and kept: its text's K/V, or its states below the first layer."""
        return self.keeps_texts or self.first_layer > 0

    def explain(self) -> str:
        """One line per box that is not empty, for the event log."""
        boxes = (
            ("run once per task", self.shared_frozen),
            ("run once per step for all rows", self.shared_live),
            ("run once per row, kept", self.row_frozen),
            ("run every step", self.row_live),
        )
        lines = [f"{' + '.join(_show(slot) for slot in slots)}: {what}" for what, slots in boxes if slots]
        if self.first_layer:
            lines.append(f"layers below {self.first_layer}: run once, what enters layer {self.first_layer} is kept")
        return "; ".join(lines)


def plan(slots: Sequence[Slot], first_layer: int = 0, bidirectional: bool = False) -> Plan:
    """Sort slots into the four boxes.

    Args:
        first_layer: nothing is learned in the layers below it.
        bidirectional: tokens see each other both ways, so all of them run in every step; only learned K/V stand before.

    The answer is never frozen per row: its tokens are scored, so they run (once, when nothing is learned).

    Raises:
        ConfigError: no answer at the end, or a text that is missing.
    """
    names = [slot.name for slot in slots]
    encoder_decoder = any(slot.decoder for slot in slots)
    if first_layer and (bidirectional or encoder_decoder):
        raise ConfigError("method.layers needs a causal base so far; leave it out on this one")
    if encoder_decoder:
        return _with_decoder(slots)
    if bidirectional:
        kv = tuple(slot for slot in slots if slot.learned == "kv")
        return Plan((), kv, (), tuple(slot for slot in slots if slot.learned != "kv"))
    if names[-1:] != ["answer"] or "text" not in names:
        raise ConfigError(f"a row needs a text and must end in its answer; this method makes {' + '.join(names)}")
    boxes: dict[tuple[bool, bool], list[Slot]] = {(s, f): [] for s in (True, False) for f in (True, False)}
    shared = frozen = True
    for slot in slots:
        shared = shared and (slot.same or slot.learned is not None)
        frozen = frozen and slot.learned is None and not slot.adapted and slot.name != "answer"
        boxes[shared, frozen].append(slot)
    return Plan(
        shared_frozen=tuple(boxes[True, True]),
        shared_live=tuple(boxes[True, False]),
        row_frozen=tuple(boxes[False, True]),
        row_live=tuple(boxes[False, False]),
        first_layer=0 if boxes[False, True] else first_layer,  # a text kept as K/V is frozen in all layers
    )


def _with_decoder(slots: Sequence[Slot]) -> Plan:
    """What the encoder reads runs in every step if anything learned stands or acts there, else once per row."""
    kv = tuple(slot for slot in slots if slot.learned == "kv" and not slot.decoder)
    read = tuple(slot for slot in slots if slot.learned != "kv" and not slot.decoder)
    written = tuple(slot for slot in slots if slot.decoder)
    live = bool(kv) or any(slot.learned or slot.adapted for slot in read)
    return Plan((), kv, () if live else read, (*read, *written) if live else written)


def _show(slot: Slot) -> str:
    return f"[{slot.name}]" if slot.learned is None else f"[{slot.name} (learned)]"
