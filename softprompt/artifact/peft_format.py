"""What plain PEFT (0.17 to 0.21) can express of ours, and reading what PEFT made. JSON and tensors only: no PEFT needed.

PEFT keeps every prompt as one tensor `prompt_embeddings`:

    PROMPT_TUNING, P_TUNING   [P, H]           (P-tuning is saved as what its encoder gives)
    PREFIX_TUNING             [P, L·2·G·D]     (with prefix_projection, too, it is saved as what the projection gives)

`PeftModel.get_prompt` views a prefix as [B, P, L·2, G, D] and permutes it to [L·2, B, G, P, D], keys before values in every
layer; under grouped queries `num_attention_heads` holds the key/value heads G and `token_dim` is G·D.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ArtifactError
from .files import MAX_JSON_BYTES, check_finite, one_line, parse_tensors, read_bytes, read_json

if TYPE_CHECKING:
    from ..base.model import BaseShape

TENSORS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
KEY = "prompt_embeddings"
METHODS = {"PROMPT_TUNING": "soft", "P_TUNING": "soft", "PREFIX_TUNING": "prefix"}
MAX_TENSOR_BYTES = 4_000_000_000  # a prefix of 2,000 tokens on a 70B model has 2.6 GB


def soft_config(base_id: str | None, length: int, shape: BaseShape) -> dict[str, Any]:
    """`adapter_config.json` of a soft prompt [P, H].

    Args:
        base_id: the hub's, written down for the reader (PEFT uses the model that it is given); None of a folder, whose path
            says nothing elsewhere, and whose bare name might be another's on the hub.
        length: P.
    """
    return {
        **_common("PROMPT_TUNING", base_id, length, shape.layers),
        # The attention heads play no part in prompt tuning; PEFT fills a null from the model
        "num_attention_heads": None,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "token_dim": shape.hidden_size,
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    }


def prefix_config(base_id: str | None, length: int, shape: BaseShape) -> dict[str, Any]:
    """`adapter_config.json` of a prefix [P, L·2·G·D]; see `soft_config`."""
    width = shape.kv_heads * shape.head_size
    return {
        **_common("PREFIX_TUNING", base_id, length, shape.layers),
        "encoder_hidden_size": width,
        "init_weights": None,
        "num_attention_heads": shape.kv_heads,
        "prefix_projection": False,
        "token_dim": width,
    }


def kv_to_peft(kv: Tensor) -> Tensor:
    """[L, 2, G, P, D] → [P, L·2·G·D].

    Raises:
        ArtifactError: another number of dimensions.
    """
    if kv.dim() != 5 or kv.shape[1] != 2:
        raise ArtifactError(f"keys and values have shape {list(kv.shape)}, expected [L, 2, G, P, D]")
    return kv.permute(3, 0, 1, 2, 4).reshape(kv.shape[3], -1).contiguous()


def kv_from_peft(flat: Tensor, layers: int, kv_heads: int, head_size: int) -> Tensor:
    """[P, L·2·G·D] → [L, 2, G, P, D].

    Raises:
        ArtifactError: the width is not L·2·G·D.
    """
    width = layers * 2 * kv_heads * head_size
    if flat.dim() != 2 or flat.shape[1] != width:
        raise ArtifactError(
            f"prefix has shape {list(flat.shape)}, expected [P, {width}] "
            f"({layers} layers × 2 × {kv_heads} key/value heads × {head_size})"
        )
    return flat.view(-1, layers, 2, kv_heads, head_size).permute(1, 2, 3, 0, 4).contiguous()


def read_peft(folder: str | Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read a folder that PEFT saved.

    Nothing that the configuration names (base model, tokenizer, revision, mapping to classes) is looked up.

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
        raise ArtifactError(f"{path}: has no {CONFIG}; expected a folder that PEFT's save_pretrained made")
    config = read_json(path, CONFIG)
    where = str(path / CONFIG)
    method = _method_of(config, where)
    _refuse_pickles(path)
    length, width = _size(config, "num_virtual_tokens", where), _size(config, "token_dim", where)
    layers = heads = 1
    columns = width
    if method == "prefix":
        layers, heads = _size(config, "num_layers", where), _size(config, "num_attention_heads", where)
        if width % heads:
            raise ArtifactError(f"{where}: token_dim {width} is not a multiple of num_attention_heads {heads}")
        columns = layers * 2 * width
    value = _prompt(path, [length, columns])
    if method == "soft":
        return method, {KEY: value}, config
    return method, {"kv": kv_from_peft(value, layers, heads, width // heads)}, config


def read_peft_weights(folder: str | Path) -> tuple[str, dict[str, Tensor], dict[str, Any]] | None:
    """Read a folder of one of PEFT's tuners that change modules (LoRA, IA3 …); nothing that it names is looked up.

    Returns:
        PEFT's name of the tuner, its tensors in fp32 under PEFT's keys, and the configuration as it stands in the file; None
        where the folder holds a prompt (see `read_peft`) or is none of PEFT's.

    Raises:
        ArtifactError: pickled weights, or tensors that are no finite numbers.
    """
    path = Path(folder)
    if not (path / CONFIG).exists():
        return None
    config = read_json(path, CONFIG)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind in METHODS:
        return None
    where = str(path / TENSORS)
    _refuse_pickles(path)
    tensors = {
        key: value.float() for key, value in parse_tensors(read_bytes(path, TENSORS, MAX_TENSOR_BYTES), where).items()
    }
    check_finite(tensors, where)
    return kind, tensors, config


def _refuse_pickles(path: Path) -> None:
    if os.path.lexists(path / TENSORS):
        return
    if os.path.lexists(path / "adapter_model.bin"):
        raise ArtifactError(
            f"{path}: has adapter_model.bin, a pickle, which can run code and is never opened; save it as safetensors"
        )
    raise ArtifactError(f"{path}: has no {TENSORS}; save it with PEFT's save_pretrained(safe_serialization=True)")


def _common(peft_type: str, base_id: str | None, length: int, layers: int) -> dict[str, Any]:
    """Keys that PEFT itself writes for every prompt; no `peft_version`, as PEFT did not write the folder."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base_id,
        "inference_mode": True,
        "modules_to_save": None,
        "num_layers": layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "peft_type": peft_type,
        "revision": None,
        "task_type": "CAUSAL_LM",
    }


def _method_of(config: dict[str, Any], where: str) -> str:
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in METHODS:
        raise ArtifactError(
            f"{where}: peft_type is {one_line(repr(kind), 60)}; those that can be read are {', '.join(METHODS)}"
        )
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM") or config.get("num_transformer_submodules") not in (None, 1):
        raise ArtifactError(
            f"{where}: task_type is {one_line(repr(task), 60)}; expected CAUSAL_LM, on a decoder-only base"
        )
    return METHODS[kind]


def _size(config: dict[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArtifactError(
            f"{where}: {key} is {one_line(repr(value), 60)}, expected a number ≥ 1; save it with PEFT again"
        )
    return value


def _prompt(path: Path, want: list[int]) -> Tensor:
    """The one tensor of the folder in fp32, checked against the shape that the configuration gives."""
    where = str(path / TENSORS)
    limit = min(want[0] * want[1] * 8 + MAX_JSON_BYTES, MAX_TENSOR_BYTES)
    tensors = parse_tensors(read_bytes(path, TENSORS, limit), where)
    if set(tensors) != {KEY}:
        found = one_line(", ".join(sorted(tensors)) or "no tensors", 200)
        raise ArtifactError(f"{where}: holds {found}; expected only {KEY}")
    value = tensors[KEY]
    if list(value.shape) != want or value.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise ArtifactError(f"{where}: {KEY} is {value.dtype} {list(value.shape)}, {CONFIG} gives float {want}")
    value = value.float()
    check_finite({KEY: value}, where)
    return value
