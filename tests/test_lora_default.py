"""`lora` with no modules named: all linear layers in a new training, PEFT's choice in artifacts of earlier versions."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from test_bidirectional import encoder
from test_compare import make
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig
from transformers.pytorch_utils import Conv1D
from zoo import quiet
from zoo_models import build

from softprompt.artifact import load
from softprompt.base import Base
from softprompt.benchmarks.compare import later as defaults
from softprompt.benchmarks.compare.runs import cells_of
from softprompt.errors import ConfigError, TrainingError
from softprompt.methods import make_method
from softprompt.peft import fit
from softprompt.prepared import bind, prepare, restored
from softprompt.training import train

GOLDEN = Path(__file__).parent / "golden" / "lora_v2"
ROWS, STEPS = tiny_rows(8, 4, 4), {"max_steps": 2, "batch_size": 4}
FAMILIES = ("llama", "gpt2", "qwen", "gemma3", "bert", "distilbert", "modernbert", "t5", "bart")


def attached(settings, base):
    made = make_method(settings)
    bind(base, tiny_task(), made, seed=0)
    return made


def changed(method) -> set[str]:
    """Names of the base's modules that it changes."""
    names = [name.removeprefix("base_model.model.") for name in method.export()]
    return {name.split(".lora_")[0] for name in names}


def linears(base) -> set[str]:
    """All but what gives the vocabulary's logits."""
    output = base.model.get_output_embeddings()
    some = [(name, layer) for name, layer in base.model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))]
    return {name for name, layer in some if layer is not output}


def mixtral() -> Base:
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=2)
    torch.manual_seed(0)
    return Base(AutoModelForCausalLM.from_config(config).eval(), tiny_tokenizer(), "mixtral")


@pytest.mark.parametrize("family", [*FAMILIES, "encoder"])
def test_a_new_training_changes_all_linear_layers_but_the_output(family):
    base = encoder() if family == "encoder" else tiny_base(family)
    method = attached("lora", base)
    assert method.spec.target_modules == "all-linear"
    assert changed(method) == linears(base)
    again = make_method(method.spec.model_dump(exclude_none=True))
    again.restore(method.export(), base)
    assert changed(again) == linears(base)


def test_an_output_layer_that_shares_the_embeddings_is_left_out():
    base = Base(tied := tiny_model("llama"), tiny_tokenizer(), "tied")
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert not any("lm_head" in name or "embed" in name for name in changed(attached("lora", base)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_upper_layers_are_changed_alone(family):
    """GPT-2 has so few modules that PEFT keeps their whole names, which it would take in any layer."""
    base = tiny_base(family)
    upper = {name for name in linears(base) if any(f".{layer}." in name for layer in (1, 2))}
    assert changed(attached({"name": "lora", "layers": "1-"}, base)) == upper


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_activated_on_a_decoder_nothing_of_the_encoder_is_changed(family):
    base = tiny_base(family)
    decoder = {name for name in linears(base) if "decoder." in name}
    assert changed(attached({"name": "lora", "activate": "cue"}, base)) == decoder


@pytest.mark.parametrize("settings", [{"target_modules": ["o_proj"]}, {"options": {"target_modules": ["o_proj"]}}])
def test_modules_that_are_named_are_those(settings):
    method = attached({"name": "lora", **settings}, tiny_base("llama"))
    assert {name.rpartition(".")[2] for name in changed(method)} == {"o_proj"}
    assert method.spec.model_dump(exclude_unset=True) == {"name": "lora", "target_modules": None, **settings}


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["o_proj"]},
        {"exclude_modules": ["o_proj"]},
        {"lora_bias": True},
        {"rank_pattern": {"up_proj": 2}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_other_options_stand_beside_it(options):
    base = tiny_base("qwen")
    run = train(base, tiny_task(), {"name": "lora", "options": options}, train=STEPS, rows=ROWS)
    method = run.prepared.method
    left_out = "modules_to_save" in options or "exclude_modules" in options
    adapted = {name.split(".lora_")[0] for name in method.export() if ".lora_" in name}
    assert any("o_proj" in name for name in adapted) is not left_out
    assert any("down_proj" in name for name in adapted)
    again = make_method(method.spec.model_dump(exclude_none=True))
    again.restore(method.export(), base)


def test_with_experts_it_is_pefts_choice():
    """PEFT's word would mean the experts, too; a method that was on another base before asks anew."""
    method = attached("lora", tiny_base("llama"))
    bind(mixtral(), tiny_task(), method, seed=0)
    assert method.spec.target_modules is None
    assert {name.rpartition(".")[2] for name in changed(method)} == {"q_proj", "v_proj"}


def test_parameters_of_experts_that_are_named_are_the_only_ones():
    with quiet():
        base = Base(build("causal", "qwen3_moe"), tiny_tokenizer(), "qwen3_moe")
        method = attached(
            {"name": "lora", "r": 2, "options": {"target_parameters": ["mlp.experts.gate_up_proj"]}}, base
        )
    assert method.spec.target_modules is None
    assert all("experts" in name for name in changed(method))


class Stored(nn.Module):
    """A linear layer of another library's, which is no `nn.Linear`."""

    def __init__(self, layer):
        super().__init__()
        self.weight = layer.weight

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


def test_layers_of_another_class_are_not_passed_over():
    """PEFT's word would leave them out in silence, so it is PEFT's choice, which it accepts or refuses by name."""
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.self_attn.q_proj = Stored(layer.self_attn.q_proj)
    base = Base(model, tiny_tokenizer(), "stored")
    with pytest.raises(ConfigError, match=r"Stored\(\) is not supported"):
        attached("lora", base)


def test_a_learned_head_in_place_of_the_models_own_is_no_finding():
    base = tiny_base("bert")
    ready = prepare(base, tiny_task(), make_method({"name": "lora", "head": True}), rows=ROWS, seed=0)
    assert any("cls." in name for name in ready.method.export())
    run = train(base, tiny_task(), {"name": "lora", "head": True}, train=STEPS, rows=ROWS)
    assert not [finding for finding in run.findings if finding.level != "ok" and finding.check == "gradient"]


def test_an_artifact_of_an_earlier_version_is_what_it_was():
    artifact, base = load(GOLDEN), tiny_base("llama")
    assert "target_modules" not in artifact.manifest.method
    method = make_method(artifact.manifest.method)
    method.restore(artifact.tensors, base)
    assert method.spec.target_modules is None
    assert {name.rpartition(".")[2] for name in changed(method)} == {"q_proj", "v_proj"}
    theirs, ids = peft.PeftModel.from_pretrained(tiny_model("llama").eval(), str(GOLDEN)), torch.arange(3, 40)[None]
    with torch.no_grad():
        close(method.branch.model(input_ids=ids).logits, theirs(input_ids=ids).logits)
        close(method.merged(base)(input_ids=ids).logits, theirs(input_ids=ids).logits, 1e-4)


def as_before(monkeypatch):
    """Let a training choose as earlier versions did."""
    monkeypatch.setattr("softprompt.adapters.lora.all_linear_fits", lambda base: False)


def test_a_part_of_a_joint_method_is_written_and_read_alike(tmp_path, monkeypatch):
    base, joint = tiny_base("llama"), {"name": "joint", "parts": [{"name": "soft", "length": 2}, "lora"]}
    made = train(base, tiny_task(), joint, tmp_path / "now", train=STEPS, rows=ROWS)
    as_before(monkeypatch)
    train(base, tiny_task(), joint, tmp_path / "before", train=STEPS, rows=ROWS)
    monkeypatch.undo()
    assert made.prepared.method.spec.parts[1]["target_modules"] == "all-linear"
    now, before = (restored(load(tmp_path / name / "artifact"), base, tiny_task()) for name in ("now", "before"))
    assert changed(now.parts[1]) == linears(base)
    assert {name.rpartition(".")[2] for name in changed(before.parts[1])} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_of_an_earlier_version_says_that_its_settings_are_others(tmp_path, monkeypatch, ended):
    base = tiny_base("llama")
    as_before(monkeypatch)
    train(base, tiny_task(), "lora", tmp_path, train=STEPS, rows=ROWS)
    if not ended:
        (tmp_path / "result.json").unlink()
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="other settings") as error:
        train(base, tiny_task(), "lora", tmp_path, train=STEPS, rows=ROWS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tokens", [None, "cue"])
def test_a_configuration_of_pefts_means_what_peft_would_learn(tokens):
    """Also at the rate that it had, whatever `lora` with nothing named learns now."""
    base = tiny_base("llama")
    rows = [{"prompt": f"Text: {word}\nIt is:", "completion": " good"} for word in ("joy", "sun", "gift", "hope")]
    cue = base.tokenizer("\nIt is:", add_special_tokens=False)["input_ids"]
    config = peft.LoraConfig(r=2, alora_invocation_tokens=cue if tokens else None)
    run = fit(config, rows, base, train={"max_steps": 1, "batch_size": 4})
    assert run.prepared.method.spec.target_modules == ["q_proj", "v_proj"]
    assert {name.rpartition(".")[2] for name in changed(run.prepared.method)} == {"q_proj", "v_proj"}
    assert run.settings["train"]["lr"] == (2e-3 if tokens else 5e-4)


def test_rates():
    def rate(**settings):
        return make_method({"name": "lora", **settings}).defaults.lr

    named = {"target_modules": ["q_proj", "v_proj"]}
    assert rate() == rate(**named) == 5e-4
    assert rate(activate="cue") == rate(activate="cue", target_modules="all-linear") == 1e-3
    assert rate(activate="cue", **named) == 2e-3


def test_records_of_a_comparison_with_the_earlier_default_are_of_other_settings(monkeypatch):
    named = {"name": "named", "method": {"name": "lora", "target_modules": ["q_proj", "v_proj"]}}
    joint = {"name": "mixed", "method": {"name": "joint", "parts": ["soft", "lora"]}}
    suite = make(without=[], contenders=[named, joint, "soft"])
    now = {cell.place.contender: cell.settings for cell in cells_of(suite)}
    monkeypatch.setattr(defaults, "ALL_LINEAR", "another default")
    later = {cell.place.contender: cell.settings for cell in cells_of(suite)}
    assert {name for name in now if now[name] != later[name]} == {"lora", "mixed"}
