"""A template bound to a tokenizer: rows to ids, by segment.

The whole prompt is tokenized as one text, so the ids are those that a plain forward would see. They are cut where the
row's own part begins and ends. The text is also cut at its slots, where a token always ends. Texts are armoured (see
`tokens.py`), so no row and no demonstration makes a special token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError
from ..types import Ids
from .chat import Conversations, answer_lead, shot_turns, turn_tokens, user_turn
from .limits import OUTPUT
from .sandbox import armoured, render
from .slots import MARK, NAMES, Marked, MaskSlot, fill, in_input, in_plain, join
from .spec import TemplateSpec
from .tokens import Texts, whole
from .turns import answer_ends

RULES = 2  # how rows become ids; 1: as artifacts of format version 1 were trained


@dataclass(frozen=True)
class Tokens:
    """Ids of one segment, and its holes: before which of them each slot stands (as many as there are: behind all)."""

    ids: Ids
    holes: Ids = ()


class Prompter:
    """Turns rows into ids, split into `prefix_ids`, text, question and cue.

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
        prefix_ids, question, cue: ids that all rows share: before the row's own part (instruction, demonstrations) and
            behind it.
        tail: ids behind everything; empty unless `closing`.
        groups: the soft slots that are learned, in order.
        word_end: a token that ends an answer that is chosen.
        names: for `prefix_ids`, `text` and `cue` the names of their slots in order: those of `groups`, and `mask`.
        holes: where the slots of `prefix_ids` and `cue` stand, as in `Tokens`; those of the text differ by row (see `row`).
        ends: tokens that end a written answer; the first of them is what training learns.
        end_texts: texts that do (see `turns.py`).
        keeps_end: whether the end of a text that is too long matters more than its beginning (a conversation).

    Raises:
        ConfigError: a soft slot without a text, where no method learns it; a mask on a causal base; a base without the
            chat template that the task asks for.
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
        guarded = rules > 1
        self.texts = Texts(tokenizer, turn_tokens(tokenizer) if guarded and spec.in_chat else (), guarded)
        self._day = spec.today if guarded else None
        self._templates = {text: armoured(text, self.texts.armour) for text in (spec.input, spec.answer)}
        self._in_input = in_input(spec.input)
        cue, self._in_cue = in_plain(spec.cue)
        kept = instruction or (soft and bool(spec.groups))
        instruction_pieces, in_front = in_plain(spec.instruction) if kept else (("",), ())
        self._instruction, self._cue, self._opening = (
            tuple(map(self.texts.armour, pieces)) for pieces in (instruction_pieces, cue, spec.opening)
        )
        self._question = self.texts.armour(spec.question)
        self._gap = spec.gap
        opening = len(self._opening) - 1
        areas = ((*in_front, *self._in_input[:opening]), self._in_input[opening:], self._in_cue)
        self.groups, self._fills = fill(areas, self._slot_ids, soft, closing)
        self.names: dict[str, tuple[str, ...]] = {
            name: tuple(fill for fill in fills if isinstance(fill, str))
            for name, fills in zip(("prefix_ids", "text", "cue"), self._fills, strict=True)
        }
        self._fills.insert(2, [])  # none stands in the question
        self._bos = () if spec.in_chat else _specials(tokenizer)[0]
        self._conversations: Conversations | None = None
        self._trims = False, False  # whether the chat template takes white space off the row's beginning and end
        self._lead = answer_lead(tokenizer, self._day) if guarded and spec.in_chat else ""
        example = self._set_around(demonstrations)
        front = self.texts.ids(self._front[0])
        self._follows = len(self._front) > 1 or bool(self._front[0])  # the row's own part stands behind some text
        if guarded and self._bos and front[: len(self._bos)] == self._bos:
            self._bos = ()  # the template writes it itself
        before, _, question, behind = self._split(example)
        self.prefix_ids, self.question, self.cue = before.ids, question.ids, behind.ids
        self.holes = {"prefix_ids": before.holes, "cue": behind.holes}
        self.tail = self._tail() if closing else ()
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
        before, row, question, cue = self._split(own)
        if (before.ids, question.ids, cue.ids) != (self.prefix_ids, self.question, self.cue):
            # a token straddles the border (a text that ends in a newline, say): force the border, so that every row
            # has the same `prefix_ids`, question and cue
            row = self._split(own, alone=True)[1]
        return row

    def offsets(self, values: Mapping[str, Any], where: str) -> tuple[str, Ids, list[tuple[int, int]]]:
        """The row's own part, in which no slot may stand: as text, as ids, and where each of these begins and ends in the text.

        Raises:
            ConfigError: the tokenizer does not tell (it is none of transformers' fast ones).
        """
        if not self.texts.fast:
            raise ConfigError(
                "this base's tokenizer does not tell where its tokens stand in a text; use a base with a fast tokenizer, or "
                "type generation"
            )
        own = "".join(self._own(values, where))
        ids, offsets, (end,) = self.texts.placed([own], self._follows)
        return own if end == len(own) else self.texts.bare(own), ids, [(a, b) for a, b in offsets]

    def answer(self, word: str, behind: bool = True) -> Ids:
        """Ids of an answer.

        Args:
            behind: it stands behind the cue; else it is a text of its own, as a decoder writes it.

        Raises:
            ConfigError: it has no tokens.
        """
        ids = self.texts.ids(self._answer(word), behind)
        if not ids:
            raise ConfigError(f"the answer {word!r} renders to no tokens; check template.answer and the label words")
        return ids

    def _word_end(self, shown: bool) -> Ids:
        """What ends an answer that is chosen: what follows the answers of demonstrations, else the end of a text or turn."""
        if self.closing and (last := getattr(self.tokenizer, "sep_token_id", None)) is not None:
            return (last,)
        if shown and not self.closing and not self.spec.in_chat:
            follows = self.texts.ids(self.texts.armour(self.spec.separator), behind=True)
            if follows:
                return follows[:1]
        return self.ends[:1] or self.texts.ids("\n", behind=True)[:1]

    def _tail(self) -> Ids:
        """`template.end` and what the tokenizer puts behind a text, once."""
        end, last = self.texts.ids(self.texts.armour(self.spec.end), behind=True), _specials(self.tokenizer)[1]
        return end if self.rules > 1 and last and end[-len(last) :] == last else (*end, *last)

    def prompt(self, values: Mapping[str, Any], where: str = "row") -> str:
        """The whole prompt as text, to look at; a slot shows as its name, or as the text that it is read as."""
        whole = join(self._front, self._own(values, where), (self._question,), self._back)
        fills = [fill for area in self._fills for fill in area]
        shown = [f"[{fill}]" if isinstance(fill, str) else fill[0] for fill in fills]
        return self.texts.bare("".join(a + b for a, b in zip(whole, [*shown, ""], strict=True)))

    def _slot_ids(self, text: str) -> Ids:
        return self.texts.ids(self.texts.armour(text), behind=True)

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
            self._conversations = Conversations(self.tokenizer, self.texts, spec.messages, system, lead, self._day)
            self._front, self._back = self._conversations.front, self._conversations.back
            return (self._conversations.example,)
        shots = [self._shot(values, word) for values, word in demonstrations]
        if spec.chat:
            plain = [(before + behind, answer) for before, answer, behind in shots]
            around = (MARK.join(self._instruction), self._question, MARK.join(self._cue))
            turn = user_turn(self.tokenizer, self.texts, spec.system, *around, plain, self._day)
            front, self._question, self._back, trims = turn
            if self.rules > 1:
                self._trims = trims[0] and not any(self._opening), trims[1]
        else:
            end = self.texts.armour((spec.end if self.closing else "") + spec.separator)
            examples = "".join("".join(shot) + end for shot in shots)
            front, self._back = join(self._instruction, (examples,)), self._cue
        self._front = join(front, self._opening)
        size = len("".join((*self._front, self._question, *self._back, spec.end)))
        if size > 10 * self._most:
            raise ConfigError(
                f"the template and its demonstrations have {size} characters, which is more than this base reads; shorten them"
            )
        return self._gap + "word", *["word"] * len(self._fills[1])

    def _shot(self, values: Mapping[str, Any], word: str) -> tuple[str, str, str]:
        """A demonstration: what stands before its answer, the answer, and what stands behind it."""
        pieces = join(self._input(values, "a demonstration"), (self._question,), self._cue)
        slots = (*self._in_input, *self._in_cue)
        at = next((place for place, slot in enumerate(slots) if isinstance(slot, MaskSlot)), len(slots))
        return "".join(pieces[: at + 1]), self._answer(word), "".join(pieces[at + 1 :])

    def _own(self, values: Mapping[str, Any], where: str) -> Marked:
        """The row's own part."""
        if self._conversations is not None:
            return (whole(self._conversations.own(values, where), where),)
        first, *rest = self._input(values, where)[len(self._opening) - 1 :]
        own = [first[len(self._opening[-1]) :], *rest]
        own[0] = own[0].lstrip() if self._trims[0] else own[0]
        own[-1] = own[-1].rstrip() if self._trims[1] else own[-1]
        return tuple(own)

    def _input(self, values: Mapping[str, Any], where: str) -> Marked:
        """The whole input, split at its slots."""
        names = NAMES if self._in_input else {}
        pieces = tuple(self._rendered(self.spec.input, {**values, **names}, where).split(MARK))
        if len(pieces) != len(self._in_input) + 1:
            raise DataError(f"{where}: the row holds the mark that stands for a slot; remove it from the row")
        return pieces

    def _answer(self, word: str) -> str:
        text = self._rendered(self.spec.answer, {"answer": word}, "template.answer")
        # a chat turn begins as the base's chat template begins it, most without a space
        return self._lead + text.lstrip() if self.spec.in_chat else text

    def _rendered(self, text: str, values: Mapping[str, Any], where: str) -> str:
        return whole(render(text, values, where, self._most, self.rules > 1, self._templates[text]), where)

    def _split(self, own: Marked, alone: bool = False) -> list[Tokens]:
        """Tokenize the whole prompt and cut it into `prefix_ids`, the row's own part, question and cue, and at every slot.

        Args:
            alone: the row's part by itself, without what stands around it.
        """
        areas = (("",), own, ("",), ("",)) if alone else (self._front, own, (self._question,), self._back)
        ids: list[list[int]] = [list(() if alone else self._bos), [], [], []]
        holes: list[list[int]] = [[], [], [], []]
        stretch: list[tuple[int, str]] = []  # between two slots: texts and whose they are
        behind = alone and self._follows
        for owner, pieces in enumerate(areas):
            for place, text in enumerate(pieces):
                if place:
                    self._tokenize(stretch, ids, behind)
                    stretch.clear()
                    behind = True
                    fill = self._fills[owner][place - 1]
                    if isinstance(fill, str):
                        holes[owner].append(len(ids[owner]))
                    else:
                        ids[owner].extend(fill[1])
                stretch.append((owner, text))
        self._tokenize(stretch, ids, behind)
        return [Tokens(tuple(i), tuple(h)) for i, h in zip(ids, holes, strict=True)]

    def _tokenize(self, stretch: Sequence[tuple[int, str]], ids: Sequence[list[int]], behind: bool) -> None:
        """Tokenize texts as one and hand each token to its owner."""
        found = self.texts.encode([text for _, text in stretch], behind)
        for (owner, _), own in zip(stretch, found, strict=True):
            ids[owner].extend(own)


def _specials(tokenizer: Any) -> tuple[Ids, Ids]:
    """Special tokens that the tokenizer puts in front of a text (BOS, [CLS]) and behind it (EOS, [SEP]), if any."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for place in range(len(full) - len(bare) + 1):
        if full[place : place + len(bare)] == bare:
            return tuple(full[:place]), tuple(full[place + len(bare) :])
    return (), ()
