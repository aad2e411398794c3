"""`softprompt inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .app import app
from .console import base_of, err, out
from .options import ArtifactFolder, Json
from .outputs import behind_links, refuse_replacing, tell_json
from .streams import visible_json

if TYPE_CHECKING:
    from ..artifact import Artifact
    from ..reporting.inspected import Inspected, LearnedToken
    from ..runfile import BaseSpec


@app.command(
    "inspect",
    epilog="Examples: `softprompt inspect runs/movies --words 3`, `softprompt inspect runs/movies --html page.html`",
)
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
    html: Annotated[
        Path | None,
        typer.Option("--html", callback=behind_links, help="Also write all of it as a page, the manifest included."),
    ] = None,
    document: Json = None,
) -> None:
    """Show what an artifact or ensemble is: base, task, method, metrics, sizes, and the nearest words of a learned prompt."""
    from ..artifact import is_ensemble, load, load_ensemble
    from ..readings import reading_digest
    from ..reporting.inspected import inspected, inspected_ensemble

    refuse_replacing({"--html": html, "--json": document})
    one: Artifact | None = None
    if is_ensemble(artifact):
        ensemble = load_ensemble(artifact)
        saved, what = {"size": ensemble.size, "digest": ensemble.digest}, inspected_ensemble(ensemble)
    else:
        one = load(artifact)
        saved, what = {"size": one.size, "digest": one.digest}, inspected(one)
    if manifest:
        out.print(visible_json(json.dumps(what.manifest, indent=2, ensure_ascii=False)))
    else:
        _tell_facts(what)
    if one is not None and words and (html is not None or not manifest):
        _add_tokens(what, one, artifact, base, words)
    if not manifest:
        _tell_tokens(what)
    if html is not None:
        _write_page(what, html)
    nearest = [{"norm": token.norm, "words": token.words} for token in what.tokens]
    reading = {} if one is None else {"reading": reading_digest(one.manifest)}
    told = {"manifest": what.manifest, **saved, **reading, **({"nearest": nearest} if nearest else {})}
    tell_json(document, what.manifest if manifest else told)


def _tell_facts(what: Inspected) -> None:
    table = Table(show_header=False)
    for name, value in what.facts:
        table.add_row(name, value)
    out.print(table)


def _tell_tokens(what: Inspected) -> None:
    for line in what.notices:
        err.print(line)
    if what.tokens:
        table = Table("token", "nearest words (cosine)", "norm")
        for place, token in enumerate(what.tokens):
            table.add_row(str(place), token.nearest, f"{token.norm:.2f}")
        out.print(table)


def _write_page(what: Inspected, to: Path) -> None:
    from ..reporting.inspected import inspected_page
    from ..storage import write_text

    write_text(to, inspected_page(what))
    out.print(f"page: {to}")


def _add_tokens(what: Inspected, artifact: Artifact, folder: Path, base: str | None, words: int) -> None:
    """Add the nearest words of a learned prompt, or why there are none."""
    from ..errors import ConfigError

    m = artifact.manifest
    if m.layout.stores == "embeddings":
        try:
            what.tokens += _tokens(artifact, base_of(folder, m.base.id, base), words)
        except ConfigError as error:
            what.notices.append(f"no nearest words: {error}")
    elif m.layout.stores == "kv":
        what.notices.append("keys and values have no nearest words (they are not embeddings)")


def _tokens(artifact: Artifact, section: BaseSpec, count: int) -> list[LearnedToken]:
    """Each learned token with the nearest vocabulary entries by cosine, as in Lester et al. 2021, §7."""
    import torch

    from ..artifact import check_base
    from ..reporting.inspected import LearnedToken

    base, prompt = section.load(), artifact.tensors["prompt_embeddings"]
    check_base(artifact.manifest, base)
    table = base.embed(torch.arange(base.model.get_input_embeddings().weight.shape[0], device=base.device)).float()
    close = (
        torch.nn.functional.normalize(prompt.to(table.device), dim=1) @ torch.nn.functional.normalize(table, dim=1).T
    )
    tokens = []
    for place, (values, ids) in enumerate(zip(*close.topk(min(count, close.shape[1]), dim=1), strict=True)):
        words = [(base.tokenizer.decode([int(i)]), float(v)) for v, i in zip(values, ids, strict=True)]
        tokens.append(LearnedToken(float(prompt[place].norm()), words))
    return tokens
