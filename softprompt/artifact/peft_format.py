"""Our prompts in PEFT's format (0.20 and later); `peft_folder.py` reads what PEFT made. No PEFT is needed.

PEFT keeps every prompt as one tensor `prompt_embeddings`:

    PROMPT_TUNING, P_TUNING   [P, H]           (P-tuning is saved as what its encoder gives)
    PREFIX_TUNING             [P, L·2·G·D]     (with prefix_projection, too, it is saved as what the projection gives)

`PeftModel.get_prompt` views a prefix as [B, P, L·2, G, D] and permutes it to [L·2, B, G, P, D], keys before values in
every layer. Under grouped queries `num_attention_heads` holds the key/value heads G and `token_dim` is G·D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import ArtifactError

if TYPE_CHECKING:
    from ..base.model import BaseShape

TENSORS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
KEY = "prompt_embeddings"


def soft_config(base_id: str | None, length: int, shape: BaseShape) -> dict[str, Any]:
    """`adapter_config.json` of a soft prompt [P, H].

    Args:
        base_id: the hub id, for the reader alone (PEFT uses the model that it is given). None for a folder: its path
            says nothing on another machine, and its bare name may be another model's on the hub.
        length: P.
    """
    return {
        **_common("PROMPT_TUNING", base_id, length, shape.layers),
        # The attention heads play no part in prompt tuning; PEFT fills a null from the model
        "num_attention_heads": None,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "token_dim": shape.embedded,
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
