"""Run files are read, with what the command line sets; paths in them are relative to the file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import registry
from .config import gather, override, parse, read_yaml
from .data import CATALOGUE, find_source
from .data.files import SUPPORTED, check_file
from .errors import ConfigError
from .methods import make_method
from .renamed import tell_renamed, with_current_keys, with_current_path
from .runfile import RunSpec, short_form
from .tasks import Task, ready_tasks
from .tasks.file import read_task
from .tasks.spec import DataSpec

_TABLES = (".xlsx", ".xls", ".ods", ".txt", ".gz", ".zip")  # people have rows in, and we do not read
_ROWS = ("source", "train", "dev", "test")  # keys of a task's data that may name files


def beside(folder: Path, task: str | dict[str, Any]) -> str | dict[str, Any]:
    """A task as a file in `folder` names it: a path that leads to a file from there is made absolute."""
    is_file = isinstance(task, str) and not Path(task).is_absolute() and (folder / task).is_file()
    return str((folder / str(task)).resolve()) if is_file else task


def load_run(path: Path, assignments: list[str], ours: bool = False, whole: bool = False) -> RunSpec:
    """Read a run file and apply `key=value` overrides; paths of a task and of its rows in it are relative to the file.

    Args:
        ours: a run wrote it and nobody has edited it, so there are no warnings about renamed keys.
        whole: also check its task, its method and the places of its rows, as before they are used.

    Raises:
        ConfigError: all that is wrong; `problems` holds each problem, with the smallest valid snippet.
    """
    if holds_rows(path):
        raise ConfigError(
            f"{path}: is a file of rows, expected a run file; write one with `softprompt new {path}`, or train at "
            f"once with `softprompt train {path}`"
        )
    return make_run(read_yaml(path), assignments, str(path), path.parent, ours, whole)


def make_run(
    data: dict[str, Any],
    assignments: list[str],
    where: str,
    folder: Path = Path(),
    ours: bool = False,
    whole: bool = False,
) -> RunSpec:
    """A run from what a run file holds; see `load_run`.

    Args:
        where: named in front of every problem.
        folder: what paths are relative to.

    Raises:
        ConfigError: see `load_run`.
    """
    if any(item.startswith("task.") for item in assignments) and isinstance(data.get("task"), str):
        data["task"] = _task_data(data["task"], folder)
    data, assignments = _under_current_names(data, assignments, "" if ours else where)
    data = override(data, assignments)
    if whole:
        _check_whole(data, where, folder)
    spec = parse(RunSpec, data, where)
    spec.task = beside(folder, spec.task) if isinstance(spec.task, str) else _rows_beside(folder, spec.task, where)
    return spec


def _check_whole(data: dict[str, Any], where: str, folder: Path) -> None:
    """
    Raises:
        ConfigError: all that is wrong with a run, its task and its method, and with where its rows are.
    """
    task, method = data.get("task"), data.get("method")
    checks: list[Callable[[], Any]] = [lambda: parse(RunSpec, data, where)]
    if isinstance(task, dict):
        checks.append(lambda: Task.load(_rows_beside(folder, task, where), where=f"{where}: task"))
        checks.append(lambda: _check_rows(task, folder, f"{where}: task"))
    elif isinstance(task, str):
        name = beside(folder, task)
        checks.append(lambda: Task.load(name))
        if (path := Path(str(name))).is_file() and task not in ready_tasks():
            checks.append(lambda: _check_rows(read_task(path)[0], path.parent, str(path)))
    if method is not None and short_form(method) != {"name": "auto"}:
        checks.append(lambda: make_method(method, f"{where}: method"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are told when the run is made
        gather(*checks)


def _check_rows(task: dict[str, Any], folder: Path, where: str) -> None:
    """
    Raises:
        ConfigError: its data name no rows, or contradict themselves.
        DataError: a file that is not there.
    """
    try:
        data = parse(DataSpec, task.get("data") or {}, where)
    except ConfigError:
        return  # told of the task
    if data.problem is not None:
        raise ConfigError(f"{where}: {data.problem}")
    for source in (data.source, *data.separate.values()):
        if source is not None and source not in CATALOGUE and not source.startswith("datasets:"):
            check_file(Path(str(find_source(source, folder if not Path(source).is_file() else Path()))))


def holds_rows(path: Path) -> bool:
    """Whether a file holds rows and no run, by its ending; a `.json` that is a mapping with a task is a run.

    So do spreadsheets and packed files, which are then refused as files of rows.
    """
    if path.suffix.lower() != ".json":
        return path.suffix.lower() in (*SUPPORTED, *_TABLES)
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return not (isinstance(held, dict) and "task" in held)


def _rows_beside(folder: Path, task: dict[str, Any], where: str) -> dict[str, Any]:
    """A task with its rows' paths: those that lead to a file from `folder`, and from here to none, are made absolute.

    Raises:
        ConfigError: a path that leads to one file from there and to another one from here.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        return task
    moved: dict[str, str] = {}
    for key in _ROWS:
        name = data.get(key)
        if not isinstance(name, str) or name in CATALOGUE or Path(name).is_absolute() or not (folder / name).is_file():
            continue
        if not Path(name).is_file():
            moved[key] = str((folder / name).resolve())
        elif not Path(name).samefile(folder / name):
            raise ConfigError(
                f"{where}: task.data.{key} {name!r} is a file beside the run file and another one in the current folder; "
                f"write the whole path, e.g. {(folder / name).resolve()}"
            )
    return {**task, "data": {**data, **moved}} if moved else task


def _under_current_names(data: dict[str, Any], assignments: list[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """Settings and overrides under today's names, so that each overrides the other's old name; a warning says so.

    Args:
        where: the file, for the warning; empty for no warning.
    """
    task = data.get("task")
    kind = task.get("type", "classification") if isinstance(task, dict) else None
    spec = registry.find("softprompt.tasks", kind).Spec if kind in registry.names("softprompt.tasks") else None
    current = with_current_keys(RunSpec, data)
    if spec is not None:
        current = {**current, "task": with_current_keys(spec, task)}
    renamed = []
    for item in assignments:
        dotted, sign, value = item.partition("=")
        keys = dotted.split(".")
        inner = with_current_path(spec, keys[1:]) if spec is not None and keys[0] == "task" else None
        path = with_current_path(RunSpec, keys) if inner is None else [keys[0], *inner]
        renamed.append(f"{'.'.join(path)}{sign}{value}")
        if where and path != keys:
            tell_renamed(f"{dotted} is now called {'.'.join(path)}")
    for old, new in _renamed(data, current) if where else ():
        tell_renamed(f"{where}: {old} is now called {new}")
    return current, renamed


def _renamed(before: dict[str, Any], after: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Which keys have which other names, of the same settings before and after."""
    for (old, was), (new, is_now) in zip(before.items(), after.items(), strict=True):
        if old != new:
            yield f"{path}{old}", f"{path}{new}"
        if isinstance(was, dict) and isinstance(is_now, dict):
            yield from _renamed(was, is_now, f"{path}{new}.")


def _task_data(name: str, folder: Path) -> dict[str, Any]:
    """A task as a mapping, so that `task.template.cue=…` can reach into it."""
    return resolved_task(Task.load(folder / name if (folder / name).is_file() else name))


def resolved_task(task: Task) -> dict[str, Any]:
    """A task as a mapping that means the same from any folder: its files' paths are absolute."""
    data = task.spec.model_dump(mode="json", exclude_none=True)
    for key in _ROWS:
        value = data["data"].get(key)
        if value and value not in CATALOGUE and (task.folder / value).is_file():
            data["data"][key] = str((task.folder / value).resolve())
    return data
