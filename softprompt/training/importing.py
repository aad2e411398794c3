"""Bringing in what PEFT trained: its folder has tensors only; base and task make it an artifact of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..artifact import folder_of, read_peft, read_peft_weights
from ..artifact.checks import quote
from ..artifact.files import one_line
from ..artifact.peft_folder import METHODS, PLAIN_STARTS, FolderConfig
from ..artifact.peft_format import kv_to_peft
from ..base import Base
from ..base.own_cache import prefix_in_peft
from ..errors import ArtifactError, ConfigError
from ..methods import Headed, Method, make_method
from ..prepared import prepare
from ..surroundings import plain_torch
from ..tasks import Task
from ..types import Notice, ignore_notice
from .result import Result
from .saving import save

_STARTED = ("eva_config", "loftq_config", "corda_config", "lora_ga_config")


@dataclass(frozen=True)
class PeftFolder:
    """A folder of PEFT's, checked as far as that needs no base.

    Attributes:
        method: with the settings that say the same here.
        tensors: fp32, in the names that the method restores.
        config: PEFT's configuration, as it stands in the file.
    """

    path: Path
    method: Method
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def where(self) -> str:
        """The file of its settings, for messages."""
        return str(self.path / "adapter_config.json")


def read_folder(folder: str | Path) -> PeftFolder:
    """What PEFT's `save_pretrained` wrote: prompts, prefixes, LoRA and the other tuners.

    Raises:
        ArtifactError: not a folder of PEFT that we can express.
        ConfigError: settings that this version of PEFT does not take.
    """
    path = folder_of(folder)
    weights = read_peft_weights(path)
    if weights is None:
        kind, tensors, config = read_peft(path)
        method = make_method({"name": kind, "length": config["num_virtual_tokens"], "instruction": True})
        value = kv_to_peft(tensors["kv"]) if kind == "prefix" else tensors["prompt_embeddings"]
        return PeftFolder(path, method, {"prompt_embeddings": value}, config)
    kind, tensors, config = weights
    return PeftFolder(path, _tuner(kind, tensors, config, str(path / "adapter_config.json")), tensors, config)


@plain_torch()
def import_peft(
    folder: str | Path | PeftFolder, base: Base, task: Task, out: str | Path, notice: Notice = ignore_notice
) -> Path:
    """Save a folder of PEFT's as an artifact.

    The task's instruction stays in front of the text if it has one: PEFT does not say what it was trained with.

    Args:
        folder: its place, or what `read_folder` gave.
        base: the model it was trained on (its config only names it, so only shapes can be checked).
        task: how rows become text; the same template that it was trained with.
        notice: called with what is missing, with an instruction that stands behind a prompt, and where a prefix differs
            from PEFT's. (Weights for an encoder come
            without a head, so they answer nothing by themselves.)

    Raises:
        ArtifactError: see `read_folder`; or of another shape than the base needs.
        ConfigError: the same; or the task's cue is not the one it is active from.
    """
    held = folder if isinstance(folder, PeftFolder) else read_folder(folder)
    method = held.method
    _check_shape(held, base)
    if told := _another_base(held, base):
        notice(told)
    tensors = _learned(held, base)
    method.restore(tensors, base)
    if method.spec.name == "prefix" and "window" in (reach := prefix_in_peft(base) or ""):
        notice(
            f"warning: {held.path}: this prefix gives the same here as in {reach}. In longer rows PEFT hides it in the base's "
            "sliding-window layers, and softprompt does not; measure it on rows of your length"
        )
    task = task.settled(earlier=True)  # PEFT trains over the vocabulary
    if method.spec.name in ("soft", "prefix") and task.spec.template.plain_instruction.strip():
        notice(
            f"{held.path}: the task's instruction stands behind the learned prompt; if it was trained without, name a task "
            "file that has no template.instruction with --task"
        )
    ready = prepare(base, task, method, rows={"train": []})
    if tokens := held.config.get("alora_invocation_tokens"):
        if list(ready.bound.cue) != tokens:
            raise ConfigError(
                f"{held.path}: is active from the tokens {tokens} on, the task's cue has {list(ready.bound.cue)}; set "
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


def _another_base(held: PeftFolder, base: Base) -> str | None:
    """A warning where the folder names a base that is not this one by its name; sizes may fit all the same."""
    named, revision = held.config.get("base_model_name_or_path"), held.config.get("revision")
    if not named or Path(named).name.lower() == base.identity.name.rpartition("/")[2].lower():
        return None
    at = f" (revision {quote(revision)})" if revision else ""
    return (
        f"warning: {held.path}: was made on base {quote(named)}{at}, and is imported on {base.name!r}. Only names and sizes "
        "of tensors can be compared; on other weights its answers are useless"
    )


def _learned(held: PeftFolder, base: Base) -> dict[str, Tensor]:
    """The folder's tensors without the base's embeddings, which PEFT saves beside them where a vocabulary was resized.

    Raises:
        ArtifactError: they are not this base's.
    """
    kept, saves = dict(held.tensors), held.config.get("modules_to_save") or ()
    layers = {
        id(module.weight)
        for module in (base.model.get_input_embeddings(), base.model.get_output_embeddings())
        if module
    }
    for name, weight in base.model.named_parameters(remove_duplicate=False):
        value = kept.get(key := f"base_model.model.{name}")
        if id(weight) not in layers or value is None or any(f".{part}." in f".{name}" for part in saves):
            continue
        if value.shape != weight.shape or not torch.equal(value.bfloat16(), weight.cpu().bfloat16()):
            raise ArtifactError(
                f"{held.path}: holds embeddings {quote(name)} {list(value.shape)}, base {base.name!r} has others "
                f"{list(weight.shape)}; name the base with the vocabulary that it was made with, or, if they were trained, "
                "add them to modules_to_save"
            )
        del kept[key]
    return kept


def _check_shape(held: PeftFolder, base: Base) -> None:
    """What the folder says of its base must be so."""
    config, own, kind = held.config, base.shape, held.method.spec.name
    if kind not in ("soft", "prefix"):
        tokens, layers = config.get("alora_invocation_tokens"), _layers(config)
        if tokens and max(tokens) >= own.vocab_size:
            raise ConfigError(f"{held.where}: alora_invocation_tokens are {tokens[:8]}, expected tokens of the base")
        if layers and layers[-1] >= own.layers:
            raise ConfigError(
                f"{held.where}: layers_to_transform names layer {layers[-1]}, the base has 0 to {own.layers - 1}"
            )
        return
    width = config["token_dim"]
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
                f"{held.path}: {key} is {found:,}, base {base.name!r} needs {want:,}; it was made for another base"
            )


def _tuner(kind: str, tensors: dict[str, Tensor], config: dict[str, Any], where: str) -> Method:
    """The method whose settings are those of PEFT's configuration that are not PEFT's defaults."""
    try:
        method: Any = make_method(f"peft:{kind}")
    except ConfigError as error:
        raise ConfigError(f"{where}: {one_line(str(error))}; of prompts {', '.join(METHODS)} can be read") from None
    config = _plain_start(config, where) if kind == "LORA" else config
    options = method.options_in(config, where, frozenset(FolderConfig.model_fields), tensors)
    return make_method(tuner_settings(kind, options, config, where), where)


def tuner_settings(kind: str, options: dict[str, Any], config: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of the method that is one of PEFT's tuners.

    Args:
        kind: PEFT's name of the tuner.
        options: those of PEFT's that are not its defaults.
        config: the whole configuration, which says in which layers and from which tokens on it acts.
        where: it was given, for messages.

    Raises:
        ConfigError: layers or tokens that no method has.
    """
    settings: dict[str, Any] = {"name": "peft", "type": kind, "options": options}
    if tokens := config.get("alora_invocation_tokens"):
        if kind != "LORA":
            raise ConfigError(f"{where}: alora_invocation_tokens are {tokens[:8]}, which only LORA takes")
        settings = {**lora_settings(options), "activate": "cue"}
    if (layers := _layers(config)) is not None:
        if len(layers) != layers[-1] - layers[0] + 1:
            raise ConfigError(
                f"{where}: layers_to_transform is {one_line(str(layers), 200)}; only layers that follow one another can be "
                "taken"
            )
        settings["layers"] = f"{layers[0]}-{layers[-1]}"
    return settings


def lora_settings(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the method `lora`, from those of PEFT's that are not its defaults."""
    rest = dict(options)
    settings: dict[str, Any] = {"name": "lora", "alpha": 8, "options": rest}  # PEFT's default of alpha
    for own, key in (("r", "r"), ("alpha", "lora_alpha"), ("dropout", "lora_dropout"), ("target_modules", None)):
        if (value := rest.pop(key or own, None)) is not None:
            settings[own] = value
    return settings


def _plain_start(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The configuration of a LoRA without how it was begun, which says nothing of the finished one.

    Raises:
        ConfigError: it was trained on a base that its start had changed.
    """
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in (*PLAIN_STARTS, "eva"):
        raise ConfigError(
            f"{where}: init_lora_weights is {one_line(repr(start), 60)}, a start that changes the base's own weights; save it "
            "with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), which makes a plain LoRA of it"
        )
    plain = {key: value for key, value in config.items() if key not in _STARTED}
    return {**plain, "init_lora_weights": True} if start == "eva" else plain


def _layers(config: dict[str, Any]) -> list[int] | None:
    """`layers_to_transform` in order."""
    layers = config.get("layers_to_transform")
    return None if layers is None else sorted({layers} if isinstance(layers, int) else set(layers))
