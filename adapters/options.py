"""The options of PEFT's tuners that we know, with their types and bounds. Everything else is an unknown key.

An artifact, a folder of PEFT's or a run file beside it may come from a stranger. So PEFT sees no option that names a
Python module, a class, a path, an address or a base. Every size is bounded before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Annotated, Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, StringConstraints, create_model
from torch import Tensor

from softprompt.artifact.peft_folder import is_off
from softprompt.config import Strict, parse, suggest
from softprompt.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=300)]
"""A module's name, or the end of one."""
Expression = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
"""A regular expression over the names of modules; see `targets.py`."""
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=40)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Width = Annotated[int, Field(ge=0, le=1 << 24)]
"""Of a dimension: no larger than the largest of the base or, where a folder is read, of its tensors."""
Count = Annotated[int, Field(ge=0, le=1 << 40)]
"""Of numbers: no larger than all of the base's."""
Few = Annotated[int, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
_SOME = Field(max_length=1000)
"""Of patterns: PEFT tries each with each module. One a module of 140 layers are fewer."""
Names = list[Name]
Modules = Names | Expression
Tokens = list[NonNegativeInt]

OTHER_OPTIONS = {  # settings that do, or that give the base other layers
    "alora_invocation_tokens": "; method: lora with activate: cue is PEFT's activated LoRA",
    "layer_replication": "",
    "use_asa": "",
}
RATES = {"LOHA": 2e-2, "LOKR": 2e-2, "VERA": 5e-2}
"""Default learning rates of tuners that hardly move at the others' (benchmarks/LOG.md, 2026-11-30)."""


class _Options(Strict):
    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)


class VeLora(_Options):
    """PEFT's VeloraConfig."""

    num_groups: PositiveInt = 64
    scale: Number = 1.0
    init_type: Word = "batch_average"


class MonteCLora(_Options):
    """PEFT's MontecloraConfig."""

    num_samples: Few = 8
    use_entropy: bool = False
    dirichlet_prior: Number = 0.1
    sample_scaler: Number = 3e-4
    kl_loss_weight: Number = 1e-5
    buffer_size: Annotated[int, Field(ge=1, le=10_000)] = 150


_GROUPS: dict[Any, str] = {
    Modules: "target_modules exclude_modules feedforward_modules",
    Names: "modules_to_save target_parameters",
    Names | Name: "layers_pattern",
    Annotated[dict[Expression, Width], _SOME]: "rank_pattern block_size_pattern n_frequency_pattern",
    Annotated[dict[Expression, Number], _SOME]: "alpha_pattern lambda_pattern",
    Width: "r subspace_rank num_subspaces boft_block_size boft_block_num block_size vector_length topk group_size u mini_r "
    "oft_block_size gralora_k hybrid_r qalora_group_size",
    Count: "n_frequency theta_d_length num_vectors",
    Few: "depth boft_n_butterfly_factor num_cayley_neumann_terms psoft_svd_lowrank_niter",
    Annotated[int, Field(ge=-1, le=1 << 24)]: "decompose_factor",
    Number: "lora_alpha alpha psoft_alpha randlora_alpha delora_lambda scaling init_scale d_initial init_v_bound eps "
    "init_theta_d_bound init_vector_bank_bound init_logits_std regularization_alpha cayley_neumann_eps",
    Share: "lora_dropout hira_dropout frod_dropout vera_dropout pvera_dropout randlora_dropout tinylora_dropout "
    "vblora_dropout unilora_dropout gralora_dropout deft_dropout miss_dropout psoft_dropout boft_dropout rank_dropout "
    "module_dropout",
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]: "sparse_rate sparsity svd_threshold weight_tying",
    Width | Number: "effective_rank",
    Seed: "projection_prng_key random_seed random_loc_seed projection_seed proj_seed",
    bool | Word: "init_lora_weights init_weights init_ia3_weights",
    Word: "bias act_fn decomposition_method variant mask_type ab_svd_init psoft_svd wavelet_family config_A_B config_C "
    "config_D_E",
    bool: "use_rslora use_dora use_qalora lora_bias ensure_weight_tying fan_in_fan_out coft block_share para apply_GS "
    "use_cayley_neumann decompose_both rank_dropout_scale use_effective_conv2d save_projection sparse very_sparse "
    "save_only_topk_weights use_idwt proportional_parameters psoft_orth psoft_mag_a psoft_mag_b use_dynamic_rank "
    "select_top save_precomputed_indices save_indices",
    Tokens: "token_indices",
    Tokens | dict[Name, Tokens]: "trainable_token_indices",
    VeLora: "velora_config",
    MonteCLora: "monteclora_config",
}
_KNOWN: dict[str, Any] = {name: kind for kind, names in _GROUPS.items() for name in names.split()}
_WIDTHS, _COUNTS = set(_GROUPS[Width].split()) | {"rank_pattern", "block_size_pattern"}, set(_GROUPS[Count].split())

_OTHER_FORWARD = {"ADALORA", "XLORA", "POLY", "SHADOW"}  # need calls of their own in each step, or ids
MIXES_ROWS = {"LILY": "its router takes the mean over all tokens of a batch"}


def types() -> dict[str, type[PeftConfig]]:
    """PEFT's tuners that change modules, by name, with their configurations."""
    tuners = {}
    for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items():
        if issubclass(tuner, BaseTuner) and kind.value not in _OTHER_FORWARD | MIXES_ROWS.keys():
            tuners[kind.value] = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    return tuners


def known_options(config: type[PeftConfig]) -> list[str]:
    """The options of one tuner, by PEFT's configuration of it, that may be set."""
    return [name for name in config.__dataclass_fields__ if name in _KNOWN]


def check_options(config: type[PeftConfig], options: Mapping[str, Any]) -> None:
    """Refuse what is not on the list, or of another type, or out of bounds.

    Args:
        config: PEFT's configuration class of the tuner.

    Raises:
        ConfigError: with the nearest known name.
    """
    parse(_model(config.__name__, tuple(known_options(config))), dict(options), "options")


def check_sizes(config: type[PeftConfig], options: Mapping[str, Any], widest: int, numbers: int, what: str) -> None:
    """Refuse sizes that what is at hand cannot fill, before anything of that size is allocated.

    Args:
        widest: the largest dimension of `what`.
        numbers: how many numbers it has.
        what: for the message: the base, or the file.

    Raises:
        ConfigError: names the option.
    """
    for name, value in options.items():
        limit = widest if name in _WIDTHS else numbers if name in _COUNTS or name == "n_frequency_pattern" else None
        if limit is None or value is None:
            continue
        usual = config.__dataclass_fields__[name].default
        limit = max(limit, usual if isinstance(usual, int) else 0)
        largest = max(value.values(), default=0) if isinstance(value, dict) else value
        if largest > limit:
            raise ConfigError(f"{name} is {largest:,}, but {what} has room for {limit:,} at most; use a smaller one")


def check_tokens(options: Mapping[str, Any], vocabulary: int) -> None:
    """Refuse ids of tokens that the base does not have.

    Raises:
        ConfigError: the first of them.
    """
    for key in ("token_indices", "trainable_token_indices"):
        value = options.get(key) or []
        for ids in value.values() if isinstance(value, dict) else [value]:
            for token in ids:
                if token >= vocabulary:
                    raise ConfigError(f"{key}: the base has no token {token}, it has 0 to {vocabulary - 1}")


def read_options(
    config: type[PeftConfig],
    given: Mapping[str, Any],
    where: str,
    harmless: frozenset[str],
    tensors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """See `_changed`; with sizes that the folder's own tensors have. This asks for no base.

    Raises:
        ConfigError: an option of another type, or larger than the tensors.
    """
    found = _changed(config, given, where, harmless)
    try:
        check_options(config, found)
        widest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
        check_sizes(config, found, widest, sum(tensor.numel() for tensor in tensors.values()), "its file of tensors")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return found


def _changed(
    config: type[PeftConfig], given: Mapping[str, Any], where: str, harmless: frozenset[str]
) -> dict[str, Any]:
    """The options of a configuration file that PEFT wrote: those that are set to something else than PEFT's default.

    Args:
        given: the file's keys.
        where: the file, for messages.
        harmless: keys that say something of the folder and not of the tuner.

    Raises:
        ConfigError: a key that would change the result and is none of ours; a switch that is off is none.
    """
    usual = {key: as_json(value) for key, value in config(task_type="CAUSAL_LM").to_dict().items()}
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key in harmless or (key in usual and value == usual[key]):
            continue
        if key in _KNOWN and key in usual:
            if value is not None:
                found[key] = value
        elif not is_off(value):
            known = known_options(config)
            raise ConfigError(f"{where}: unknown key {key[:80]!r}, which may change the result{suggest(key, known)}")
    return found


@functools.cache
def _model(config: str, known: tuple[str, ...]) -> type[_Options]:
    fields: dict[str, Any] = {name: (_KNOWN[name] | None, None) for name in known}
    return create_model(f"{config}Options", __base__=_Options, **fields)


def as_json(value: Any) -> Any:
    """As JSON holds it; sets sorted, so that equal settings give equal bytes."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: as_json(part) for key, part in dataclasses.asdict(value).items()}
    return value
