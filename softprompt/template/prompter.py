"""A template bound to a tokenizer: rows to ids, by segment.

The whole prompt is tokenized as one text, so the ids are those that a plain forward would see, and cut where the row's own
part begins and ends; it is also cut at its slots, which are borders of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError
from ..types import Ids
from .chat import Conversations, shot_turns, user_turn
from .limits import OUTPUT
from .sandbox import render
from .slots import MARK, NAMES, AnySlot, Marked, MaskSlot, SoftSlot, Start, in_input, in_plain, join
from .spec import TemplateSpec
from .turns import answer_ends

RULES = 2  # how rows become ids; 1: as artifacts of format version 1 were trained


@dataclass(frozen=True)
class Tokens:
    """Ids of one segment, and its holes: before which of them each slot stands (as many as there are: behind all)."""

    ids: Ids
    holes: Ids = ()


@dataclass(frozen=True)
class Group:
    """A soft slot as it is learned: `name` (`soft0`, …), `length` in tokens, and where it starts (see `SoftSlot`)."""

    name: str
    length: int
    text: str | None = None
    init: Start | None = None


class Prompter:
    """Turns rows into ids, split into head, text and cue.

    Args:
        instruction: whether the instruction stands in front (a method that takes its place leaves it out; where soft slots are
            learned it always stands).
        demonstrations: (fields of the row, answer word) of each shot.
        soft: soft slots are learned; otherwise each is read as the text that it has.
        rules: see `RULES`.
        base_ends: tokens that the base's `generation_config` says end a text.
        most: characters that the template may add to a row's own.
        closing: texts are read both ways: what stands behind everything (`template.end`, special tokens such as [SEP]) is in
            `tail`, and the template may hold `{{ mask }}`.

    Attributes:
        head, cue: ids that all rows share.
        tail: ids behind everything; empty unless `closing`.
        groups: the soft slots that are learned, in order.
        word_end: a token that ends an answer that is chosen.
        names: for `head`, `text` and `cue` the names of their slots in order: those of `groups`, and `mask`.
        holes: where the slots of `head` and `cue` stand, as in `Tokens`; those of the text differ by row (see `row`).
        ends: tokens that end a written answer; the first of them is what training learns.
        end_texts: texts that do (see `turns.py`).
        keeps_end: whether the end of a text that is too long matters more than its beginning (a conversation).

    Raises:
        ConfigError: a soft slot without a text that is not learned, a mask on a base that goes on behind the text, a base
            without the chat template that is asked for.
    """

    def __init__(
        self,
        spec: TemplateSpec,
        tokenizer: Any,
        instruction: bool = True,
        demonstrations: Sequence[tuple[Mapping[str, Any], str]] = (),
        soft: bool = False,
        closing: bool = False,
        rules: int = RULES,
        base_ends: Sequence[int] = (),
        most: int = OUTPUT,
    ) -> None:
        self.spec, self.tokenizer, self.rules = spec, tokenizer, rules
        self._most = most
        self.closing = closing
        self._in_input = in_input(spec.input)
        self._cue, self._in_cue = in_plain(spec.cue)
        kept = instruction or (soft and bool(spec.groups))
        self._instruction, in_front = in_plain(spec.instruction) if kept else (("",), ())
        self._opening, self._gap = spec.opening, spec.gap
        opening = len(self._opening) - 1
        areas = ((*in_front, *self._in_input[:opening]), self._in_input[opening:], self._in_cue)
        self.groups, self._fills = self._filled(areas, soft)
        self.names: dict[str, tuple[str, ...]] = {
            name: tuple(fill for fill in fills if isinstance(fill, str))
            for name, fills in zip(("head", "text", "cue"), self._fills, strict=True)
        }
        self._bos = () if spec.in_chat else _specials(tokenizer)[0]
        self._conversations: Conversations | None = None
        example = self._set_around(demonstrations)
        head, _, cue = self._split(example)
        self.head, self.cue = head.ids, cue.ids
        self.holes = {"head": head.holes, "cue": cue.holes}
        self.tail = (*self._ids(spec.end), *_specials(tokenizer)[1]) if closing else ()
        self.keeps_end = spec.messages is not None
        self.ends, self.end_texts = answer_ends(tokenizer, spec.in_chat, base_ends, rules)
        self.word_end = self._word_end(bool(demonstrations))

    def text(self, values: Mapping[str, Any], where: str) -> Ids:
        """Ids of the row's own part: what the input renders to, without its fixed beginning."""
        return self.row(values, where).ids

    def row(self, values: Mapping[str, Any], where: str) -> Tokens:
        """The row's own part with its holes, one for each of `names["text"]`.

        Raises:
            DataError: the row cannot be rendered.
        """
        own = self._own(values, where)
        head, found, cue = self._split(own)
        if (head.ids, cue.ids) != (self.head, self.cue):
            # a token straddles the border (a text that ends in a newline, say): force the border, so that every row
            # has the same head and cue
            found = self._split(own, alone=True)[1]
        return found

    def offsets(self, values: Mapping[str, Any], where: str) -> tuple[str, Ids, list[tuple[int, int]]]:
        """The row's own part, in which no slot may stand: as text, as ids, and where each of these begins and ends in the text.

        Raises:
            ConfigError: the tokenizer does not tell (it is none of transformers' fast ones).
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise ConfigError(
                "this base's tokenizer does not tell where its tokens stand in a text; take type generation"
            )
        own = "".join(self._own(values, where))
        found = self.tokenizer(own, add_special_tokens=False, return_offsets_mapping=True)
        return own, tuple(found["input_ids"]), [tuple(place) for place in found["offset_mapping"]]

    def answer(self, word: str) -> Ids:
        """Ids of an answer.

        Raises:
            ConfigError: it has no tokens.
        """
        ids = self._ids(self._answer(word))
        if not ids:
            raise ConfigError(f"the answer {word!r} renders to no tokens; check template.answer and the label words")
        return ids

    def _word_end(self, shown: bool) -> Ids:
        """What ends an answer that is chosen: what follows the answers of demonstrations, else the end of a text or turn."""
        if self.closing and (last := getattr(self.tokenizer, "sep_token_id", None)) is not None:
            return (last,)
        if shown and not self.closing and not self.spec.in_chat and (follows := self._ids(self.spec.separator)):
            return follows[:1]
        return self.ends[:1] or self._ids("\n")[:1]

    def prompt(self, values: Mapping[str, Any], where: str = "row") -> str:
        """The whole prompt as text, to look at; a slot shows as its name, or as the text that it is read as."""
        whole = join(self._front, self._own(values, where), self._back)
        fills = [fill for area in self._fills for fill in area]
        shown = [f"[{fill}]" if isinstance(fill, str) else fill[0] for fill in fills]
        return "".join(a + b for a, b in zip(whole, [*shown, ""], strict=True))

    def _filled(
        self, areas: Sequence[tuple[AnySlot, ...]], soft: bool
    ) -> tuple[tuple[Group, ...], list[list[str | tuple[str, Ids]]]]:
        """The groups that are learned; and for each area what its slots hold: a hole's name, or a text and its ids."""
        groups: list[Group] = []
        fills: list[list[str | tuple[str, Ids]]] = []
        for area in areas:
            mine: list[str | tuple[str, Ids]] = []
            for slot in area:
                if isinstance(slot, MaskSlot):
                    if not self.closing:
                        raise ConfigError(
                            "the template holds {{ mask }}, but this base goes on behind the text; take it out, or take a "
                            "masked-LM base"
                        )
                    mine.append("mask")
                elif soft:
                    length = slot.length or len(self._ids(slot.text or ""))
                    if not length:
                        raise ConfigError(f"soft({slot.text!r}): the text has no tokens on this base; give a length")
                    groups.append(Group(f"soft{len(groups)}", length, slot.text, slot.init))
                    mine.append(groups[-1].name)
                else:
                    mine.append(self._as_text(slot))
            fills.append(mine)
        return tuple(groups), fills

    def _as_text(self, slot: SoftSlot) -> tuple[str, Ids]:
        if slot.text is None:
            raise ConfigError(
                "the template has a soft slot without a text, which this method does not learn; train soft or p_tuning, or "
                'give the slot a text: {{ soft(5, "…") }}'
            )
        return slot.text, self._ids(slot.text)

    def _set_around(self, demonstrations: Sequence[tuple[Mapping[str, Any], str]]) -> Marked:
        """Set what stands before and behind the row's own part, `_front` and `_back`; a stand-in for that part."""
        spec = self.spec
        if spec.messages:
            lead = [
                turn
                for values, word in demonstrations
                for turn in shot_turns(values, spec.messages, self._answer(word))
            ]
            system = "\n\n".join(text for text in (spec.system, MARK.join(self._instruction)) if text)
            self._conversations = Conversations(self.tokenizer, spec.messages, system, lead)
            self._front, self._back = self._conversations.front, self._conversations.back
            return (self._conversations.example,)
        shots = [self._shot(values, word) for values, word in demonstrations]
        if spec.chat:
            plain = [(before + behind, answer) for before, answer, behind in shots]
            front, self._back = user_turn(
                self.tokenizer, spec.system, MARK.join(self._instruction), MARK.join(self._cue), plain
            )
        else:
            end = spec.end if self.closing else ""
            examples = "".join("".join(shot) + end + spec.separator for shot in shots)
            front, self._back = join(self._instruction, (examples,)), self._cue
        self._front = join(front, self._opening)
        return self._gap + "word", *["word"] * len(self._fills[1])

    def _shot(self, values: Mapping[str, Any], word: str) -> tuple[str, str, str]:
        """A demonstration: what stands before its answer, the answer, and what stands behind it."""
        pieces = join(self._input(values, "a demonstration"), self._cue)
        slots = (*self._in_input, *self._in_cue)
        at = next((place for place, slot in enumerate(slots) if isinstance(slot, MaskSlot)), len(slots))
        return "".join(pieces[: at + 1]), self._answer(word), "".join(pieces[at + 1 :])

    def _own(self, values: Mapping[str, Any], where: str) -> Marked:
        """The row's own part."""
        if self._conversations is not None:
            return (self._conversations.own(values, where),)
        first, *rest = self._input(values, where)[len(self._opening) - 1 :]
        return first[len(self._opening[-1]) :], *rest

    def _input(self, values: Mapping[str, Any], where: str) -> Marked:
        """The whole input, split at its slots."""
        names = NAMES if self._in_input else {}
        pieces = tuple(self._rendered(self.spec.input, {**values, **names}, where).split(MARK))
        if len(pieces) != len(self._in_input) + 1:
            raise DataError(f"{where}: the row holds the mark that stands for a slot; take it out of the row")
        return pieces

    def _answer(self, word: str) -> str:
        text = self._rendered(self.spec.answer, {"answer": word}, "template.answer")
        return text.lstrip() if self.spec.in_chat else text  # a chat turn begins without a space

    def _rendered(self, text: str, values: Mapping[str, Any], where: str) -> str:
        return render(text, values, where, self._most, plain=self.rules > 1)

    def _split(self, own: Marked, alone: bool = False) -> tuple[Tokens, Tokens, Tokens]:
        """Tokenize the whole prompt and cut it where the row's own part begins and ends, and at every slot.

        Args:
            alone: the row's part by itself, without what stands around it.
        """
        areas = (("",), own, ("",)) if alone else (self._front, own, self._back)
        ids: tuple[list[int], list[int], list[int]] = (list(() if alone else self._bos), [], [])
        holes: tuple[list[int], list[int], list[int]] = ([], [], [])
        stretch: list[tuple[int, str]] = []  # between two slots: texts and whose they are
        for owner, pieces in enumerate(areas):
            for place, text in enumerate(pieces):
                if place:
                    self._tokenize(stretch, ids)
                    stretch.clear()
                    fill = self._fills[owner][place - 1]
                    if isinstance(fill, str):
                        holes[owner].append(len(ids[owner]))
                    else:
                        ids[owner].extend(fill[1])
                stretch.append((owner, text))
        self._tokenize(stretch, ids)
        head, found, cue = (Tokens(tuple(i), tuple(h)) for i, h in zip(ids, holes, strict=True))
        return head, found, cue

    def _tokenize(self, stretch: Sequence[tuple[int, str]], ids: Sequence[list[int]]) -> None:
        """Tokenize texts as one and hand each token to the owner of its first character."""
        if not getattr(self.tokenizer, "is_fast", False):
            for owner, text in stretch:
                ids[owner].extend(self._ids(text))
            return
        whole = self.tokenizer(
            "".join(text for _, text in stretch), add_special_tokens=False, return_offsets_mapping=True
        )
        ends, place = [], 0
        for owner, text in stretch:
            place += len(text)
            ends.append((place, owner))
        for token, (start, _) in zip(whole["input_ids"], whole["offset_mapping"], strict=True):
            ids[next((owner for end, owner in ends if start < end), stretch[-1][0])].append(token)

    def _ids(self, text: str) -> Ids:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _specials(tokenizer: Any) -> tuple[Ids, Ids]:
    """Special tokens that the tokenizer puts in front of a text (BOS, [CLS]) and behind it (EOS, [SEP]), if any."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for place in range(len(full) - len(bare) + 1):
        if full[place : place + len(bare)] == bare:
            return tuple(full[:place]), tuple(full[place + len(bare) :])
    return (), ()
