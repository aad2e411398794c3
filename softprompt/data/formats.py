"""Shapes that data sets come in, brought to the fields that tasks read: `answer`, `choices`, `answers`, one field a language.

A shape is recognised only when all of its keys are there. Fields of the row stay; those that are made are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from string import ascii_uppercase
from typing import Any

from ..values import not_text, shown, text_of, turns_problem

Values = dict[str, Any]


def unify(values: Values) -> tuple[Values, str | None]:
    """A row with the fields that its shape stands for, and what is wrong with it (None: nothing).

    {"prompt", "completion"}: `answer`; both may be turns (one of the completion). {"messages"}: `messages` without the
    last turn, which is the assistant's, and `answer`.
    {"question", "choices": {"text", "label"}, "answerKey"} (ARC): `choices` as a list, and `answer`.
    {"translation": {"en": …, "fr": …}}: a field a language.
    """
    first = None
    for keys, change in _SHAPES:
        if keys <= values.keys():
            values, problem = change(values)
            first = first or problem
    return values, first


def flattened(data: Any) -> Iterator[tuple[str, Values | None, str | None]]:
    """Questions of SQuAD's nested JSON, each with its place in the file.

    Yields:
        (place, {"id", "question", "context", "answers": {"text", "answer_start"}} or None, what is wrong or None).
    """
    for a, article in enumerate(data["data"]):
        for place, paragraph in _inside(f"data[{a}]", article, "paragraphs"):
            if paragraph is None:
                yield place, None, "has no list of paragraphs"
                continue
            for inner, asked in _inside(place, paragraph, "qas"):
                if asked is None:
                    yield inner, None, "has no list of qas"
                elif not isinstance(asked, dict) or "question" not in asked or "context" not in paragraph:
                    yield inner, None, "question or context is missing"
                else:
                    yield inner, *_question(asked, paragraph["context"])


def _inside(place: str, holder: Any, key: str) -> Iterator[tuple[str, Any]]:
    """What a list in an object holds, with its places; (its own place, None) if there is no such list."""
    items = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(items, list):
        yield place, None
        return
    for k, item in enumerate(items):
        yield f"{place}.{key}[{k}]", {} if item is None else item


def _question(asked: Values, context: Any) -> tuple[Values | None, str | None]:
    answers = [] if asked.get("answers") is None else asked["answers"]
    if not isinstance(answers, list) or not all(
        isinstance(one, dict) and {"text", "answer_start"} <= one.keys() for one in answers
    ):
        return None, 'answers is no list of {"text": …, "answer_start": …}'
    texts, starts = [one["text"] for one in answers], [one["answer_start"] for one in answers]
    found = {"id": asked.get("id"), "question": asked["question"], "context": context}
    return {**found, "answers": {"text": texts, "answer_start": starts}}, None


def is_nested(data: Any) -> bool:
    """Whether a JSON document is SQuAD's nested one."""
    articles = data.get("data") if isinstance(data, dict) else None
    return (
        isinstance(articles, list) and bool(articles) and isinstance(articles[0], dict) and "paragraphs" in articles[0]
    )


def _completion(values: Values) -> tuple[Values, str | None]:
    completion = values["completion"]
    if isinstance(prompt := values["prompt"], list) and (problem := turns_problem(prompt, "prompt")) is not None:
        return values, problem
    if isinstance(completion, list) and any(isinstance(turn, dict) for turn in completion):
        if (problem := turns_problem(completion, "completion")) is not None:
            return values, problem
        if len(completion) > 1 or completion[0]["role"] != "assistant":
            return values, "completion must be one turn of the assistant; what comes before it belongs to the prompt"
        if problem := _unread(completion[0], "completion[0]"):
            return values, problem
        completion = completion[0]["content"]
    return {"answer": completion, **values}, None


def _messages(values: Values) -> tuple[Values, str | None]:
    turns = values["messages"]
    if not isinstance(turns, list):  # a plain column that happens to have this name
        return values, None
    if (problem := turns_problem(turns, "messages")) is not None:
        return values, problem
    if turns[-1]["role"] != "assistant" or "answer" in values:
        return values, None
    if len(turns) == 1:
        return values, "messages holds the answer only; a turn of the user must come before it"
    if problem := _unread(turns[-1], f"messages[{len(turns) - 1}]"):
        return values, problem
    return {**values, "messages": turns[:-1], "answer": turns[-1]["content"]}, None


def _unread(turn: Values, name: str) -> str | None:
    """Why a turn cannot be an answer that is learned, or None: what it thinks beside its content would be lost."""
    if turn.get("weight") == 0:
        return f"{name} has weight 0, so it is not learned; end the conversation at the turn to learn"
    if extra := [key for key in ("reasoning_content", "reasoning", "thinking") if turn.get(key)]:
        return (
            f"{name} holds {extra[0]}, which is not read; write it into the content as the base does, or leave it out"
        )
    return None


def _arc(values: Values) -> tuple[Values, str | None]:
    choices = values["choices"]
    if not isinstance(choices, dict):
        return values, None
    texts, labels = choices.get("text"), choices.get("label")
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        return values, "choices: expected lists text and label of one length"
    if not texts:
        return values, "choices is empty"
    if strange := [label for label in labels if not_text(label)]:
        return values, f"choices: a label is {shown(strange[0])}; expected text"
    labels = [text_of(label) for label in labels]
    if values["answerKey"] in (None, ""):  # hidden, as in published test sets: the row can be asked, not learned
        return {**values, "choices": texts}, None
    if not_text(values["answerKey"]):
        return values, f"answerKey is {shown(values['answerKey'])}; expected text"
    key = text_of(values["answerKey"])
    place = labels.index(key) if key in labels else ascii_uppercase.find(key) if len(key) == 1 else -1
    if not 0 <= place < len(texts):
        return values, f"answerKey {shown(key)} is not one of the {len(texts)} choices ({', '.join(labels)})"
    # a number would be read as an index
    answer = texts[place] if not_text(texts[place]) else text_of(texts[place])
    return {"answer": answer, **values, "choices": texts}, None


def _translation(values: Values) -> tuple[Values, str | None]:
    pair = values["translation"]
    return ({**pair, **values} if isinstance(pair, dict) else values), None


_SHAPES: tuple[tuple[set[str], Callable[[Values], tuple[Values, str | None]]], ...] = (
    ({"prompt", "completion"}, _completion),
    ({"messages"}, _messages),
    ({"choices", "answerKey"}, _arc),
    ({"translation"}, _translation),
)
SHAPE_FIELDS = frozenset(name for keys, _ in _SHAPES for name in keys)
"""Fields by which a shape is recognised."""
