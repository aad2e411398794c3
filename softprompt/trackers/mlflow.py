"""MLflow."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Ending, Settings, Tracker

STATES: dict[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflow(Tracker):
    """A run of MLflow's experiment, within the one that the caller has begun, if there is one.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` are MLflow's own.
    """

    def open(self, settings: Settings, known: str | None) -> str:
        import mlflow

        self._mlflow = mlflow
        nested = mlflow.active_run() is not None
        self._id = str(mlflow.start_run(run_id=known, run_name=self.run_name, nested=nested).info.run_id)
        if settings and not known:  # MLflow refuses a parameter that changes, and a run that goes on has the same
            mlflow.log_params(dict(settings), run_id=self._id)
        return self._id

    def resume(self, step: int) -> None:
        """Nothing to do: a step may be logged twice."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step, run_id=self._id)

    def summarize(self, values: Mapping[str, float], step: int) -> None:
        self.log(values, step)

    def close(self, ending: Ending) -> None:
        self._mlflow.end_run(STATES[ending])
