"""GGUF files as bases: weights that llama.cpp runs become an ordinary model folder in the cache, once."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from ..errors import BaseModelError
from ..storage import atomic_folder, cache_dir, sha256_file, write_json
from ..types import Progress
from .fingerprint import kept
from .stored import check_layers, check_missing

_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    struct.error,
)


def find_gguf(source: str) -> Path | None:
    """The GGUF file that a path names: the file itself, or the only one in a folder that holds no other model.

    Raises:
        BaseModelError: the folder holds several.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.[gG][gG][uU][fF]"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise BaseModelError(f"base {source!r}: the folder holds {len(files)} GGUF files ({names}); name one of them")
    return files[0] if files else None


def converted(file: Path, progress: Progress) -> Path:
    """The model folder that a GGUF file was made into, under a digest of its bytes.

    Args:
        progress: called when it is made for the first time.

    Raises:
        BaseModelError: transformers cannot read it.
    """
    digest = kept([file], "bytes", lambda: sha256_file(file))
    folder = cache_dir() / "bases" / f"gguf-{digest[:32]}"
    if not (folder / "source.json").is_file():
        what = f"converting {file.name} (once, into {folder})"
        progress(what, 0, 1)
        with atomic_folder(folder) as temporary:
            convert(file, temporary)
            write_json(temporary / "source.json", {"gguf": file.name, "sha256": digest})
        progress(what, 1, 1)
    return folder


def convert(gguf: Path, to: Path) -> None:
    """Dequantise to fp32 and save as an ordinary model folder.

    Raises:
        BaseModelError: transformers cannot read it, or not all of it; its weights are not finite.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
        _check_tensors(gguf, config)
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
        options = {**where, "config": config, "dtype": torch.float32, "trust_remote_code": False}
        loaded: Any = AutoModelForCausalLM.from_pretrained(**options, output_loading_info=True)
        model, about = loaded
        if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
            raise BaseModelError(f"{gguf.name}: holds weights that are not finite; fetch it again")
        check_missing(about, gguf.name, "causal")
        # transformers refuses to save what it still takes for a quantised model
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        for mark, value in (("is_quantized", False), ("quantization_method", None), ("hf_quantizer", None)):
            setattr(model, mark, value)
        model.save_pretrained(to)
        tokenizer.save_pretrained(to)
    except _BROKEN as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelError(f"{gguf}: transformers cannot read this GGUF file ({reason}); use another one") from None
    finally:
        logging.enable_progress_bar()


def _check_tensors(gguf: Path, config: Any) -> None:
    """What transformers leaves out of a GGUF file without a word.

    Raises:
        BaseModelError: layers beyond the last, or scaled rotary frequencies.
        ValueError: more layers than a model has.
    """
    from gguf import GGUFReader

    check_layers(config)
    names = [tensor.name for tensor in GGUFReader(gguf).tensors]
    blocks = {int(number) for name in names if (number := name.removeprefix("blk.").partition(".")[0]).isdigit()}
    layers = config.get_text_config().num_hidden_layers
    if blocks and max(blocks) >= layers:
        raise BaseModelError(
            f"{gguf}: holds block {max(blocks)}, but says that there are {layers}; it was changed; use another one"
        )
    scaling = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if any(name.startswith("rope_f") for name in names) and scaling.get("rope_type", "default") == "default":
        raise BaseModelError(
            f"{gguf}: holds scaled rotary frequencies, which transformers does not read from GGUF files; use the model as "
            "safetensors"
        )
