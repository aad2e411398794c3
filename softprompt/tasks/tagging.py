"""Tagging: each word of a text has a tag, and neighbouring words of one label are a span (names, parts of an address)."""

from __future__ import annotations

import bisect
import functools
import json
import re
import unicodedata
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from ..metrics import metrics_for
from ..metrics.spans import OUTSIDE, label_of
from ..values import is_blank, kind, not_text, plain, shown, text_of
from .listed import ListedTask
from .spec import TaskSpec

_EXPECTED = 'expected [{"start": …, "end": …, "label": …}], in characters of the text'
_OTHER_SCHEMES = ("E-", "S-", "L-", "U-", "M-")
_WIDE = 0x2E80  # from here on characters (Chinese, Japanese, Korean) are words by themselves
MAX_TAGS = 10_000

Borders = tuple[int, int]


class TaggingSpec(TaskSpec):
    """A task of type `tagging`.

    Attributes:
        tags: all tags, in the order of the head's logits: BIO (`B-x`, `I-x`, `O`), or labels without prefixes.
            Neighbouring words with the same label are then one span.
        transitions: the head learns which tag follows which, and chooses all tags of a row together. Null: yes, up to
            256 tags.
        joiner: separator of a row's `tokens` in the text that the template shows.
        window_overlap: tokens that neighbouring windows of a long text share. Null: 64, or half a window if that is
            less.
    """

    metric: str = "span_f1"
    tags: list[str] = Field(default_factory=list, max_length=MAX_TAGS, examples=[["O", "B-name", "I-name"]])
    transitions: bool | None = None
    joiner: str = " "
    window_overlap: NonNegativeInt | None = None


class Tagging(ListedTask):
    """Rows with `tokens` and `tags`, one for each; or with a `text` and its `entities`, whose words are found in it.

    The template may read `text`: a row's own, or its tokens joined.
    """

    Spec = TaggingSpec
    form = head_form = "tagged"
    metrics: ClassVar[tuple[str, ...]] = tuple(metrics_for("tags"))
    answer_fields = ("tags", "entities")
    derived: ClassVar[dict[str, str]] = {"text": "tokens"}
    also_read: ClassVar[tuple[str, ...]] = ("text",)
    listed = "tags"
    spec: TaggingSpec

    def check(self) -> None:
        """Tags must differ, and be of a scheme that is read."""
        tags = self.spec.tags
        if len(set(tags)) < len(tags):
            raise ConfigError(
                f"tags: {next(tag for tag in tags if tags.count(tag) > 1)!r} stands there twice; keep one"
            )
        if len(tags) == 1 or any(map(is_blank, tags)):
            raise ConfigError(f"tags needs two or more tags, none of them empty, got {json.dumps(tags)[:80]}")
        self._prefixed = not tags or any(tag.startswith(("B-", "I-")) for tag in tags)
        if self._prefixed and (other := [tag for tag in tags if tag.startswith(_OTHER_SCHEMES)]):
            raise ConfigError(f"tags holds {other[0]!r} beside tags with B- or I-; write them as BIO: B-x, I-x and O")
        self.places = {tag: place for place, tag in enumerate(tags)}

    def in_order(self, answers: set[str]) -> list[str]:
        """`O` first, then B- before I- of each label."""
        return sorted(answers, key=lambda tag: (tag != OUTSIDE, label_of(tag)[1] or "", tag))

    def shown(self, values: dict[str, Any]) -> dict[str, Any]:
        """With both `tokens` and `text`, each made from the other where that is not there."""
        text, borders = self.words_of(values)
        tokens = _given(values, "tokens")
        return {**values, "text": text, "tokens": tokens or [text[begin:end] for begin, end in borders]}

    def names_words(self, values: dict[str, Any]) -> bool:
        """Whether a row names its words itself, by `tokens`."""
        return _given(values, "tokens") is not None

    def words_of(self, values: dict[str, Any]) -> tuple[str, list[Borders]]:
        """The text of a row that can be asked, and where each of its words begins and ends, in characters."""
        tokens = _given(values, "tokens")
        if tokens is None:
            text = text_of(values["text"])
            return text, words_in(text)
        words = [text_of(token) for token in tokens]
        borders, begin = [], 0
        for word in words:
            borders.append((begin, begin + len(word)))
            begin += len(word) + len(self.spec.joiner)
        return self.spec.joiner.join(words), borders

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Words to tag must be there; of a row with `tokens` and `text`, the text must be the tokens joined."""
        tokens, text = _given(values, "tokens"), values.get("text")
        if tokens is None:
            if text is None:
                return f"missing field 'tokens' (a list of words), or 'text'{suggest('tokens', map(str, values))}"
            if (problem := not_text(text)) is not None:
                return f"field 'text' is {problem}; expected text"
            if not words_in(text_of(text)):
                return "field 'text' is empty"
        elif not isinstance(tokens, (list, tuple)):
            return f"field 'tokens' is {shown(tokens)}; expected a list of words"
        else:
            for place, token in enumerate(tokens):
                if (problem := not_text(token)) is not None:
                    return f"tokens[{place}] is {problem}; expected text"
            if all(is_blank(text_of(token)) for token in tokens):
                return "field 'tokens' is empty"
        joined = self.words_of(values)[0]
        if (own := _given(values, "text")) is not None and (not_text(own) is not None or text_of(own) != joined):
            return (
                f"field 'text' differs from the tokens joined by task.joiner ({self.spec.joiner!r}); leave out one of "
                "them, or set joiner"
            )
        return super().check_input({**values, "tokens": joined if tokens is None else tokens, "text": joined})

    def check_row(self, values: dict[str, Any]) -> str | None:
        """And a tag of the task's own for each of them."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if (problem := self._no_answer(values)) is not None or not self.spec.tags:
            return problem
        for place, tag in enumerate(self.gold(values) or ()):
            if tag not in self.places:
                return f"word {place + 1} has the tag {shown(tag)}, which task.tags does not list{suggest(tag, self.places)}"
        return None

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has neither tags nor entities; an empty list of entities says that there are none."""
        return all(_given(values, name) is None for name in self.answer_fields)

    def _no_answer(self, values: dict[str, Any]) -> str | None:
        """Why a row that can be asked has no tag for each word, or None."""
        if _given(values, "tags") is None and _given(values, "entities") is not None:
            return self._no_entities(values)
        return _no_tags(values)

    def _no_entities(self, values: dict[str, Any]) -> str | None:
        """Why a row's entities are none that its words could be tagged with, or None."""
        entities = plain(values["entities"])
        if not isinstance(entities, (list, tuple)):
            return f"entities is {shown(entities)}; {_EXPECTED}"
        text, borders = self.words_of(values)
        read: list[tuple[int, int, str]] = []
        for place, entity in enumerate(entities):
            if not isinstance(entity, dict) or (missing := {"start", "end", "label"} - entity.keys()):
                what = f"has no {min(missing)!r}" if isinstance(entity, dict) else f"is {shown(entity)}"
                return f"entities[{place}] {what}; {_EXPECTED}"
            start, end, label = (plain(entity[name]) for name in ("start", "end", "label"))
            if any(isinstance(at, bool) or not isinstance(at, int) for at in (start, end)):
                return f"entities[{place}] is from {shown(start)} to {shown(end)}; {_EXPECTED}"
            if not isinstance(label, str) or is_blank(label):
                return f"entities[{place}].label is {shown(label)}; expected text"
            if not 0 <= start < end <= len(text):
                return (
                    f"entities[{place}] is from {start} to {end}, outside of the text, which has {len(text)} characters"
                )
            read.append((start, end, label))
        read.sort()
        for (one, before, _), (start, _, _) in pairwise(read):
            if start < before:
                return f"the entities at {one} and {start} overlap; a word has one tag, keep one of them"
        for start, end, _ in read:
            inside = _inside(borders, start, end)
            if not inside:
                return f"the entity {shown(text[start:end])} at {start} holds no word"
            first, last = borders[inside[0]], borders[inside[-1]]
            if first[0] < start or last[1] > end:
                cut = first if first[0] < start else last
                return (
                    f"the entity {shown(text[start:end])} at {start} begins or ends inside of the word "
                    f"{shown(text[slice(*cut)])}; mark whole words"
                )
        return None if self._prefixed else self._not_told_apart(read, borders)

    def _not_told_apart(self, entities: list[tuple[int, int, str]], borders: Sequence[Borders]) -> str | None:
        """Why tags without prefixes cannot say what these entities (start, end, label) are, or None."""
        for start, _, label in entities:
            if label == OUTSIDE:
                return f"the entity at {start} has the label {OUTSIDE!r}, which means no entity; leave it out"
        for (start, end, label), (second, behind, other) in pairwise(entities):
            if label == other and _inside(borders, start, end).stop == _inside(borders, second, behind).start:
                return (
                    f"the entities at {start} and {second} have the label {shown(label)} and no word between them; tags "
                    "without B- make them one: list task.tags as B-x, I-x and O"
                )
        return None

    def gold(self, values: dict[str, Any]) -> list[str] | None:
        """The tag of each word; None where the row has none, or what is asked in use has something else in their place."""
        if self._no_answer(values) is not None:
            return None
        if _given(values, "tags") is not None:
            return [text_of(tag) for tag in plain(values["tags"])]
        _, borders = self.words_of(values)
        tags = [OUTSIDE] * len(borders)
        for entity in plain(values["entities"]):
            for place, word in enumerate(_inside(borders, entity["start"], entity["end"])):
                prefix = "" if not self._prefixed else "I-" if place else "B-"
                tags[word] = prefix + text_of(entity["label"])
        return tags

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """All tags as one text, where the row has them."""
        tags = self.gold(values)
        return ([" ".join(tags)], 0) if tags is not None else ([], None)

    def content(self, row: Row) -> str:
        """What the template reads, words joined: rows of one text are the same however they hold it."""
        values = self.shown(row.values)
        return "\x1f".join(str(values.get(name)) for name in sorted(self.spec.template.fields))

    def label(self, row: Row) -> Hashable:
        """All alike: there is nothing to stratify by."""
        return ""

    def answer(self, row: Row) -> Hashable:
        """The tags."""
        return tuple(self.gold(row.values) or ())

    def floor(self, metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
        """As ever, of tags."""
        return super().floor(metric, rows)[0], "always the most frequent tag"


def words_in(text: str) -> list[Borders]:
    """Where the words of a text begin and end: runs of letters and digits; every other visible character by itself.

    A Chinese, Japanese or Korean character is a word, too.
    """
    return [match.span() for match in _word().finditer(text)]


@functools.cache
def _word() -> re.Pattern[str]:
    """Letters with their marks and digits, which `\\w` parts in scripts such as Devanagari; or another visible character."""
    basic = [chr(point) for point in range(0x10000)]
    letters = "".join(char for char in basic[:_WIDE] if unicodedata.category(char)[0] in "LMN")
    blank = "".join(char for char in basic if unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp"))
    return re.compile(f"[{letters}]+|[^{re.escape(blank)}]")


def _given(values: dict[str, Any], name: str) -> Any:
    """A field's value; None where it holds nothing, as tables have it for columns that other rows use (null, NaN, "")."""
    value = plain(values.get(name))
    return None if kind(value) in ("null", "NaN") or value == "" else value


def _inside(borders: Sequence[Borders], start: int, end: int) -> range:
    """Words that a stretch of the text has a part in."""
    first = bisect.bisect_right(borders, start, key=lambda word: word[1])
    return range(first, max(first, bisect.bisect_left(borders, end, key=lambda word: word[0])))


def _no_tags(values: dict[str, Any]) -> str | None:
    """Why these are no tags of a row's tokens, or None."""
    tokens, tags = _given(values, "tokens"), _given(values, "tags")
    if tags is None:
        return f"missing field 'tags', or 'entities'{suggest('tags', map(str, values))}"
    if tokens is None:
        return "the row has tags but no tokens; give 'tokens', a list of words"
    if not isinstance(tags, (list, tuple)):
        return f"tags is {shown(tags)}; expected a list of texts, one for each token"
    for place, tag in enumerate(tags):
        if not isinstance(plain(tag), str) or is_blank(tag):
            return f"tags[{place}] is {shown(tag) if isinstance(tag, str) else kind(tag)}; expected the name of a tag"
    if len(tags) != len(tokens):
        return f"there are {len(tokens)} tokens and {len(tags)} tags; give each token its own"
    blank = [place for place, token in enumerate(tokens) if is_blank(text_of(token))]
    return f"tokens[{blank[0]}] is empty; remove it, and its tag" if blank else None
