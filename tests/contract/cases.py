"""The methods that the suite runs over: all registered ones, and the settings that make another method of one."""

from __future__ import annotations

from typing import Any

from softprompt import registry

LORA = {"name": "lora", "r": 2, "alpha": 4}
METHODS: list[str | dict[str, Any]] = [
    *registry.names("softprompt.methods"),
    {"name": "infix", "form": "embeddings", "length": 3},
    {"name": "infix", "length": 3, "cue": 4},
    {"name": "soft", "length": 3, "instruction": True},
    {"name": "prefix", "length": 3, "layers": "2-"},
    {"name": "prefix", "length": 3, "reparameterization": "mlp", "hidden": 16},
    {"name": "p_tuning", "length": 3, "encoder": "lstm", "hidden": 8},
    {**LORA, "activate": "cue"},
    {**LORA, "layers": "1-", "rslora": True},
    {**LORA, "dora": True, "dropout": 0.2},
    {"name": "full", "layers": "2-"},
    {"name": "joint", "parts": [{"name": "infix", "length": 3}, {**LORA, "activate": "cue"}]},
    {"name": "joint", "parts": [{"name": "prefix", "length": 3, "layers": "2-"}, {**LORA, "layers": "1-"}]},
    "peft:LN_TUNING",
]
LEARNING = [method for method in METHODS if method not in ("hard", "probe")]
UPPER = [
    {"name": "prefix", "length": 3, "layers": "2-"},
    {**LORA, "layers": "2-"},
    {"name": "full", "layers": "2-"},
    {"name": "joint", "parts": [{"name": "prefix", "length": 3, "layers": "2-"}, {**LORA, "layers": "1-"}]},
]


def path_of(method: str | dict[str, Any]) -> str:
    """How what is learned comes into a row: of each way the default run has every family of bases."""
    settings = {"name": method} if isinstance(method, str) else method
    parts = [part if isinstance(part, str) else part["name"] for part in settings.get("parts", ())]
    if settings["name"] == "probe":
        return "head"
    if settings["name"] in ("full", "lora") or settings["name"].startswith("peft"):
        return "kept texts" if settings.get("activate") == "cue" else "branch"
    if settings["name"] == "prefix" and "layers" not in settings:
        return "keys and values"
    if settings["name"] in ("hard", "prefix") or "infix" in (settings["name"], *parts):
        return "kept texts" if settings.get("form") != "embeddings" else "embeddings"
    return "embeddings"


SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.05}


def name_of(method: str | dict[str, Any]) -> str:
    """For pytest's ids."""
    if isinstance(method, str):
        return method
    rest = {key: value for key, value in method.items() if key not in ("name", "length", "r", "alpha", "hidden")}
    if method["name"] == "joint":
        return "joint(" + "+".join(name_of(part) for part in method["parts"]) + ")"
    return "-".join([method["name"], *(f"{key}={value}" for key, value in rest.items())])
