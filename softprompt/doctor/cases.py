"""From what a user names (a run file, a run's folder, an artifact) to a case."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..answers import AnswerForm
from ..artifact import Artifact
from ..base import Base
from ..data import CATALOGUE, Row
from ..errors import ArtifactError, SoftpromptError
from ..methods import make_method
from ..prepared import prepare, restored
from ..runfile import RunSpec
from ..tasks import Task
from ..types import Example, Progress, ignore_progress
from .case import Case, sample

_TEXTS = ("A short text.", "This one is a little longer than the other, so that rows differ in length.")


def before_run(spec: RunSpec, count: int, base: Base | None = None, progress: Progress = ignore_progress) -> Case:
    """The case of a run that is about to be trained.

    Args:
        count: labelled rows that are run.

    Raises:
        SoftpromptError: the run's settings, data or base cannot be used.
    """
    task, method = Task.load(spec.task), make_method(spec.method)
    rows = task.load_data(progress)
    base = base or spec.base.load(progress)
    autocast = torch.bfloat16 if spec.train.autocast else None
    base = base.view(gradient_checkpointing=spec.train.gradient_checkpointing, autocast=autocast)
    ready = prepare(base, task, method, spec.cache.config(), rows, splits=("train", "dev"), seed=spec.seed)
    return Case(ready, sample(ready.splits.get("train", []), count))


def of_artifact(
    held: Artifact, base: Base, count: int, run: RunSpec | None = None, progress: Progress = ignore_progress
) -> Case:
    """The case of a trained artifact, on the data of its run where that is at hand, else on made-up rows.

    Args:
        run: the run file beside it, which knows where its data is; only the catalogue is read without one, as an artifact may
            come from a stranger.

    Raises:
        ArtifactError: it does not belong to this base, or names no task.
    """
    manifest = held.manifest
    if manifest.task is None:
        raise ArtifactError(f"{held.path}: the artifact names no task, so there is nothing to run it on")
    task = Task.of_artifact(manifest.task, manifest.format_version)
    method = restored(held, base, task)
    rows: dict[str, list[Row]] = {}
    if run is not None:
        with contextlib.suppress(SoftpromptError):  # moved away since: made-up rows will do
            rows = Task.load(run.task, task.rules).load_data(progress)
    elif task.spec.data.source in CATALOGUE:
        rows = task.load_data(progress)
    ready = prepare(base, task, method, run.cache.config() if run else None, rows, splits=("train", "dev"))
    chosen = sample(ready.splits.get("train", []), count)
    return Case(ready, chosen or _made_up(ready.form), held, made_up=not chosen)


def _made_up(form: AnswerForm[Any]) -> list[Example]:
    """Rows of any text, so that the model can be run; the first answer counts as right."""
    fields: Sequence[str] = sorted(form.task.spec.template.fields)
    found = []
    with contextlib.suppress(SoftpromptError, KeyError, TypeError):  # a task whose rows must hold more than texts
        for text in _TEXTS:
            found.append(replace(form.encode(dict.fromkeys(fields, text), "a made-up row"), gold=0))
    return found
