"""Kinds of models: which one a checkpoint holds, which class loads it, and where in it live tokens run.

`causal`: each token sees what is before it (GPT-2, Llama). `masked`: tokens see each other both ways, and a head guesses the
word at a `[MASK]` (BERT: Devlin et al. 2019, arXiv:1810.04805). `encoder`: the same without such a head (sentence encoders).
`seq2seq`: an encoder, and a decoder that also attends to the encoder's states (T5: Raffel et al. 2020, arXiv:1910.10683).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from ..config import suggest
from ..errors import BaseModelError

Kind = Literal["causal", "masked", "encoder", "seq2seq"]
"""The kind of a base, by the task that its architecture was pretrained for."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds of bases."""
NAMED = {
    "causal": "a causal language model",
    "masked": "a masked language model",
    "encoder": "an encoder",
    "seq2seq": "a sequence-to-sequence model",
}
_UNLIMITED = 1 << 20  # positions, where the encoding has no end


def _classes(mapping: dict[str, Any]) -> set[str]:
    return {name for value in mapping.values() for name in ([value] if isinstance(value, str) else value)}


# each class is of the first kind that names it: BART's and XLM's stand in several
_MAPPINGS: dict[Kind, dict[str, Any]] = {
    "seq2seq": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "encoder": MODEL_MAPPING_NAMES,
}
_CLASSES = {kind: _classes(mapping) for kind, mapping in _MAPPINGS.items()}


def choose_kind(config: Any, name: str, asked: str | None = None) -> Kind:
    """The kind of a checkpoint: the one asked for, or what its config says.

    Raises:
        BaseModelError: no such kind, a model that cannot be run as the one asked for, or no text model at all.
    """
    if asked is not None and asked not in KINDS:
        raise BaseModelError(f"base {name!r}: kind {asked!r} is not known{suggest(asked, KINDS)}")
    what = (list(getattr(config, "architectures", None) or []) or [f"model of type {config.model_type!r}"])[0]
    possible = [kind for kind in KINDS if _can_be(config, kind)]
    if asked is not None:
        if asked not in possible:
            raise BaseModelError(f"base {name!r} is a {what}, it cannot run as {NAMED[asked]}; leave out base.kind")
        return next(kind for kind in KINDS if kind == asked)
    named = _named_kind(config.architectures or (), config)
    kind = named if named in possible else None
    if not config.architectures:
        # types such as BERT's stand in both mappings; those without a mark are the bidirectional ones
        order: tuple[Kind, ...] = ("seq2seq", "masked", "causal", "encoder")
        kind = next((kind for kind in order if kind in possible), None)
    if kind is None:
        raise BaseModelError(
            f"base {name!r} is a {what}, not a causal language model, nor a masked one, an encoder or a "
            "sequence-to-sequence model of texts; use one such as 'smollm2' or 'minilm'"
        )
    return kind


def _can_be(config: Any, kind: Kind) -> bool:
    both, decoder = bool(getattr(config, "is_encoder_decoder", False)), bool(getattr(config, "is_decoder", False))
    if kind == "encoder" and _text_encoder(config):
        return True  # of a sequence-to-sequence checkpoint its encoder alone
    if config.model_type not in _MAPPINGS[kind] or both is not (kind == "seq2seq"):
        return False
    if kind == "causal":
        return decoder or not _encodes_texts(config)
    return kind == "seq2seq" or (not decoder and _encodes_texts(config))


def _encodes_texts(config: Any) -> bool:
    """Whether models of this type see both ways; what is in no such mapping is causal, or made for other things than texts."""
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or _text_encoder(config)


def _text_encoder(config: Any) -> bool:
    """Whether transformers has a class for the encoder alone."""
    return str(MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(config.model_type, "")).endswith("EncoderModel")


def _named_kind(architectures: Iterable[str], config: Any) -> Kind | None:
    """What the names of classes say; a class that is in no mapping has a head for a task, so its encoder is taken."""
    for name in architectures:
        for kind, classes in _CLASSES.items():
            if name in classes and (kind == "seq2seq") <= bool(getattr(config, "is_encoder_decoder", False)):
                return kind
        if name.endswith("ForPreTraining") and config.model_type in ("bert", "albert", "megatron-bert", "mobilebert"):
            return "masked"  # the head of masked words, and another one that is left out
        if _encodes_texts(config):
            return "encoder"
    return None


def auto_class(config: Any, kind: Kind) -> Any:
    """The class of transformers that loads a checkpoint as this kind."""
    if kind == "encoder":
        return AutoModelForTextEncoding if _text_encoder(config) else AutoModel
    return {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}[kind]


def kind_of(model: Any, name: str) -> Kind:
    """The kind of a loaded model, from its class.

    Raises:
        BaseModelError: a class that has no language-model head, or another one beside it.
    """
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    for cls in type(model).__mro__:
        for kind, classes in _CLASSES.items():
            if cls.__name__ in classes and both is (kind == "seq2seq"):
                return kind
    headed = model.get_output_embeddings() is not None
    if both or (headed and _encodes_texts(model.config)):
        instead = "one with a language-model head" if both else "a class with a language-model head and no other"
        raise BaseModelError(f"base {name!r} is a {type(model).__name__}; use {instead}")
    return "causal" if headed else "encoder"  # a class of the user's own; an encoder, with a task's head or without


def find_body(model: Any, kind: Kind, of_encoder: bool = False) -> Any:
    """The module that live tokens run through, without any head.

    Args:
        of_encoder: the encoder of a sequence-to-sequence model instead of its decoder.
    """
    if of_encoder:
        return model.get_encoder()
    if kind in ("masked", "encoder"):
        return model.base_model
    decoder = model.get_decoder()
    return decoder if isinstance(decoder, PreTrainedModel) else model.base_model  # some call their output layer so


def find_embeddings(model: Any, body: Any, kind: Kind, of_encoder: bool = False) -> Any:
    """The embedding layer of what `find_body` finds: a stack's own, where encoder and decoder have one each (T5Gemma)."""
    two = kind == "seq2seq" or of_encoder
    layer = (body if two and hasattr(body, "get_input_embeddings") else model).get_input_embeddings()
    scale = getattr(body, "embed_scale", None) if of_encoder and not hasattr(layer, "embed_scale") else None
    # the encoders of Marian and Pegasus scale what they look up themselves; their decoders all that they are given
    return layer if scale in (None, 1.0) else lambda ids: layer(ids) * scale


def find_config(model: Any, kind: Kind, of_encoder: bool = False) -> Any:
    """The configuration of what `find_body` finds: a stack's own, where encoder and decoder have one each."""
    if kind == "causal":
        return model.config.get_text_config(decoder=True)
    return getattr(find_body(model, kind, of_encoder), "config", model.config)


def number_attention(layers: Iterable[nn.Module]) -> None:
    """Tell attention modules which layer they are in, where a family does not (DistilBERT)."""
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if "Attention" in type(module).__name__ and getattr(module, "layer_idx", None) is None:
                module.layer_idx = index  # type: ignore[assignment]


def positions_of(config: Any, body: nn.Module) -> int:
    """Longest sequence that the position encoding was made for."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if limit is None:
        return _UNLIMITED
    for path, module in body.named_modules():
        if path.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(limit) - int(module.padding_idx) - 1  # type: ignore[arg-type]  # RoBERTa counts on from the padding
    return int(limit)


def per_layer(config: Any, name: str) -> bool:
    """Whether each layer has its own value of a setting, which transformers then refuses to read of them all (NeoMME)."""
    try:
        getattr(config, name, None)
    except (RuntimeError, ValueError):
        return True
    return False


def starts_of(model: Any, name: str) -> tuple[int, ...]:
    """The tokens that a decoder begins with, as transformers' own generation has it: some are forced to one behind the first.

    Raises:
        BaseModelError: neither config names one, or a token that there is not.
    """
    configs = (model.generation_config, model.config)
    named = [getattr(config, key, None) for config in configs for key in ("decoder_start_token_id", "bos_token_id")]
    start = next((found for found in named if isinstance(found, int)), None)
    if start is None:
        raise BaseModelError(f"base {name!r}: its config names no decoder_start_token_id; add it to config.json")
    forced = next((f for config in configs if isinstance(f := getattr(config, "forced_bos_token_id", None), int)), None)
    tokens = (start,) if forced is None else (start, forced)
    count = len(model.get_input_embeddings().weight)
    for token in tokens:
        if not 0 <= token < count:
            raise BaseModelError(
                f"base {name!r}: its config begins what is written with token {token}, and it has tokens 0 to {count - 1}; "
                "correct decoder_start_token_id or forced_bos_token_id in its JSON files"
            )
    return tokens
