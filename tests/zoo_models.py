"""A tiny random model of every architecture that transformers has, from its own mappings and config classes alone.

A new release of transformers shows itself: what its mappings name is built. No size is given by model type, but where a
family's config holds one size in several places (`_TYPES`).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

MAPPINGS = {
    "causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
VOCABULARY, HIDDEN, HEADS, HEAD, WIDE, LAYERS, PLACES, WINDOW = 320, 64, 4, 16, 128, 4, 256, 12
_MOST = 30_000_000  # parameters; a config with more has sizes that we do not know


def _all(value: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


# by what a config calls it; a name that a config does not have is left out
_SIZES: dict[str, Any] = {
    **_all(VOCABULARY, "vocab_size vocab_size_per_layer_input vocab_size_ngram"),
    **_all(HIDDEN, "hidden_size d_model n_embd dim embed_dim emb_dim lru_width d_inner"),
    **_all(32, "word_embed_proj_dim embedding_size input_embedding_size output_embedding_size"),  # unlike the states
    **_all(LAYERS, "num_hidden_layers n_layer n_layers num_layers"),
    **_all(2, "encoder_layers decoder_layers num_encoder_layers num_decoder_layers"),
    **_all(HEADS, "num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads"),
    **_all(
        HEADS, "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads linear_num_value_heads"
    ),
    **_all(2, "num_key_value_heads num_kv_heads global_num_key_value_heads num_global_key_value_heads index_n_heads"),
    **_all(2, "linear_num_key_heads n_mamba_heads"),
    **_all(HEAD, "head_dim d_kv d_head key_length kv_channels v_head_dim global_head_dim index_head_dim mamba_d_head"),
    **_all(HEAD, "mamba_headdim mamba_head_dim linear_key_head_dim linear_value_head_dim"),
    **_all(
        WIDE, "intermediate_size ffn_dim n_inner d_ff dff hidden_dim ffn_hidden_size encoder_ffn_dim decoder_ffn_dim"
    ),
    **_all(WIDE, "mamba_d_ssm"),
    **_all(PLACES, "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length"),
    **_all(WINDOW, "sliding_window attention_chunk_size attention_window_size window_size"),
    "local_attention": 16,  # both sides together, in ModernBERT
    **_all(4, "num_experts n_routed_experts num_local_experts moe_num_experts num_routed_experts n_experts"),
    **_all(2, "num_experts_per_tok moe_k moe_topk moe_top_k top_k_experts experts_per_token"),
    **_all(
        32, "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_intermediate_size"
    ),
    **_all(32, "moe_shared_expert_intermediate_size projection_dim relative_attention_num_buckets"),
    **_all(1, "n_shared_experts num_shared_experts n_group topk_group first_k_dense_replace n_groups mamba_n_groups"),
    **_all(1, "mamba_ngroups"),
    **_all(16, "q_lora_rank kv_lora_rank"),
    **_all(8, "qk_rope_head_dim qk_nope_head_dim hidden_size_per_layer_input laurel_rank block_size chunk_size"),
    **_all(8, "mamba_chunk_size mamba_d_state ssm_state_size state_size mamba_n_heads mamba_num_heads"),
    **_all(4, "time_step_rank mamba_dt_rank mamba_d_conv linear_conv_kernel_dim"),
    "intermediate_size_mlp": 64,
    "index_topk": 64,
    "num_kv_shared_layers": 0,
    **_all(2, "mamba_expand type_vocab_size"),
    "conv_L_cache": 3,
    **_all(28, "image_size"),
    "patch_size": 14,
    "num_channels": 3,
    "bos_token_id": 0,
    **_all(1, "eos_token_id decoder_start_token_id"),
    "pad_token_id": 2,
    "cls_token_id": 3,
    "sep_token_id": 4,
    "mask_token_id": 5,
    **_all(0.0, "dropout attention_dropout hidden_dropout"),
}
# what is off by default stays off
_OPTIONAL = {"sliding_window", "attention_chunk_size", "q_lora_rank", "n_inner", "head_dim"}
_OPTIONAL |= {"cls_token_id", "sep_token_id", "mask_token_id"}
_TYPES: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "ministral": {"head_dim": HEAD},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD, "num_experts": 4},
    "gemma4_text": {"per_layer_config": {LAYERS - 1: {"head_dim": 2 * HEAD}}},
    "gemma4_unified_text": {"per_layer_config": {LAYERS - 1: {"head_dim": 2 * HEAD}}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "longcat_flash": {"expert_ffn_hidden_size": 32, "zero_expert_num": 2},
    "zaya": {"num_experts_per_tok": 1},
    "esmc": {"num_key_value_heads": HEADS},
    "luke": {"entity_vocab_size": VOCABULARY, "entity_emb_size": HIDDEN},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [16, 16]},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "mamba2": {"num_heads": 8, "expand": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "granitemoehybrid": {"layer_types": ["full_attention"] * LAYERS, "position_embedding_type": "rope"},
}


def types(kind: str) -> list[str]:
    """All model types that transformers names for a kind."""
    return list(MAPPINGS[kind])


def build(kind: str, model_type: str) -> Any:
    """A tiny random model, the same at every call.

    Raises:
        Exception: whatever its config or class says to sizes that do not fit it.
    """
    name = MAPPINGS[kind][model_type]
    cls = getattr(transformers, name if isinstance(name, str) else name[0])
    config = _config(CONFIG_MAPPING[model_type])
    if not isinstance(config, cls.config_class):
        config = config.get_text_config(decoder=kind == "causal")  # the class runs one part of a wider model
    if kind == "seq2seq" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 2
    if kind == "causal" and (model_type in MAPPINGS["masked"] or model_type == "bert-generation"):
        config.is_decoder = True
    torch.manual_seed(0)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in cls(config).parameters())
    if count > _MOST:
        raise ValueError(f"{count:,} parameters: its config has a size of a name that is not known here")
    model = cls(config)
    _move_off_start(model)
    return model.eval()


def _config(cls: Any, depth: int = 0) -> Any:
    """A config in which every size that we know is small, its parts' own configs too."""
    known = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
    known |= set(inspect.signature(cls.__init__).parameters)
    try:
        default = cls()
    except Exception:  # some cannot be made without their parts; then only names tell
        default = None
    known |= set(vars(default)) if default is not None else set()
    found = {name: value for name, value in _SIZES.items() if name in known and not _read_only(cls, name)}
    for name in list(found):
        now = _value(default, name)
        off = (name in _OPTIONAL and now is None) or (name.endswith("experts") and now in (0, 1))
        other = name == "dropout" and default is not None and not isinstance(now, float)
        if off or other or isinstance(now, list):
            del found[name]
        elif name == "head_dim" and now is not None and now == getattr(default, "qk_rope_head_dim", None):
            found[name] = _SIZES["qk_rope_head_dim"]
    if "kv_lora_rank" in found and "qk_nope_head_dim" in found:  # latent attention: as many key heads as heads
        found["num_key_value_heads"] = HEADS
    for name, part in (getattr(cls, "sub_configs", None) or {}).items():
        own = _value(default, name)
        kind = type(own) if part.__name__ == "AutoConfig" else part
        if depth < 3 and isinstance(own, PretrainedConfig):
            found[name] = _config(kind, depth + 1).to_dict()
    found |= _TYPES.get(cls.model_type, {})
    # layers of all kinds that the default has, also of those that come once in six layers
    kinds = list(dict.fromkeys(_value(default, "layer_types") or ()))
    listed = {**found, "layer_types": [kinds[index % len(kinds)] for index in range(LAYERS)]} if kinds else found
    try:
        config = cls(**found)
    except Exception:
        return cls(**listed)
    if set(kinds) <= set(_value(config, "layer_types") or kinds):
        return config
    try:
        return cls(**listed)
    except Exception:  # it wants other lists as well
        return config


def _read_only(cls: Any, name: str) -> bool:
    return isinstance(found := getattr(cls, name, None), property) and found.fset is None


def _value(config: Any, name: str) -> Any:
    """A config's value; where it differs between layers, which some configs raise for, that it is there."""
    try:
        return getattr(config, name, None)
    except Exception:
        return ...


def _move_off_start(model: Any) -> None:
    """Weights so large that attention is far from uniform; what starts at 0 or at 1 would hide its part, so it moves away."""
    noise = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if not weight.is_floating_point():
            continue
        value = weight.data
        fresh = torch.randn(value.shape, generator=noise, dtype=value.dtype)
        scale = 1.0 if "sink" in name else 0.1
        if not value.isfinite().all() or value.abs().max() > 1e4 or bool((value == 0).all()):
            value.copy_(fresh * scale)
        elif bool((value == 1).all()):
            value.add_(fresh * 0.1)
        elif value.dim() >= 2 and value.std() < 0.1 and "conv" not in name and "A_log" not in name:
            value.mul_(2.0 if "embed" in name or "wte" in name else 4.0)
        elif value.dim() == 1 and ("bias" in name or "sink" in name):
            value.add_(fresh * scale)
