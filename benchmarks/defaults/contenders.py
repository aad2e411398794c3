"""All contenders by name. A new one is an entry here."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.benchmarks.defaults.auto import Auto
from softprompt.benchmarks.defaults.baselines import Majority, TfIdf
from softprompt.benchmarks.defaults.contender import Contender
from softprompt.benchmarks.defaults.encoders import FrozenStates, SetFit
from softprompt.benchmarks.defaults.product import ProductMethod
from softprompt.config import suggest
from softprompt.errors import ConfigError

PROBE = "probe"
_CONTRASTIVE = {"objective": "contrastive"}
_METHODS = (PROBE, "infix", "soft", "prefix", "p_tuning", "lora", "full")
_EVERY: tuple[Contender, ...] = (
    Auto(),
    Majority(),
    TfIdf(),
    FrozenStates(),
    SetFit(),
    SetFit("setfit-60", max_steps=60),
    *(ProductMethod(name, {"name": name}) for name in _METHODS),
    ProductMethod("lora-cue", {"name": "lora", "activate": "cue"}),
    *(ProductMethod(f"minilm-{name}", {"name": name}, "minilm") for name in (PROBE, "prefix", "lora", "full")),
    *(ProductMethod(f"minilm-{name}-contrastive", {"name": name}, "minilm", _CONTRASTIVE) for name in ("lora", "full")),
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _EVERY}


def chosen(names: Sequence[str]) -> list[Contender]:
    """The contenders of these names, or all of them.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ConfigError(f"no contender {name!r}{suggest(name, CONTENDERS)}")
    return [CONTENDERS[name] for name in names or CONTENDERS]
