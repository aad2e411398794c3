"""Nothing writes to the base: whatever a tuner's options make trainable or saved is the branch's own, down to the bytes."""

from __future__ import annotations

import functools

import pytest
import torch
from contract.test_tuners import FITTING
from helpers import scores, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from softprompt import Runtime
from softprompt.adapters.tuner import types
from softprompt.base import Base
from softprompt.errors import ConfigError
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.training import train

BIASES = {"MISS": "MiSS_only"}  # every other tuner's is its name with _only
LORA_OPTIONS = [
    {"trainable_token_indices": [4, 5]},
    {"trainable_token_indices": [4, 5], "ensure_weight_tying": True},
    {"use_dora": True, "bias": "all"},
    {"lora_bias": True},
    {"monteclora_config": {"num_samples": 4}},
    {"velora_config": {"num_groups": 8}},
    {"target_modules": ["embed_tokens"]},
    {"target_modules": ["lm_head"]},
    {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "ensure_weight_tying": True},
    {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    {"modules_to_save": ["input_layernorm", "q_proj"], "target_modules": ["v_proj"], "bias": "all"},
]


@functools.cache
def tied() -> Base:
    """Biases, and embeddings that are the output layer, too."""
    config = {**tiny_model("qwen").config.to_dict(), "tie_word_embeddings": True}
    torch.manual_seed(0)
    return Base(Qwen2ForCausalLM(Qwen2Config(**config)), tiny_tokenizer(), "tied")


def bytes_of(base: Base) -> dict[str, bytes]:
    return {name: value.cpu().numpy().tobytes() for name, value in base.model.state_dict().items()}


def options_of(kind: str) -> list[dict[str, object]]:
    """A tuner's options that reach for the base's own weights."""
    known = types()[kind].__dataclass_fields__
    found: list[dict[str, object]] = [{}]
    if "bias" in known:
        found += [{"bias": "all"}, {"bias": BIASES.get(kind, f"{kind.lower()}_only")}]
    if "modules_to_save" in known:
        found += [{"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens", "norm"]}]
    return found + (LORA_OPTIONS if kind == "LORA" else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(types()))
def test_whatever_a_tuner_trains_saves_and_loads_the_base_stays(kind):
    base, task = tied(), tiny_task()
    for options in options_of(kind):
        before = bytes_of(base)
        try:
            method = make_method({"name": f"peft:{kind}", **FITTING.get(kind, {}), **options})
            bind(base, task, method, seed=0)
        except ConfigError as refused:
            assert "\n" not in str(refused)
            assert kind in ("ADAMSS", "OSF", "PSOFT", "UNILORA") or options, refused
            continue
        assert not any(weight.requires_grad for weight in base.model.parameters()), options
        with torch.no_grad():
            for weight in method.parameters():
                weight.add_(0.1)
        again = make_method(method.spec.model_dump())
        again.restore({name: value + 0.1 for name, value in method.export().items()}, base)
        assert bytes_of(base) == before, options
        assert not any(weight.requires_grad for weight in base.model.parameters()), options


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_another_prompt_answers_as_before_while_biases_are_trained_loaded_and_removed(bias, tmp_path):
    base, before = tiny_base("gpt2"), bytes_of(tiny_base("gpt2"))
    method = {"name": "lora", "r": 2, "options": {"bias": bias}}
    steps = {"max_steps": 2, "batch_size": 4, "lr": 0.05}
    ready = train(base, tiny_task(), method, tmp_path, train=steps, rows=tiny_rows(8, 4, 0)).prepared
    assert bytes_of(base) == before
    learned = [name for name in ready.method.export() if name.endswith(".bias")]
    assert learned and any(ready.method.export()[name].abs().max() > 0.01 for name in learned), "no bias was trained"
    runtime = Runtime(base)
    runtime.add("bare", tiny_task())
    row = [{"text": "joy sun"}]
    alone = runtime.predict(row, "bare")
    runtime.add("lora", tmp_path / "artifact")
    assert runtime.predict(row, "bare") == alone != runtime.predict(row, "lora")
    runtime.remove("lora")
    assert runtime.predict(row, "bare") == alone and bytes_of(base) == before


@pytest.mark.parametrize("method", ["full", {"name": "full", "train": "bitfit"}, {"name": "full", "layers": "2-"}])
def test_full_fine_tuning_leaves_the_base_as_it_was(method):
    base, before = tiny_base("gpt2"), bytes_of(tiny_base("gpt2"))
    ready = train(
        base, tiny_task(), method, train={"max_steps": 2, "batch_size": 4, "lr": 0.05}, rows=tiny_rows(8, 4, 0)
    )
    merged = ready.prepared.method.merged(base)
    with torch.no_grad():
        for weight in merged.parameters():
            weight.add_(0.1)
    assert bytes_of(base) == before and torch.isfinite(scores(ready.prepared)).all()
