"""`docs/models.md`: what came of each type of model, written from the zoo's records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import transformers

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_TITLES = {"causal": "Causal models", "masked": "Masked models", "seq2seq": "Sequence-to-sequence models"}
_HEAD = """# Models

Which types of model the engine runs exactly.

- `exact`: losses and gradients of `soft`, `prefix` and `infix` agree to 1e-4 with those of the plain model.
- `exact, but`: some methods are refused, and the others are exact.
- `refused`: loading such a base fails with one line that names the cause.
- `not tried`: the test could not build a small model of this type. At load it is checked like any other.

The check runs for every base at load, because a checkpoint of an exact type may use options that are not exact.

`python tests/zoo.py --docs` generates this page. It builds a tiny random model of every type in the mappings of
{version} and compares it with an untouched copy in eager attention. `python tests/zoo.py gemma2` checks one type.

| | types | exact | exact, but | refused | not tried |
| --- | --- | --- | --- | --- | --- |
"""
_VERDICTS = {"exact": "exact", "exact, but": "exact, but", "refused": "refused", "not built": "not tried"}
"""Each verdict of an entry, and its word on the page."""
# what a message says about one model, or repeats in every refusal
_LEFT_OUT = re.compile(
    r"(^|base '[^']*':? ?)(\(\w+\) )?(is not supported: )?|(;|, or) use another base$"
    r"|; the engine is exact for full_attention and sliding_attention only"
    r"| \(the engine's logits differ from the plain model's by [^()]*(\([^()]*\))?\)"
)


@dataclass
class Record:
    """What came of one type.

    Attributes:
        verdict: `exact`, `refused`, `not built`, or what must not be: `wrong`, `obscure`, `traceback`.
        reason: why it is refused, or not built.
        methods: how far each method is off the plain model, or why it is refused or not compared.
    """

    kind: str
    type: str
    verdict: str = "exact"
    reason: str = ""
    methods: dict[str, float | str] = field(default_factory=dict)

    def line(self) -> str:
        """For the terminal."""
        said = " ".join(f"{name}={off if isinstance(off, str) else f'{off:.0e}'}" for name, off in self.methods.items())
        return f"{self.kind} {self.type}: {self.verdict} {self.reason} {said}"

    @property
    def exceptions(self) -> str:
        """Methods that are refused on a base that is exact otherwise."""
        return "; ".join(f"`{name}` {said}" for name, said in self.methods.items() if isinstance(said, str))

    @property
    def entry(self) -> tuple[str, str]:
        """What the page says of it: a verdict, and a reason without what differs between processors."""
        if self.verdict == "exact":
            return ("exact, but" if self.exceptions else "exact"), _plain(self.exceptions)
        return self.verdict, _plain(self.reason) if self.verdict == "refused" else ""


def _plain(reason: str) -> str:
    """A reason as a cell, without the base's name, measured numbers, and advice that all reasons share."""
    return _LEFT_OUT.sub("", reason).replace("|", "\\|").strip()


def write(records: Sequence[Record]) -> None:
    """The whole page."""
    lines = [_HEAD.format(version=f"transformers {transformers.__version__}").rstrip("\n")]
    kinds = list(dict.fromkeys(record.kind for record in records))
    for kind in kinds:
        verdicts = [record.entry[0] for record in records if record.kind == kind]
        counts = [verdicts.count(verdict) for verdict in _VERDICTS]
        lines.append(f"| {_TITLES[kind]} | {len(verdicts)} | {' | '.join(map(str, counts))} |")
    for kind in kinds:
        lines += ["", f"## {_TITLES[kind]}", "", "| | types |", "| --- | --- |"]
        types: dict[tuple[str, str], list[str]] = {}
        for record in records:
            if record.kind == kind:
                types.setdefault(record.entry, []).append(f"`{record.type}`")
        order = list(_VERDICTS)
        for verdict, reason in sorted(types, key=lambda entry: (order.index(entry[0]), -len(types[entry]))):
            title = f"{_VERDICTS[verdict]}: {reason}" if reason else _VERDICTS[verdict]
            lines.append(f"| {title} | {', '.join(types[verdict, reason])} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written() -> dict[tuple[str, str], tuple[str, str]]:
    """What the page says of each kind and type, as `Record.entry`."""
    entries: dict[tuple[str, str], tuple[str, str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for kind, title in _TITLES.items():
        section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for cell, types in re.findall(r"^\| (\S.*) \| (`[^|]*) \|$", section, re.MULTILINE):
            word, _, reason = cell.partition(": ")
            verdict = next(verdict for verdict, shown in _VERDICTS.items() if shown == word)
            entries |= {(kind, name): (verdict, reason) for name in re.findall(r"`([^`]+)`", types)}
        assert any(one == kind for one, _ in entries), f"{PAGE} has no {kind} types; run python tests/zoo.py --docs"
    return entries
