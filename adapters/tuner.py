"""Any tuner of PEFT that changes modules (IA3, VeRA, OFT, LoKr …), through PEFT's own API: `method: peft:IA3`.

PEFT puts its modules into a branch of the base, gives and takes the state dict, and merges. Saved as PEFT saves it, so
`PeftModel.from_pretrained` loads the folder.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import peft
import torch
from peft import PeftConfig, PeftModel, PeftType
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.adapters.guards import base_kept, first_line, kept_frozen, outline, own_modules, quiet_peft
from softprompt.adapters.options import (
    MIXES_ROWS,
    OTHER_OPTIONS,
    RATES,
    as_json,
    check_options,
    check_sizes,
    check_tokens,
    read_options,
    types,
)
from softprompt.adapters.state import asks_numbers, check_goes_round, check_merged, probe, put, saved
from softprompt.adapters.targets import as_given, beside_text, resolved, within
from softprompt.adapters.weights import WeightsMethod, WeightsSpec, check_layers, plain, take, written_names
from softprompt.artifact.peft_folder import PLAIN_STARTS
from softprompt.base import Base
from softprompt.config import suggest
from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods.base import TrainDefaults
from softprompt.randomness import seeded
from softprompt.tasks import BoundTask

_ROUND = "base_model.model."  # PEFT's name of the model inside
_NOT_OUTLINED = ".lora_monteclora_sampler."  # PEFT makes it only where there are numbers


class TunerSpec(WeightsSpec):
    """Settings of `peft:TYPE`, beside the keys of PEFT's own configuration of that type that are known (`options.py`).

    Attributes:
        type: PEFT's name of the tuner: IA3, VERA, OFT, LOKR …
        options: PEFT's own settings, as `PEFT's-key: value`. They may also stand beside `type`.
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
        if kind in MIXES_ROWS:
            raise ValueError(f"with PEFT's {kind} an answer depends on other rows of its batch: {MIXES_ROWS[kind]}")
        if kind not in types():
            raise ValueError(f"PEFT has no tuner {kind[:40]!r} that can be used here{suggest(kind[:40], types())}")
        given = {key: data.pop(key) for key in list(data) if key not in cls.model_fields}
        options = data.get("options", {})
        return {**data, "type": kind, "options": {**options, **given} if isinstance(options, dict) else options}

    @model_validator(mode="after")
    def _know(self) -> TunerSpec:
        check_given(self.type, self.options)
        return self


def check_given(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse (ValueError) options that this tuner does not have, or that cannot be used here."""
    for key in OTHER_OPTIONS.keys() & {key for key, value in options.items() if value}:
        raise ValueError(f"PEFT's {kind} cannot be trained here with {key}{OTHER_OPTIONS[key]}")
    start = options.get("init_lora_weights", True)
    if isinstance(start, str) and start not in PLAIN_STARTS:
        raise ValueError(
            f"PEFT's init_lora_weights {start[:40]!r} changes the base's own weights or needs calls of its own; the base stays "
            f"as it is here, so use one of true, {', '.join(PLAIN_STARTS)}"
        )
    try:
        check_options(types()[kind], {key: value for key, value in options.items() if key not in OTHER_OPTIONS})
    except ConfigError as error:
        raise ValueError(str(error)) from None


class Tuner(WeightsMethod):
    """PEFT's modules in a branch of the base."""

    title = "any tuner of PEFT that changes modules, by its own settings: peft:IA3, peft:VERA, peft:OFT, peft:LOKR …"
    Spec: ClassVar[type[WeightsSpec]] = TunerSpec
    _peft_model: PeftModel | None = None
    _kind: str = ""
    _as_before = False
    _given: dict[str, Any]
    _passed: dict[str, Any]

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        rate = RATES.get(getattr(self.spec, "type", ""), 5e-3)
        return TrainDefaults(lr=rate, epochs=3, min_steps=96, batch_size=16)

    def config(self, base: Base) -> PeftConfig:
        """PEFT's configuration of this method."""
        assert isinstance(self.spec, TunerSpec)  # LoRA, which has settings of its own, has this function, too
        return self._made(self.spec.type, dict(self.spec.options), base)

    def _made(self, kind: str, options: dict[str, Any], base: Base) -> PeftConfig:
        config = types()[kind]
        options = copy.deepcopy(options)  # PEFT writes into lists that it is given
        known = config.__dataclass_fields__
        weights = list(base.model.parameters())
        widest = max(size for weight in weights for size in weight.shape)
        check_sizes(config, options, widest, sum(weight.numel() for weight in weights), f"base {base.name!r}")
        check_tokens(options, base.shape.vocab_size)
        if self.spec.layers:
            if "layers_to_transform" not in known:
                raise ConfigError(f"PEFT's {kind} takes no layers; leave out method.layers")
            options["layers_to_transform"] = list(self.layers(base))
        given, options = options, resolved(kind, options, base, known, self._as_before)
        self._given, self._passed = copy.deepcopy(given), copy.deepcopy(options)
        try:
            # PEFT's wrappers of other kinds ask for what an encoder does not have
            types_of = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
            return config(task_type=types_of.get(base.kind, "FEATURE_EXTRACTION"), **options)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"PEFT's {kind} does not take these settings: {first_line(error)}") from None

    def options_in(
        self, config: Mapping[str, Any], where: str, harmless: frozenset[str], tensors: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """The options that a folder of PEFT's sets; see `read_options`."""
        assert isinstance(self.spec, TunerSpec)
        return read_options(types()[self.spec.type], config, where, harmless, tensors)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Let PEFT put its modules in; their start depends on the seed."""
        self._put_in(base, seed)
        check_layers(self._model.get_base_model(), base, self.first_layer)

    def _put_in(self, base: Base, seed: int, own: frozenset[str] = frozenset()) -> None:
        """PEFT's modules in a branch of the base, with a copy of each weight of the base that they train or save (biases).

        Args:
            own: names of the base's weights that get a copy in any case.
        """
        with kept_frozen(base):
            model = self._wrapped(base.branch(own.__contains__), seed)
            written = written_names(base, self._learned(model))
            if written:
                model = self._wrapped(base.branch((own | written).__contains__), seed)
        if left := written_names(base, self._learned(model)):
            raise ConfigError(f"PEFT's {self._kind} would write to the base's own {min(left)!r}; change these settings")
        check_goes_round(model, self._kind)
        self._peft_model = model

    def _wrapped(self, branch: Base, seed: int) -> PeftModel:
        """PEFT's model round that of the branch, which is this method's from now on."""
        config, before = self.config(branch), {name for name, _ in branch.model.named_modules()}
        self._kind = name = PeftType(config.peft_type).value
        with quiet_peft(), seeded(seed, branch.device), base_kept(branch, name):
            try:
                model = peft.get_peft_model(branch.model, config)
            except Exception as error:  # each of PEFT's tuners refuses settings in its own way
                raise ConfigError(f"PEFT cannot put {name} into this base: {first_line(error)}") from error
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

    @property
    def _model(self) -> PeftModel:
        """PEFT's model round that of the branch; a RuntimeError before `attach` or `restore`."""
        if self._peft_model is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a base yet")
        return self._peft_model

    def _learned(self, model: PeftModel) -> list[Tensor]:
        """What training moves, and loading writes."""
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        return [*trained, *saved(model, self._kind).values()]

    def parameters(self) -> list[nn.Parameter]:
        """PEFT's."""
        return [] if self._peft_model is None else [p for p in self._peft_model.parameters() if p.requires_grad]

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """PEFT's modules are in train() for a training step's forward and backward only; the base stays in eval()."""
        own = list(own_modules(self._model))
        for module in own:
            module.training = True  # and not train(), which would reach the base's own modules inside
        try:
            yield
        finally:
            for module in own:
                module.training = False

    def export(self) -> dict[str, Tensor]:
        """PEFT's state dict."""
        return plain(saved(self._model, self._kind))

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Put PEFT's modules into a branch and the tensors into them.

        Raises:
            ArtifactError: tensors that these settings do not make; raised before anything of that size is made.
            ConfigError: settings that do not fit this base.
        """
        beside = beside_text(base)
        self._as_before = any(within(name.removeprefix(_ROUND), beside) for name in tensors)
        try:
            self._compare(tensors, base)
        except (ArtifactError, ConfigError) as error:
            self._as_before = not self._as_before
            try:
                self._compare(tensors, base)
            except (ArtifactError, ConfigError):
                raise error from None
        self._put_in(base, 0)
        self._fill(tensors)

    def _compare(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Names and shapes against what PEFT would make, on the device that holds no numbers."""
        if getattr(base, "quantization", None):
            return  # PEFT's layers for quantised ones need their numbers
        model, config = outline(base), self.config(base)
        try:
            with quiet_peft(), seeded(0, base.device), torch.device("meta"):
                expected = peft.get_peft_model_state_dict(peft.get_peft_model(model, config))
        except Exception as error:  # each of PEFT's tuners refuses settings in its own way
            if asks_numbers(error):
                return  # a few tuners read numbers as they begin; their sizes are bounded by the base's
            raise ConfigError(
                f"PEFT cannot put {PeftType(config.peft_type).value} into this base: {first_line(error)}"
            ) from error
        take({name: value for name, value in tensors.items() if _NOT_OUTLINED not in name}, expected, self.spec.name)

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        take(tensors, self.export(), self.spec.name)
        put(self._model, tensors, self._kind)
        self._model.requires_grad_(False)

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """As PEFT writes it."""
        values = self._model.peft_config["default"].to_dict()
        plainly = {key: as_json(value) for key, value in as_given(values, self._given, self._passed).items()}
        return {**plainly, "base_model_name_or_path": base.identity.hub_id, "inference_mode": True}

    def merged(self, base: Base) -> PreTrainedModel:
        """PEFT merges its weights into a copy of the base's.

        Raises:
            ConfigError: this tuner cannot be merged.
        """
        tensors = self.export()
        whole = type(self)(self.spec)  # of the same settings, not attached
        whole._put_in(base, 0, frozenset(name for name, _ in base.model.named_parameters()))
        whole._fill(tensors)
        out, embeddings = whole._model.get_output_embeddings(), whole._model.get_input_embeddings()
        if isinstance(out, BaseTunerLayer) and out.get_base_layer().weight is embeddings.weight:
            raise ConfigError(
                "the output layer that was changed shares its weight with the embeddings, which merging would change, too; "
                "serve the artifact instead"
            )
        learned = probe(whole.branch.model, base)
        apart = any(isinstance(layer, BaseTunerLayer) for layer in (out, embeddings))
        tied = getattr(whole._model.config, "tie_word_embeddings", None)
        try:
            model = whole._model.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
            raise ConfigError(f"PEFT cannot merge {self._kind} into the base: {first_line(error)}") from error
        # PEFT looks at one table of embeddings; T5Gemma's output shares the decoder's
        if tied is not None and not apart:
            model.config.tie_word_embeddings = tied
        check_merged(model, learned, base, self._kind)
        return model
