"""Texts to ids: what a template says may hold special tokens, what a row says is text.

A prompt is tokenized as one text, in which both stand side by side. So the special tokens that a template, or a base's
chat template, writes are *armoured*: an alias that no row can guess stands for each of them. What is then left of them
in a text came from a row. Such a text is tokenized by a copy of the tokenizer that knows the special tokens by their
aliases only. All other texts are tokenized as they are, so their ids are those of plain tokenization.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
import secrets
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer

from ..errors import DataError
from ..types import Ids

_SECRET = secrets.token_hex(8)
_ALIAS = re.compile(f"\ufdd2([0-9]+){_SECRET}\ufdd3")
_SHIELD = re.compile(f"\ufdd4([0-9]+){_SECRET}\ufdd5")
_LEADS = ("\n", ".", "a", "0", "的", "|")
_PROBES = ("a", "good", "Yes", "1", "é")
Offsets = list[tuple[int, int]]


class Texts:
    """A tokenizer, with what is needed to keep rows' texts from becoming special tokens.

    Args:
        control: further tokens that only a template may write (what opens and closes a chat's turns).
        guarded: False tokenizes everything as it is, as artifacts of format version 1 were trained.

    Attributes:
        fast: where tokens stand in a text is known.
    """

    def __init__(self, tokenizer: Any, control: Iterable[int] = (), guarded: bool = True) -> None:
        self.tokenizer, self._guarded = tokenizer, guarded
        self.fast: bool = bool(getattr(tokenizer, "is_fast", False))
        self._names = _special_names(tokenizer, control) if guarded else {}
        unknown = getattr(tokenizer, "unk_token_id", None)
        # what no piece fits is unknown; it is only a row's special token where the row writes its name
        self._unknown = unknown if unknown in self._names and not _is_end(tokenizer, unknown) else None
        self._control = frozenset(self._names) - {self._unknown}
        self._ids_of = {name: token for token, name in self._names.items()}
        longest = sorted(self._ids_of, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def armour(self, text: str) -> str:
        """A template's text, with aliases for its special tokens."""
        return self._any.sub(lambda found: f"\ufdd2{self._ids_of[found[0]]}{_SECRET}\ufdd3", text)

    def bare(self, text: str) -> str:
        """An armoured text as it reads."""
        return _ALIAS.sub(lambda found: self._names[int(found[1])], text) if "\ufdd2" in text else text

    def named(self, text: str) -> bool:
        """Whether a row's text writes special tokens, which are text there."""
        return self._any.search(text) is not None

    def shield(self, text: str) -> str:
        """A row's text, in a form that a base's chat template and `unshield` leave as text."""
        return self._any.sub(lambda found: f"\ufdd4{self._ids_of[found[0]]}{_SECRET}\ufdd5", text)

    def unshield(self, text: str) -> str:
        """What a chat template made of shielded texts, armoured."""
        return _SHIELD.sub(lambda found: self._names[int(found[1])], self.armour(text))

    def ids(self, text: str, behind: bool = False) -> Ids:
        """Ids of an armoured text.

        Args:
            behind: something stands in front of it, so it gets no blank that tokenizers put in front of a text.
        """
        return self.encode([text], behind)[0]

    def encode(self, pieces: Sequence[str], behind: bool = False) -> list[Ids]:
        """Ids of armoured pieces of one text; each token goes to the piece that its first character stands in."""
        if not self.fast:
            return [self._slow(piece) for piece in pieces]
        ids, offsets, ends = self.placed(pieces, behind)
        starts = [start for start, _ in offsets]
        cuts = [0, *(bisect.bisect_left(starts, end) for end in ends[:-1]), len(ids)]
        return [ids[begin:end] for begin, end in itertools.pairwise(cuts)]

    def placed(self, pieces: Sequence[str], behind: bool = False) -> tuple[Ids, Offsets, list[int]]:
        """Ids of the pieces as one text, where each stands, and where each piece ends, in one and the same reading of it."""
        lead = self._lead if behind else None
        bare = [self.bare(piece) for piece in pieces]
        ids, offsets = self._tokenize("".join(bare), lead, self.tokenizer)
        if self._is_strange(ids, "".join(pieces), bare):
            bare = list(pieces)
            ids, offsets = self._tokenize("".join(bare), lead, _aliased(self.tokenizer, tuple(self._names.items())))
        ends, place = [], 0
        for piece in bare:
            ends.append(place := place + len(piece))
        return ids, offsets, ends

    def place(self, text: str, at: int, size: int) -> int:
        """Where in an armoured text something stands that `placed` put at `at` of a reading of `size` characters."""
        if size == len(text):
            return at
        for found in _ALIAS.finditer(text):
            if at <= found.start():
                break
            at += len(found[0]) - len(self._names[int(found[1])])
        return at

    def _is_strange(self, ids: Sequence[int], text: str, bare: Sequence[str]) -> bool:
        """Whether special tokens came out of what is no template's."""
        if self._unknown is not None and self._unknown in ids and self._names[self._unknown] in text:
            return True
        if self._control.isdisjoint(ids):
            return "\ufdd2" in text and _ALIAS.search(text) is not None
        own = [int(token) for token in _ALIAS.findall(text)]
        return own != [token for token in ids if token in self._control or token in own]

    def _tokenize(self, text: str, lead: str | None, tokenizer: Any) -> tuple[Ids, Offsets]:
        for one in (lead, *_LEADS) if lead else ():
            ids, offsets = _run(tokenizer, one + text)
            if not any(start < len(one) < end for start, end in offsets):
                kept = [(token, at) for token, at in zip(ids, offsets, strict=True) if at[1] > len(one)]
                places = [(max(0, start - len(one)), end - len(one)) for _, (start, end) in kept]
                return tuple(token for token, _ in kept), places
        return _run(tokenizer, text)

    @functools.cached_property
    def _lead(self) -> str | None:
        """What can stand in front of a text to keep a blank away from it; None where the tokenizer adds none."""
        if not (self._guarded and self.fast):
            return None
        for lead in _LEADS:
            alone = _run(self.tokenizer, lead)[0]
            found = [_run(self.tokenizer, lead + probe) for probe in _PROBES]
            if not alone or any(ids[: len(alone)] != alone or len(ids) == len(alone) for ids, _ in found):
                continue  # it is no text to this tokenizer, or it grows together with what follows
            same = all(
                ids[len(alone) :] == _run(self.tokenizer, probe)[0]
                for (ids, _), probe in zip(found, _PROBES, strict=True)
            )
            return None if same else lead
        return None

    def _slow(self, text: str) -> Ids:
        """By a tokenizer that does not say where tokens stand: between the template's special tokens one by one."""
        plain = self.bare(text)
        ids = tuple(self.tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"])
        if not self._is_strange(ids, text, [plain]):
            return ids
        parts = _ALIAS.split(text)  # texts and, between them, tokens
        found: list[int] = []
        for place, part in enumerate(parts):
            if place % 2:
                found.append(int(part))
            elif part:
                found.extend(self._as_text(part))
        return tuple(found)

    def _as_text(self, text: str) -> list[int]:
        how = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        ids = self.tokenizer(text, **how)["input_ids"]
        if self._control.isdisjoint(ids) or len(text) < 2:
            return [token for token in ids if token not in self._control]
        # it knows the name by itself, too: cut it behind its first character
        cut = next((found.start() + 1 for found in self._any.finditer(text)), len(text) // 2)
        return [*self._as_text(text[:cut]), *self._as_text(text[cut:])]


def whole(text: str, where: str) -> str:
    """The text, if all of it can be tokenized.

    Raises:
        DataError: it holds half a character, as a text that was cut in JSON's escapes does.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise DataError(
            f"{where}: the text holds half a character ({half}); remove it or write the whole one"
        ) from None
    return text


def _run(tokenizer: Any, text: str) -> tuple[Ids, Offsets]:
    if isinstance(tokenizer, Tokenizer):
        found = tokenizer.encode(text, add_special_tokens=False)
        return tuple(found.ids), list(found.offsets)
    # not verbose: texts that are too long are cut or told later, by what they are
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return tuple(whole["input_ids"]), whole["offset_mapping"]


def _special_names(tokenizer: Any, control: Iterable[int]) -> dict[int, str]:
    """Texts of the special tokens, and of `control`."""
    names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    marked = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    more = {
        token: str(tokenizer.added_tokens_decoder[token])
        for token in control
        if token in tokenizer.added_tokens_decoder
    }
    return {token: str(name) for token, name in {**names, **marked, **more}.items() if str(name).strip()}


def _is_end(tokenizer: Any, token: int) -> bool:
    """Whether a token has a further meaning."""
    kinds = ("bos", "eos", "sep", "cls", "mask", "pad")
    return token in {getattr(tokenizer, f"{kind}_token_id", None) for kind in kinds}


_copies: weakref.WeakKeyDictionary[Any, dict[Any, Tokenizer]] = weakref.WeakKeyDictionary()


def _aliased(tokenizer: Any, names: tuple[tuple[int, str], ...]) -> Tokenizer:
    """A copy that knows these special tokens, whose ids stay, by their aliases only."""
    kept = _copies.setdefault(tokenizer, {})
    if names not in kept:
        kept[names] = _copy(tokenizer, {name: f"\ufdd2{token}{_SECRET}\ufdd3" for token, name in names})
    return kept[names]


def _copy(tokenizer: Any, alias: dict[str, str]) -> Tokenizer:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"truncation": None, "padding": None, "post_processor": None}
    for token in state["added_tokens"]:
        if token["content"] in alias:
            token |= {"content": alias[token["content"]], "normalized": False, "single_word": False}
    # a model may know a special token's name as a piece of its own, or join its pieces to it
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {alias.get(piece, piece): token for piece, token in model["vocab"].items()}
    else:
        model["vocab"] = [[alias.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("merges"):
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        kept = zip(model["merges"], pairs, strict=True)
        model["merges"] = [merge for merge, pair in kept if alias.keys().isdisjoint([*pair, "".join(pair)])]
    if model.get("unk_token") in alias:
        model["unk_token"] = alias[model["unk_token"]]
    return Tokenizer.from_str(json.dumps(state))
