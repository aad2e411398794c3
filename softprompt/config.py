"""The edge of the program: YAML files become pydantic objects, and every problem is reported at once.

All user-written files (run, task) and our own manifest go through `parse`, so unknown keys are refused the same way
everywhere, with the nearest known name.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from . import yaml_file
from .errors import ConfigError, DataError
from .renamed import tell_renamed
from .snippets import model_at, snippet
from .values import kind, not_text, shown, text_of

M = TypeVar("M", bound=BaseModel)
SHOWN_PROBLEMS = 20


class Strict(BaseModel):
    """A pydantic model that refuses keys it does not know.

    Attributes:
        renamed: keys of the version before, and what they are called now. The old ones are still read, with a warning.
        by_hand: people write it, so problems come with what to write.
    """

    renamed: ClassVar[dict[str, str]] = {}
    by_hand: ClassVar[bool] = True

    model_config = ConfigDict(extra="forbid", validate_default=True, validate_assignment=True)

    @model_validator(mode="before")
    @classmethod
    def _today(cls, data: Any) -> Any:
        return with_new_keys(cls, data) if isinstance(data, dict) else data

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`seed: yes` is not 1."""
        if isinstance(value, bool) and _takes_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"expected a number (got {shown(value)})")
        return value


def with_new_keys(model: type[Strict], data: dict[Any, Any]) -> dict[Any, Any]:
    """Settings for this model under the names that its keys have now; each old name gives a warning.

    Raises:
        ValueError: a key is given under both names.
    """
    for old, new in model.renamed.items():
        if old not in data:
            continue
        if new in data:
            raise ValueError(f"{old} is now called {new}, and both are given; remove {old}")
        tell_renamed(f"the setting {old} is now called {new}")
        data = {new if key == old else key: value for key, value in data.items()}
    return data


def _takes_numbers(annotation: Any) -> bool:
    """Whether a field is a number, beside words of its own and nothing."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _takes_numbers(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None) and not _is_words(part)]
        return bool(parts) and all(map(_takes_numbers, parts))
    if typing.get_origin(annotation) is typing.Literal:
        return all(type(one) is int for one in typing.get_args(annotation))
    return annotation in (int, float)


def _is_words(annotation: Any) -> bool:
    words = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    return bool(words) and all(isinstance(one, str) for one in words)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not a YAML mapping, or has a key twice (with the line).
    """
    try:
        if (size := path.stat().st_size) > 4 * yaml_file.MAX_BYTES:  # a character has four bytes at most
            raise ConfigError(f"{path}: has {size:,} bytes; at most {yaml_file.MAX_BYTES:,} characters are read")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, expected a YAML file") from None
    except PermissionError:
        raise ConfigError(f"{path}: no permission to read it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not valid UTF-8; save the file as UTF-8") from None
    data = yaml_file.load(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {kind(data)}")
    return data


def yaml_files(folder: Any) -> dict[str, Path]:
    """The YAML files in a folder of the package (`importlib.resources.files`), by name, sorted."""
    files = sorted((Path(str(item)) for item in folder.iterdir()), key=str)
    return {path.stem: path for path in files if path.suffix == ".yaml"}


def named_file(kind: str, source: str, ready: dict[str, Path]) -> Path:
    """The file that a ready name stands for, or that a path leads to.

    Raises:
        ConfigError: it is neither, and does not look like a file; with the nearest ready name.
    """
    if source in ready:
        return ready[source]
    path = Path(source)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"no {kind} {source!r}: neither a ready one{suggest(source, ready)} nor a file")
    return path


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate `data` as `model`.

    Args:
        where: stands in front of every problem, e.g. the file's path.

    Raises:
        ConfigError: one line that holds all problems (of very many the first), separated by `; `; `problems` holds each.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = _problems(model, error.errors(include_url=False)[:SHOWN_PROBLEMS])
        more = error.error_count() - SHOWN_PROBLEMS
        also = f"; and {more} more" if more > 0 else ""
        told = [f"{where}: {problem}" for problem in problems]
        raise ConfigError(
            f"{where}: " + "; ".join(problems) + also, told + ([f"… and {more} more"] if also else [])
        ) from None


def gather(*checks: Callable[[], Any]) -> None:
    """Make all of these checks, and tell the problems of all of them at once.

    Raises:
        ConfigError: `problems` holds every one of them.
    """
    errors = []
    for check in checks:
        try:
            check()
        except (ConfigError, DataError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        problems = [problem for error in errors for problem in error.problems or [str(error)]]
        raise ConfigError("; ".join(map(str, errors)), problems)


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `a.b=value` assignments (values are YAML) to a nested mapping; returns a new mapping.

    Raises:
        ConfigError: an assignment without `=`, a key that is given twice or dropped by a later one, or one that reaches into
            no mapping.
    """
    result = dict(data)
    given: set[str] = set()
    for assignment in assignments:
        dotted, sign, raw = assignment.partition("=")
        if not sign or not dotted:
            raise ConfigError(f"{assignment!r}: expected key=value, e.g. train.epochs=2")
        if dotted in given:
            raise ConfigError(f"{assignment!r}: {dotted} is given twice; give it once")
        if inner := next((one for one in given if one.startswith(dotted + ".")), None):
            raise ConfigError(f"{assignment!r}: would drop {inner}, which is given before it; give {dotted} first")
        given.add(dotted)
        node, keys = result, dotted.split(".")
        for depth, key in enumerate(keys[:-1]):
            key = _written(node, key)
            child = node.get(key)
            if child is None:
                child = {}
            if isinstance(child, str) and key in ("method", "base"):
                child = {"name": child}  # the short form `method: soft` becomes a mapping
            if not isinstance(child, dict):
                raise ConfigError(f"{assignment!r}: {'.'.join(keys[: depth + 1])} is {shown(child)}, not a mapping")
            node[key] = dict(child)
            node = node[key]
        node[_written(node, keys[-1])] = yaml_file.load(raw, repr(assignment), under=keys, lines=False)
    return result


def _written(node: dict[Any, Any], key: str) -> Any:
    """The key as the mapping has it: 0 where it is written without quotes."""
    return next((one for one in node if text_of(one) == key), key)


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """` (did you mean …?)` for a near miss, else the list of what is known, if anything is."""
    if not (names := sorted(known)):
        return ""
    near = difflib.get_close_matches(word, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(names)})"


def missing(what: str, names: typing.Iterable[typing.Sequence[str]], known: typing.Iterable[str]) -> str:
    """What is not there: `missing field 'a'; missing field 'b' (known: c, d)`.

    Args:
        names: of each thing, the names that it may have.
    """
    known = list(known)
    told = [(f"missing {what} {' or '.join(map(repr, each))}", suggest(each[0], known)) for each in names]
    hints = [hint for _, hint in told]
    return "; ".join(line + ("" if hint in hints[place + 1 :] else hint) for place, (line, hint) in enumerate(told))


_MEMBER = re.compile(r"(constrained-)?(str|int|float|bool)|(list|dict|literal)\[.*\]")
"""A member of a union, as pydantic names it in the path of a problem."""


def _problems(model: type[BaseModel], errors: list[Any]) -> list[str]:
    """Each once; where a value is none of several kinds, what each of them expects, in one."""
    found: dict[str, list[tuple[str, str]]] = {}
    advice: dict[str, str] = {}
    unknown = [str(item["loc"][-1]) for item in errors if item["type"] == "extra_forbidden"]
    for item in errors:
        *parents, key = item["loc"] or ("",)
        parts = [part for part in parents if not _MEMBER.fullmatch(str(part))]
        if item["type"] == "extra_forbidden":
            known = suggest(str(key), model_at(model, parts).model_fields)
            found[f"unknown key {'.'.join(map(str, [*parts, key]))!r}{known}"] = []
            continue
        if not parents or not _MEMBER.fullmatch(str(key)):
            parts.append(key)
        path = ".".join(map(str, parts))
        example = snippet(model, parts) if getattr(model, "by_hand", False) else None
        if item["type"] == "missing":
            if difflib.get_close_matches(str(key), unknown):
                continue  # it stands there under another spelling, and that is told
            found[f"missing key {path!r}" + (f": write {example}" if example else "")] = []
            continue
        if example and item["type"] != "value_error":  # our own messages say what to do
            advice[f"{path}: "] = f", e.g. {example}"
        found.setdefault(f"{path}: " if path else "", []).append(_message(item))
    lines = []
    for path, told in found.items():
        got = max((one for _, one in told), key=len, default="")
        expected = ", or ".join(dict.fromkeys(message for message, _ in told))
        lines.append(f"{path}{expected}{got}" + ("" if "; " in got else advice.get(path, "")))
    return lines


def _message(item: Any) -> tuple[str, str]:
    """What was expected, and what was got."""
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message = "expected a mapping of keys to values"
    given = shown(value := item.get("input"))
    got = f" (got {given})" if item["type"] != "value_error" else ""
    if item["type"] == "string_type" and (isinstance(value, bool) or not_text(value) is None):
        got += "; put it in quotes"
    return message, got
