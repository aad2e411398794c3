"""The model card: `README.md` of an artifact, for whoever finds the folder. Equal manifests give equal text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SoftpromptError, visible_controls
from .card_head import card_head
from .manifest import Manifest, MetricRecord
from .row_text import row_text

_WHAT = {
    ("embeddings", "front"): "{length} learned token embeddings in front of the text",
    ("kv", "front"): "{length} learned keys and values per layer in front of the text",
    ("embeddings", "infix"): "{length} learned token embeddings between the text and the answer",
    ("embeddings", "other"): "{length} learned token embeddings in the soft slots of its template",
    ("kv", "infix"): "{length} learned keys and values per layer between the text and the answer",
}
_MAX_LABELS = 12
ANSWERS: dict[str, str] = {
    "log_probs": "the weighted mean of the members' log-probabilities, normalised over the labels",
    "probs": "the weighted mean of the members' probabilities",
    "vote": "the label that most members have as their best, by weight; of equal ones that with the highest mean probability",
}
"""What an ensemble's answer is, by its `combine`."""


def model_card(manifest: Manifest) -> str:
    """Markdown with YAML front matter: what it does, how to load it, how good it is, how it was made, its limits."""
    name = manifest.task["name"] if manifest.task else "prompt"
    parts = [
        _front_matter(manifest),
        f"# {_text(name)}: {_text(manifest.method['name'])} on {_text(manifest.base.id)}",
        _what(manifest),
        _usage(manifest),
        _metrics(manifest.metrics),
        _data(manifest),
        _averaged(manifest),
        _training(manifest),
        _limits(manifest),
    ]
    return visible_controls("\n\n".join(part for part in parts if part) + "\n")


def ensemble_card(
    members: Mapping[str, Manifest],
    weights: Sequence[float],
    metrics: Mapping[str, Mapping[str, Any]],
    dev_rows: int | None,
    combine: str = "log_probs",
) -> str:
    """The card of an ensemble: what it is, how to load it, its members, how good it is.

    Args:
        members: their manifests by name.
        weights: of each member.
        metrics: of the ensemble, by split.
        dev_rows: on how many rows the weights were chosen; None where they were given.
        combine: how they answer together.
    """
    first = next(iter(members.values()))
    name = first.task["name"] if first.task else "prompt"
    bases = list(dict.fromkeys(manifest.base.id for manifest in members.values()))
    rows = [
        f"| `{member}` | {_cell(manifest.method['name'])} | {_cell(manifest.base.id)} | {weight:.3f} |"
        for (member, manifest), weight in zip(members.items(), weights, strict=True)
    ]
    chosen = f"The weights were chosen on {dev_rows:,} dev rows." if dev_rows else "The weights were given."
    loaded = ", ".join(f"sp.Base.load({_json(base)})" for base in bases)
    code = ["```python", "import softprompt as sp", "", f"runtime = sp.Runtime([{loaded}])"]
    code += [f'runtime.add({_json(name)}, "path/to/this/folder")']
    code += [f"runtime.predict([{_json(sample_of(first))}], {_json(name)})", "```"]
    measured = {split: MetricRecord.model_validate(found) for split, found in metrics.items()}
    parts = [
        card_head(bases, first.task, ["softprompt", "ensemble"]),
        f"# {_text(name)}: {len(members)} artifacts that answer together",
        f"The answer is {ANSWERS[combine]}. Each member is an artifact in `members`, on a base model that is not part of "
        "this folder and was not changed.",
        _task(first.task) if first.task else "",
        "\n".join(["## Use", "", *code]),
        "\n".join(
            ["## Members", "", "| member | method | base | weight |", "| --- | --- | --- | --- |", *rows, "", chosen]
        ),
        _metrics(measured),
        "## Limits\n\n- Works on these bases and their tokenizers only.\n- Each member's own card names its limits.",
    ]
    return visible_controls("\n\n".join(part for part in parts if part) + "\n")


def _front_matter(manifest: Manifest) -> str:
    tags = ["softprompt", f"method:{manifest.method['name']}", "parameter-efficient"]
    if _in_peft(manifest):
        tags.append("peft")
    return card_head([manifest.base.id], manifest.task, tags)


def _what(manifest: Manifest) -> str:
    layout = manifest.layout
    what = _WHAT.get((layout.stores, layout.place))
    if what is None:
        others = {
            "head": "a classifier over the base's hidden states",
            "weights": "weights that were learned, or updates of the base's",
            "other": "what the method has learned",
        }
        what = others.get(layout.stores, "no learned segment")
    stored = manifest.parameters["stored"]
    lines = [
        f"This folder holds {what.format(length=layout.length)} ({stored:,} numbers). {_base_of(manifest)}"
        if layout.stores != "none"
        else f"Method `{_code(manifest.method['name'])}` on the base model `{_code(manifest.base.id)}`, "
        f"which is not part of this folder; {stored:,} numbers are stored."
    ]
    if manifest.task:
        lines.append(_task(manifest.task))
    return "\n\n".join(lines)


def _base_of(manifest: Manifest) -> str:
    base = f"`{_code(manifest.base.id)}`"
    if _in_transformers(manifest):
        return f"It is a whole model, made from {base}."
    return f"The base model {base} is not part of it and was not changed."


def _task(task: dict[str, Any]) -> str:
    line = f"Task: `{_code(task['name'])}`, {_text(task['type'])}"
    named = task.get("verbalizer") or task.get("labels")
    if isinstance(named, (dict, list)) and named:
        labels = [f"`{_code(label)}`" for label in named]
        more = f" and {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
        line += f"; answers: {', '.join(labels[:_MAX_LABELS])}{more}"
    return line + ". Template and label words stand in `manifest.json`."


def _usage(manifest: Manifest) -> str:
    base = manifest.base.id
    name = manifest.task["name"] if manifest.task else "prompt"
    row = sample_of(manifest)
    code = [
        "## Use",
        "",
        "```python",
        "import softprompt as sp",
        "",
        f"runtime = sp.Runtime(sp.Base.load({_json(base)}))",
        f'runtime.add({_json(name)}, "path/to/this/folder")',
        f"runtime.predict([{_json(row)}], {_json(name)})",
        "```",
        "",
        "The fields of a row are those that the task reads.",
    ]
    if _in_transformers(manifest):
        code += ["", "The folder is a plain transformers model as well:", "", "```python"]
        code += ["from transformers import AutoModelForCausalLM", ""]
        code += ['model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")', "```"]
    elif _in_peft(manifest):
        how = "give it the same base"
        if manifest.layout.place == "front":
            how += f"; the text starts at position {manifest.layout.length}"
        code += [
            "",
            f"Plain PEFT loads the folder as well ({how}; {_text_to_write(manifest, row)}):",
            "",
            "```python",
            "from peft import PeftModel",
            "",
            'model = PeftModel.from_pretrained(base_model, "path/to/this/folder")',
            "```",
        ]
        if manifest.loads_in != "peft":
            code += [
                "",
                f"It loads in {manifest.loads_in}, the prefix among them: from longer rows PEFT hides the prefix in the base's "
                "sliding-window layers, where it stays in sight here, and so answers otherwise.",
            ]
    elif manifest.layout.stores != "none":
        code += ["", "Plain PEFT cannot load it."]
    return "\n".join(code)


def _text_to_write(manifest: Manifest, row: Mapping[str, Any]) -> str:
    """What PEFT's model is to read, of a sample row where that can be told without the base."""
    text = row_text(manifest, row)
    return "the template is yours to fill in" if text is None else f"the text of the row above is `{_json(text)}`"


def sample_of(manifest: Manifest) -> dict[str, Any]:
    """A row that the artifact's task can be asked."""
    from ..tasks import Task  # the tasks stand above the artifacts
    from ..tasks.sample import sample_row

    if manifest.task is None:
        return {"text": "…"}
    try:
        return sample_row(Task.of_artifact(manifest.task, manifest.format_version))
    except SoftpromptError:  # no task that this version knows
        return {"text": "…"}


def _metrics(metrics: Mapping[str, MetricRecord]) -> str:
    if not metrics:
        return "## Metrics\n\nNot measured."
    rows = [
        f"| {_cell(split)} | {_cell(found.metric)} | {found.value:.4f} | "
        f"{found.interval[0]:.4f} – {found.interval[1]:.4f} | {found.rows:,} |"
        for split, found in metrics.items()
    ]
    head = "| split | metric | value | 95 % interval | rows |\n| --- | --- | --- | --- | --- |"
    note = (
        "The interval covers the choice of rows, not that of the seed. What was chosen on `dev` looks too good there."
    )
    lines = [f"- {_text(found.metric)}: `{_code(found.signature)}`" for found in metrics.values() if found.signature]
    signed = ["", "Signatures of sacrebleu:", "", *dict.fromkeys(lines)] if lines else []
    return "\n".join(["## Metrics", "", head, *rows, "", note, *signed])


def _data(manifest: Manifest) -> str:
    if not manifest.data:
        return ""
    source = (manifest.task or {}).get("data", {})
    named = source.get("source") or source.get("train") if isinstance(source, dict) else None
    counts = [
        f"{count:,} {_text(name)}"
        for name, count in manifest.data.items()
        if isinstance(count, int) and name != "digest"
    ]
    origin = f"`{_code(named)}`: " if named else ""
    digest = f" (digest `{_code(str(manifest.data.get('digest', '–'))[:16])}`)"
    return f"## Data\n\n{origin}{', '.join(counts) or 'rows not counted'}{digest}."


def _averaged(manifest: Manifest) -> str:
    """Which artifacts it is the mean of, where it is one."""
    members = manifest.training.get("averaged")
    if not isinstance(members, list):
        return ""
    told = [one for one in members if isinstance(one, dict)]
    rows = [" | ".join(_cell(one.get(key, "–")) for key in ("digest", "weight", "seed")) for one in told]
    lines = ["| content | weight | seed |", "| --- | --- | --- |", *(f"| {row} |" for row in rows)]
    what = (
        f"The weighted mean of what {len(told)} artifacts of this method have learned. They are named by their content."
    )
    return "\n".join(["## Averaged", "", what, "", *lines])


def _training(manifest: Manifest) -> str:
    settings = {f"method.{key}": value for key, value in manifest.method.items() if key != "name"}
    settings.update({key: value for key, value in manifest.training.items() if key != "averaged"})
    rows = [f"| {_cell(key)} | {_cell(_json(value))} |" for key, value in settings.items()]
    table = ["| setting | value |", "| --- | --- |", *rows, ""] if rows else []
    versions = ", ".join(f"{_text(name)} {_text(version)}" for name, version in manifest.versions.items())
    made = f"Base held as {_text(manifest.base.dtype)}. Made with softprompt {_text(manifest.softprompt)}"
    return "\n".join(["## Training", "", *table, f"{made}{f' ({versions})' if versions else ''}."])


def _limits(manifest: Manifest) -> str:
    lines = [
        "## Limits",
        "",
        f"- Works on this base and tokenizer only (digest `{_code(manifest.base.digest[:16])}`); softprompt refuses any other.",
        "- It has the base's biases and licence, and was measured on the rows above only; other texts may differ.",
    ]
    if manifest.layout.stores in ("embeddings", "kv"):
        lines.append("- What a learned prompt does cannot be read off it as words.")
    return "\n".join(lines)


def _in_peft(manifest: Manifest) -> bool:
    return (manifest.loads_in or "").startswith("peft")


def _in_transformers(manifest: Manifest) -> bool:
    return manifest.loads_in == "transformers"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _text(value: Any) -> str:
    """One line of markdown text without markup."""
    plain = " ".join(str(value).split())
    return "".join(f"\\{char}" if char in "\\`*_<>[]#|" else char for char in plain)


def _code(value: Any) -> str:
    """Inside of a code span."""
    return " ".join(str(value).split()).replace("`", "'")


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    shown = text if len(text) <= 200 else f"{text[:200]}…"
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
