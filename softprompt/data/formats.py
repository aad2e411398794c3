"""Shapes that data sets come in, brought to the fields that tasks read: `answer`, `choices`, `answers`, one field a language.

A shape is recognised only when all of its keys are there. Fields of the row stay; those that are made are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from string import ascii_uppercase
from typing import Any

ROLES = ("system", "user", "assistant")
Values = dict[str, Any]


def unify(values: Values) -> tuple[Values, str | None]:
    """A row with the fields that its shape stands for, and what is wrong with it (None: nothing).

    {"prompt", "completion"}: `answer`. {"messages"}: `messages` without the last turn, which is the assistant's, and `answer`.
    {"question", "choices": {"text", "label"}, "answerKey"} (ARC): `choices` as a list, and `answer`.
    {"translation": {"en": …, "fr": …}}: a field a language.
    """
    for keys, change in _SHAPES:
        if keys <= values.keys():
            values, problem = change(values)
            if problem:
                return values, problem
    return values, None


def flattened(data: Any) -> Iterator[tuple[str, Values]]:
    """Questions of SQuAD's nested JSON, each with its place in the file.

    Yields:
        (place, {"id", "question", "context", "answers": {"text", "answer_start"}}).
    """
    for a, article in enumerate(data["data"]):
        for p, paragraph in enumerate(article["paragraphs"]):
            for q, asked in enumerate(paragraph["qas"]):
                answers = asked.get("answers") or []
                yield (
                    f"data[{a}].paragraphs[{p}].qas[{q}]",
                    {
                        "id": asked.get("id"),
                        "question": asked["question"],
                        "context": paragraph["context"],
                        "answers": {
                            "text": [one["text"] for one in answers],
                            "answer_start": [one["answer_start"] for one in answers],
                        },
                    },
                )


def is_nested(data: Any) -> bool:
    """Whether a JSON document is SQuAD's nested one."""
    articles = data.get("data") if isinstance(data, dict) else None
    return (
        isinstance(articles, list) and bool(articles) and isinstance(articles[0], dict) and "paragraphs" in articles[0]
    )


def _completion(values: Values) -> tuple[Values, str | None]:
    return {"answer": values["completion"], **values}, None


def _messages(values: Values) -> tuple[Values, str | None]:
    turns = values["messages"]
    if not isinstance(turns, list):  # a plain column that happens to have this name
        return values, None
    if not turns:
        return values, "messages is an empty list; expected turns"
    for place, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            return values, f'messages[{place}] is not {{"role": …, "content": text}}'
        if turn.get("role") not in ROLES:
            return values, f"messages[{place}].role is {turn.get('role')!r}; expected {', '.join(ROLES)}"
    if turns[-1]["role"] != "assistant" or "answer" in values:
        return values, None
    if len(turns) == 1:
        return values, "messages holds the answer only; a turn of the user must come before it"
    return {**values, "messages": turns[:-1], "answer": turns[-1]["content"]}, None


def _arc(values: Values) -> tuple[Values, str | None]:
    choices = values["choices"]
    if not isinstance(choices, dict):
        return values, None
    texts, labels = choices.get("text"), choices.get("label")
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        return values, "choices: expected lists text and label of one length"
    if not texts:
        return values, "choices is empty"
    labels = [str(label) for label in labels]
    if values["answerKey"] in (None, ""):  # hidden, as in published test sets: the row can be asked, not learned
        return {**values, "choices": texts}, None
    key = str(values["answerKey"])
    place = labels.index(key) if key in labels else ascii_uppercase.find(key) if len(key) == 1 else -1
    if not 0 <= place < len(texts):
        return values, f"answerKey {key!r} is not one of the {len(texts)} choices ({', '.join(labels)})"
    return {"answer": texts[place], **values, "choices": texts}, None


def _translation(values: Values) -> tuple[Values, str | None]:
    pair = values["translation"]
    return ({**pair, **values} if isinstance(pair, dict) else values), None


_SHAPES: tuple[tuple[set[str], Callable[[Values], tuple[Values, str | None]]], ...] = (
    ({"prompt", "completion"}, _completion),
    ({"messages"}, _messages),
    ({"choices", "answerKey"}, _arc),
    ({"translation"}, _translation),
)
