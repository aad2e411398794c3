"""What makes a base *that* base: digests of its configuration, of samples of its weights, and of its tokenizer."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from ..storage import canonical_json

SAMPLES = 64  # per tensor; a fine-tuned copy differs in nearly every weight, so few are enough
_NOT_IDENTITY = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "quantization_config"}


def model_digest(model: Any) -> str:
    """Hex SHA-256 of the config (without what says nothing of the weights) and of evenly spread weights.

    Weights are rounded to bf16 first, so that one checkpoint held as fp32 or as bf16 is one base.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_IDENTITY and not k.startswith("_")}
    digest = hashlib.sha256(canonical_json(json.loads(json.dumps(config, default=str))).encode())
    for name, weight in sorted(model.named_parameters()):
        if name.startswith("pooler."):  # of encoders, which are run without it
            continue
        flat = weight.detach().flatten()
        step = max(1, flat.numel() // SAMPLES)
        sample = flat[::step][:SAMPLES].to(torch.bfloat16).cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Hex SHA-256 of everything that decides which ids a text becomes, chat template included."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)  # settings of the last call, not of the tokenizer
        state.pop("padding", None)
    else:
        state = dict(sorted(tokenizer.get_vocab().items()))
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(canonical_json([state, template]).encode()).hexdigest()
