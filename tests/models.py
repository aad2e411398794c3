"""Tiny random bases, one of each kind of attention, and a tokenizer of their own; nothing is fetched."""

from __future__ import annotations

import functools

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from softprompt.base import Base

VOCABULARY = 320
CAUSAL = FAMILIES = ("llama", "gpt2", "qwen", "gemma3")
MASKED = ("bert", "distilbert", "roberta", "modernbert")
SEQ2SEQ = ("t5", "bart")
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 256}
_IDS = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}


def tiny_tokenizer(bos: bool = False, frame: str = "") -> PreTrainedTokenizerFast:
    """Bytes as tokens (any text, any language), with <s>, </s> and a chat template.

    Args:
        bos: texts begin with <s>.
        frame: "masked": texts stand between [CLS] and [SEP], and there is a [MASK]; "seq2seq": they end with </s>.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>", "<pad>", *(["[CLS]", "[SEP]", "[MASK]"] if frame == "masked" else [])]
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
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    if frame:
        single, pair = ("[CLS] $A [SEP]", " $B [SEP]") if frame == "masked" else ("$A </s>", " $B </s>")
        marks = [(token, vocabulary[token]) for token in special]
        backend.post_processor = TemplateProcessing(single=single, pair=single + pair, special_tokens=marks)
    named = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"} if frame == "masked" else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=256, **named
    )
    if frame:
        return tokenizer
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
        model = _tiny_encoder(family) if family in MASKED else _tiny_seq2seq(family)
    for name, weight in model.named_parameters():
        if family == "t5":  # whose scores are not scaled down: four times the weights would be a hard choice of one key
            weight.data.mul_(8.0 if "relative_attention_bias" in name else 1.0)
        elif weight.dim() == 2:
            weight.data.mul_(4.0 if "embed" not in name and "wte" not in name else 2.0)
    return model


def _tiny_encoder(family: str) -> torch.nn.Module:
    heads = {**_SIZES, **_IDS, "num_attention_heads": 4, "intermediate_size": 128}
    if family == "bert":
        return BertForMaskedLM(BertConfig(**heads))
    if family == "roberta":  # positions count on from the padding's id
        return RobertaForMaskedLM(RobertaConfig(**{**heads, "max_position_embeddings": 256 + 3}))
    if family == "modernbert":  # each token of the local layers sees 4 on each side
        marks = {"cls_token_id": 3, "sep_token_id": 4, "local_attention": 8, "global_attn_every_n_layers": 2}
        return ModernBertForMaskedLM(ModernBertConfig(**heads, **marks))
    sizes = {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128, "pad_token_id": 2}
    return DistilBertForMaskedLM(DistilBertConfig(vocab_size=VOCABULARY, max_position_embeddings=256, **sizes))


def _tiny_seq2seq(family: str) -> torch.nn.Module:
    if family == "t5":
        sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
        marks = {"pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}
        return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **sizes, **marks))
    if family != "bart":
        raise ValueError(family)
    sizes = {"d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "max_position_embeddings": 256}
    sizes |= {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("ffn_dim", 128), ("attention_heads", 4))
    }
    marks = {**_IDS, "decoder_start_token_id": 1, "forced_eos_token_id": None, "scale_embedding": True}
    model = BartForConditionalGeneration(BartConfig(vocab_size=VOCABULARY, **sizes, **marks))
    model.final_logits_bias.normal_()
    return model


@functools.cache
def tiny_base(family: str = "llama", bos: bool = False) -> Base:
    """A tiny base, shared by the tests (it is frozen)."""
    frame = "masked" if family in MASKED else "seq2seq" if family in SEQ2SEQ else ""
    return Base(tiny_model(family), tiny_tokenizer(bos, frame), f"tiny-{family}")
