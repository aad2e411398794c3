"""`train` where base or method are `auto`: ways are compared, and what is chosen is trained as any run.

members/NAME/    the run of each way that was chosen
artifact/        what answers: the only member's artifact, or an ensemble of all of them
run.yaml         the only member's, or the run with `auto`
choice.json      what was compared, and what was chosen
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from .. import artifact as artifacts
from ..answers import Evaluation, evaluate
from ..data import Row
from ..ensemble import save_ensemble, weighed
from ..errors import ConfigError, TrainingError
from ..parallel import processes
from ..run_reader import resolved_task
from ..runfile import RunSpec
from ..storage import atomic_folder, digest_of, write_json, write_text
from ..tasks import Task
from ..tasks.classification import Classification
from ..trackers import check_installed
from ..training import Result, RunOptions
from ..training.known import remember
from ..training.places import ARTIFACT, RESULT, RUN, earlier_report, work_folder
from ..types import digested, ignore_notice, ignore_progress
from ..yaml_file import dump
from .choosing import FEW, compare
from .contenders import Contender, contenders_for
from .trying import Kept, Load, Trainer

CHOICE = "choice.json"
_MEMBERS = "members"


@dataclass(frozen=True)
class AutoRun:
    """What `train_auto` gives.

    Attributes:
        says: what was compared, and what was chosen, in words.
        members: what was learned, each with its weight; one answers alone.
        metrics: of what answers, by split.
        artifact: its folder.
    """

    says: str
    members: list[tuple[float, Result]]
    metrics: dict[str, Evaluation]
    artifact: Path

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {
            "chosen": self.says,
            "metrics": {name: found.estimate.as_dict() for name, found in self.metrics.items()},
            "members": [{"weight": weight, **result.as_dict()} for weight, result in self.members],
            "artifact": str(self.artifact),
        }


def train_auto(spec: RunSpec, task: Task, out: Path, load: Load, kept: Kept, **options: Unpack[RunOptions]) -> AutoRun:
    """Compare ways on the training and dev rows, then train what was chosen. Cut short, the same call goes on.

    Below `FEW` rows all are compared by folds; above, dev rows are. What is chosen learns from the training rows, and its
    step is chosen by the dev rows, as in any run.

    Args:
        spec: base or method are `auto`.
        task: its task.
        out: folder of the run.
        load, kept: see `Trainer`.
        options: see `RunOptions`.

    Raises:
        SoftpromptError: see `softprompt.train`; the task is no classification.
    """
    contenders = contenders_for(spec.base.model_dump(mode="json", exclude_unset=True), spec.method)
    _refuse(task)
    check_installed(spec.train.trackers)
    # the comparison is not reported, and what is reported to names no run
    settings = spec.train.model_dump(mode="json", exclude_unset=True, exclude={"report_to"})
    progress, notice = options.get("progress", ignore_progress), options.get("notice", ignore_notice)
    with work_folder(out, [CHOICE, RUN], [ARTIFACT]):
        _check_place(out)
        rows = task.load_data(progress)
        trainer = Trainer(task, load, kept, settings, spec.seed, spec.cache, progress)
        choice = _choice(trainer, contenders, rows, out, options.get("fresh", False))
        notice(choice["says"])
        members = []
        for one in choice["members"]:
            contender = next(known for known in contenders if known.title == one["title"])
            result = trainer.run(
                contender, rows, out / _MEMBERS / contender.folder_name, spec.train.trackers, **options
            )
            members.append((float(one["weight"]), result))
        metrics = _measured(members, ("dev", "test") if options.get("test") else ("dev",))
        _leave(spec, task, out, members, metrics, len(rows["train"]) + len(rows.get("dev", [])))
    return AutoRun(choice["says"], members, metrics, out / ARTIFACT)


def _choice(
    trainer: Trainer, contenders: Sequence[Contender], rows: Mapping[str, list[Row]], out: Path, fresh: bool
) -> dict[str, Any]:
    """What `choice.json` holds, of an earlier call where there was one.

    Raises:
        TrainingError: the earlier one was made of other rows or settings.
    """
    learned, dev = rows["train"], rows.get("dev", [])
    decided_by = {
        "task": trainer.task.spec.model_dump(mode="json"),
        "rows": [list(map(digested, part)) for part in (learned, dev)],
        "contenders": [[one.title, repr(one.base), one.method] for one in contenders],
        "train": trainer.spec,
        "seed": trainer.seed,
    }
    run = digest_of(decided_by)
    if earlier := {} if fresh else earlier_report(out / CHOICE):
        if earlier.get("run") != run:
            raise TrainingError(
                f"{out}: holds a choice that was made with other settings, rows or version; use another --out, or --fresh "
                "to start over"
            )
        return earlier
    few = len(learned) + len(dev) < FEW
    found = compare(trainer, contenders, [*learned, *dev] if few else learned, [] if few else dev)
    tried = [
        {"title": one.contender.title, "nll": one.log_loss, "seconds": one.seconds}
        | {"metric": one.evaluation.estimate.as_dict()}
        for one in found.tried
    ]
    members = [{"title": contender.title, "weight": weight} for weight, contender in found.members]
    choice = {"run": run, "says": found.says, "members": members, "tried": tried}
    write_json(out / CHOICE, choice)
    return choice


def _refuse(task: Task) -> None:
    """
    Raises:
        ConfigError: `auto` cannot choose here.
    """
    if not isinstance(task, Classification):
        raise ConfigError(
            f"auto chooses for classifications, and task {task.name!r} is of type {task.spec.type!r}; name a base and a "
            "method, e.g. base=smollm2 method=infix"
        )
    if processes().world > 1:
        raise ConfigError("auto runs in one process; to train in several, name a base and a method")


def _check_place(out: Path) -> None:
    """
    Raises:
        TrainingError: a run of one method is there.
        ArtifactError: `artifact/` holds something else.
    """
    if (out / RESULT).exists():
        raise TrainingError(f"{out}: holds a run of one method, and this run is to choose a method; use another --out")
    check = artifacts.check_ensemble_place if artifacts.is_ensemble(out) else artifacts.check_place
    check(out / ARTIFACT)


def _measured(members: Sequence[tuple[float, Result]], splits: Sequence[str]) -> dict[str, Evaluation]:
    """What answers, on each split that has rows."""
    metrics: dict[str, Evaluation] = {}
    weights = [weight for weight, _ in members]
    for split in splits:
        each = [
            result.metrics.get(split) or evaluate(result.prepared, result.prepared.splits[split])
            for _, result in members
            if result.prepared.splits.get(split)
        ]
        if each:
            metrics[split] = each[0] if len(each) == 1 else weighed(each, weights, each[0].estimate.metric)
    return metrics


def _leave(
    spec: RunSpec,
    task: Task,
    out: Path,
    members: Sequence[tuple[float, Result]],
    metrics: Mapping[str, Evaluation],
    compared: int,
) -> None:
    """Write `artifact/` and `run.yaml`.

    Args:
        compared: how many rows the choice was made by.
    """
    weights = [weight for weight, _ in members]
    folders = [result.artifact for _, result in members if result.artifact is not None]
    if len(folders) == 1:
        with atomic_folder(out / ARTIFACT) as temporary:
            shutil.copytree(folders[0], temporary, dirs_exist_ok=True)
        text = (folders[0].parent / RUN).read_text(encoding="utf-8")
    else:
        told = {name: found.estimate.as_dict() for name, found in metrics.items()}
        with tempfile.TemporaryDirectory() as scratch, atomic_folder(out / ARTIFACT) as temporary:
            made = save_ensemble(Path(scratch) / ARTIFACT, list(zip(folders, weights, strict=True)), told, compared)
            shutil.copytree(made.path, temporary, dirs_exist_ok=True)
        held = spec.model_dump(mode="json", exclude_none=True, exclude_unset=True, exclude={"train": {"report_to"}})
        text = dump({**held, "task": resolved_task(task)})
    write_text(out / RUN, text)
    remember(out / RUN)
