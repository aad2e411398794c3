"""A tuner's options are a list that we know: no module, path, base, endless expression or size beyond the base reaches PEFT."""

from __future__ import annotations

import time

import peft
import pytest
import torch
from helpers import scores, tiny_rows, tiny_task
from models import tiny_base, tiny_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertModel, MixtralConfig, Olmo2Config, PhimoeConfig

from softprompt.adapters.options import check_options, known_options
from softprompt.adapters.targets import matching
from softprompt.adapters.tuner import types
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.training import train

ROWS, STEPS = tiny_rows(8, 4, 0), {"max_steps": 2, "batch_size": 4}
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
NAMES_CODE = ["megatron_core", "megatron_config", "auto_mapping", "base_model_name_or_path", "revision", "loftq_config"]
NAMES_CODE += [
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "arrow_config",
    "runtime_config",
    "peft_type",
    "task_type",
]


def attached(method, base=None):
    base = base or tiny_base()
    made = make_method(method)
    bind(base, tiny_task(), made, seed=0)
    return made


@pytest.mark.parametrize("key", NAMES_CODE)
def test_what_names_code_or_a_base_is_an_unknown_key_of_every_tuner(key):
    for kind, config in types().items():
        assert key not in known_options(config), kind
        with pytest.raises(ConfigError, match=f"unknown key.*{key}"):
            check_options(config, {key: "stranger.evil"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"megatron_core": "stranger.evil"}, "unknown key 'megatron_core'"),
        ({"target_module": ["q_proj"]}, "did you mean 'target_modules'"),
        ({"init_lora_weights": "/tmp/weights.pt"}, "init_lora_weights"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 1e30}, "lora_alpha"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"lora_dropout": "0.1"}, "lora_dropout"),
        ({"r": -1}, "r"),
        ({"r": True}, "r"),
        ({"r": 10**6}, "r is 1,000,000, but base 'tiny-llama' has room for 320"),
        ({"rank_pattern": {"q_proj": 10**6}}, "rank_pattern is 1,000,000"),
        ({"target_modules": ["q_proj", 3]}, "target_modules"),
        ({"target_modules": ["(a+)+"]}, "target_modules"),
        ({"target_modules": "(" * 3}, "no regular expression"),
        ({"target_modules": ".*a{1000}{1000}"}, "more than a plain regular expression"),
        ({"target_modules": "(?R)"}, "more than a plain regular expression"),
        ({"target_modules": "(q_proj){e<=3}"}, "more than a plain regular expression"),
        ({"target_modules": "nowhere"}, "'nowhere' fits no module of this base"),
        ({"modules_to_save": ["evil"]}, "modules_to_save: base 'tiny-llama' has no 'evil'"),
        ({"modules_to_save": ["(.*)"]}, "modules_to_save"),
        ({"layers_pattern": "(a+)+"}, "layers_pattern"),
        ({"trainable_token_indices": [-5]}, "trainable_token_indices"),
        ({"trainable_token_indices": [10**6]}, "no token 1000000"),
        ({"velora_config": {"path": "x"}}, "unknown key"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_options_of_another_type_or_size_are_refused_at_once(options, problem):
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=problem) as caught:
        attached({"name": "lora", "options": options})
    assert "\n" not in str(caught.value) and time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "expression", ["(([a-z._0-9])+)+!", "(?:.*){99}!", "(a|aa)+!", "(.*)(.*)(.*)(.*)(.*)(.*)\\1!", "((a*)*)*b"]
)
def test_no_expression_takes_longer_than_its_limit(expression):
    begun = time.monotonic()
    names = ["a" * 40 + "b" * 40 + str(index) for index in range(200)]
    with pytest.raises(ConfigError, match=r"takes too long|fits no module"):
        matching(expression, names, "target_modules")
    assert time.monotonic() - begun < 8


def test_an_expression_reaches_the_modules_that_it_reached_in_pefts_hands():
    base, expression = tiny_base(), r".*\.[01]\.self_attn\.(q|v)_proj"
    method = attached(
        {
            "name": "lora",
            "r": 2,
            "target_modules": expression,
            "options": {"rank_pattern": {r"^model.*\.1\..*q_proj": 4}},
        }
    )
    shapes = {name: value.shape[0] for name, value in method.export().items() if "lora_A" in name}
    place = "base_model.model.model.layers.{}.self_attn.{}.lora_A.weight"
    assert shapes == {
        place.format(i, m): 4 if (i, m) == (1, "q_proj") else 2 for i in (0, 1) for m in ("q_proj", "v_proj")
    }
    config = method.adapter_config(base)
    assert config["target_modules"] == expression and config["rank_pattern"] == {r"^model.*\.1\..*q_proj": 4}


@pytest.mark.parametrize(
    "change",
    [{"r": 300}, {"options": {"rank_pattern": {"q_proj": 300}}}, {"options": {"modules_to_save": ["lm_head"]}}],
)
def test_tensors_are_compared_before_anything_of_their_size_is_made(change, monkeypatch):
    """The settings ask for more than the artifact's tensors have: PEFT is asked on the device without numbers only."""
    base, named = tiny_base(), {"name": "lora", "r": 2, "target_modules": ["q_proj"]}
    tensors = attached(named).export()
    made = make_method({**named, **change})
    monkeypatch.setattr(type(made), "_wrapped", lambda *_: pytest.fail("was put into a branch"))
    with pytest.raises(ArtifactError):
        made.restore(tensors, base)


def tiny(config) -> Base:
    torch.manual_seed(0)
    return Base(AutoModelForCausalLM.from_config(config).eval(), tiny_tokenizer(), config.model_type)


def test_upper_layers_where_peft_has_no_list_of_modules():
    method = attached({"name": "lora", "r": 2, "layers": "2-"}, tiny(Olmo2Config(**SIZES, pad_token_id=2)))
    changed = {name.split(".layers.")[1].rpartition(".lora")[0] for name in method.export()}
    assert changed == {f"2.{name}" for name in changed_names(method)} and len(changed) == 7


def changed_names(method) -> set[str]:
    linears = [name for name, module in method.branch.model.named_modules() if type(module).__name__ == "Linear"]
    return {
        name.split(".layers.2.")[1].split(".base_layer")[0].split(".lora")[0]
        for name in linears
        if ".layers.2." in name
    }


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**SIZES, num_local_experts=2, num_key_value_heads=2),
        PhimoeConfig(**SIZES, num_local_experts=2, num_key_value_heads=2),
    ],
    ids=lambda config: config.model_type,
)
def test_lora_with_nothing_set_on_families_with_experts(config):
    run = train(tiny(config), tiny_task(), {"name": "lora", "r": 2}, train=STEPS, rows=ROWS)
    assert torch.isfinite(scores(run.prepared)).all()
    assert not any("router" in name for name in run.prepared.method.export())


def test_the_image_tower_of_a_model_of_texts_and_images_is_left_out_but_artifacts_that_have_it_load():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**SIZES, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    base = Base(model.eval(), tiny_tokenizer(), "gemma3")
    for method in (
        "lora",
        {"name": "lora", "target_modules": "all-linear"},
        {"name": "lora", "target_modules": ["q_proj"]},
    ):
        made = attached(method, base)
        assert made.export() and not any("vision" in name or "projector" in name for name in made.export())
    before = make_method("lora")
    before._as_before = True
    bind(base, tiny_task(), before, seed=0)
    assert any("vision" in name for name in before.export())
    again = make_method("lora")
    again.restore(before.export(), base)
    assert set(again.export()) == set(before.export())


def test_options_are_not_changed_by_peft():
    options = {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}
    method = attached({"name": "lora", "r": 2, "options": options}, tiny_base("gpt2"))
    assert method.spec.options == {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}
    assert isinstance(method.branch.model, nn.Module)


def test_patterns_are_bounded():
    many = {f"m{index}": 2 for index in range(1001)}
    with pytest.raises(ConfigError, match=r"rank_pattern.*at most 1000"):
        make_method({"name": "lora", "options": {"rank_pattern": many}})


def test_layers_are_small_numbers():
    for layers in ("9" * 5000 + "-", "1-" + "9" * 5000):
        with pytest.raises(ConfigError, match="layers"):
            make_method({"name": "lora", "layers": layers})


def test_what_cannot_be_loaded_again_is_refused_before_training():
    """PEFT finds `embeddings` in `word_embeddings`, too, and then not its own tensors."""
    model = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    base = Base(model, tiny_tokenizer(frame="masked"), "bert")
    with pytest.raises(ConfigError, match="PEFT cannot load LORA with these settings"):
        attached({"name": "lora", "r": 2, "options": {"modules_to_save": ["embeddings"]}}, base)


@pytest.mark.parametrize("method", [{"name": "lora", "r": 2}, {"name": "peft:IA3"}])
def test_more_tensors_than_an_artifact_holds_are_refused_before_training(method, monkeypatch):
    attached(method)
    monkeypatch.setattr("softprompt.artifact.checks.MAX_TENSORS", 5)
    with pytest.raises(ConfigError, match=r"would learn \d+ tensors, an artifact holds 5"):
        attached(method)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Tensor.item() cannot be called on meta tensors"), False),
        (NotImplementedError("Cannot copy out of meta tensor; no data!"), False),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
    ],
)
def test_only_what_an_outline_has_no_numbers_for_is_let_by(error, told, monkeypatch):
    method, put_in = attached({"name": "lora", "r": 2}), peft.get_peft_model
    tensors = method.export()

    def fails_on_meta(model, config):
        if next(model.parameters()).is_meta:
            raise error
        return put_in(model, config)

    monkeypatch.setattr("softprompt.adapters.tuner.peft.get_peft_model", fails_on_meta)
    again = make_method(method.spec.model_dump())
    if told:
        with pytest.raises(ConfigError, match="PEFT cannot put LORA into this base"):
            again.restore(tensors, tiny_base())
    else:
        again.restore(tensors, tiny_base())


def test_a_merge_that_computes_something_else_is_refused():
    """PEFT adds the update twice where two layers share a weight, or leaves its own modules in the model."""
    tied = {"target_modules": ["wte"], "options": {"ensure_weight_tying": True}}
    for method, family, words in (
        ({"name": "lora", "r": 2, **tied}, "gpt2", "computes something else"),
        ({"name": "peft:LN_TUNING", "modules_to_save": ["lm_head"]}, "llama", "modules of PEFT's stay in it"),
    ):
        made = attached(method, tiny_base(family))
        for weight in made.parameters():
            weight.data.add_(0.1)
        with pytest.raises(ConfigError, match=words):
            made.merged(tiny_base(family))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"modules_to_save": ["embed_tokens"]}, "'model.embed_tokens.*in the embeddings"),
        ({"modules_to_save": ["input_layernorm"]}, "'model.layers.0.input_layernorm.*in layer 0"),
        ({"trainable_token_indices": [3]}, "'model.embed_tokens.*in the embeddings"),
    ],
)
def test_what_would_be_trained_below_the_first_layer_is_refused(options, named):
    """A step starts at states that are kept, so nothing below would ever learn."""
    lora = {"name": "lora", "r": 2, "options": options}
    with pytest.raises(ConfigError, match=named + ".*method.layers begins at 1"):
        attached({**lora, "layers": "1-"})
    assert attached({**lora, "layers": "0-"}).parameters()


def test_a_head_beside_upper_layers_learns():
    lora = attached({"name": "lora", "r": 2, "layers": "1-", "options": {"modules_to_save": ["lm_head"]}})
    assert any("lm_head" in name for name in lora.export())
