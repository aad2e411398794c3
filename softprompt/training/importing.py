"""Bringing in what PEFT trained: its folder has tensors only; base and task make it an artifact of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..artifact import read_peft, read_peft_weights
from ..artifact.files import one_line
from ..artifact.peft_folder import METHODS, FolderConfig
from ..artifact.peft_format import kv_to_peft
from ..base import Base
from ..base.own_cache import prefix_in_peft
from ..errors import ArtifactError, ConfigError
from ..methods import Method, make_method
from ..methods.headed import Headed
from ..tasks import Task
from ..types import Notice, ignore_notice
from .preparing import prepare
from .run import Result
from .saving import save


def import_peft(folder: str | Path, base: Base, task: Task, out: str | Path, notice: Notice = ignore_notice) -> Path:
    """Save what PEFT's `save_pretrained` wrote as an artifact: prompts, prefixes, LoRA and the other tuners.

    The task's instruction stays in front of the text if it has one: PEFT does not say what it was trained with.

    Args:
        base: the model it was trained on (its config only names it, so only shapes can be checked).
        task: how rows become text; the same template that it was trained with.
        notice: told what is missing (weights for an encoder come without a head, so they answer nothing by themselves), and
            where a prefix is not what it is in PEFT.

    Raises:
        ArtifactError: not a folder of PEFT that we can express, or of another shape than the base needs.
        ConfigError: settings that this version of PEFT does not take.
    """
    weights = read_peft_weights(folder)
    where = str(Path(folder) / "adapter_config.json")
    method, tensors = _tuner(*weights, base, where) if weights is not None else _prompt(folder, base)
    method.restore(tensors, base)
    if method.spec.name == "prefix" and "window" in (reach := prefix_in_peft(base) or ""):
        notice(
            f"warning: {folder}: this prefix is the same here as in {reach}; in longer rows PEFT hides it in the base's "
            "sliding-window layers, here it stays in sight: measure it on rows of your length"
        )
    ready = prepare(base, task, method, rows={"train": []})
    if weights is not None and (tokens := weights[2].get("alora_invocation_tokens")):
        if list(ready.bound.cue) != tokens:
            raise ConfigError(
                f"{folder}: is active from the tokens {tokens} on, the task's cue has {list(ready.bound.cue)}; set "
                f"template.cue to {base.tokenizer.decode(tokens)!r}"
            )
        method.activated_by(tokens)  # type: ignore[attr-defined]
    if isinstance(ready.method, Headed):
        notice(
            f"warning: {out} holds no head, and base {base.name!r} has no words to answer with: merge it "
            f"(softprompt merge {out} --out FOLDER), then train a head on that folder (method: probe)"
        )
    stored = sum(value.numel() for value in tensors.values())
    save(Result(ready, {}, None, {}, stored, 0, 0), Path(out))
    return Path(out)


def _prompt(folder: str | Path, base: Base) -> tuple[Method, dict[str, Tensor]]:
    kind, tensors, config = read_peft(folder)
    own, width = base.shape, config["token_dim"]
    sizes: dict[str, tuple[Any, Any]] = {"token_dim": (width, own.hidden_size)}
    if kind == "prefix" and isinstance(own.kv_heads, int) and isinstance(own.head_size, int):
        sizes = {
            "num_layers": (config["num_layers"], own.layers),
            "num_attention_heads": (config["num_attention_heads"], own.kv_heads),
            "token_dim": (width, own.kv_heads * own.head_size),
        }
    for key, (found, want) in sizes.items():
        if found != want:
            raise ArtifactError(
                f"{folder}: {key} is {found:,}, base {base.name!r} needs {want:,}; it was made for another base"
            )
    method = make_method({"name": kind, "length": config["num_virtual_tokens"], "instruction": True})
    value = kv_to_peft(tensors["kv"]) if kind == "prefix" else tensors["prompt_embeddings"]
    return method, {"prompt_embeddings": value}


def _tuner(
    kind: str, tensors: dict[str, Tensor], config: dict[str, Any], base: Base, where: str
) -> tuple[Method, dict[str, Tensor]]:
    """The method whose settings are those of PEFT's configuration that are not PEFT's defaults."""
    try:
        options = make_method(f"peft:{kind}").options_in(config, where, frozenset(FolderConfig.model_fields))  # type: ignore[attr-defined]
    except ConfigError as error:
        raise ConfigError(f"{one_line(str(error))}; of prompts {', '.join(METHODS)} can be read") from None
    settings: dict[str, Any] = {"name": "peft", "type": kind, "options": options}
    if tokens := config.get("alora_invocation_tokens"):
        if kind != "LORA" or max(tokens) >= base.shape.vocab_size:
            raise ConfigError(
                f"{where}: alora_invocation_tokens are {tokens[:8]}, expected LORA and tokens of the base"
            )
        settings = {"name": "lora", "activate": "cue", "options": options}
        for own, key in (("r", "r"), ("alpha", "lora_alpha"), ("dropout", "lora_dropout"), ("target_modules", None)):
            if (value := options.pop(key or own, None)) is not None:
                settings[own] = value
        settings.setdefault("alpha", 8)  # PEFT's default
    if (layers := config.get("layers_to_transform")) is not None:
        settings["layers"] = _range(layers, base, where)
    return make_method(settings, where), tensors


def _range(layers: int | list[int], base: Base, where: str) -> str:
    """`layers_to_transform` as our `layers`.

    Raises:
        ConfigError: layers that the base does not have, or with gaps.
    """
    own = sorted({layers} if isinstance(layers, int) else set(layers))
    if own[-1] >= base.shape.layers:
        raise ConfigError(
            f"{where}: layers_to_transform names layer {own[-1]}, the base has 0 to {base.shape.layers - 1}"
        )
    if len(own) != own[-1] - own[0] + 1:
        raise ConfigError(
            f"{where}: layers_to_transform is {own}; only layers that follow one another can be brought in"
        )
    return f"{own[0]}-{own[-1]}"
