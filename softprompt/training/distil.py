"""Context distillation: a long hard prompt becomes a few learned tokens (Askell et al. 2021, arXiv:2112.00861, §2.2.2; Snell
et al. 2022, arXiv:2209.15189).

The teacher is the bare base behind the long prompt: the task's instruction and k demonstrations. It reads every row once; of
each only the states that predict its answer are kept. The student is trained so that without the prompt the base's
distribution over the whole vocabulary is the teacher's. No row that it learns from or is judged on needs a label.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answers import Evaluation
from ..base import Base
from ..config import parse
from ..data import Row
from ..engine import CacheConfig
from ..errors import ConfigError
from ..methods import Method, make_method
from ..metrics import Estimate, estimate
from ..parallel import processes
from ..prepared import Prepared, prepare
from ..runfile import CacheSpec, TrainSpec
from ..storage import digest_of, write_json
from ..surroundings import plain_torch
from ..tasks import Task
from ..types import Notice, OnEvent, Progress, ignore_event, ignore_notice, ignore_progress
from .places import earlier_report, run_folder
from .result import Result
from .run import RunOptions, check_splits
from .run import train as run_training
from .saving import run_digest
from .state import CustomObjective
from .teacher import kept_answers, match, relabelled_rows

REPORT = "distil.json"
WRITTEN = (REPORT, *(f"teacher-{split}.safetensors" for split in ("train", "dev", "test")))


@dataclass(frozen=True)
class Distilled:
    """What a distillation gives.

    Attributes:
        result: of the student's run; its `dev` and `test` are agreement with the long prompt.
        report: the content of `distil.json`:

            - "prompt": {"demonstrations", "tokens"};
            - "student": {"method", "length", "tokens"};
            - "saved": tokens a request;
            - "truncated": {"prompt", "student"}: texts that were cut behind either;
            - "agreement": {split: estimate};
            - "commonest": {split: share of the long prompt's commonest answer}, which a constant answer would agree
              with;
            - "accuracy": {split: {"prompt", "student"}}, on rows with labels;
            - "seconds".
    """

    result: Result
    report: dict[str, Any]


@plain_torch()
def distil(
    base: Base,
    task: Task,
    method: str | dict[str, Any] | Method,
    out: str | Path | None = None,
    *,
    demonstrations: int = 8,
    instruction: str | None = None,
    train: TrainSpec | dict[str, Any] | None = None,
    cache: CacheSpec | None = None,
    seed: int = 0,
    test: bool = False,
    fresh: bool = False,
    rows: dict[str, list[Row]] | None = None,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
    on_event: OnEvent = ignore_event,
) -> Distilled:
    """Turn the task's long prompt into an artifact of the method.

    Args:
        method: trained by gradients; its `length` is how many tokens take the prompt's place.
        out: folder of the run, as in `train`, and `distil.json`, `teacher-SPLIT.safetensors` (so that a run that was cut
            short does not ask the teacher again).
        train: as in `train`; by default four times the method's epochs, without early stopping.
        demonstrations: k of the long prompt, drawn from the labelled training rows, which the student then does not see.
        instruction: of the long prompt, in place of the task's; the student's task keeps its own.
        test: also measure on the test rows, once, at the end.
        rows: by split; only the demonstrations need labels.
        on_event: given each new record of the run, as in `train`.

    Raises:
        ConfigError: a method without gradients, a long prompt that says no more than the student's, a task without
            labels. Also a base or a method that does not answer with words.
        SoftpromptError: see `train`.
    """
    processes().only_one("distil")
    method = method if isinstance(method, Method) else make_method(method)
    _refuse(base, task, method)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    rows = _rows_of(task, rows, test, progress)
    folder = Path(out) if out is not None else None
    with run_folder(folder, WRITTEN):
        long, rest = long_prompt(task, method, rows.get("train", []), demonstrations, instruction)
        config = (cache or CacheSpec()).config()
        lesson = _ask_teacher(base, task, long, {**rows, "train": rest}, folder, config, demonstrations, progress)
        options: RunOptions = {"test": test, "fresh": fresh, "objective": lesson.objective}
        options |= {"progress": progress, "notice": notice, "on_event": on_event}
        spec = _longer(spec, method)
        result = run_training(
            base, short(task), method, out, train=spec, cache=cache, seed=seed, rows=lesson.relabelled, **options
        )
        report = _report(task, lesson.teacher, result, lesson.asked, demonstrations)
        report["seconds"] = {"teacher": lesson.seconds, **result.seconds}
        if folder is not None:
            _keep(folder / REPORT, report, run_digest(result.prepared, result.settings))
        return Distilled(result, report)


def _rows_of(task: Task, rows: dict[str, list[Row]] | None, test: bool, progress: Progress) -> dict[str, list[Row]]:
    """The rows of the splits that are used: those given, or the task's own, with or without labels."""
    if rows is None:
        rows = task.load_data(progress, labelled=False)
    check_splits(rows)
    return {name: rows[name] for name in (("train", "dev", "test") if test else ("train", "dev")) if rows.get(name)}


@dataclass(frozen=True)
class _Lesson:
    """What the long prompt answered.

    Attributes:
        teacher: the long prompt, prepared.
        asked: the rows that it was asked, by split.
        relabelled: the same with its answers as labels.
        objective: the distance of the student's answers to its own.
        seconds: that it took.
    """

    teacher: Prepared
    asked: dict[str, list[Row]]
    relabelled: dict[str, list[Row]]
    objective: CustomObjective
    seconds: float


def _ask_teacher(
    base: Base,
    task: Task,
    long: Task,
    asked: dict[str, list[Row]],
    folder: Path | None,
    cache: CacheConfig,
    demonstrations: int,
    progress: Progress,
) -> _Lesson:
    """Let the long prompt answer all rows; see `kept_answers`."""
    began = time.perf_counter()
    teacher = prepare(base, long, make_method("hard"), cache, asked)
    taught = {name: kept_answers(folder, name, teacher, progress) for name in asked}
    seconds = time.perf_counter() - began
    relabelled = {name: relabelled_rows(task, part, taught[name].labels) for name, part in asked.items()}
    states = {
        task.content(row): one for name in asked for row, one in zip(asked[name], taught[name].states, strict=True)
    }
    metric = task.spec.metric
    objective = CustomObjective(
        lambda engine: match(engine, task, states),
        "agreement" if metric == "accuracy" else f"agreement ({metric})",
        {"by": "hard", "demonstrations": demonstrations, "prompt": digest_of(teacher.bound.prefix_ids)},
    )
    return _Lesson(teacher, asked, relabelled, objective, seconds)


def _refuse(base: Base, task: Task, method: Method) -> None:
    """Say what cannot be distilled before anything runs.

    Raises:
        ConfigError: names what can.
    """
    if task.form != "chosen":
        raise ConfigError(
            f"answers of type {task.spec.type!r} are not chosen from a list; distil needs answers that are chosen "
            "(classification, choice)"
        )
    if not method.defaults.lr:
        raise ConfigError(f"method {method.spec.name!r} is not trained by gradients; distil into soft, prefix or infix")
    words = "distil compares the words that a language model expects behind its prompt"
    if not base.generates:
        raise ConfigError(f"{words}, and base {base.name!r} is of kind {base.kind}; use a causal or seq2seq base")
    if method.spec.head:
        raise ConfigError(f"{words}, and a head (method.head: true) has none; leave it out")


def _keep(path: Path, report: dict[str, Any], run: str) -> None:
    """Write the report, with what earlier calls of the same run have measured on other splits."""
    before = earlier_report(path)
    if before.get("run") == run:
        for what in ("agreement", "commonest", "accuracy"):
            report[what] = {**before.get(what, {}), **report[what]}
    write_json(path, {**report, "run": run})


def _longer(spec: TrainSpec, method: Method) -> TrainSpec:
    """Four times the method's epochs and no early stop, unless the settings say otherwise.

    Matching whole distributions does not overfit as labels do (infix on 1,016 reviews: agreement .875 after 3 epochs,
    .906 after 12).
    """
    longer: dict[str, Any] = {}
    if spec.epochs is None and spec.max_steps is None:
        longer["epochs"] = 4 * method.defaults.epochs
    if "patience" not in spec.model_fields_set:
        longer["patience"] = 1_000_000
    return spec.model_copy(update=longer)


def short(task: Task) -> Task:
    """The student's task: without demonstrations."""
    none = task.spec.demonstrations.model_copy(update={"k": 0, "rows": []})
    return type(task)(task.spec.model_copy(update={"demonstrations": none}), task.folder)


def long_prompt(
    task: Task, method: Method, train_rows: Sequence[Row], demonstrations: int, instruction: str | None
) -> tuple[Task, list[Row]]:
    """The teacher's task with its demonstrations, and the training rows that are left.

    Raises:
        ConfigError: the prompt is empty, or no longer than what the student keeps.
        DataError: fewer labelled rows than demonstrations.
    """
    own = task.spec.template.instruction
    text = own if instruction is None else instruction
    if not demonstrations and not text.strip():
        raise ConfigError(
            "there is no long prompt to distil: no demonstrations and no instruction; give --demonstrations 8"
        )
    if not demonstrations and text == own and method.keeps_instruction:
        raise ConfigError(
            f"the student ({method.spec.name!r}) keeps the instruction, and the long prompt is nothing else; give "
            "--demonstrations, --instruction, or method.instruction=false"
        )
    wanted = task.spec.demonstrations.model_copy(update={"k": demonstrations, "rows": []})
    template = task.spec.template.model_copy(update={"instruction": text})
    spec = task.spec.model_copy(update={"demonstrations": wanted, "template": template})
    return type(task)(spec, task.folder).draw_demonstrations(train_rows)


def _report(
    task: Task, teacher: Prepared, result: Result, asked: dict[str, list[Row]], demonstrations: int
) -> dict[str, Any]:
    student = result.prepared
    tokens = len(student.bound.prefix_ids) + student.method.length
    report: dict[str, Any] = {
        "prompt": {"demonstrations": demonstrations, "tokens": len(teacher.bound.prefix_ids)},
        "student": {"method": student.method.spec.name, "length": student.method.length, "tokens": tokens},
        "saved": len(teacher.bound.prefix_ids) - tokens,
        "truncated": {"prompt": teacher.bound.cut, "student": result.truncated},
        "agreement": {},
        "commonest": {},
        "accuracy": {},
    }
    for name, found in result.metrics.items():
        pairs = [(str(item.gold), item.predicted) for item in found.outcomes]
        report["agreement"][name] = estimate("accuracy", *zip(*pairs, strict=True)).as_dict() | {"metric": "agreement"}
        report["commonest"][name] = max(Counter(gold for gold, _ in pairs).values()) / len(pairs)
        if both := _accuracy(task, asked[name], found):
            report["accuracy"][name] = {who: one.as_dict() for who, one in both.items()}
    return report


def _accuracy(task: Task, rows: Sequence[Row], found: Evaluation) -> dict[str, Estimate]:
    """The task's metric of teacher and student on the rows that have labels of their own."""
    golds = [task.gold(row.values) for row in rows]
    held = [(gold, item) for gold, item in zip(golds, found.outcomes, strict=True) if gold is not None]
    if not held:
        return {}
    right = [gold for gold, _ in held]
    return {
        "prompt": estimate(task.spec.metric, right, [str(item.gold) for _, item in held]),
        "student": estimate(task.spec.metric, right, [item.predicted for _, item in held]),
    }
