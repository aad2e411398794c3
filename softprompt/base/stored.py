"""What a checkpoint's files hold beside what its config.json says: numbers of another quantisation, weights that are left out.

transformers leaves out what it has no place for, and says so in a table at most; the model is then another one than was saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .fingerprint import header

# what tools put beside quantised weights: FP8, GPTQ and AWQ, compressed-tensors, bitsandbytes
_SCALES = re.compile(
    r"\.(weight_(scale(_inv)?|packed|shape|zero_point)|(input|output|k|v)_scale|qweight|qzeros|scales|g_idx|SCB|"
    r"weight\.(absmax|quant_map|nested_absmax|quant_state\..*))$"
)
_LAYER = re.compile(r"(.*)\.(\d+)\..*")
_REMEDY = "take the checkpoint with the config.json that it was saved with"


def check_quantised(config: Any) -> None:
    """Refuse (ValueError) a quantisation that transformers would leave out as unknown to it."""
    found = getattr(config, "quantization_config", None)
    if not isinstance(found, dict) or found.get("load_in_8bit") or found.get("load_in_4bit"):
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    method = found.get("quant_method")
    if method is None:
        raise ValueError("the quantization_config of its config.json names no quant_method")
    if str(method) not in KNOWN and method != "bitsandbytes":
        raise ValueError(f"it is quantised by {str(method)[:40]!r}, which transformers does not know")


def check_types(config: Any, files: Sequence[Path]) -> None:
    """Refuse (ValueError) weights that are whole numbers where no quantisation says what they stand for."""
    if getattr(config, "quantization_config", None) is not None:
        return
    for file in files:
        for name, (kind, *_) in header(file).items():
            if name.endswith("weight") and kind[0] in "IU":
                says = "its config.json has no quantization_config that says what they stand for"
                raise ValueError(f"{name} holds whole numbers ({kind}), and {says}; {_REMEDY}")


def check_left_out(model: Any, config: Any, keys: Iterable[str]) -> None:
    """Refuse (ValueError) weights of the model's own layers that its settings leave out.

    Heads for other tasks are no such weights, nor are layers that a config calls further predictions (DeepSeek's).

    Args:
        keys: names in the checkpoint that the model has no place for.
    """
    modules = dict(model.named_modules())
    prefix = model.base_model_prefix + "."
    modules.update({prefix + name: module for name, module in modules.items()})  # of an encoder out of a whole model
    modules.update({name.removeprefix(prefix): module for name, module in modules.items()})
    more = getattr(config.get_text_config(), "num_nextn_predict_layers", None) or 0
    for key in sorted(keys):
        if _SCALES.search(key) and getattr(config, "quantization_config", None) is None:
            raise ValueError(
                f"it holds {key}, so its weights are quantised, and its config.json does not say how; {_REMEDY}"
            )
        parent, _, leaf = key.rpartition(".")
        if parent in modules and modules[parent]._parameters.get(leaf, 0) is None:
            raise ValueError(f"it holds {key}, which its config.json leaves out; {_REMEDY}")
        if found := _LAYER.fullmatch(key):
            layers = modules.get(found[1])
            if isinstance(layers, nn.ModuleList) and int(found[2]) >= len(layers) + more:
                raise ValueError(f"it holds {key}, and its config.json says {len(layers)} layers; {_REMEDY}")
