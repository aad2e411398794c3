"""Run files and task files as JSON schemas: editors complete keys by them, and the reference pages are made of them.

A schema says what the pydantic models say. It is wider than them where YAML is: a text may be written as a number, and a
name alone stands for a mapping with that name. Rules between keys are the models' own.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel

from . import registry
from .runfile import RunSpec
from .snippets import nested_model
from .tasks import ready_tasks

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_DEFINITIONS = "#/$defs/"
_TEXT = {"type": ["string", "number", "boolean"]}
_WORDS = {"anyOf": [_TEXT, {"type": "null"}, {"type": "array", "items": _TEXT}]}
_SHORT_FORMS = {
    # labels alone, or each with its word, its words, or nothing: then it is its own word
    "verbalizer": {"anyOf": [{"type": "object", "additionalProperties": _WORDS}, {"type": "array", "items": _TEXT}]},
}


def run_schema() -> dict[str, Any]:
    """The schema of a run file, with that of a task and of every method that is installed."""
    definitions: dict[str, Any] = {}
    run = model_schema(RunSpec, definitions)
    keys = run["properties"]
    keys["task"] = {
        "description": keys["task"]["description"],
        "anyOf": [{"type": "string", "examples": list(ready_tasks())}, _task(definitions)],
    }
    keys["base"] = {**_named(keys["base"]), "examples": ["smollm2", "minilm", "auto"]}
    keys["method"] = {"description": keys["method"]["description"], **_method(definitions)}
    return {"$schema": DRAFT, "title": "softprompt run file", **run, "$defs": definitions}


def task_schema() -> dict[str, Any]:
    """The schema of a task file, whose keys depend on its `type`."""
    definitions: dict[str, Any] = {}
    task = _task(definitions)
    return {"$schema": DRAFT, "title": "softprompt task file", **task, "$defs": definitions}


SCHEMAS = {"run": run_schema, "task": task_schema}
BESIDE = ".softprompt-run.schema.json"
"""The schema beside a run file: found without a network, and from any folder that both are copied to."""


def as_json(name: str) -> str:
    """The schema of that name, as a file holds it."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"


def modeline(schema: str) -> str:
    """The comment by which editors with a YAML language server find the schema of a file; a path is relative to the file."""
    return f"# yaml-language-server: $schema={schema}\n"


def explained(spec: type) -> dict[str, str]:
    """What the docstrings of a settings class and those it extends say of each setting."""
    texts: dict[str, str] = {}
    for kind in reversed(spec.__mro__):
        _, _, listed = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
            texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return texts


def _task(definitions: dict[str, Any]) -> dict[str, Any]:
    """A task as a mapping; `type` says by which keys it goes on, and is `classification` where it is left out."""
    names = registry.names("softprompt.tasks")
    cases = [
        {
            "if": {
                "properties": {"type": {"const": name}},
                **({} if name == "classification" else {"required": ["type"]}),
            },
            "then": _ref(registry.find("softprompt.tasks", name).Spec, definitions),
        }
        for name in names
    ]
    return {"type": "object", "properties": {"type": {"enum": names}}, "allOf": cases}


def _method(definitions: dict[str, Any]) -> dict[str, Any]:
    """A method's name alone, or a mapping with `name` and the settings of that method; `peft:TYPE` has those of PEFT, too."""
    names = registry.names("softprompt.methods")
    specs = {name: registry.find("softprompt.methods", name).Spec for name in names}
    cases = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": _ref(spec, definitions),
        }
        for name, spec in specs.items()
        if name != "peft"
    ]
    name = {"anyOf": [{"enum": [*names, "auto"]}, {"type": "string", "pattern": "^peft:"}]}
    return {"anyOf": [name, {"type": "object", "properties": {"name": name}, "required": ["name"], "allOf": cases}]}


def _named(section: dict[str, Any]) -> dict[str, Any]:
    """A section that may be a name alone."""
    reference = {key: section.pop(key) for key in ("$ref",) if key in section}
    return {**section, "anyOf": [{"type": "string"}, reference]}


def _ref(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to a model's schema, which is put among the definitions."""
    if model.__name__ not in definitions:
        definitions[model.__name__] = {}  # a place, in case it refers to itself
        definitions[model.__name__] = model_schema(model, definitions)
    return {"$ref": _DEFINITIONS + model.__name__}


def model_schema(model: type[BaseModel], definitions: dict[str, Any] | None = None) -> dict[str, Any]:
    """A model's schema, with what its docstring says of each key; models within it are put among the definitions."""
    schema = model.model_json_schema(ref_template=_DEFINITIONS + "{model}")
    schema.pop("$defs", None)
    definitions = {} if definitions is None else definitions
    texts = explained(model)
    for name, field in model.model_fields.items():
        key = schema["properties"][name] = _as_written(schema["properties"][name])
        key.pop("title", None)
        if name in _SHORT_FORMS:
            schema["properties"][name] = key = {**_SHORT_FORMS[name]}
        if name in texts:
            key["description"] = texts[name]
        if (inner := nested_model(field.annotation)) is not None:
            _ref(inner, definitions)
    for old, new in getattr(model, "renamed", {}).items():
        schema["properties"][old] = {
            **schema["properties"][new],
            "deprecated": True,
            "description": f"now called {new}",
        }
    schema["description"] = inspect.cleandoc(model.__doc__ or "").partition("\n")[0]
    schema.pop("title", None)
    return schema


def _as_written(schema: Any) -> Any:
    """A key's schema for what people write: texts that are free may look like a number, or like true and false."""
    if isinstance(schema, list):
        return [_as_written(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern"}:
        return {**schema, **_TEXT}
    kept = ("default", "examples", "enum", "const", "required", "description")
    return {key: value if key in kept else _as_written(value) for key, value in schema.items()}
