"""A request as the scheduler sees it: rows that are tokenized already, each behind a prompt that it holds on to.

The prompts are looked up once, when the request arrives. So it finishes with the version of an artifact that it began
with, whatever is loaded, replaced or removed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ..answers import Compiled, Outcome
from ..answers.generated import Generated
from ..data.json_files import half_pairs
from ..ensemble import Together
from ..errors import DataError
from ..prediction import Prediction, prediction_of
from ..tasks.generation import GenerationSpec
from ..types import Example
from ..values import plain_row
from .limits import Limits
from .writing import WrittenAnswer


class TooLong(DataError):
    """A text that the base cannot read whole, where the request did not say that it may be cut."""


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went, in seconds.

    Attributes:
        queued: from its arrival to the start of its batch.
        read: reading texts that several artifacts share, of all of its batch.
        answered: everything behind these texts, of all of its batch.
    """

    queued: float = 0.0
    read: float = 0.0
    answered: float = 0.0


@dataclass
class Request:
    """Texts, and the artifacts that answer each of them.

    Attributes:
        names: of each answer, the artifact that is asked.
        served: of each answer, what is loaded under that name.
        examples: of each answer, the row as each of its prompts reads it.
        deadline: by `time.monotonic`; a request that has not begun by then is not run.
        outcome: what the scheduler gives back.
        timing: known with the outcome.
    """

    names: list[str]
    served: list[Together]
    examples: list[list[Example]]
    deadline: float
    outcome: Future[list[Outcome]] = field(default_factory=Future)
    timing: Timing = Timing()
    arrived: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        """Answers that it asks for."""
        return len(self.names)

    @property
    def rows(self) -> list[tuple[Example, Compiled]]:
        """All rows that run for it, each with its prompt; of an ensemble one for each member."""
        pairs = zip(self.examples, self.served, strict=True)
        return [pair for examples, one in pairs for pair in zip(examples, one.prompts, strict=True)]

    def together(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcome of each answer from those of its rows."""
        left = iter(outcomes)
        return [one.outcome([next(left) for _ in one.prompts]) for one in self.served]

    def predictions(self) -> list[Prediction]:
        """The answers, once they are known."""
        found = zip(self.names, self.examples, self.outcome.result(), strict=True)
        return [prediction_of(name, examples, outcome) for name, examples, outcome in found]


@dataclass
class Writing:
    """One text that is to be written token by token, beside others.

    Attributes:
        name: the artifact that writes it.
        answer: what the `Writer` writes; it gives its outcome to this request.
        outcome, deadline, arrived: as of a `Request`.
    """

    name: str
    answer: WrittenAnswer
    deadline: float
    outcome: Future[Outcome]
    arrived: float = field(default_factory=time.monotonic)

    count = 1


def check_length(limits: Limits, text: str | Mapping[str, Any]) -> None:
    """Refuse a text that is too long before it is tokenized.

    Raises:
        TooLong: it has more characters than the server takes.
        DataError: it is nested too deeply to be read.
    """
    try:
        size = len(text) if isinstance(text, str) else len(str(plain_row(text)))
        problem = half_pairs(text)
    except RecursionError:
        raise DataError("a row holds lists or objects in hundreds of others; send its fields as texts") from None
    if problem is not None:
        raise DataError(f"a text {problem}; send Unicode")
    if size > limits.characters:
        raise TooLong(f"a text has {size} characters, the limit is {limits.characters}; shorten it")


def settle(outcome: Future[Any], result: Any) -> None:
    """Give an outcome, unless it is known already: whoever waited for it may have been refused meanwhile."""
    with suppress(InvalidStateError):
        if isinstance(result, Exception):
            outcome.set_exception(result)
        else:
            outcome.set_result(result)


def written(
    name: str,
    one: Together,
    values: dict[str, Any],
    deadline: float,
    changes: Mapping[str, Any],
    tell: Callable[[str], object] | None = None,
) -> Writing:
    """A text to write behind the fields of a row.

    Args:
        changes: settings of generation that the request asks for, in place of the task's.
        tell: called with each piece of the text as it comes.

    Raises:
        DataError: the row does not fit the task, or the text cannot be written so.
        TooLong: the row would have to be cut.
    """
    if (problem := one.check_input(values)) is not None:
        raise DataError(f"{name!r}: {problem}")
    (prompt,) = one.prompts
    own = prompt.task.spec.generation  # type: ignore[attr-defined]  # a task that writes
    try:
        how = GenerationSpec.model_validate({**own.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{first['loc'][-1] if first['loc'] else 'generation'}: {first['msg']}") from None
    if how.idle:
        raise DataError(f"{how.idle[0]} has no effect on the likeliest tokens; send a temperature above 0 with it")
    assert isinstance(prompt.form, Generated)  # whose tasks are of type generation
    example = prompt.form.encode(values, "the prompt", how.max_new_tokens)
    _refuse_cut([example], one, values, name)
    outcome: Future[Outcome] = Future()

    answer = WrittenAnswer(example, prompt, lambda result: settle(outcome, result), tell, how)
    if answer.refusal:
        raise DataError(f"{name!r}: {answer.refusal}")
    return Writing(name, answer, deadline, outcome)


def prepared(
    loaded: Mapping[str, Together], texts: Sequence[str | Mapping[str, Any]], deadline: float, cut: bool = False
) -> Request:
    """A request: each text for each artifact.

    Args:
        loaded: the artifacts by name, in the order of the answers to each text.
        texts: texts, or the fields that the artifacts read.
        cut: a text that is longer than a base can read is cut instead of refused.

    Raises:
        DataError: a text that does not fit a task; all are named.
        TooLong: a text that would have to be cut.
    """
    names, served, examples = [], [], []
    for place, text in enumerate(texts):
        for name, one in loaded.items():
            values, where = _fields(text, name, one, place), f"texts[{place}]"
            if (problem := one.check_input(values)) is not None:
                raise DataError(f"{where} for {name!r}: {problem}")
            rows = one.encode(values, where)
            if not cut:
                _refuse_cut(rows, one, values, name)
            names.append(name)
            served.append(one)
            examples.append(rows)
    return Request(names, served, examples, deadline)


def _fields(text: str | Mapping[str, Any], name: str, one: Together, place: int) -> dict[str, Any]:
    if not isinstance(text, str):
        return plain_row(text)
    if (field_ := one.task.only_field) is None:
        fields = ", ".join(map(repr, sorted(one.task.fields)))
        raise DataError(f"texts[{place}]: is a text, but {name!r} reads {fields}; give an object with these fields")
    return {field_: text}


def _refuse_cut(rows: Sequence[Example], one: Together, values: dict[str, Any], name: str) -> None:
    for row, prompt in zip(rows, one.prompts, strict=True):
        if row.truncated:
            whole = len(prompt.bound.prompter.text(prompt.task.shown(values), row.where))
            raise TooLong(
                f'{row.where} has {whole} tokens, {name!r} reads {len(row.text)}; shorten it, or send "truncate": true'
            )
