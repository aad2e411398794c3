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

Which architectures are exact here. The page is generated: `python tests/zoo.py --docs` builds a tiny random model of every
type in transformers' own mappings ({version}). It compares losses and gradients of `soft`, `prefix` and `infix` with an
untouched copy in eager attention. `exact`: they agree to 1e-4 (measured: 1e-6). Everything else is refused at load, in one line
that names the cause. `python tests/zoo.py gemma2` tries one type. A checkpoint of an exact type may use options that are not.

| | types | exact | exact, but for some methods | refused | not tried |
| --- | --- | --- | --- | --- | --- |
"""


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
        return self.verdict, _plain(self.reason)


def _plain(reason: str) -> str:
    """A reason as a cell, without the base's name and without measured numbers."""
    reason = re.sub(r"base '[^']*':? ?", "", reason)
    return re.sub(r"by \d[\d.e+-]*( \(allowed [^)]*\))?", "by too much", reason).replace("|", "\\|").strip()


def write(records: Sequence[Record]) -> None:
    """The whole page."""
    lines = [_HEAD.format(version=f"transformers {transformers.__version__}").rstrip("\n")]
    kinds = list(dict.fromkeys(record.kind for record in records))
    for kind in kinds:
        found = [record.entry[0] for record in records if record.kind == kind]
        counts = [found.count(verdict) for verdict in ("exact", "exact, but", "refused", "not built")]
        lines.append(f"| {_TITLES[kind]} | {len(found)} | {' | '.join(map(str, counts))} |")
    for kind in kinds:
        mine = [record for record in records if record.kind == kind]
        exact = [f"`{record.type}`" for record in mine if record.entry[0] == "exact"]
        lines += [
            "",
            f"## {_TITLES[kind]}",
            "",
            f"Exact: {', '.join(exact)}.",
            "",
            "| type | | why |",
            "| --- | --- | --- |",
        ]
        others = [record for record in mine if record.entry[0] != "exact"]
        lines += [f"| `{record.type}` | {' | '.join(record.entry)} |" for record in others]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written() -> dict[tuple[str, str], tuple[str, str]]:
    """What the page says of each kind and type, as `Record.entry`."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for kind, title in _TITLES.items():
        part = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        exact = re.search(r"^Exact: (.*)\.$", part, re.MULTILINE)
        assert exact is not None, f"{PAGE} has no list of exact {kind} types; run python tests/zoo.py --docs"
        found |= {(kind, name): ("exact", "") for name in re.findall(r"`([^`]+)`", exact[1])}
        for name, verdict, reason in re.findall(r"^\| `([^`]+)` \| ([^|]+) \| (.*) \|$", part, re.MULTILINE):
            found[kind, name] = (verdict, reason)
    return found
