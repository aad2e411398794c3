"""What a run leaves: its artifact, and the run file beside it with everything resolved."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import artifact as artifacts
from ..artifact.card import model_card
from ..base import Base
from ..base.bundled import BUNDLED
from ..base.own_cache import prefix_in_peft
from ..base.shape import DTYPES
from ..errors import ConfigError
from ..metrics import Estimate
from ..parallel import processes
from ..prepared import Prepared
from ..renamed import with_first_keys
from ..run_reader import resolved_task
from ..runfile import CacheSpec, TrainSpec
from ..storage import digest_of, plain_disk_errors, write_text
from ..tasks import Task
from ..yaml_file import dump
from .known import remember
from .places import ARTIFACT, RUN
from .results import Recorded, carried, rows_digest, tensors_digest, write_result

if TYPE_CHECKING:
    from .result import Result  # which saves itself through this module

PACKAGES = ("softprompt", "torch", "transformers", "tokenizers", "numpy", "scikit-learn")


def keep(
    result: Result,
    folder: Path,
    task: Task,
    spec: TrainSpec,
    cache: CacheSpec,
    settings: dict[str, Any],
    earlier: Recorded | None = None,
) -> None:
    """Write all that a finished run leaves in its folder: `artifact/`, `result.json`, `run.yaml`.

    Args:
        earlier: what it has measured before; that stays where it is still true.
    """
    kept = carried(folder, earlier, result)
    result.recorded = {name: Estimate.from_dict(found) for name, found in kept.items()}
    metrics = {**kept, **{name: found.estimate.as_dict() for name, found in result.metrics.items()}}
    rows = {name: rows_digest(result.prepared, name) for name in result.metrics}
    rows |= {name: earlier.rows.get(name, "") for name in kept} if earlier else {}
    written = save(result, folder / ARTIFACT, settings, metrics)
    tensors = tensors_digest(result.prepared.method.export())
    run = run_digest(result.prepared, settings)
    write_result(folder, Recorded(run, written.digest, rows, metrics, tensors), result)
    write_text(folder / RUN, _run_file(result.prepared, task, spec, cache, settings["seed"]))
    remember(folder / RUN)


def recall(result: Result, folder: Path, task: Task, spec: TrainSpec, cache: CacheSpec, seed: int) -> None:
    """Of a run that was finished before: put a run file back that is gone, and know the one that is as we would write it.

    So a run of ours is known again where the cache folder is another one, or was emptied.
    """
    text = _run_file(result.prepared, task, spec, cache, seed)
    if not (folder / RUN).exists():
        write_text(folder / RUN, text)
    with plain_disk_errors(folder / RUN):
        ours = (folder / RUN).read_bytes() == text.encode("utf-8", "backslashreplace")
    if ours:
        remember(folder / RUN)


def save(
    result: Result,
    folder: Path,
    settings: dict[str, Any] | None = None,
    metrics: dict[str, dict[str, Any]] | None = None,
) -> artifacts.Artifact:
    """Write the artifact of a finished run.

    Args:
        metrics: by split (default: those of the result).

    Raises:
        ArtifactError: NaN in a tensor, or the folder holds something else.
    """
    ready, method = result.prepared, result.prepared.method
    tensors = method.export()
    settings = settings or settings_of(ready, None, 0)
    if metrics is None:
        metrics = {name: found.estimate.as_dict() for name, found in result.metrics.items()}
    told = {name: settings[name] for name in ("teaching", "labels", "sets") if name in settings}
    values: dict[str, Any] = {
        "format_version": artifacts.FORMAT_VERSION,
        "kind": ready.base.kind,
        "method": _without_paths(method.spec.model_dump(mode="json", exclude_none=True)),
        "layout": method.layout(),
        "task": _portable(ready.task.spec.model_dump(mode="json", exclude_none=True)),
        "base": {
            "id": ready.base.identity.name,
            "digest": ready.base.digest,
            "checkpoint": ready.base.identity.exact,
            "dtype": ready.base.label_of_dtype,
            "tokenizer_digest": ready.base.tokenizer_digest,
            "shape": ready.base.shape.as_dict(),
            "encoder": ready.base.reader.shape.as_dict() if ready.base.has_decoder else None,
        },
        "tensors": {name: {"shape": list(value.shape), "dtype": "float32"} for name, value in tensors.items()},
        "metrics": metrics,
        "training": {"seed": settings["seed"], "best_step": result.best_step, **(settings["train"] or {}), **told},
        "data": {"digest": ready.digest, **{name: len(part) for name, part in ready.splits.items()}},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "parameters": {"trained": result.parameters, "stored": sum(value.numel() for value in tensors.values())},
    }
    config, files = method.adapter_config(ready.base), method.files()
    values["loads_in"] = "transformers" if files else loads_in(config, ready.base)
    manifest = artifacts.Manifest.model_validate(values)
    return artifacts.save(folder, manifest, tensors, model_card(manifest), config, files)


def loads_in(config: dict[str, Any] | None, base: Base) -> str | None:
    """What loads a folder with this `adapter_config.json`."""
    if config is None:
        return None
    return prefix_in_peft(base) if config["peft_type"] == "PREFIX_TUNING" else "peft"


def _run_file(ready: Prepared, task: Task, spec: TrainSpec, cache: CacheSpec, seed: int) -> str:
    """The resolved run file beside the result: no defaults left to fill, no path that depends on the current folder."""
    base, method = ready.base, ready.method
    is_folder = base.name not in BUNDLED and Path(base.name).is_dir()  # `Base.load` prefers the bundled name, too
    held: dict[str, Any] = {
        "name": str(Path(base.name).resolve()) if is_folder else base.name,
        "dtype": next(name for name, dtype in DTYPES.items() if dtype == base.dtype),
        "device": str(base.device) if processes().world == 1 else base.device.type,  # each process has another
    }
    if base.kind != "causal":
        held["kind"] = base.kind  # a masked model may be run as the encoder that it is
    if base.quantization is not None:
        held |= {"quantization": base.quantization, "isolated": base.isolated}
    settings = {
        "base": held,
        "task": resolved_task(task),
        "method": method.spec.model_dump(mode="json", exclude_none=True),
        "train": spec.model_dump(mode="json", exclude_none=True),
        "cache": cache.model_dump(mode="json", exclude_none=True),
        "seed": seed,
    }
    return dump(settings)


def settings_of(ready: Prepared, spec: TrainSpec | None, seed: int) -> dict[str, Any]:
    """All that decides the result; see `run_digest`."""
    return {
        "base": [ready.base.digest, ready.base.tokenizer_digest, ready.base.arithmetic, ready.base.device.type],
        "task": ready.task.spec.model_dump(mode="json"),
        "method": (method := ready.method.spec.model_dump(mode="json")),
        "starts": starts(method),
        "train": spec.model_dump(mode="json", exclude_none=True) if spec else None,
        "cache": str(ready.engine.cache.dtype),
        "data": {name: rows_digest(ready, name) for name in ("train", "dev")},  # test rows decide nothing
        "seed": seed,
    }


def run_digest(ready: Prepared, settings: dict[str, Any]) -> str:
    """What names a run: the digest of all that decides its result (`settings_of`)."""
    models: dict[str, Any] = {"task": type(ready.task.spec), "method": type(ready.method.spec), "train": TrainSpec}
    first = {key: with_first_keys(model, settings[key]) for key, model in models.items()}
    return digest_of({**settings, **first})


def starts(settings: Any) -> list[str]:
    """Digests of the artifacts that a method, or a part of it, starts from: a folder may hold another one by now.

    Args:
        settings: the method's, as a mapping.

    Raises:
        ConfigError: it names none.
        ArtifactError: it is not there, or damaged.
    """
    if isinstance(settings, list):
        return [digest for item in settings for digest in starts(item)]
    if not isinstance(settings, dict):
        return []
    own = []
    if settings.get("init") == "artifact":
        if not settings.get("artifact"):
            raise ConfigError("method.init is 'artifact': name the folder in method.artifact")
        own.append(artifacts.load(Path(settings["artifact"])).digest)
    return own + [digest for value in settings.values() for digest in starts(value)]


def _portable(task: dict[str, Any]) -> dict[str, Any]:
    """Without paths of the training machine: an artifact travels."""
    return {**task, "data": _without_paths(task.get("data", {}))}


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Of every setting that names a file or folder, the last part of the path only."""
    named = ("source", "train", "dev", "test", "artifact")
    is_path = {k: isinstance(v, str) and "/" in v and not v.startswith("datasets:") for k, v in settings.items()}
    return {k: Path(v).name if k in named and is_path[k] else v for k, v in settings.items()}
