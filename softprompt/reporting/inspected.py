"""What an artifact or an ensemble is, as names and values: for the terminal's table and for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.card import ANSWERS
from ..readings import reading_digest
from .environment import environment

if TYPE_CHECKING:
    from ..artifact import Artifact, Ensemble
    from ..artifact.manifest import Manifest, MetricRecord

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class LearnedToken:
    """One learned token beside the vocabulary.

    Attributes:
        norm: of its embedding.
        words: the nearest entries of the vocabulary with their cosines, the nearest first.
    """

    norm: float
    words: list[tuple[str, float]]

    @property
    def nearest(self) -> str:
        """The words as one text."""
        return ", ".join(f"{word!r} {cosine:.2f}" for word, cosine in self.words)


@dataclass
class Inspected:
    """What `softprompt inspect` shows.

    Attributes:
        identity: method, task and base; of an ensemble its members and where their weights come from.
        metrics: by split.
        sizes: parameters, tensors and bytes.
        manifest: the file's fields.
        tokens: of an artifact that stores embeddings, if they were asked for.
        notices: why there are no tokens, where somebody asked for them.
    """

    title: str
    identity: Facts
    metrics: Facts
    sizes: Facts
    manifest: dict[str, Any]
    tokens: list[LearnedToken] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        """All names and values, in the order in which they are shown."""
        return [*self.identity, *self.metrics, *self.sizes]


def inspected(artifact: Artifact) -> Inspected:
    """What an artifact is, without its tokens."""
    m = artifact.manifest
    task = m.task or {}
    identity = [
        ("method", ", ".join(f"{key}={value}" for key, value in m.method.items())),
        ("task", f"{task['name']} ({task['type']})" if task else "–"),
    ]
    if isinstance(thresholds := task.get("thresholds"), dict):
        identity.append(("thresholds", ", ".join(f"{label} {value:.3f}" for label, value in thresholds.items())))
    identity.append(("base", f"{m.base.id} ({m.base.dtype}), digest {m.base.digest[:12]}"))
    identity.append(("reading", _reading(m)))
    sizes = [("parameters", f"{m.parameters['trained']:,} trained, {m.parameters['stored']:,} stored")]
    for name, tensor in artifact.tensors.items():
        norm = tensor.float().flatten(1).norm(dim=1) if tensor.dim() > 1 else tensor.float().abs()
        sizes.append((f"tensor {name}", f"{list(tensor.shape)}, row norms {norm.min():.3g} … {norm.max():.3g}"))
    sizes.append(_size(artifact))
    title = f"{task.get('name', '–')}: {m.method['name']} on {m.base.id}"
    return Inspected(title, identity, _metrics(m.metrics), sizes, m.as_dict())


def _reading(manifest: Manifest) -> str:
    """How an artifact reads a text."""
    if (digest := reading_digest(manifest)) is None:
        return "by itself: its base is not causal, or something is learned before the text's end"
    return f"{digest}; softprompt ask reads a text once for all artifacts with this reading"


def inspected_ensemble(ensemble: Ensemble) -> Inspected:
    """What an ensemble is: its members with their bases and weights, metrics, size."""
    m = ensemble.manifest
    identity = []
    for record, member in zip(m.members, ensemble.members.values(), strict=True):
        method, task = member.manifest.method["name"], member.manifest.task or {}
        line = f"{method} for {task.get('name', '–')} on {record.base.id}, digest {record.base.digest[:12]}"
        identity.append((f"{record.name}, weight {record.weight:.3f}", line))
    identity.append(("answer", ANSWERS[m.combine]))
    identity.append(("weights", f"chosen on {m.dev_rows:,} dev rows" if m.dev_rows else "given"))
    first = next(iter(ensemble.members.values())).manifest.task or {}
    title = f"{first.get('name', '–')}: ensemble of {len(m.members)} members"
    return Inspected(title, identity, _metrics(m.metrics), [_size(ensemble)], m.as_dict())


def inspected_page(what: Inspected) -> str:
    """The page. Equal contents give equal text."""
    from ..artifact.manifest import json_text

    env = environment(Path(__file__).parent)
    return env.get_template("inspected.html.j2").render(
        title=what.title, what=what, manifest=json_text(what.manifest).strip()
    )


def _metrics(records: Mapping[str, MetricRecord]) -> Facts:
    """A line for each split that was measured."""
    from ..metrics import Estimate

    lines = []
    for split, record in records.items():
        estimate = Estimate.from_dict(record.model_dump())
        signature = f" ({estimate.signature})" if estimate.signature else ""
        lines.append((f"{split} {estimate.metric}", f"{estimate} on {estimate.rows} rows{signature}"))
    return lines


def _size(saved: Artifact | Ensemble) -> tuple[str, str]:
    return "size", f"{saved.size / 1000:.1f} kB in all, content {saved.digest[:12]}"
