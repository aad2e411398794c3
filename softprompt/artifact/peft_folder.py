"""Reading a folder that PEFT made (`save_pretrained`), maybe from a stranger: JSON and tensors only, without PEFT.

What the configuration names (base, tokenizer, revision, mapping to classes) is never looked up; sizes are compared with the
tensors' own before anything is allocated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, StringConstraints
from torch import Tensor

from ..config import parse
from ..errors import ArtifactError, ConfigError
from .files import MAX_HEADER_BYTES, MAX_JSON_BYTES, check_finite, one_line, parse_tensors, read_bytes, read_json
from .peft_format import CONFIG, KEY, TENSORS, kv_from_peft

METHODS = {
    "PROMPT_TUNING": "soft",
    "P_TUNING": "soft",
    "CPT": "soft",  # learned in another way, saved as plain embeddings
    "MULTITASK_PROMPT_TUNING": "soft",  # a product of three tensors
    "PREFIX_TUNING": "prefix",
    "CARTRIDGE": "prefix",  # saved as plain keys and values
}
PLAIN_STARTS = ("gaussian", "orthogonal")  # of LoRA, besides PEFT's own; PiSSA, OLoRA, CorDA and LoftQ change the base
MAX_TENSOR_BYTES = 4_000_000_000  # a prefix of 2,000 tokens on a 70B model has 2.6 GB
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COLUMNS, _ROWS = "prefix_task_cols", "prefix_task_rows"  # of MULTITASK_PROMPT_TUNING
Text = Annotated[str, StringConstraints(max_length=4000)]
Size = Annotated[int, Field(ge=1, le=1 << 40)]


class FolderConfig(BaseModel):
    """What every configuration of PEFT's holds, and says nothing of the result.

    Attributes:
        layers_to_transform, alora_invocation_tokens: of tuners; they become settings of ours.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    peft_type: Text
    task_type: Text | None = None
    peft_version: Text | None = None
    auto_mapping: dict[str, Any] | None = None
    base_model_name_or_path: Text | None = None
    revision: Text | None = None
    inference_mode: bool = True
    layers_to_transform: NonNegativeInt | Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    alora_invocation_tokens: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None


class PromptConfig(FolderConfig):
    """A learned prompt's. How it was begun and trained (`Any`) does not matter: what is saved is the finished prompt.

    Attributes:
        num_virtual_tokens: P.
        token_dim: H of embeddings, G·D of a prefix.
        num_layers, num_attention_heads: L and G of a prefix.
        num_tasks, num_ranks: of MULTITASK_PROMPT_TUNING.
    """

    num_virtual_tokens: Size
    token_dim: Size
    num_layers: Size | None = None
    num_attention_heads: Size | None = None
    num_transformer_submodules: PositiveInt | None = None
    modules_to_save: None = None
    num_tasks: Size = 1
    num_ranks: Size = 1
    prompt_tuning_init: Any = None
    prompt_tuning_init_text: Any = None
    prompt_tuning_init_state_dict_path: Any = None
    prompt_tuning_init_task: Any = None
    tokenizer_name_or_path: Any = None
    tokenizer_kwargs: Any = None
    encoder_reparameterization_type: Any = None
    encoder_hidden_size: Any = None
    encoder_num_layers: Any = None
    encoder_dropout: Any = None
    prefix_projection: Any = None
    init_weights: Any = None
    num_frozen_tokens: Any = None
    cpt_token_ids: Any = None
    cpt_mask: Any = None
    cpt_tokens_type_mask: Any = None
    opt_weighted_loss_type: Any = None
    opt_loss_decay_factor: Any = None
    opt_projection_epsilon: Any = None
    opt_projection_format_epsilon: Any = None


def read_peft(folder: str | Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read a folder that PEFT saved.

    Returns:
        The method (`soft` or `prefix`), its tensors in fp32 ({"prompt_embeddings": [P, H]} or {"kv": [L, 2, G, P, D]}), and
        the configuration as it stands in the file.

    Raises:
        ArtifactError: another PEFT type, pickled weights, more or other tensors than the configuration says.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; expected one that PEFT's save_pretrained made")
    if not (path / CONFIG).exists():
        inside = sorted(file.parent.name for file in path.glob(f"*/{CONFIG}"))
        hint = f"; name one in it: {one_line(', '.join(inside[:4]), 200)}" if inside else ""
        raise ArtifactError(f"{path}: has no {CONFIG}; expected a folder that PEFT's save_pretrained made{hint}")
    values = read_json(path, CONFIG)
    where = str(path / CONFIG)
    method = _method_of(values, where)
    config = _parsed(PromptConfig, values, where)
    if off := sorted(key for key, value in (config.model_extra or {}).items() if not is_off(value)):
        raise ArtifactError(
            f"{where}: unknown key {one_line(repr(off[0]), 80)}, which may change the result; update softprompt"
        )
    _refuse_pickles(path)
    length, width = config.num_virtual_tokens, config.token_dim
    if method == "soft":
        return method, {KEY: _embeddings(path, config)}, values
    layers, heads = config.num_layers, config.num_attention_heads
    if layers is None or heads is None or width % heads:
        raise ArtifactError(
            f"{where}: num_layers is {layers}, num_attention_heads is {heads}; expected numbers, token_dim {width} a "
            "multiple of the heads; save it with PEFT again"
        )
    value = _tensors(path, {KEY: [length, layers * 2 * width]})[KEY]
    return method, {"kv": kv_from_peft(value, layers, heads, width // heads)}, values


def read_peft_weights(folder: str | Path) -> tuple[str, dict[str, Tensor], dict[str, Any]] | None:
    """Read a folder of one of PEFT's tuners that change modules (LoRA, IA3 …).

    Returns:
        PEFT's name of the tuner, its tensors in fp32 under PEFT's keys, and the configuration as it stands in the file.
        None where the folder holds a prompt (see `read_peft`) or was not written by PEFT.

    Raises:
        ArtifactError: a configuration of other types, made for another kind of task, pickled weights, or tensors that are no
            finite numbers.
    """
    path = Path(folder)
    if not (path / CONFIG).exists():
        return None
    values = read_json(path, CONFIG)
    kind = values.get("peft_type")
    if not isinstance(kind, str) or kind in METHODS:
        return None
    config = _parsed(FolderConfig, values, str(path / CONFIG))
    if config.task_type not in (None, "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"):
        raise ArtifactError(
            f"{path / CONFIG}: task_type is {one_line(repr(config.task_type), 60)}, which has a head of its own; expected "
            "CAUSAL_LM, SEQ_2_SEQ_LM or FEATURE_EXTRACTION"
        )
    where = str(path / TENSORS)
    _refuse_pickles(path)
    tensors = {key: value.float() for key, value in parse_tensors(_bytes(path, MAX_TENSOR_BYTES), where).items()}
    check_finite(tensors, where)
    return kind, tensors, values


def is_off(value: Any) -> bool:
    """Whether a key of a later version of PEFT says nothing: what it brings is not used."""
    return value is None or value is False or value in ({}, [], "")


def _parsed(model: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return parse(model, values, where)
    except ConfigError as error:
        raise ArtifactError(one_line(f"{error}; save it with PEFT again")) from None


def _refuse_pickles(path: Path) -> None:
    if os.path.lexists(path / TENSORS):
        return
    if os.path.lexists(path / "adapter_model.bin"):
        raise ArtifactError(
            f"{path}: has adapter_model.bin, a pickle, which can run code and is never opened; save it as safetensors"
        )
    raise ArtifactError(f"{path}: has no {TENSORS}; save it with PEFT's save_pretrained(safe_serialization=True)")


def _method_of(config: dict[str, Any], where: str) -> str:
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in METHODS:
        raise ArtifactError(
            f"{where}: peft_type is {one_line(repr(kind), 60)}; those that can be read are {', '.join(METHODS)}"
        )
    task, modules = config.get("task_type"), config.get("num_transformer_submodules")
    if task not in (None, "CAUSAL_LM") or modules is True or modules not in (None, 1):
        raise ArtifactError(
            f"{where}: task_type is {one_line(repr(task), 60)}, num_transformer_submodules "
            f"{one_line(repr(modules), 60)}; expected CAUSAL_LM, on a decoder-only base"
        )
    return METHODS[kind]


def _embeddings(path: Path, config: PromptConfig) -> Tensor:
    """The prompt [P, H]; of several tensors their product, as PEFT computes it."""
    shape = [config.num_virtual_tokens, config.token_dim]
    if config.peft_type != "MULTITASK_PROMPT_TUNING":
        return _tensors(path, {KEY: shape})[KEY]
    if config.num_tasks != 1:
        raise ArtifactError(
            f"{path / CONFIG}: holds prompts for {config.num_tasks} tasks; expected one (num_tasks 1), saved on its own"
        )
    columns, rows = [1, shape[0], config.num_ranks], [1, config.num_ranks, shape[1]]
    found = _tensors(path, {KEY: shape, _COLUMNS: columns, _ROWS: rows})
    return found[KEY] * (found[_COLUMNS] @ found[_ROWS])[0]


def _bytes(path: Path, limit: int) -> bytes:
    return read_bytes(path, TENSORS, limit, MAX_HEADER_BYTES)


def _tensors(path: Path, want: dict[str, list[int]]) -> dict[str, Tensor]:
    """The tensors of the folder in fp32, checked against the shapes that the configuration gives."""
    where = str(path / TENSORS)
    numbers = sum(int(torch.tensor(shape, dtype=torch.float64).prod()) for shape in want.values())
    found = parse_tensors(_bytes(path, min(numbers * 8 + MAX_JSON_BYTES, MAX_TENSOR_BYTES)), where)
    if set(found) != set(want):
        names = one_line(", ".join(sorted(found)) or "no tensors", 200)
        raise ArtifactError(f"{where}: holds {names}; expected only {', '.join(want)}")
    for name, shape in want.items():
        if list(found[name].shape) != shape or found[name].dtype not in _FLOATS:
            raise ArtifactError(
                f"{where}: {name} is {found[name].dtype} {list(found[name].shape)}, {CONFIG} gives float {shape}"
            )
    plain = {name: value.float() for name, value in found.items()}
    check_finite(plain, where)
    return plain
