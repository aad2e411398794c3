"""What a checkpoint's files hold beside what its config.json says: numbers of another quantisation, weights that are left out.

transformers leaves out what it has no place for, and says so in a table at most; the model is then another one than was saved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from ..errors import BaseModelError
from .families import NAMED, Kind
from .fingerprint import header, weight_files

QUIET = ("generation_config.json", "special_tokens_map.json")  # transformers may pass over these where they are damaged
INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_LAYERS = 2000  # modules are made for each of them before any weight is read

# what tools put beside quantised weights: FP8, GPTQ and AWQ, compressed-tensors, bitsandbytes
_SCALES = re.compile(
    r"\.(weight_(scale(_inv)?|packed|shape|zero_point)|(input|output|k|v)_scale|qweight|qzeros|scales|g_idx|SCB|"
    r"weight\.(absmax|quant_map|nested_absmax|quant_state\..*))$"
)
# what older versions of transformers kept in a layer and computed again: no weights
_COMPUTED = re.compile(
    r"(^|\.)(rotary_emb\..*|inv_freq|masked_bias|causal_mask|position_ids|relative_position_index|attn\.(attention\.)?bias|"
    r"attention\.bias)$"
)
_NUMBER = re.compile(r"\.(\d{1,9})(?=\.)")
_REMEDY = "use the checkpoint with the config.json that it was saved with"


def broken_json(folder: Path, names: Sequence[str]) -> str | None:
    """What is wrong with the first of these files that cannot be read."""
    for name in names:
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {' '.join(str(error).split())[:200]}; copy the base again"
        if not isinstance(found, dict):
            return f"{name} holds no settings; copy the base again"
    return None


def check_files(folder: Path) -> None:
    """Look at the files of a model's folder before a model is made: only their beginnings are read.

    Raises:
        BaseModelError: settings or an index that are damaged, an index that leads out of the folder; a file that is cut short,
            or is none.
    """
    if not (folder / "model.safetensors").is_file() and (folder / INDEX).is_file():
        _check_index(folder / INDEX)
    if folder.is_dir() and (problem := broken_json(folder, QUIET)):
        raise BaseModelError(f"{folder}: {problem}")
    for file in weight_files(folder):
        with file.open("rb") as source:
            if source.read(len(_POINTER)) == _POINTER:
                raise BaseModelError(
                    f"{file}: is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`"
                )
        end = max((place for *_, place in header(file).values()), default=0)
        if file.stat().st_size < end:
            raise BaseModelError(f"{file}: has {file.stat().st_size:,} of {end:,} bytes; copy the base again")


def _check_index(index: Path) -> None:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        names = set(found["weight_map"].values())
        right = isinstance(found["metadata"], dict) and all(isinstance(name, str) for name in names)
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        right = False
    if not right:
        raise BaseModelError(f"{index}: does not say which file holds which weight; copy the base again")
    for name in sorted(names):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise BaseModelError(
                f"{index}: names {name[:200]!r}, a file outside the folder; copy the base again, as a whole"
            )


def check_layers(config: Any) -> None:
    """Refuse (ValueError) a number of layers that no model has, before it fills the memory."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and not 0 < layers <= _LAYERS:
        raise ValueError(f"its config.json says {layers:,} layers; at least 1, at most {_LAYERS:,}")


def check_missing(about: Mapping[str, Any], name: str, kind: Kind) -> None:
    """Refuse a model whose weights transformers made up in part.

    Args:
        about: its account of the loading (`output_loading_info`).
        name: of the base, for messages.

    Raises:
        BaseModelError: the checkpoint holds not all of the weights that this kind runs with.
    """
    missing = sorted(key for key in about["missing_keys"] if not key.startswith("pooler."))
    if missing:
        instead = "; load it with kind 'encoder'" if kind == "masked" else ""
        raise BaseModelError(
            f"base {name!r} cannot run as {NAMED[kind]}: the checkpoint does not hold {missing[0]} "
            f"({len(missing)} tensors are missing){instead}"
        )


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

    Some weights may be left out: heads for other tasks; layers with modules that the others lack; and what an older
    version saved and a newer one computes. So may layers that a config calls further predictions (DeepSeek's).

    Args:
        keys: names in the checkpoint that the model has no place for.
    """
    modules = dict(model.named_modules())
    prefix = model.base_model_prefix + "."
    modules.update({prefix + name: module for name, module in modules.items()})  # of an encoder out of a whole model
    modules.update({name.removeprefix(prefix): module for name, module in modules.items()})
    lists = {name: module for name, module in modules.items() if isinstance(module, nn.ModuleList)}
    parts = {name: {key.partition(".")[2] for key in layers.state_dict()} for name, layers in lists.items()}
    placed = {key: found for key in keys if (found := _layer(key, lists))}
    beyond = {key: found for key, found in placed.items() if found[1] >= len(lists[found[0]])}
    others = {found[:2] for found in beyond.values() if found[2] not in parts[found[0]]}
    more = getattr(config.get_text_config(), "num_nextn_predict_layers", None) or 0
    quantised = getattr(config, "quantization_config", None) is not None
    for key in sorted(keys):
        if _SCALES.search(key) and not quantised:
            raise ValueError(
                f"it holds {key}, so its weights are quantised, and its config.json does not say how; {_REMEDY}"
            )
        parent, _, leaf = key.rpartition(".")
        if parent in modules and modules[parent]._parameters.get(leaf, 0) is None:
            raise ValueError(f"it holds {key}, which its config.json leaves out; {_REMEDY}")
        if (found := beyond.get(key)) and found[:2] not in others and found[1] >= len(lists[found[0]]) + more:
            raise ValueError(f"it holds {key}, and its config.json says {len(lists[found[0]])} layers; {_REMEDY}")
        if key in placed and key not in beyond and not quantised and not _COMPUTED.search(key):
            raise ValueError(f"it holds {key}, which layers of {config.model_type!r} do not have; {_REMEDY}")


def _layer(key: str, lists: Mapping[str, nn.ModuleList]) -> tuple[str, int, str] | None:
    """The list of layers that a weight belongs to, its layer's number (of the innermost list), and its name in the layer."""
    found = None
    for number in _NUMBER.finditer(key):
        name = key[: number.start()]
        if name in lists:
            found = name, int(number[1]), key[number.end() + 1 :]
            if found[1] >= len(lists[name]):
                return found  # what is in a layer that is not there has no list of its own
    return found
