"""Names to things, imported when asked for: what the project ships and what others add by entry point, in one table."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .config import suggest
from .errors import ConfigError, MissingExtraError

_SHIPPED: dict[str, dict[str, str]] = {
    "softprompt.methods": {
        "hard": "softprompt.methods.hard:Hard",
        "soft": "softprompt.methods.soft:Soft",
        "prefix": "softprompt.methods.prefix:Prefix",
        "infix": "softprompt.methods.infix:Infix",
        "p_tuning": "softprompt.methods.p_tuning:PTuning",
        "probe": "softprompt.methods.probe:Probe",
        "joint": "softprompt.methods.joint:Joint",
        "lora": "softprompt.adapters.lora:Lora",
        "peft": "softprompt.adapters.tuner:Tuner",
        "full": "softprompt.adapters.full:Full",
    },
    "softprompt.tasks": {
        "classification": "softprompt.tasks.classification:Classification",
        "choice": "softprompt.tasks.choice:Choice",
        "generation": "softprompt.tasks.generation:Generation",
        "span": "softprompt.tasks.span:Span",
        "tagging": "softprompt.tasks.tagging:Tagging",
        "multilabel": "softprompt.tasks.multilabel:MultiLabel",
    },
    "softprompt.answers": {
        "chosen": "softprompt.answers.chosen:Chosen",
        "generated": "softprompt.answers.generated:Generated",
        "extracted": "softprompt.answers.extracted:Extracted",
        "tagged": "softprompt.answers.tagged:Tagged",
        "decided": "softprompt.answers.decided:Decided",
    },
    "softprompt.checks": {
        "artifact": "softprompt.doctor.trained:artifact",
        "rows": "softprompt.doctor.data:rows",
        "labels": "softprompt.doctor.data:labels",
        "joints": "softprompt.doctor.data:joints",
        "effect": "softprompt.doctor.effect:effect",
        "gradient": "softprompt.doctor.effect:gradient",
        "norms": "softprompt.doctor.effect:norms",
        "padding": "softprompt.doctor.positions:padding",
        "positions": "softprompt.doctor.positions:positions",
        "majority": "softprompt.doctor.trained:majority",
        "metric": "softprompt.doctor.trained:metric",
    },
    "softprompt.formats": {
        "peft": "softprompt.exporting.peft:Peft",
        "kv": "softprompt.exporting.kv:KeysValues",
        "prompt-embeds": "softprompt.exporting.prompt_embeds:PromptEmbeds",
        "merged": "softprompt.exporting.merged:Merged",
        "gguf-alora": "softprompt.exporting.gguf_alora:GgufAlora",
    },
    "softprompt.benchmarks": {
        "speed": "softprompt.benchmarks.speed.main:main",
        "speed_tables": "softprompt.benchmarks.speed.tables:tables",
        "speed_plot": "softprompt.benchmarks.speed.plot:plot",
        "speed_check_plot": "softprompt.benchmarks.speed.plot:check_plot",
        "compare": "softprompt.benchmarks.compare.main:compare",
        "report": "softprompt.benchmarks.compare.main:report",
        "try": "softprompt.benchmarks.ways.main:try_rows",
    },
}


def names(group: str) -> list[str]:
    """All names of a group, the shipped ones first."""
    return [*_SHIPPED[group], *sorted(set(_foreign(group)) - set(_SHIPPED[group]))]


def find(group: str, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        ConfigError: no such name; with the nearest one.
        MissingExtraError: it needs a package that is not installed.
    """
    if name in _SHIPPED[group]:
        target = _SHIPPED[group][name]
    elif name in (foreign := _foreign(group)):
        target = foreign[name].value
    else:
        kind = group.rpartition(".")[2].removesuffix("s")
        raise ConfigError(f"no {kind} {name!r}{suggest(name, names(group))}")
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "softprompt":
            raise
        raise MissingExtraError(f"{name!r} needs the package {error.name!r}: pip install {error.name}") from error


def _foreign(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
