"""Any tuner of PEFT that changes modules (IA3, VeRA, OFT, LoKr …), through PEFT's own API: `method: peft:IA3`.

PEFT puts its modules into a branch of the base, gives and takes the state dict, and merges. Saved as PEFT saves it, so
`PeftModel.from_pretrained` loads the folder.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from pydantic import Field, model_validator
from softprompt.adapters.weights import WeightsMethod, WeightsSpec, plain, take, written_names
from torch import Tensor, nn

from softprompt.base import Base
from softprompt.config import suggest
from softprompt.errors import ConfigError
from softprompt.methods.base import TrainDefaults
from softprompt.tasks import BoundTask

_OURS = ("peft_type", "task_type", "inference_mode", "auto_mapping", "layers_to_transform")
_OTHER_FORWARD = {"ADALORA", "XLORA", "POLY", "SHADOW"}  # need calls of their own in each step, or ids
_MIXES_ROWS = {"LILY": "its router takes the mean over all tokens of a batch"}
_OTHER_OPTIONS = {  # settings that do, or that give the base other layers
    "alora_invocation_tokens": "; method: lora with activate: cue is PEFT's activated LoRA",
    "layer_replication": "",
    "use_asa": "",
}
_ROUND = "base_model.model."  # PEFT's name of the model inside
_STARTS = ("gaussian", "orthogonal")  # of LoRA, besides PEFT's own; PiSSA, OLoRA, CorDA and LoftQ change the base


class TunerSpec(WeightsSpec):
    """Settings of `peft:TYPE`, beside every key of PEFT's own configuration of that type.

    Attributes:
        type: PEFT's name of the tuner: IA3, VERA, OFT, LOKR …
        options: the settings that are PEFT's own, as `PEFT's-key: value` (they may also stand beside `type`).
    """

    type: str = "IA3"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        """`peft:IA3` is a type, and what is not ours is an option of PEFT's."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        name, _, kind = str(data.get("name", "")).partition(":")
        if kind:
            data.update(name=name, type=kind)
        kind = str(data.get("type", cls.model_fields["type"].default)).upper()
        if kind in _MIXES_ROWS:
            raise ValueError(f"with PEFT's {kind} a row's answer depends on the rows beside it: {_MIXES_ROWS[kind]}")
        if kind not in types():
            raise ValueError(f"PEFT has no tuner {kind!r} that can be used here{suggest(kind, types())}")
        given = {key: data.pop(key) for key in list(data) if key not in cls.model_fields}
        options = {**data.get("options", {}), **given}
        known = [key for key in inspect.signature(types()[kind]).parameters if key not in _OURS]
        for key in options:
            if key not in known:
                raise ValueError(f"unknown key {key!r}{suggest(key, [*known, *cls.model_fields])}")
        return {**data, "type": kind, "options": options}


class Tuner(WeightsMethod):
    """PEFT's modules in a branch of the base."""

    title = "any tuner of PEFT that changes modules, by its own settings: peft:IA3, peft:VERA, peft:OFT, peft:LOKR …"
    Spec = TunerSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=5e-3, epochs=3, batch_size=16)
    spec: Any
    _model: Any = None
    _kind: str = ""

    def config(self, base: Base) -> Any:
        """PEFT's configuration of this method."""
        return self._made(self.spec.type, dict(self.spec.options), base)

    def _made(self, kind: str, options: dict[str, Any], base: Base) -> Any:
        config = types()[kind]
        options = copy.deepcopy(options)  # PEFT writes into lists that it is given
        known = inspect.signature(config).parameters
        start = options.get("init_lora_weights", True)
        if not isinstance(start, bool) and start not in _STARTS:
            raise ConfigError(
                f"PEFT's init_lora_weights {start!r} changes the base's own weights or needs calls of its own; the base "
                f"stays as it is here, so take one of true, {', '.join(_STARTS)}"
            )
        for key in _OTHER_OPTIONS.keys() & {key for key, value in options.items() if value}:
            raise ConfigError(f"PEFT's {kind} cannot be trained here with {key}{_OTHER_OPTIONS[key]}")
        if self.spec.layers:
            if "layers_to_transform" not in known:
                raise ConfigError(f"PEFT's {kind} takes no layers; leave out method.layers")
            options["layers_to_transform"] = list(self.layers(base))
        if "target_modules" in known and not options.get("target_modules") and not _has_default(kind, base):
            options["target_modules"] = "all-linear"
        try:
            # PEFT's wrappers of other kinds ask for what an encoder does not have
            types_of = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
            return config(task_type=types_of.get(base.kind, "FEATURE_EXTRACTION"), **options)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"PEFT's {kind} does not take these settings: {_first_line(error)}") from None

    def default_settings(self) -> dict[str, Any]:
        """PEFT's configuration of this type as it is when nothing is set, as JSON."""
        return {key: _json(value) for key, value in types()[self.spec.type](task_type="CAUSAL_LM").to_dict().items()}

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Let PEFT put its modules in; their start depends on the seed."""
        self._put_in(base, seed)

    def _put_in(self, base: Base, seed: int, own: frozenset[str] = frozenset()) -> None:
        """PEFT's modules in a branch of the base, with a copy of each weight of the base that they train or save (biases).

        Args:
            own: names of the base's weights that get a copy in any case.
        """
        with _frozen(base):
            model = self._wrapped(base.branch(own.__contains__), seed)
            written = written_names(base, self._learned(model))
            if written:
                model = self._wrapped(base.branch((own | written).__contains__), seed)
        if left := written_names(base, self._learned(model)):
            raise ConfigError(f"PEFT's {self._kind} would write to the base's own {min(left)!r}; change these settings")
        self._model = model

    def _wrapped(self, branch: Base, seed: int) -> Any:
        """PEFT's model round that of the branch, which is this method's from now on."""
        config, before = self.config(branch), {name for name, _ in branch.model.named_modules()}
        self._kind = name = config.peft_type.value
        with _quiet(), torch.random.fork_rng(), _base_kept(branch, name):
            torch.manual_seed(seed)
            try:
                model = peft.get_peft_model(branch.model, config)
            except Exception as error:  # each of PEFT's tuners refuses settings in its own way
                raise ConfigError(f"PEFT cannot put {name} into this base: {_first_line(error)}") from error
        for path, module in model.named_modules():
            # PEFT compares ends of names: `norm` is also the end of DELORA's own `delora_w_norm`, which it then cannot load
            if isinstance(module, AuxiliaryTrainingWrapper) and (at := path.removeprefix(_ROUND)) not in before:
                raise ConfigError(f"a name of PEFT's modules_to_save fits its own {at!r}; give the module's whole name")
        # else PEFT would ask the hub whether the base's vocabulary has grown, whenever tensors are exported
        model.peft_config["default"].base_model_name_or_path = None
        if not any(weight.requires_grad and weight.numel() for weight in model.parameters()):
            raise ConfigError(f"PEFT's {name} has nothing to train with these settings; name what it is to change")
        model.eval()
        branch.rewire()
        self._branch = branch
        return model

    def _learned(self, model: Any) -> list[Tensor]:
        """What training moves, and loading writes."""
        try:
            with _quiet():
                saved = peft.get_peft_model_state_dict(model)
        except Exception as error:  # e.g. DELORA does not find its own tensors with `bias`
            raise ConfigError(
                f"PEFT cannot save {self._kind} with these settings ({_first_line(error)}); change them"
            ) from error
        return [*(weight for weight in model.parameters() if weight.requires_grad), *saved.values()]

    def parameters(self) -> list[nn.Parameter]:
        """PEFT's."""
        return [] if self._model is None else [p for p in self._model.parameters() if p.requires_grad]

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """PEFT's modules are in train() for a training step's forward and backward only; the base stays in eval()."""
        own = list(_own_modules(self._model))
        for module in own:
            module.training = True  # and not train(), which would reach the base's own modules inside
        try:
            yield
        finally:
            for module in own:
                module.training = False

    def export(self) -> dict[str, Tensor]:
        """PEFT's state dict."""
        with _quiet():
            return plain(peft.get_peft_model_state_dict(self._model))

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Put PEFT's modules into a branch and the tensors into them."""
        self._put_in(base, 0)
        self._fill(tensors)

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        take(tensors, self.export(), self.spec.name)
        with _quiet():
            peft.set_peft_model_state_dict(self._model, tensors)
        self._model.requires_grad_(False)

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """As PEFT writes it."""
        values = self._model.peft_config["default"].to_dict()
        plainly = {key: _json(value) for key, value in values.items()}
        return {**plainly, "base_model_name_or_path": base.name, "inference_mode": True}

    def merged(self, base: Base) -> Any:
        """PEFT merges its weights into a copy of the base's.

        Raises:
            ConfigError: this tuner cannot be merged.
        """
        tensors = self.export()
        whole = make_again(self)
        whole._put_in(base, 0, frozenset(name for name, _ in base.model.named_parameters()))
        whole._fill(tensors)
        out, embeddings = whole._model.get_output_embeddings(), whole._model.get_input_embeddings()
        if isinstance(out, BaseTunerLayer) and out.get_base_layer().weight is embeddings.weight:
            raise ConfigError(
                "the output layer that was changed shares its weight with the embeddings, which merging would change, too; "
                "serve the artifact instead"
            )
        try:
            return whole._model.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
            raise ConfigError(f"PEFT cannot merge {self._kind} into the base: {_first_line(error)}") from error


def make_again(method: Tuner) -> Tuner:
    """A method of the same settings that is not attached."""
    return type(method)(method.spec)


def types() -> dict[str, type]:
    """PEFT's tuners that change modules, by name, with their configurations."""
    found = {}
    for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items():
        if issubclass(tuner, BaseTuner) and kind.value not in _OTHER_FORWARD:
            found[kind.value] = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    return found


def _has_default(kind: str, base: Base) -> bool:
    """Whether PEFT knows which modules of this family the tuner goes into."""
    if kind in ("IA3", "TRAINABLE_TOKENS"):
        return True  # they choose by themselves: with a list of their own, and the embedding layer
    tuner = next(t for k, t in PEFT_TYPE_TO_TUNER_MAPPING.items() if k.value == kind)
    mapping = getattr(tuner, "target_module_mapping", None) or {}
    return base.model.config.model_type in mapping


def _own_modules(model: nn.Module) -> Iterator[nn.Module]:
    """PEFT's tuner layers and what they hold, without the base's layers that they stand round."""
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            inside = getattr(layer, "base_layer", None)
            base = {id(module) for module in inside.modules()} if isinstance(inside, nn.Module) else set()
            yield from (module for module in layer.modules() if id(module) not in base)


@contextlib.contextmanager
def _frozen(base: Base) -> Iterator[None]:
    """PEFT marks what it trains, which may be the base's own weight before the branch has a copy of it."""
    try:
        yield
    finally:
        base.model.requires_grad_(False)


@contextlib.contextmanager
def _base_kept(branch: Base, name: str) -> Iterator[None]:
    """Undo and refuse what replaces the base's own weights, which the branch shares with everybody.

    Raises:
        ConfigError: a weight was replaced.
    """
    before = [(weight, weight.data) for weight in branch.model.parameters()]
    yield
    changed = [(weight, data) for weight, data in before if weight.data_ptr() != data.data_ptr()]
    for weight, data in changed:
        weight.data = data
    if changed:
        raise ConfigError(
            f"PEFT's {name} with these settings starts by changing the base's own weights, which stay as they are here; "
            "take another start"
        )


def _json(value: Any) -> Any:
    """As JSON holds it; sets sorted, so that equal settings give equal bytes."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: _json(part) for key, part in dataclasses.asdict(value).items()}
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's advice on how it might be called otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
