"""The work of one run, from prepared rows to what is left in its folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import doctor
from ..answers import AnswerForm, Evaluation, evaluate
from ..control import Control
from ..errors import DataError
from ..findings import Finding, above_majority
from ..interrupts import Asked, deferred
from ..prepared import Prepared
from ..runfile import CacheSpec, TrainSpec
from ..tasks import Task
from ..types import Example
from .checkpoints import FolderStore, KeptStore, NoStore, forget, read_checkpoints, told_resumed, trained_seconds
from .contrastive import contrastive_objective, refuse_parts, refuse_unpaired
from .loop import fit
from .places import ARTIFACT, RESULT
from .result import Result
from .results import Recorded, is_whole, recorded, rows_digest
from .saving import keep, recall, run_digest, settings_of
from .spikes import learned_nothing, told
from .state import CustomObjective, Objective, State, Store


@dataclass
class Job:
    """One run: what it learns from, and where it leaves what.

    Attributes:
        ready: rows, method and base, prepared.
        task: as it was given, for the run file.
        spec: filled.
        folder: of the run; None keeps everything in memory.
    """

    ready: Prepared
    task: Task
    spec: TrainSpec
    cache: CacheSpec
    seed: int
    folder: Path | None
    objective: CustomObjective | None
    control: Control

    def run(self, splits: Sequence[str], fresh: bool, check: bool, began: float) -> Result:
        """Train, measure on these splits, keep.

        Args:
            began: when the run was called, by `time.perf_counter`.

        Raises:
            DataError: rows that cannot be trained on.
            TrainingError: the folder holds a checkpoint or results of another run; see `fit` for others.
        """
        ready, parallel, method = self.ready, self.control.parallel, self.ready.method
        if method.parameters():
            _refuse_unusable(ready.form, ready.splits["train"])
        if self.spec.objective is not None:
            refuse_parts(self.spec)
            refuse_unpaired(ready.splits["train"])
        settings = self._settings()
        store, earlier, finished = self._begin(settings, splits, fresh)
        before = trained_seconds(self.folder) if self.folder and parallel.main else 0.0  # of earlier calls
        finished = parallel.from_main(finished)
        first = not finished and parallel.from_main(store.load() is None)
        findings = self._examine(store) if check and first else []
        if method.parameters() and not finished:
            kept = [*parallel.shard(ready.splits["train"]), *parallel.shard(ready.splits.get("dev", []))]
            ready.engine.encode(kept, self.control.progress)
        seconds, began = {"encode": time.perf_counter() - began}, time.perf_counter()
        with deferred() if self.folder and method.parameters() else nullcontext(Asked()) as asked:
            best_step, seen, learned = self._learn(store, asked)
        seen = self._settled(seen)
        findings = learned + findings
        seconds["train"], began = before + time.perf_counter() - began, time.perf_counter()
        metrics = self._measure(splits, {"dev": seen}, store)
        seconds["evaluate"] = time.perf_counter() - began
        if check and not finished and "dev" in metrics:
            findings += self._tell([above_majority(ready.task, ready.splits["dev"], metrics["dev"].estimate)])
        size = sum(value.numel() for value in method.parameters() or method.export().values())
        result = Result(ready, metrics, None, seconds, size, best_step, ready.bound.cut, findings=findings)
        result.settings = settings
        if isinstance(store, NoStore):
            result.events = store.events
        if self.folder is not None:
            result.artifact = self.folder / ARTIFACT
            if parallel.main:
                self._keep(result, self.folder, earlier, finished)
        if not finished:
            store.log("end", best_step=best_step, parameters=size, seconds=seconds)
        return result

    def _settings(self) -> dict[str, Any]:
        """All that decides the result."""
        trains = bool(self.ready.method.parameters())
        settings = settings_of(self.ready, self.spec if trains else None, self.seed)
        return settings if self.objective is None else {**settings, "teaching": self.objective.record}

    def _begin(
        self, settings: dict[str, Any], splits: Sequence[str], fresh: bool
    ) -> tuple[Store, Recorded | None, bool]:
        """Where the run leaves its records; what it has measured when it was called before; whether it had ended."""
        if self.folder is None or not self.control.parallel.main:
            store: Store = NoStore(self.control.on_event)
            self._log_start(store)
            return store, None, False
        if fresh:
            forget(self.folder, RESULT)
        run = run_digest(self.ready, settings)
        state, damaged = read_checkpoints(self.folder, run, self.control.notice)
        earlier = recorded(self.folder, run)
        if earlier and state and state.is_last(self.spec.max_steps) and is_whole(self.folder, earlier):
            missing = [name for name in splits if not self._is_measured(name, earlier)]
            return KeptStore(self.folder, state, missing, self.control.on_event), earlier, True
        if state and self.ready.method.parameters() and not damaged:  # of a damaged checkpoint it was told already
            assert self.spec.max_steps
            self.control.notice(told_resumed(self.folder, state.step, self.spec.max_steps))
        store = FolderStore(self.folder, run, state, damaged, self.control.on_event)
        self._log_start(store)
        return store, earlier, False

    def _log_start(self, store: Store) -> None:
        """Record what the run learns from, and how."""
        ready = self.ready
        learned = ready.method.parameters()
        store.log(
            "start",
            plan=ready.engine.plan.explain(),
            rows={name: len(part) for name, part in ready.splits.items()},
            truncated=ready.bound.cut,
            duplicates=asdict(self.task.left_out),
            base=ready.base.name,
            task=ready.task.name,
            method=ready.method.spec.model_dump(mode="json"),
            train=self.spec.model_dump(mode="json", exclude_none=True) if learned else {},
            seed=self.seed,
        )

    def _is_measured(self, split: str, earlier: Recorded) -> bool:
        """Whether a split needs no more measuring: it was, on the same rows; or it has none."""
        digest = rows_digest(self.ready, split)
        return not digest or (split in earlier.metrics and earlier.rows.get(split) == digest)

    def _keep(self, result: Result, folder: Path, earlier: Recorded | None, finished: bool) -> None:
        if finished and earlier is not None:
            new = [name for name in result.metrics if not self._is_measured(name, earlier)]
            added = f"measured in addition: {', '.join(new)}" if new else "nothing was changed"
            self.control.notice(f"{folder}: this run is finished; {added} (--fresh starts it over)")
            if not new:
                recall(result, folder, self.task, self.spec, self.cache, result.settings["seed"])
                result.recorded = {k: v for k, v in earlier.estimates().items() if k not in result.metrics}
                return
        keep(result, folder, self.task, self.spec, self.cache, result.settings, earlier)

    def _examine(self, store: Store) -> list[Finding]:
        """The quick checks; their warnings are recorded and passed to `notice`.

        Raises:
            TrainingError: an error among them.
        """
        found = doctor.before_training(self.ready, self.control.progress)
        for finding in found:
            if finding.level in ("warning", "error"):
                store.log("doctor", **finding.as_dict())
        self._tell(found)
        doctor.refuse(found)
        return found

    def _tell(self, findings: list[Finding]) -> list[Finding]:
        for finding in findings:
            if finding.level == "warning":
                self.control.notice(f"warning: {finding}")
        return findings

    def _learn(self, store: Store, asked: Asked) -> tuple[int, Evaluation | None, list[Finding]]:
        """Train by gradients, or solve; the step that was kept, its dev evaluation, and what is to be said of the steps."""
        ready, seed = self.ready, self.seed
        if not ready.method.parameters():
            rows, dev = ready.splits["train"], ready.splits.get("dev", [])
            ready.method.solve(ready.engine, rows, dev, ready.task, seed, self.control.progress)
            store.save(State(ended="solved"))
            return 0, None, []
        state, kept = fit(ready, self.spec, seed, store, replace(self.control, asked=asked), self._minimised())
        assert self.spec.lr
        findings = [told(state.spikes, self.spec.lr)] if state.spikes else []  # each was told when it came
        if warning := learned_nothing(state, self.spec.lr):
            findings += self._tell([warning])
        return kept, state.evaluations.get(kept), findings

    def _minimised(self) -> Objective | None:
        """What is minimised, where it is not the loss of the answers' form."""
        if self.spec.objective is None:
            return None if self.objective is None else self.objective.make(self.ready.engine)
        assert self.spec.temperature
        return contrastive_objective(self.ready, self.spec.temperature)

    def _settled(self, seen: Evaluation | None) -> Evaluation | None:
        """The dev evaluation with what the answers' form chooses on it; as it is where there is nothing to choose."""
        form, dev = self.ready.form, self.ready.splits.get("dev")
        if not form.settles_on_dev or not dev:
            return seen
        return form.settle_on_dev(seen or evaluate(self.ready, dev, self.control))

    def _measure(
        self, splits: Sequence[str], seen: dict[str, Evaluation | None], store: Store
    ) -> dict[str, Evaluation]:
        """The task's metric on these splits, where they have rows; what training has `seen` is not asked again."""
        ready, metrics = self.ready, {}
        for name in splits:
            if not ready.splits.get(name):
                continue
            found = seen.get(name) or evaluate(ready, ready.splits[name], self.control)
            if self.objective is not None:
                found = replace(found, estimate=replace(found.estimate, metric=self.objective.metric))
            metrics[name] = found
            store.log("final", split=name, **found.estimate.as_dict())
        return metrics


def _refuse_unusable(form: AnswerForm[Any], rows: Sequence[Example]) -> None:
    if not rows:
        raise DataError("there are no training rows; set data.split.train or give data.train")
    problems = [f"{row.where}: {reason}" for row in rows if (reason := form.lacking(row))]
    problems += [f"{row.where}: the text is empty" for row in rows if not row.text]
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} training rows cannot be used", problems)
