"""Tasks: data, template, answers and metric, declared in YAML."""

from .base import Task, ready_tasks
from .bound import BoundTask
from .spec import TaskSpec

__all__ = ["BoundTask", "Task", "TaskSpec", "ready_tasks"]
