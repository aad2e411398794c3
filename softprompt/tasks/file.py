"""The task that a YAML file holds: the whole file, or the `task:` section of a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import read_yaml
from ..errors import ConfigError


def read_task(path: Path) -> tuple[dict[str, Any], str]:
    """A task's settings, and what to name in front of problems with them.

    Raises:
        ConfigError: see `read_yaml`; a run file that names its task and does not hold it.
    """
    data = read_yaml(path)
    if "task" not in data or "template" in data:
        return data, str(path)
    task = data["task"]
    if isinstance(task, str):
        raise ConfigError(f"{path}: is a run file on the task {task!r}; name that task here")
    if not isinstance(task, dict):
        raise ConfigError(f"{path}: is a run file without a task; name a task file, or a run file that holds its task")
    return task, f"{path}: task"
