"""From a name to a model, a tokenizer and the checkpoint's digest: bundled names, local folders, hub ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from ..config import suggest
from ..errors import BaseModelError
from ..launcher import launched
from ..surroundings import plain_torch
from ..types import Progress, ignore_progress
from . import bundled, quantized
from .families import Kind, auto_class, choose_kind
from .fingerprint import Checkpoint, kept_exact, kept_weights, weight_files, weights_digest
from .shape import DTYPES
from .stored import broken_json, check_files, check_layers, check_left_out, check_missing, check_quantised, check_types

_MISFITS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, StrictDataclassError)
_UNLOADABLE = (OSError, ImportError, RuntimeError, SafetensorError, *_MISFITS)
"""What transformers raises at settings and files that do not fit (sizes of its own classes are RuntimeErrors)."""
_SETTINGS = ("config.json", "tokenizer_config.json", "tokenizer.json")
TOLD_FROM_GB = 0.8  # smaller ones are there before anybody asks


@plain_torch()
def load_model(
    name: str,
    dtype: str,
    device: str,
    progress: Progress,
    quantization: str | None,
    isolated: bool,
    kind: str | None = None,
) -> tuple[Any, Any, str, Checkpoint]:
    """See `Base.load`.

    Returns:
        model, tokenizer, name, and what is known of the files.
    """
    if dtype not in DTYPES:
        raise BaseModelError(f"dtype {dtype!r} is not known{suggest(dtype, DTYPES)}")
    quantized.check_asked(quantization, isolated)
    where = _device(device)
    if any(len(part) > 255 for part in name.split("/")) or len(name) > 4000:
        raise BaseModelError(
            f"base {name[:80]!r}…: a name of {len(name):,} characters; expected that of a folder or a hub id"
        )
    source = bundled.local_source(name, progress)
    was_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        _refuse_adapters(source, name)
        check_files(Path(source))
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        chosen = choose_kind(config, name, kind)
        check_layers(config)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        check_quantised(config)
        options = _options(config, where, dtype, quantization, isolated)
        files = _files(source)
        size = sum(file.stat().st_size for file in files) / 1e9
        tell = progress if size > TOLD_FROM_GB else ignore_progress
        tell(f"loading {name} ({size:.1f} GB)", 0, 2)
        model = _read(config, chosen, source, name, **options)
        tell(f"loading {name} ({size:.1f} GB)", 1, 2)
        own = quantization is None and dtype != "fp16"  # fp32 and bf16 round to the same bf16 as the checkpoint itself
        files = _files(source)  # by now those of a hub id are here, too
        check_types(config, files)
        checkpoint = _known(
            files, chosen, model, None if own else lambda: _read(config, chosen, source, name, dtype="auto")
        )
        tell(f"loading {name} ({size:.1f} GB)", 2, 2)
    except _UNLOADABLE as error:
        raise BaseModelError(_not_loadable(name, error)) from error
    finally:
        if was_bar:
            transformers_logging.enable_progress_bar()
    if "device_map" not in options:
        model.to(where)
    return model, tokenizer, name, checkpoint


def _options(config: Any, where: torch.device, dtype: str, quantization: str | None, isolated: bool) -> dict[str, Any]:
    """How the weights are read: in which type, quantised or not, and where such weights stay.

    Raises:
        ValueError: quantisation was asked for, and the checkpoint is quantised itself.
    """
    options: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if quantization is not None:
        if hasattr(config, "quantization_config"):
            raise ValueError(f"it is quantised already; leave quantization {quantization!r} out")
        options["quantization_config"] = quantized.loading(quantization, isolated, DTYPES[dtype])
    if quantization is not None or hasattr(config, "quantization_config"):
        options["device_map"] = {"": where}  # such models cannot be moved afterwards
    return options


def _files(source: str) -> list[Path]:
    """The weights of a local folder, or of a hub id that is in the hub's cache by now."""
    if Path(source).is_dir():
        return weight_files(Path(source))
    config = cached_file(source, "config.json", local_files_only=True)
    return weight_files(Path(config).parent) if config else []


def _known(files: list[Path], kind: Kind, model: Any, read: Callable[[], Any] | None) -> Checkpoint:
    """The digests of what was read, which are kept beside the files' sizes and times."""
    weights = kept_weights(files, kind, lambda: weights_digest(read() if read else model))
    return Checkpoint(weights, kept_exact(files) if files else None, read)


def _refuse_adapters(source: str, name: str) -> None:
    """transformers would load whatever base the adapter's configuration names.

    Raises:
        BaseModelError: the folder holds an adapter.
    """
    if (Path(source) / "adapter_config.json").is_file():
        raise BaseModelError(
            f"base {name!r}: the folder holds an adapter, not a model; name the base it was made on, and bring the adapter in "
            "with `softprompt import`"
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and launched("world") > 1:
        name = f"cuda:{launched('local')}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BaseModelError(f"device {name!r} cannot be used ({reason}); use auto, cpu or cuda") from None
    return device


def _read(config: Any, kind: Kind, source: str, name: str, **options: Any) -> Any:
    """The checkpoint as a model of this kind.

    Raises:
        BaseModelError: it holds not all of the weights that this kind runs with, and transformers made up the others.
        ValueError: it holds weights that its settings leave out.
    """
    level = transformers_logging.get_verbosity()
    if kind != "causal":
        transformers_logging.set_verbosity_error()  # its report of weights that are left out, or missing: judged below
    try:
        safely: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
        # ours is put in later, so none that a config asks for has to be installed
        safely["attn_implementation"] = "eager"
        model, about = auto_class(config, kind).from_pretrained(source, **safely, **options)
    finally:
        transformers_logging.set_verbosity(level)
    if kind == "encoder" and getattr(model, "pooler", None) is not None:
        model.pooler = None  # made for other heads, often not in the checkpoint, and never run here
    check_missing(about, name, kind)
    check_left_out(model, config, about["unexpected_keys"])
    return model


def _not_loadable(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"its settings say {reason}, which transformers does not know"
    elif isinstance(error, (TypeError, AttributeError, LookupError, ArithmeticError)):  # of transformers' own code
        reason = f"a setting of its JSON files does not fit; transformers stopped at: {reason}"
    if "ignore_mismatched_sizes" in reason:
        reason = "its weights have other sizes than its config.json says"
    path = Path(name)
    if path.is_dir():
        reason = _without_weights(path) or broken_json(path, _SETTINGS) or reason
        return f"base {name!r}: the folder does not hold a loadable model ({reason})"
    if path.is_file():
        return f"base {name!r}: is a file; name the folder that holds the model, or a .gguf file"
    if path.is_absolute() or name.startswith((".", "~")):
        near = "; ~ is the home folder only where a shell reads it" if name.startswith("~") else ""
        return f"base {name!r}: no such folder or file{near}; if it was moved, name the new place (base=…, or --base)"
    if isinstance(error.__cause__, LocalEntryNotFoundError):  # transformers' own line is of 260 characters
        return (
            f"base {name!r} is not on this machine, and the hub cannot be reached; go online, or name a bundled base"
            f"{suggest(name, bundled.BUNDLED)}, a folder or a .gguf file"
        )
    return (
        f"base {name!r} is neither a bundled name{suggest(name, bundled.BUNDLED)}, a local folder, a GGUF file, nor a "
        f"reachable hub id ({reason})"
    )


def _without_weights(folder: Path) -> str | None:
    pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickles and not weight_files(folder):
        return f"{pickles[0]} is a pickle, which can run code and is never opened; save the model as safetensors"
    return None
