"""Bases that are not what the engine is exact for are refused in words; halves of precision and fingerprints."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import FAMILIES, VOCABULARY, tiny_base, tiny_model, tiny_tokenizer
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from softprompt import registry
from softprompt.base import Base
from softprompt.errors import BaseModelError
from softprompt.training import train


def small_llama(**changes):
    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, "max_position_embeddings": 64, **changes}))


@pytest.mark.parametrize(
    ("name", "hint"), [("some-team/some-model", "known: "), ("smollm3", "did you mean 'smollm2'?")]
)
def test_a_name_that_is_not_here_while_offline(name, hint):
    with pytest.raises(BaseModelError) as caught:
        Base.load(name, device="cpu")
    message = str(caught.value)
    assert f"base {name!r} is not on this machine, and the hub cannot be reached; go online" in message
    assert hint in message and len(message) < 200


def test_a_different_weight_is_a_different_base():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    other = Base(model, tiny_tokenizer())
    assert other.digest != tiny_base().digest
    assert Base(tiny_model("llama"), tiny_tokenizer()).digest == tiny_base().digest


def test_tokenizer_digest_sees_tokens_and_chat_template_but_not_call_settings():
    one, two = tiny_tokenizer(), tiny_tokenizer()
    two(["a", "b c"], padding=True, truncation=True, max_length=3)  # leaves its settings behind
    model = tiny_model("llama")
    assert Base(model, one).tokenizer_digest == Base(model, two).tokenizer_digest
    two.chat_template += " "
    assert Base(model, one).tokenizer_digest != Base(model, two).tokenizer_digest


def test_positions_that_depend_on_the_length_are_refused():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(BaseModelError, match="'dynamic'"):
        Base(small_llama(rope_parameters=rope), tiny_tokenizer())


def test_an_architecture_that_the_hook_does_not_reach_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2))
    with pytest.raises(
        BaseModelError,
        match=r"not supported: its layers do not call transformers' attention interface; use another base",
    ):
        Base(model, tiny_tokenizer(), "bloom")


def test_a_base_whose_logits_differ_is_refused(monkeypatch):
    """The check is real: a head that the engine does not know makes the logits differ, and the base is refused."""
    model = small_llama()
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: _shifted(plain(*a, **k)))
    with pytest.raises(BaseModelError, match="differ from the plain model"):
        Base(model, tiny_tokenizer())


def _shifted(out):
    out.logits = out.logits * 1.5
    return out


@pytest.mark.parametrize("method", registry.names("softprompt.methods"))
def test_every_method_trains_on_a_bf16_base(method):
    base = Base(tiny_model("llama").to(torch.bfloat16), tiny_tokenizer())
    result = train(
        base, tiny_task(), method, train={"epochs": 1, "batch_size": 8, "lr": 0.01}, rows=tiny_rows(), test=True
    )
    assert all(value.dtype == torch.float32 for value in result.prepared.method.export().values())
    assert 0 <= result.metrics["test"].estimate.value <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("method", registry.names("softprompt.methods"))
def test_every_method_trains_on_a_gpu_as_on_the_cpu(method):
    settings = {"epochs": 1, "batch_size": 8, "lr": 0.01}
    on_cpu = train(tiny_base(), tiny_task(), method, train=settings, rows=tiny_rows())
    base = Base(tiny_model("llama").cuda(), tiny_tokenizer())
    on_gpu = train(base, tiny_task(), method, train=settings, rows=tiny_rows())
    for name, value in on_cpu.prepared.method.export().items():
        assert torch.allclose(value, on_gpu.prepared.method.export()[name], atol=5e-3)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox", "cohere"])
def test_keys_turn_as_the_model_turns_them(family):
    """A token alone, at another position, has the turned key; GPT-2 keeps positions out of its keys."""
    if family in FAMILIES:
        base = tiny_base(family)
    else:
        config = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        kind, config = {
            "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**config, intermediate_size=64, rotary_pct=0.25)),
            "cohere": (CohereForCausalLM, CohereConfig(**config, num_key_value_heads=2, intermediate_size=64)),
        }[family]
        torch.manual_seed(0)
        base = Base(kind(config), tiny_tokenizer(), family)
    ids, at = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 3, 3, 90])
    with torch.no_grad():
        here, there = (
            base.forward(base.embed(ids), [1] * 4, start, record=True).kv for start in (torch.zeros_like(at), at)
        )
    if family == "gpt2":
        assert base.rotate(here, at) is here
        return
    for layer, ((keys, values), want) in enumerate(zip(base.rotate(here, at), there, strict=True)):
        assert torch.allclose(keys, want[0], atol=1e-5 * want.abs().max().item()), layer
        assert torch.allclose(values, want[1], atol=1e-5 * want.abs().max().item()), layer
    one = base.rotate([layer[:, :1] for layer in here], at)  # one key for all rows, as a prompt's
    each = base.rotate([layer[:, :1].expand(-1, 4, -1, -1, -1) for layer in here], at)
    assert all(torch.allclose(a[0], b[0], atol=1e-5) for a, b in zip(one, each, strict=True))
    assert not torch.allclose(here[0][0, 3], there[0][0, 3], atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "qwen", "gemma3"])
def test_norms_in_few_passes_are_the_models_own(family):
    """Value and gradients, from sizes where epsilon decides; on another type than fp32 the model's own code runs."""
    theirs = {name: layer for name, layer in tiny_model(family).named_modules() if "RMSNorm" in type(layer).__name__}
    ours = tiny_base(family).branch().model
    assert theirs
    for name, own in theirs.items():
        fast = ours.get_submodule(name)
        assert "forward" in vars(fast) and "forward" not in vars(own)
        own.weight.data.copy_(torch.linspace(0.5, 2, len(own.weight)))
        fast = copy.deepcopy(fast)
        fast.weight.data.copy_(own.weight)
        fast.weight.requires_grad_()
        x = torch.randn(2, 5, 3, len(own.weight)) * torch.tensor([1e-4, 1e-2, 1, 10, 1000])[:, None, None]
        one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
        weights = torch.randn_like(x)
        want, found = own(one), fast(two)
        (want * weights).sum().backward()
        (found * weights).sum().backward()
        assert (want - found).abs().max() <= 1e-5
        assert ((one.grad - two.grad).abs() <= 1e-5 * one.grad.abs().amax(-1, keepdim=True) + 1e-7).all()
        assert ((own.weight.grad - fast.weight.grad).abs() <= 1e-5 * own.weight.grad.abs().max()).all()
        assert torch.equal(fast.bfloat16()(x.bfloat16()), own.bfloat16()(x.bfloat16()))


def test_a_norm_that_computes_something_else_keeps_its_code():
    class OddRMSNorm(LlamaRMSNorm):
        def forward(self, x):
            return super().forward(x) + 0.01

    model = small_llama()
    model.model.norm = OddRMSNorm(64)
    base = Base(model, tiny_tokenizer())
    assert "forward" not in vars(base.model.model.norm)
    assert "forward" in vars(base.model.model.layers[0].input_layernorm)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": "64"}, "expected int"),
        ({"hidden_size": -64}, "negative dimension"),
        ({"hidden_size": 128}, "other sizes than its config.json says"),
        ({"num_hidden_layers": 10**6}, "1,000,000 layers"),
        ({"num_hidden_layers": 4}, "does not hold model.layers.3"),
    ],
)
def test_a_folder_whose_settings_do_not_fit_is_refused_in_one_line(tmp_path, settings, words):
    base = tiny_base()
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(BaseModelError) as caught:
        Base.load(str(tmp_path), device="cpu")
    assert words in str(caught.value) and str(caught.value).isprintable()
