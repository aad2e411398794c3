"""Bringing in what PEFT trained: its folder has tensors only; base and task make it an artifact of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..artifact import read_peft, read_peft_weights
from ..artifact.peft_format import kv_to_peft
from ..base import Base
from ..errors import ConfigError
from ..methods import Method, make_method
from ..tasks import Task
from .preparing import prepare
from .run import Result
from .saving import save

# what a configuration says of the folder rather than of the tuner
_NOT_SETTINGS = {"peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"}
_NOT_SETTINGS |= {"inference_mode", "layers_to_transform", "alora_invocation_tokens"}


def import_peft(folder: str | Path, base: Base, task: Task, out: str | Path) -> Path:
    """Save what PEFT's `save_pretrained` wrote as an artifact: prompt, P- and prefix tuning, LoRA and the other tuners.

    The task's instruction stays in front of the text if it has one: PEFT does not say what it was trained with.

    Args:
        base: the model it was trained on (its config only names it, so only shapes can be checked).
        task: how rows become text; the same template that it was trained with.

    Raises:
        ArtifactError: not a folder of PEFT that we can express, or of another shape than the base needs.
        ConfigError: settings that this version of PEFT does not take.
    """
    weights = read_peft_weights(folder)
    method, tensors = _tuner(*weights, base) if weights is not None else _prompt(folder)
    method.restore(tensors, base)
    ready = prepare(base, task, method, rows={"train": []})
    if weights is not None and (tokens := weights[2].get("alora_invocation_tokens")):
        if list(ready.bound.cue) != tokens:
            raise ConfigError(
                f"{folder}: is active from the tokens {tokens} on, the task's cue has {list(ready.bound.cue)}; set "
                f"template.cue to {base.tokenizer.decode(tokens)!r}"
            )
        method.activated_by(tokens)  # type: ignore[attr-defined]
    stored = sum(value.numel() for value in tensors.values())
    save(Result(ready, {}, None, {}, stored, 0, 0), Path(out))
    return Path(out)


def _prompt(folder: str | Path) -> tuple[Method, dict[str, Tensor]]:
    kind, tensors, config = read_peft(folder)
    method = make_method({"name": kind, "length": config["num_virtual_tokens"], "instruction": True})
    value = kv_to_peft(tensors["kv"]) if kind == "prefix" else tensors["prompt_embeddings"]
    return method, {"prompt_embeddings": value}


def _tuner(
    kind: str, tensors: dict[str, Tensor], config: dict[str, Any], base: Base
) -> tuple[Method, dict[str, Tensor]]:
    """The method whose settings are those of PEFT's configuration that are not PEFT's defaults."""
    plain = make_method(f"peft:{kind}").default_settings()  # type: ignore[attr-defined]
    options = {k: v for k, v in config.items() if k not in _NOT_SETTINGS and k in plain and v != plain[k]}
    settings: dict[str, Any] = {"name": "peft", "type": kind, "options": options}
    if config.get("alora_invocation_tokens"):
        settings = {
            "name": "lora",
            "activate": "cue",
            "r": config["r"],
            "alpha": config["lora_alpha"],
            "options": options,
        }
        settings["target_modules"] = options.pop("target_modules", None)
        for key in ("r", "lora_alpha", "lora_dropout"):
            options.pop(key, None)
    layers = config.get("layers_to_transform")
    if layers is not None:
        own = [layers] if isinstance(layers, int) else sorted(layers)
        if own != list(range(own[0], own[-1] + 1)):
            raise ConfigError(f"layers_to_transform is {layers}; only layers that follow one another can be brought in")
        settings["layers"] = f"{own[0]}-{own[-1]}"
    return make_method(settings), tensors
