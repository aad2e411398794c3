"""Rows in TRL's shapes as a task of ours: a prompt and its completion, as texts or as turns of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..base import Base
from ..data import in_memory, refuse
from ..data.formats import unify
from ..errors import ConfigError
from ..tasks import Task
from ..template import Prompter
from ..training.run import check_splits
from ..values import kind

Values = dict[str, Any]
Row = tuple[str, Values]
_READ = ("prompt", "completion", "messages", "tools", "functions", "images", "videos", "audio")
"""Fields that are read, or that a conversation would lose (which is refused); a task would read others in its own way."""
_EXPECTED = 'expected {"prompt": "…", "completion": " …"}, or {"messages": […]} whose last turn is the assistant\'s'


def task_of(rows: Any, base: Base, activated: Sequence[int] = ()) -> tuple[Task, dict[str, list[Values]]]:
    """The task that rows stand for, and its rows by split.

    Args:
        rows: a list of dicts, a DataFrame or a `datasets.Dataset`, all of it to learn from; or a mapping of such by split.
        activated: tokens that end every prompt, from which on an activated LoRA acts. They become the template's cue, so the
            rows of the task are without them.

    Raises:
        DataError: rows of another shape, of several, or that are read otherwise than TRL reads them; all of them are named.
        ConfigError: a mapping without `train` or with another split than those of `sp.train`; or other tokens than those of
            `activated` stand between prompt and completion.
    """
    by_split = _by_split(rows)
    splits = {name: _read(part, name if isinstance(rows, Mapping) else "") for name, part in by_split.items()}
    every = [row for part in splits.values() for row in part]
    first = _shape(every[0][1])
    other = f"is of another shape than {every[0][0]}; {_EXPECTED}, the same in all rows"
    refuse([(where, None if _shape(values) == first else other) for where, values in every])
    cue = base.tokenizer.decode(activated) if activated else ""
    task = _texts(every, base, cue) if first == "texts" else _turns(every, base, first)
    between = Prompter(task.spec.template, base.tokenizer).cue if activated else ()
    if between != tuple(activated):
        raise ConfigError(
            f"LoraConfig.alora_invocation_tokens is {list(activated)} ({cue!r}), but between a prompt and its completion stand "
            f"{list(between)} ({base.tokenizer.decode(between)!r}); name those"
        )
    return task, {name: [values for _, values in part] for name, part in splits.items()}


def _by_split(rows: Any) -> Mapping[str, Any]:
    """
    Raises:
        ConfigError: a mapping that is not by split, or that has nothing to learn from.
    """
    if not isinstance(rows, Mapping):
        return {"train": rows}
    check_splits(rows)
    if "train" not in rows:
        raise ConfigError(f"rows hold {' and '.join(map(repr, rows))} only; give what is learned as rows['train']")
    return rows


def _read(rows: Any, split: str) -> list[Row]:
    """The rows of a table with the fields that are read.

    Raises:
        DataError: no rows, or no fields of one.
    """
    found = in_memory(rows, f"rows[{split!r}]" if split else "rows")
    refuse([(where, problem or _unfit(values or {})) for where, values, problem in found])
    return [(where, _read_of(values)) for where, values, _ in found if values]


def _read_of(values: Values) -> Values:
    return {key: values[key] for key in _READ if key in values}


def _unfit(values: Values) -> str | None:
    """Why a row is of no shape that is learned here, or None."""
    if values.get("chat_template_kwargs"):
        return "holds chat_template_kwargs, which are not honoured here; leave them out"
    names = [name for name in ("prompt", "completion") if name in values]
    if len(names) == 2:
        bad = [name for name in names if not isinstance(values[name], (str, list))]
        return f"{bad[0]} is {kind(values[bad[0]])}; expected text, or turns" if bad else unify(_read_of(values))[1]
    if isinstance(values.get("messages"), list):
        found, problem = unify(_read_of(values))
        return problem or (
            None if "answer" in found else "messages does not end in a turn of the assistant to be learned"
        )
    if "text" in values and "label" in values:
        return f"is a text with a label; {_EXPECTED}, or train a task of labels with sp.train and sp.peft.method(config, base)"
    if "text" in values:
        return f"is a text alone, of which every token would be learned, which is not done here; {_EXPECTED}"
    return f"has the fields {', '.join(map(repr, list(values)[:6])) or 'of nothing'}; {_EXPECTED}"


def _shape(values: Values) -> str:
    """`texts`, or the field that holds a conversation."""
    if isinstance(values.get("prompt"), str) and isinstance(values.get("completion"), str):
        return "texts"
    return "prompt" if "completion" in values else "messages"


def _turns(rows: Sequence[Row], base: Base, field: str) -> Task:
    """Conversations, through the base's chat template; learned is the last turn and the token that closes it."""
    answers = [unify(values)[0].get("answer") for _, values in rows]
    longest = _longest(base, [answer for answer in answers if isinstance(answer, str)])
    return _task("conversations", {"messages": field, "answer": "{{ answer }}"}, longest)


def _texts(rows: Sequence[Row], base: Base, cue: str) -> Task:
    """Texts; learned is the completion with the white space round it, which is the same in all rows, and the end token."""
    end, special = base.tokenizer.eos_token or "", [text for text in base.tokenizer.all_special_tokens if text]
    for _, values in rows:
        values["completion"] = values["completion"].removesuffix(end) if end else values["completion"]
    before, behind = _space(rows[0][1]["completion"])
    problems = []
    for where, values in rows:
        problems.append((where, _misread(values, special, (before, behind), cue)))
        values["prompt"] = values["prompt"].removesuffix(cue) if cue else values["prompt"]
    refuse(problems)
    longest = _longest(base, [values["completion"] for _, values in rows])
    template = {"input": "{{ prompt }}", "cue": cue, "answer": f"{before}{{{{ answer }}}}{behind}"}
    return _task("completions", template, longest)


def _misread(values: Values, special: Sequence[str], space: tuple[str, str], cue: str) -> str | None:
    """Why a row would be read otherwise than TRL reads it, or None."""
    for name in ("prompt", "completion"):
        if found := next((text for text in special if text in values[name]), None):
            return f"{name} holds {found!r}, which is read as plain text here; give turns of a chat, or leave it out"
    if (own := _space(values["completion"])) != space:
        what = [f"{one!r} … {other!r}" for one, other in (own, space)]
        return f"completion has white space {what[0]} round it, the first row's {what[1]}; make it the same in all rows"
    if not values["prompt"].endswith(cue):
        return f"prompt does not end in {cue!r}, the tokens of LoraConfig.alora_invocation_tokens"
    return None


def _space(text: str) -> tuple[str, str]:
    """White space before and behind a text."""
    bare = text.strip()
    before, _, behind = text.partition(bare) if bare else ("", "", "")
    return before, behind


def _longest(base: Base, answers: Sequence[str]) -> int:
    """Tokens of the longest answer and its end."""
    counted = base.tokenizer(list(answers), add_special_tokens=False)["input_ids"] if answers else []
    return 1 + max(map(len, counted), default=0)


def _task(name: str, template: dict[str, str], longest: int) -> Task:
    writes = {"max_new_tokens": longest, "stop": []}
    return Task.load({"name": name, "type": "generation", "template": template, "generation": writes})
