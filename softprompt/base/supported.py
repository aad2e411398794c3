"""What is refused by its config alone: what cannot be exact, and what the few tokens of the check would not show."""

from __future__ import annotations

from typing import Any

from ..errors import BaseModelError

READS_IDS = "its layers read each token's id beside its embedding, and a learned token has none"
_LAYER_TYPES = {"full_attention", "sliding_attention"}
_STATES = {"linear_attention", "mamba", "conv", "recurrent", "hybrid"}
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


def check_supported(model: Any, name: str) -> None:
    """Refuse what cannot be exact and what a few tokens would not show: other layer types, length-dependent positions.

    Raises:
        BaseModelError: naming what the engine cannot run.
    """
    text = model.config.get_text_config(decoder=True)
    if getattr(model.get_input_embeddings(), "weight", None) is None:
        raise BaseModelError(f"base {name!r} has no single table of embeddings of texts; use another base")
    other = set(getattr(text, "layer_types", None) or []) - _LAYER_TYPES
    if rope := sorted(_rope_types(getattr(text, "rope_parameters", None)) & _ROPE_BY_LENGTH):
        raise BaseModelError(
            f"base {name!r} has position encodings of type {rope[0]!r}, which change with the length of the sequence, so a "
            "text's keys cannot be kept; use a base with fixed ones"
        )
    if other:
        states = " (which keep a state of the row instead of its keys and values)" if other & _STATES else ""
        raise BaseModelError(
            f"base {name!r} has layers of type {', '.join(sorted(other))}{states}; "
            f"the engine is exact for {' and '.join(sorted(_LAYER_TYPES))} only; use another base"
        )
    if getattr(text, "hidden_size_per_layer_input", None):
        raise BaseModelError(f"base {name!r} is not supported: {READS_IDS}; use another base")
    if getattr(text, "attention_type", None) == "block_sparse":
        raise BaseModelError(
            f"base {name!r} attends sparsely in long rows and fully in short ones, so a row's company would change it; "
            "set attention_type to 'original_full' in its config.json, or use another base"
        )


def _rope_types(parameters: Any) -> set[str]:
    """Types of rotary encodings in a config: one for the model, or one per kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return {str(item.get("rope_type")) for item in [parameters, *nested]}


def no_embedding(name: str, token: int) -> BaseModelError:
    """What to raise for a token outside of the embeddings that was written out: in a template, or as ids."""
    return BaseModelError(f"base {name!r} has no embedding for token {token} of its tokenizer; leave that token out")


def check_tokens(tokenizer: Any, embeddings: int, name: str) -> None:
    """Refuse a tokenizer that makes tokens of a text for which the base has no embedding.

    Special tokens may lie outside (Gemma 3's text models have one for images), as texts never become any; so may the padding.

    Raises:
        BaseModelError: with both numbers and such a token.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if max(tokenizer.vocab_size - 1, *added) < embeddings:
        return
    placed = {getattr(tokenizer, f"{mark}_token_id", None) for mark in ("bos", "eos", "cls", "sep", "mask")}
    outside = {
        place: token
        for token, place in tokenizer.get_vocab().items()
        if place >= embeddings and (place in placed or not getattr(added.get(place), "special", False))
    }
    outside.pop(tokenizer.pad_token_id if tokenizer.pad_token_id not in placed else None, None)
    if outside:
        first = min(outside)
        raise BaseModelError(
            f"base {name!r} has embeddings of {embeddings} tokens, and {len(outside)} tokens of its tokenizer have higher ids "
            f"(the first is {outside[first][:40]!r}, {first}); use the base's own tokenizer, or resize its embeddings"
        )
