"""The task that is proposed where nobody wrote one: a plain template, an instruction that names the labels, their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from ..errors import ConfigError
from ..values import composed
from .phrases import ENGLISH, Phrases

Kind = Literal["classification", "span", "generation", "tagging", "multilabel"]
MOST_NAMED = 100
"""Labels that an instruction names at most; more would fill a small base's context."""

_WRITES = {"max_new_tokens": 64, "stop": ["\n"]}


def propose(
    kind: Kind,
    fields: Sequence[str],
    labels: Sequence[str] = (),
    *,
    name: str = "task",
    instruction: str | None = None,
    label_words: Mapping[str, str] | None = None,
    phrases: Phrases = ENGLISH,
) -> dict[str, Any]:
    """A task as a mapping, without its data, as `Task.load` reads it.

    Where a label's word is the beginning of another's, all answers end in a full stop, so that none is.

    Args:
        fields: of a row that are read, as the template names them (Python identifiers), in their order there.
        labels: of a classification, tagging or sets of labels, in the order that they are to have.
        instruction: in front of every row; None: one that names the labels, or asks for the answer.
        label_words: label → its word; those that are not there are made of the label.
        phrases: the language of the instruction, the fields' names and the cue.

    Raises:
        ConfigError: no field; fewer than two labels; two labels with the same words.
    """
    if not fields:
        raise ConfigError("no column is read; name at least one, e.g. --text message")
    task: dict[str, Any] = {"version": 1, "name": task_name(name), "type": kind, "template": {}}
    template: dict[str, str] = task["template"]
    words: dict[str, str] = {}
    if kind == "classification":
        words = words_of(labels, label_words or {})
        task["verbalizer"] = words
    elif kind == "tagging":
        task["tags"] = list(labels)
    elif kind == "multilabel":
        task["labels"] = list(labels)
    elif kind == "generation":
        task["generation"] = {**_WRITES}
        task["metric"] = "chrf"
    elif kind == "span":
        task["generation"] = {**_WRITES}
        task["metric"] = "f1"
    said = _instruction(kind, list(words.values()), phrases) if instruction is None else instruction
    if said and kind != "tagging":
        template["instruction"] = said.rstrip() + "\n\n"
    template["input"] = phrases.shown(fields)
    if kind in phrases.cues:
        template["cue"] = phrases.cues[kind]
        if kind != "multilabel":  # whose labels a head decides
            template["answer"] = f" {{{{ answer }}}}{_closing(list(words.values()))}"
    return task


def _closing(words: Sequence[str]) -> str:
    """What ends every answer where a label's word is the beginning of another's: a base would have said both with it."""
    for mark in ("", ".", ";", "\n"):
        answers = sorted(word + mark for word in words)
        if not any(after.startswith(before) for before, after in pairwise(answers)):
            return mark
    return ""


def _instruction(kind: Kind, words: Sequence[str], phrases: Phrases) -> str:
    if kind == "span":
        return phrases.answer
    if kind != "classification" or len(words) > MOST_NAMED:
        return ""
    return phrases.choice(words)


def words_of(labels: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Label → the words that stand for it: as given, else the label in plain writing (`very_positive` → `very positive`).

    Labels that would get the same words keep their own spelling.

    Raises:
        ConfigError: fewer than two labels; words for a label that is not there; two labels that were given the same words.
    """
    if len(labels) < 2:
        raise ConfigError(
            f"there is one label only ({labels[0]!r}); at least two are needed" if labels else "no labels"
        )
    if unknown := [label for label in given if label not in labels]:
        raise ConfigError(f"label words are given for {unknown[0]!r}, which no row has (labels: {', '.join(labels)})")
    plain = {label: given.get(label) or plain_words(label) for label in labels}
    counts: dict[str, int] = {}
    for word in plain.values():
        counts[composed(word)] = counts.get(composed(word), 0) + 1
    words = {label: word if label in given or counts[composed(word)] == 1 else label for label, word in plain.items()}
    owner: dict[str, str] = {}
    for label, word in words.items():
        if (other := owner.setdefault(composed(word), label)) != label:
            raise ConfigError(f"{other!r} and {label!r} have the same label words, {word!r}; give each its own")
    return words


def plain_words(label: str) -> str:
    """A label in plain writing: joined and capital words apart and small, `card_arrival`, `CardArrival` → `card arrival`."""
    text = re.sub(r"[_/\-]+|(?<=[a-z])(?=[A-Z])", " ", label)
    text = re.sub(r"\s+", " ", text).strip() or label
    return text.lower() if text.isascii() else text


def task_name(text: str) -> str:
    """A name that a task may have, made of any text."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return name[:80] or "task"
