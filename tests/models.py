"""Tiny random bases, one of each kind of attention, and a tokenizer of their own; nothing is fetched."""

from __future__ import annotations

import functools

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from softprompt.base import Base

VOCABULARY = 320
FAMILIES = ("llama", "gpt2", "qwen", "gemma3")
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 256}


def tiny_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """Bytes as tokens (any text, any language), with <s>, </s> and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>", "<pad>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    merges = [("Ġ", "a"), ("e", "r"), ("p", "o"), ("s", "e")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\n+| ?[^\s]+|\s+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    if bos:
        from tokenizers.processors import TemplateProcessing

        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=256
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    )
    return tokenizer


def tiny_model(family: str, seed: int = 0) -> torch.nn.Module:
    """A random model of a family, fp32, larger weights than usual so that attention is far from uniform."""
    torch.manual_seed(seed)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16}
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**_SIZES, **heads))
    elif family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=4, n_positions=256, n_inner=128)
        )
    elif family == "qwen":
        heads.pop("head_dim")
        model = Qwen2ForCausalLM(Qwen2Config(**_SIZES, **{**heads, "num_key_value_heads": 1}))
    elif family in ("gemma3", "gemma3-wide"):  # wide: no row is longer than the window
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                **_SIZES,
                **heads,
                sliding_window=8 if family == "gemma3" else 128,
                sliding_window_pattern=2,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        )
    else:
        raise ValueError(family)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            weight.data.mul_(4.0 if "embed" not in name and "wte" not in name else 2.0)
    return model


@functools.cache
def tiny_base(family: str = "llama", bos: bool = False) -> Base:
    """A tiny base, shared by the tests (it is frozen)."""
    return Base(tiny_model(family), tiny_tokenizer(bos), f"tiny-{family}")
