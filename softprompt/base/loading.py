"""From a name to a model, a tokenizer and the checkpoint's digest: bundled names, local folders, hub ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ..config import suggest
from ..errors import BaseModelError
from ..launcher import launched
from ..types import Progress, megabytes
from . import bundled, quantized
from .families import NAMED, Kind, auto_class, choose_kind
from .fingerprint import model_digest
from .shape import DTYPES


def load_model(
    name: str,
    dtype: str,
    device: str,
    progress: Progress,
    quantization: str | None,
    isolated: bool,
    kind: str | None = None,
) -> tuple[Any, Any, str, str | None]:
    """See `Base.load`.

    Returns:
        model, tokenizer, name, and the checkpoint's digest where the model's own weights do not give it any more.
    """
    if dtype not in DTYPES:
        raise BaseModelError(f"dtype {dtype!r} is not known{suggest(dtype, DTYPES)}")
    quantized.check_asked(quantization, isolated)
    where = _device(device)
    is_bundled = name in bundled.BUNDLED
    source = str(bundled.get(name, megabytes(f"fetching {name}", progress))) if is_bundled else name
    was_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source)
        chosen = choose_kind(config, name, kind)
        tokenizer = AutoTokenizer.from_pretrained(source)
        options: dict[str, Any] = {"dtype": DTYPES[dtype]}
        digest = None
        if quantization is not None:
            if hasattr(config, "quantization_config"):
                raise ValueError(f"it is quantised already; leave quantization {quantization!r} out")
            options["quantization_config"] = quantized.loading(quantization, isolated, DTYPES[dtype])
            # the checkpoint as it is, for its digest; a few values of each tensor are read from the mapped file
            digest = model_digest(_read(config, chosen, source, name, dtype="auto"))
        if quantization is not None or hasattr(config, "quantization_config"):
            options["device_map"] = {"": where}  # such models cannot be moved afterwards
        model = _read(config, chosen, source, name, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BaseModelError(_not_loadable(name, error)) from error
    finally:
        if was_bar:
            transformers_logging.enable_progress_bar()
    if "device_map" not in options:
        model.to(where)
    return model, tokenizer, name, digest


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
        raise BaseModelError(f"device {name!r} cannot be used ({reason}); take auto, cpu or cuda") from None
    return device


def _read(config: Any, kind: Kind, source: str, name: str, **options: Any) -> Any:
    """The checkpoint as a model of this kind.

    Raises:
        BaseModelError: it holds not all of the weights that this kind runs with, and transformers made up the others.
    """
    level = transformers_logging.get_verbosity()
    if kind != "causal":
        transformers_logging.set_verbosity_error()  # its report of weights that are left out, or missing: judged below
    try:
        model, about = auto_class(config, kind).from_pretrained(source, output_loading_info=True, **options)
    finally:
        transformers_logging.set_verbosity(level)
    if kind == "encoder" and getattr(model, "pooler", None) is not None:
        model.pooler = None  # made for other heads, often not in the checkpoint, and never run here
    missing = sorted(key for key in about["missing_keys"] if not key.startswith("pooler."))
    if missing and kind != "causal":
        instead = "; load it with kind 'encoder'" if kind == "masked" else ""
        raise BaseModelError(
            f"base {name!r} cannot run as {NAMED[kind]}: the checkpoint does not hold {missing[0]} "
            f"({len(missing)} tensors are missing){instead}"
        )
    return model


def _not_loadable(name: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(name).is_dir():
        return f"base {name!r}: the folder does not hold a loadable model ({reason})"
    return (
        f"base {name!r} is neither a bundled name{suggest(name, bundled.BUNDLED)}, a local folder, nor a reachable "
        f"hub id ({reason})"
    )
