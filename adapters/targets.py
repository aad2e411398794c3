"""Which modules of the base a tuner goes into: lists of names for PEFT, whatever the settings say.

PEFT matches a text as a regular expression, with Python's `re`, which knows no limit of time. So a text never reaches it: it is
matched here, under limits, and PEFT gets the names that it fits.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import regex
import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from softprompt.base import Base
from softprompt.errors import ConfigError

ALL_LINEAR = "all-linear"  # PEFT's word
_SECONDS = 0.2  # for all names of one model (the library looks at its clock late, at about four times this)
_REPEATS = 1000  # what the numbers in braces of one expression may multiply to
_BRACES = regex.compile(r"\{([0-9]*),?([0-9]*)\}")
_GROUP = regex.compile(r"\(\?(?!:|=|!|<=|<!)")  # recursion, conditions, flags
_TEXTS = ("target_modules", "exclude_modules", "feedforward_modules")
_PATTERNS = ("rank_pattern", "alpha_pattern", "lambda_pattern", "block_size_pattern", "n_frequency_pattern")
_BY_THEMSELVES = ("IA3", "TRAINABLE_TOKENS")  # with a list of their own, and the embedding layer


def resolved(
    kind: str, options: Mapping[str, Any], base: Base, takes: Iterable[str], as_before: bool
) -> dict[str, Any]:
    """The options with names of modules in place of expressions, and in place of nothing where PEFT would find none.

    Args:
        takes: the options that this tuner has.
        as_before: choose as earlier versions did, whose artifacts change modules beside the text's, too (an image encoder's).

    Raises:
        ConfigError: no such modules, or an expression that cannot be matched.
    """
    found = dict(options)
    names = [name for name, _ in base.model.named_modules() if name]
    for key in _TEXTS:
        value = found.get(key)
        if isinstance(value, str) and value.lower() != ALL_LINEAR:
            found[key] = _with_short(matching(value, names, key))
    weights = [name for name, _ in base.model.named_parameters()]  # which `target_parameters` may name
    for key in _PATTERNS:
        if found.get(key):
            found[key] = _by_name(found[key], [*names, *weights], key)
    for key in ("modules_to_save", "target_parameters"):
        for name in found.get(key) or ():
            _check_there(name, key, base)
    if "target_modules" in takes and not found.get("target_parameters"):
        found["target_modules"] = _targets(kind, found, base, as_before)
    return found


def as_given(values: Mapping[str, Any], given: Mapping[str, Any], passed: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's configuration with the expressions that were given in place of the names that they fit.

    Args:
        values: the configuration as it is now.
        given, passed: the options before and after `resolved`.
    """
    rewritten = values.get("target_parameters") != passed.get("target_parameters")  # by PEFT, for families with experts
    changed = {key for key in _PATTERNS if values.get(key) != passed.get(key)} | (set(_TEXTS) if rewritten else set())
    texts = {key: given[key] for key in (*_TEXTS, *_PATTERNS) if given.get(key) and key not in changed}
    return {**values, **{key: value for key, value in texts.items() if str(value).lower() != ALL_LINEAR}}


def matching(expression: str, names: Iterable[str], what: str) -> list[str]:
    """The names that an expression fits as a whole.

    Raises:
        ConfigError: no regular expression, one that takes too long, or that fits none.
    """
    return [name for name, _ in _matches([expression], names, what)] or _none(expression, what)


def _matches(expressions: Iterable[str], names: Iterable[str], what: str) -> Iterator[tuple[str, str]]:
    """Each name with the first expression that fits it."""
    end = time.monotonic() + _SECONDS
    compiled = [(expression, _compiled(expression, what)) for expression in expressions]
    for name in names:
        for expression, pattern in compiled:
            try:
                if pattern.fullmatch(name, timeout=max(1e-3, end - time.monotonic())):
                    yield name, expression
                    break
            except TimeoutError:
                raise ConfigError(f"{what}: {expression[:60]!r} takes too long to match; list the modules") from None


def _compiled(expression: str, what: str) -> regex.Pattern:
    """Of a bounded size: numbers in braces are counted before anything is made of them."""
    times = 1
    braces = _BRACES.findall(expression)
    for least, most in braces:
        times *= max(1, int(least[:9] or 0), int(most[:9] or 0))
    plain = expression.count("{") == len(braces) and not _GROUP.search(expression)
    if len(expression) > 1000 or times > _REPEATS or not plain:
        raise ConfigError(f"{what}: {expression[:60]!r} is more than a plain regular expression; list the modules")
    try:
        return regex.compile(expression)
    except (regex.error, RecursionError, OverflowError, MemoryError):
        raise ConfigError(f"{what}: {expression[:60]!r} is no regular expression; list the modules") from None


def _by_name(values: Mapping[str, Any], names: list[str], what: str) -> dict[str, Any]:
    """A pattern's values; as they are where each key is (the end of) a name, else by the names that they fit."""
    if all(key.replace(".", "").replace("_", "").replace("-", "").isalnum() for key in values):
        return dict(values)
    ends = [key[1:] if key.startswith("^") else f"(?:.*\\.)?(?:{key})" for key in values]
    keys = dict(zip(ends, values, strict=True))
    return {name: values[keys[end]] for name, end in _matches(ends, names, what)}


def _targets(kind: str, options: Mapping[str, Any], base: Base, as_before: bool) -> Collection[str] | None:
    """Names of the modules that a tuner goes into, or PEFT's `all-linear`; None where it chooses by itself, and rightly."""
    asked = options.get("target_modules")
    named = asked or _usual(kind, base)
    if named is None and kind in _BY_THEMSELVES:
        return None
    beside = [] if as_before else beside_text(base)
    if named is None and kind == "LN_TUNING" and not as_before:
        return [name for name, module in base.model.named_modules() if "Norm" in type(module).__name__]
    if named is None or isinstance(named, str):
        # PEFT takes its word for more than the linear layers in families with experts, but not together with layers
        linears, odd = _linears(base), [*beside, *_routers(base)]
        if not odd and options.get("layers_to_transform") is None:
            return ALL_LINEAR
        inside = [name for name in linears if not within(name, odd)]
        if options.get("layers_to_transform") is None:
            return inside
        return [name.partition(".")[2] for name in inside if "." in name]  # whole names PEFT takes in all layers
    if not beside:
        return asked if asked or kind in _BY_THEMSELVES else set(named)
    ends = tuple(f".{name}" for name in named)
    inside = [name for name, _ in base.model.named_modules() if f".{name}".endswith(ends)]
    return [name for name in inside if not within(name, beside)] or asked


def all_linear_fits(base: Base) -> bool:
    """Whether PEFT's `all-linear` means the linear layers of a base, and no other modules than those.

    It does not where there are experts, to which PEFT extends the word: those are most of the numbers. Nor does it where layers
    that PEFT usually changes are of a class of their own, which the word leaves out.
    """
    linears = set(_linears(base))
    ends = tuple(f".{name}" for name in _usual("LORA", base) or ())
    usual = [name for name, _ in base.model.named_modules() if f".{name}".endswith(ends)] if ends else []
    return bool(linears) and linears.issuperset(usual) and not _has_experts(base)


def choice_of_peft(base: Base) -> list[str] | str:
    """What a LoRA of PEFT's changes in this family when its configuration names nothing: names, or `all-linear`."""
    return sorted(_usual("LORA", base) or ()) or ALL_LINEAR


def _has_experts(base: Base) -> bool:
    """Whether layers are divided into experts, each a module or a slice of one weight."""
    if any("experts" in name.split(".") for name, _ in base.model.named_modules()):
        return True
    others = (module for module in base.model.modules() if not isinstance(module, _ConvNd))
    weights = (weight for module in others for weight in module.parameters(recurse=False))
    return any(weight.dim() == 3 and len(weight) > 1 for weight in weights)


def _usual(kind: str, base: Base) -> Collection[str] | None:
    """PEFT's own choice for this family, where this model has such modules."""
    tuner = next(t for k, t in PEFT_TYPE_TO_TUNER_MAPPING.items() if k.value == kind)
    mapping = getattr(tuner, "target_module_mapping", None) or {}
    named = mapping.get(base.model.config.model_type)
    if not isinstance(named, (list, tuple, set)):
        return None
    layers = [name for name, _ in base.model.named_modules()]
    return named if any(f".{name}".endswith(tuple(f".{end}" for end in named)) for name in layers) else None


def _linears(base: Base) -> list[str]:
    """All linear layers but the output layer, as PEFT's `all-linear`."""
    output = base.model.get_output_embeddings()
    found = [(name, module) for name, module in base.model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    return [name for name, module in found if module is not output]


def _routers(base: Base) -> list[str]:
    """Linear layers whose forward gives something else than a tensor."""
    found = [(name, module) for name, module in base.model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name, module in found if not _gives_tensor(module)]


def _gives_tensor(module: nn.Linear) -> bool:
    """Whether a linear layer of the family's own (Phi-MoE's router is one) gives what PEFT adds its update to."""
    if not type(module).__module__.startswith("transformers.models."):
        return True
    weight = module.weight
    with torch.no_grad():
        try:
            return isinstance(module(weight.new_zeros(1, 1, module.in_features)), torch.Tensor)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            return False


def beside_text(base: Base) -> list[str]:
    """Modules of a model of texts and images that texts do not run through: the highest of them, by name."""
    config = base.model.config
    if base.has_decoder or config.get_text_config() is config:
        return []
    text = base.model.get_decoder()
    inside = {id(module) for module in [*text.modules(), base.model.get_output_embeddings()]}
    found: list[str] = []
    for name, module in base.model.named_modules():
        holds = any(id(part) in inside for part in module.modules())
        if not holds and not within(name, found):
            found.append(name)
    return found


def _check_there(name: str, what: str, base: Base) -> None:
    """Refuse a name that PEFT would pass over in silence."""
    parts = [path for path, _ in base.model.named_modules()]
    if what == "target_parameters":
        parts = [path for path, _ in base.model.named_parameters()]
    if not any(f".{path}".endswith(f".{name}") for path in parts):
        raise ConfigError(f"{what}: base {base.name!r} has no {name!r}; name a part of it, or leave it out")


def _with_short(names: list[str]) -> list[str]:
    """PEFT looks for embeddings by the last part of their name, when it decides whether to save them."""
    last = {name.rpartition(".")[2] for name in names}
    return [*names, *(name for name in EMBEDDING_LAYER_NAMES if name in last and name not in names)]


def within(name: str, parents: Iterable[str]) -> bool:
    """Whether a name is one of these, or of a part of one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _none(expression: str, what: str) -> NoReturn:
    raise ConfigError(f"{what}: {expression[:60]!r} fits no module of this base; name those that it has")
