"""What `auto` tries: a probe on each base, and a prompt that is learned on the one that writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError

AUTO = "auto"
ENCODER, CAUSAL = "minilm", "smollm2"


@dataclass(frozen=True)
class Contender:
    """A method on a base.

    Attributes:
        title: for people.
        base: as a run file's `base` section, or a loaded base.
        method: its name and settings.
        cheap: its training takes no time beside the reading of the rows.
    """

    title: str
    base: Any
    method: dict[str, Any] = field(default_factory=dict)
    cheap: bool = False

    @property
    def folder_name(self) -> str:
        """Of its run, for a folder: `probe-on-minilm`; of a base in a folder its last name."""
        return f"{self.method['name']}-on-{Path(_name(self.base)).name}"


def contenders_for(base: Any, method: Any) -> list[Contender]:
    """Those that are tried, the cheap ones first; none where nothing is open.

    Args:
        base, method: as they were asked for; `auto` where they are open.

    Raises:
        ConfigError: settings beside `method: auto`, of which nobody knows what they are for.
    """
    bases = _bases(base)
    if _is_auto(method):
        if isinstance(method, Mapping) and (more := [key for key in method if key != "name"]):
            raise ConfigError(
                f"method.{more[0]} stands beside method auto, which chooses among several methods; name one, or leave it out"
            )
        learned = "prefix" if _reads_both_ways(bases[-1]) else "infix"
        return [*map(_probe, bases), Contender(f"{learned} on {_name(bases[-1])}", bases[-1], {"name": learned})]
    return list(map(_probe, bases)) if len(bases) > 1 and method in ("probe", {"name": "probe"}) else []


def _bases(base: Any) -> list[Any]:
    """The bases that are tried; what else a section says holds for each."""
    if not _is_auto(base):
        return [base]
    more = {key: value for key, value in base.items() if key != "name"} if isinstance(base, Mapping) else {}
    return [{**more, "name": name} if more else name for name in (ENCODER, CAUSAL)]


def is_open(base: Any, method: Any) -> bool:
    """Whether several ways fit what was asked for, so that one has to be chosen."""
    return bool(contenders_for(base, method))


def _probe(base: Any) -> Contender:
    return Contender(f"probe on {_name(base)}", base, {"name": "probe"}, cheap=True)


def _reads_both_ways(base: Any) -> bool:
    """Whether it does, as far as can be told before it is loaded: on other bases `infix` learns as well."""
    return bool(getattr(base, "bidirectional", False)) or _name(base) == ENCODER


def _is_auto(setting: Any) -> bool:
    return (setting.get("name") if isinstance(setting, Mapping) else setting) == AUTO


def _name(base: Any) -> str:
    return str(base.get("name") if isinstance(base, Mapping) else getattr(base, "name", base))
