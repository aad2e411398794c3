"""The teacher of a distillation: what the base answers behind a long prompt, kept row by row, and how a student matches it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..answers.chosen import Chosen, scored
from ..data import Row
from ..engine import NOTHING, Engine, Learned, answer_states
from ..errors import ConfigError
from ..prepared import Prepared
from ..renamed import with_first_keys
from ..storage import atomic_file, digest_of
from ..tasks import Task
from ..tasks.scored import ScoredTask
from ..types import Example, Progress, ignore_progress
from .state import Objective


@dataclass(frozen=True)
class Taught:
    """What the teacher answers, row by row.

    Attributes:
        labels: its label of each row.
        states: last hidden states that predict the tokens of that answer, per row [tokens, H], on the CPU.
    """

    labels: list[str]
    states: list[Tensor]


def relabelled_rows(task: Task, rows: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    """The same rows with these labels."""
    return [Row(relabel(task, row.values, label), row.where) for row, label in zip(rows, labels, strict=True)]


def relabel(task: Task, values: dict[str, Any], label: str) -> dict[str, Any]:
    """A row's fields with this label.

    Raises:
        ConfigError: the task's answers are no labels of a field.
    """
    new = {**values, **dict.fromkeys(task.answer_fields[:1], label)}
    if task.gold(new) != label:
        raise ConfigError(f"task {task.name!r}: rows of type {task.spec.type!r} cannot be given the teacher's label")
    return new


@torch.no_grad()
def ask(teacher: Prepared, examples: Sequence[Example], progress: Progress = ignore_progress) -> Taught:
    """The teacher's label of every row, and the states that predict its answer; each row runs once."""
    engine, method, form = teacher.engine, teacher.method, teacher.form
    assert isinstance(form, Chosen)
    before = form.prior(teacher, NOTHING, examples)
    labels, states = [""] * len(examples), [torch.empty(0)] * len(examples)

    def told(_: str, done: int, total: int) -> None:
        progress("answering behind the long prompt", done, total)

    for part, batch in engine.contexts(examples, NOTHING, told):
        some = [examples[index] for index in part]
        answers = []
        for index, scores in zip(part, scored(teacher, batch, some), strict=True):
            example = examples[index]
            labels[index] = form.outcome(example, form.relative(method, scores, example.candidates, before)).predicted
            _, gold = form.task.candidates(relabel(form.task, example.values, labels[index]))
            assert gold is not None
            answers.append(example.candidates[gold])
        for index, one in zip(part, answer_states(batch, answers), strict=True):
            states[index] = one.cpu()
    return Taught(labels, states)


def match(engine: Engine, task: Task, states: dict[str, Tensor]) -> Objective:
    """Σ KL(teacher ‖ student) over the answers' positions and the whole vocabulary, in fp32.

    Where a row is one decision, whose answers compete, it counts once: the mean over its positions.

    Args:
        states: by a row's content, the teacher's states [tokens, H]; its logits are made from them when they are needed.
    """

    decides = isinstance(task, ScoredTask) and (task.over_labels or task.contrastive)

    def objective(rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        logits, targets = engine.answers(rows, learned)
        kept = torch.cat([states[task.content(Row(row.values, row.where))] for row in rows])
        with torch.no_grad():
            teacher = engine.base.logits(kept.to(logits.device)).log_softmax(-1)
        apart = torch.nn.functional.kl_div(logits.log_softmax(-1), teacher, log_target=True, reduction="none").sum(-1)
        if not decides:
            return apart.sum(), len(targets)
        means = [own.mean() for own in apart.split([len(row.answer) for row in rows])]
        return torch.stack(means).sum(), len(rows)

    return objective


def kept_answers(folder: Path | None, split: str, teacher: Prepared, progress: Progress) -> Taught:
    """The teacher's answers on a split, from the run's folder if they are there."""
    examples = teacher.splits[split]
    if folder is None:
        return ask(teacher, examples, progress)
    path = folder / f"teacher-{split}.safetensors"
    run = digest_of(
        [
            teacher.base.digest,
            teacher.base.tokenizer_digest,
            teacher.base.label_of_dtype,
            with_first_keys(type(teacher.task.spec), teacher.task.spec.model_dump(mode="json")),
            teacher.task.rules,
            [example.values for example in examples],
        ]
    )
    try:
        with safe_open(path, "pt") as file:
            held = file.metadata() or {}
            if held.get("run") == run:
                counts = json.loads(held["tokens"])
                return Taught(json.loads(held["labels"]), list(file.get_tensor("states").split(counts)))
    except (OSError, SafetensorError):
        pass  # not there, or not whole: ask again
    taught = ask(teacher, examples, progress)
    notes = {
        "run": run,
        "labels": json.dumps(taught.labels),
        "tokens": json.dumps([len(one) for one in taught.states]),
    }
    with atomic_file(path) as temporary:
        save_file({"states": torch.cat(taught.states)}, temporary, metadata=notes)
    return taught
