"""`softprompt inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import app
from .console import base_of, err, out
from .options import ArtifactFolder, Json
from .outputs import refuse_replacing, tell_json
from .streams import visible_json

if TYPE_CHECKING:
    from ..artifact import Artifact
    from ..artifact.manifest import MetricRecord
    from ..runfile import BaseSpec


@app.command("inspect", epilog="Example: `softprompt inspect runs/movies --words 3`")
def inspect_verb(
    artifact: ArtifactFolder,
    words: Annotated[
        int, typer.Option("--words", min=0, help="Nearest vocabulary entries per learned token (0: none).")
    ] = 3,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Base whose vocabulary is searched (default: the one it was trained on)."),
    ] = None,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print manifest.json instead.")] = False,
    document: Json = None,
) -> None:
    """Show what an artifact or ensemble is: base, task, method, metrics, sizes, and the nearest words of a learned prompt."""
    from ..artifact import is_ensemble, load
    from ..errors import ConfigError

    refuse_replacing({"--json": document})
    if is_ensemble(artifact):
        _inspect_ensemble(artifact, manifest, document)
        return
    held = load(artifact)
    m = held.manifest
    if manifest:
        out.print(visible_json(json.dumps(m.as_dict(), indent=2, ensure_ascii=False)))
        tell_json(document, m.as_dict())
        return
    table = Table(show_header=False)
    table.add_row("method", ", ".join(f"{key}={value}" for key, value in m.method.items()))
    table.add_row("task", f"{m.task['name']} ({m.task['type']})" if m.task else "–")
    if isinstance(thresholds := (m.task or {}).get("thresholds"), dict):
        table.add_row("thresholds", ", ".join(f"{label} {value:.3f}" for label, value in thresholds.items()))
    table.add_row("base", f"{m.base.id} ({m.base.dtype}), digest {m.base.digest[:12]}")
    _add_metrics(table, m.metrics)
    table.add_row("parameters", f"{m.parameters['trained']:,} trained, {m.parameters['stored']:,} stored")
    for name, tensor in held.tensors.items():
        norm = tensor.float().flatten(1).norm(dim=1) if tensor.dim() > 1 else tensor.float().abs()
        table.add_row(f"tensor {name}", f"{list(tensor.shape)}, row norms {norm.min():.3g} … {norm.max():.3g}")
    table.add_row("size", f"{held.size / 1000:.1f} kB in all, content {held.digest[:12]}")
    out.print(table)
    nearest = []
    if words and m.layout.stores == "embeddings":
        try:
            nearest = _nearest(held, base_of(artifact, m.base.id, base), words)
        except ConfigError as error:
            err.print(f"no nearest words: {error}")
    elif words and m.layout.stores == "kv":
        err.print("keys and values have no nearest words (they are not embeddings)")
    about = {"manifest": m.as_dict(), "size": held.size, "digest": held.digest}
    tell_json(document, {**about, **({"nearest": nearest} if nearest else {})})


def _add_metrics(table: Table, metrics: Mapping[str, MetricRecord]) -> None:
    """A line for each split that was measured."""
    from ..metrics import Estimate

    for name, record in metrics.items():
        found = Estimate.from_dict(record.model_dump())
        signature = f" ({found.signature})" if found.signature else ""
        table.add_row(f"{name} {found.metric}", f"{found} on {found.rows} rows{signature}")


def _inspect_ensemble(folder: Path, manifest: bool, document: Path | None) -> None:
    """Show an ensemble: its members with their bases and weights, metrics, sizes."""
    from ..artifact import load_ensemble

    held = load_ensemble(folder)
    m = held.manifest
    if manifest:
        out.print(visible_json(json.dumps(m.as_dict(), indent=2, ensure_ascii=False)))
        tell_json(document, m.as_dict())
        return
    table = Table(show_header=False)
    for record, member in zip(m.members, held.members.values(), strict=True):
        method, task = member.manifest.method["name"], member.manifest.task or {}
        line = f"{method} for {task.get('name', '–')} on {record.base.id}, digest {record.base.digest[:12]}"
        table.add_row(f"{record.name}, weight {record.weight:.3f}", line)
    table.add_row("weights", f"chosen on {m.dev_rows:,} dev rows" if m.dev_rows else "given")
    _add_metrics(table, m.metrics)
    table.add_row("size", f"{held.size / 1000:.1f} kB in all, content {held.digest[:12]}")
    out.print(table)
    tell_json(document, {"manifest": m.as_dict(), "size": held.size, "digest": held.digest})


def _nearest(held: Artifact, section: BaseSpec, count: int) -> list[dict[str, Any]]:
    """Show the nearest vocabulary entries by cosine, as in Lester et al. 2021, §7.

    Returns:
        Of each learned token {"norm", "words": [[word, cosine]]}.
    """
    import torch

    from ..artifact import check_base

    base, prompt = section.load(), held.tensors["prompt_embeddings"]
    check_base(held.manifest, base)
    table = base.embed(torch.arange(base.model.get_input_embeddings().weight.shape[0], device=base.device)).float()
    close = (
        torch.nn.functional.normalize(prompt.to(table.device), dim=1) @ torch.nn.functional.normalize(table, dim=1).T
    )
    shown = Table("token", "nearest words (cosine)", "norm")
    nearest = []
    for place, (values, ids) in enumerate(zip(*close.topk(min(count, close.shape[1]), dim=1), strict=True)):
        words = [(base.tokenizer.decode([int(i)]), float(v)) for v, i in zip(values, ids, strict=True)]
        nearest.append({"norm": float(prompt[place].norm()), "words": words})
        shown.add_row(str(place), ", ".join(f"{w!r} {v:.2f}" for w, v in words), f"{nearest[-1]['norm']:.2f}")
    out.print(shown)
    return nearest
