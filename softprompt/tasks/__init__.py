"""Tasks: data, template, answers and metric, declared in YAML."""

from .base import BoundTask, Task, ready_tasks
from .spec import TaskSpec

__all__ = ["BoundTask", "Task", "TaskSpec", "ready_tasks"]
