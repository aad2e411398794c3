"""The smallest valid YAML for a key of a settings model, for messages of what is missing or wrong there."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .yaml_file import inline

_NUMBERS = (0.01, 1, 2, 0)  # of which the first that a field takes is shown


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type is, or one of its kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if _is_union(annotation):
        for option in typing.get_args(annotation):
            if (found := nested_model(option)) is not None:
                return found
    return None


def model_at(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """The nested model that a path leads to, or the last one on its way."""
    for part in path:
        field = model.model_fields.get(str(part))
        nested = nested_model(field.annotation) if field else None
        if nested is None:
            break
        model = nested
    return model


def snippet(model: type[BaseModel], path: Sequence[Any]) -> str | None:
    """A valid value for the key that a path leads to, under the keys that lead there, e.g. `data: {source: rows.jsonl}`.

    A path that goes on into a list or a mapping without a model ends at the key that holds it. None where no value is known.
    """
    keys: list[str] = []
    field: FieldInfo | None = None
    for part in path:
        inner = model if field is None else nested_model(field.annotation)
        if inner is None or str(part) not in inner.model_fields:
            break
        keys.append(str(part))
        field = inner.model_fields[keys[-1]]
    value = None if field is None else example(field)
    if value is None:
        return None
    for key in reversed(keys[1:]):
        value = {key: value}
    return f"{keys[0]}: {inline(value)}"


def example(field: FieldInfo) -> Any:
    """A value that a field takes: its first example, its default, or one by its type; None where none is known."""
    if field.examples:
        return field.examples[0]
    if isinstance(field.default, (str, int, float)) and field.default != "":
        return field.default
    if (model := nested_model(field.annotation)) is not None:
        inner = {name: example(one) for name, one in model.model_fields.items() if one.is_required()}
        known = ((name, example(one)) for name, one in model.model_fields.items())
        return inner or dict([next(pair for pair in known if pair[1] is not None)])
    for kind in _kinds(field.annotation):
        if typing.get_origin(kind) is typing.Literal:
            return typing.get_args(kind)[0]
        if kind is bool:
            return True
        if kind in (int, float):
            return _number(field)
    return None


def _kinds(annotation: Any) -> list[Any]:
    """All kinds of a type, without constraints."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if _is_union(annotation):
        return [kind for option in typing.get_args(annotation) for kind in _kinds(option)]
    return [annotation]


def _number(field: FieldInfo) -> int | float | None:
    constrained: Any = typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    for number in _NUMBERS:
        try:
            TypeAdapter(constrained).validate_python(number)
        except ValidationError:
            continue
        return number
    return None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
