"""Folders of PEFT's, as they are and damaged: each comes in to what PEFT itself computes of it, or is refused in one line."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from contract.test_tuners import FITTING
from helpers import tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from peft.tuners.multitask_prompt_tuning import MultitaskPromptTuningConfig
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, Qwen3MoeConfig, Qwen3MoeForCausalLM

from softprompt import Runtime
from softprompt.adapters.tuner import types
from softprompt.artifact import load
from softprompt.base import Base
from softprompt.errors import SoftpromptError
from softprompt.training.importing import import_peft, read_folder

IDS = torch.arange(3, 24)[None]
CAUSAL = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": lambda: peft.LoraConfig(**CAUSAL, r=4, target_modules=["q_proj", "o_proj"], layers_to_transform=[1, 2]),
    "vera": lambda: peft.VeraConfig(**CAUSAL, r=4, target_modules=["o_proj"]),
    "prefix": lambda: peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=3),
    "cartridge": lambda: peft.CartridgeConfig(**CAUSAL, num_virtual_tokens=3),
    "soft": lambda: peft.PromptTuningConfig(**CAUSAL, num_virtual_tokens=3),
    "cpt": lambda: peft.CPTConfig(**CAUSAL, cpt_token_ids=[4, 5, 6], cpt_tokens_type_mask=[1, 2, 3]),
    "multitask": lambda: MultitaskPromptTuningConfig(**CAUSAL, num_virtual_tokens=3, num_ranks=2),
}
VALUES = [
    None,
    "x",
    -1,
    0,
    1.5,
    10**9,
    True,
    [],
    {},
    ["a", "b"],
    [0, 10**9],
    {"a": 1},
    "\x1b[2J",
    "(([a-z._0-9])+)+!",
    1e308,
]


@functools.cache
def folder_of(kind: str) -> Path:
    """A folder that PEFT wrote; kept for the session (`made` is set by a fixture)."""
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model("llama"), CONFIGS[kind]())
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.1)
    model.eval().save_pretrained(MADE / kind)
    return MADE / kind


MADE = Path()


@pytest.fixture(autouse=True, scope="module")
def made(tmp_path_factory):
    global MADE
    MADE = tmp_path_factory.mktemp("made")


def ours(folder: Path, out: Path) -> torch.Tensor:
    """Logits [T, V] of a text behind what came in."""
    base = tiny_base()
    runtime = Runtime(base)
    runtime.add("a", import_peft(folder, base, tiny_task(template={"input": "{{ text }}", "cue": "\nIt is:"}), out))
    return logits_of(runtime.get("a").method)


def logits_of(method) -> torch.Tensor:
    """Logits [T, V] by plain transformers with the method's weights or learned segment."""
    with torch.no_grad():
        if method.spec.name in ("peft", "lora"):
            return method.branch.model(IDS).logits[0]
        learned = method.learned().segments["prompt"]
        model = tiny_model("llama").eval()
        if method.spec.name == "soft":
            rows = torch.cat([learned[None], model.get_input_embeddings()(IDS)], 1)
            return model(inputs_embeds=rows).logits[0, len(learned) :]
        cache, length = DynamicCache(), learned.shape[3]
        for index, (keys, values) in enumerate(learned):
            cache.update(keys[None], values[None], index)
        places = torch.arange(length, length + IDS.shape[1])[None]
        return model(input_ids=IDS, past_key_values=cache, position_ids=places).logits[0]


def theirs(folder: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(tiny_model("llama").eval(), folder).eval()
    extra = {"task_ids": torch.tensor([0])} if "multitask" in folder.name else {}
    with torch.no_grad():
        return model(input_ids=IDS, **extra).logits[0, -IDS.shape[1] :]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_what_comes_in_computes_what_peft_computes(kind, tmp_path):
    found = ours(folder_of(kind), tmp_path / "out")
    assert torch.allclose(found, theirs(folder_of(kind)), atol=2e-5)
    assert not torch.allclose(found, tiny_base().model(IDS).logits[0], atol=1e-3)


LORAS = {
    "biases": {"bias": "all"},
    "biases of its modules": {"bias": "lora_only"},
    "all of the body": {"modules_to_save": ["model"], "target_modules": ["lm_head"]},
    "saved modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "an expression": {
        "target_modules": r".*\.[12]\..*q_proj",
        "rank_pattern": {r".*\.1\..*": 2},
        "alpha_pattern": {"q_proj": 9},
    },
    "left out": {"exclude_modules": r".*\.1\..*", "lora_bias": True},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [4, 5]}, "use_rslora": True},
    "samples": {"monteclora_config": {"num_samples": 4}},
    "groups": {"velora_config": {"num_groups": 8}, "use_dora": False},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(LORAS))
def test_loras_of_all_settings_come_in_and_the_base_stays(name, tmp_path):
    base = tiny_base("qwen")
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    model = peft.get_peft_model(tiny_model("qwen"), peft.LoraConfig(**CAUSAL, **{"r": 4, **LORAS[name]}))
    comes_in(base, moved(model), tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())


def moved(model):
    """With numbers in all that PEFT trains."""
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def comes_in(base, model, folder: Path) -> None:
    model.save_pretrained(folder / "peft")
    runtime = Runtime(base)
    runtime.add("a", import_peft(folder / "peft", base, tiny_task(), folder / "ours"))
    with torch.no_grad():
        found, want = runtime.get("a").method.branch.model(IDS).logits, model(IDS).logits
        assert torch.allclose(found, want, atol=2e-5) and not torch.allclose(want, base.model(IDS).logits, atol=1e-3)


def test_a_lora_on_experts_comes_in(tmp_path):
    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 2,
    }
    config = Qwen3MoeConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_experts=2, num_experts_per_tok=2)
    torch.manual_seed(0)
    plainly = Qwen3MoeForCausalLM(config).eval()
    for weight in plainly.parameters():
        weight.data.mul_(2)
    model = peft.get_peft_model(copy.deepcopy(plainly), peft.LoraConfig(**CAUSAL, r=4, target_modules="all-linear"))
    comes_in(Base(plainly, tiny_tokenizer(), "experts"), moved(model), tmp_path)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(types().keys() - {"TRAINABLE_TOKENS"}))
def test_every_tuner_comes_in(kind, tmp_path):
    own = {"PSOFT": {"r": 8}, "OSF": {"effective_rank": 8}, "UNILORA": {"theta_d_length": 64}, **FITTING}.get(kind, {})
    targets = {} if kind in ("IA3", "LN_TUNING") else {"target_modules": ["q_proj", "v_proj"]}
    model = peft.get_peft_model(tiny_model("llama"), types()[kind](**CAUSAL, **targets, **own))
    comes_in(tiny_base(), moved(model), tmp_path)


def changed(kind: str, to: Path, change) -> Path:
    """A copy of PEFT's folder whose configuration and tensors the change has gone over."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder_of(kind), to)
    config = json.loads((to / "adapter_config.json").read_text())
    tensors = load_file(to / "adapter_model.safetensors")
    change(config, tensors)
    (to / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, to / "adapter_model.safetensors", metadata={"format": "pt"})
    return to


def check(kind: str, folder: Path, out: Path, what: str) -> bool:
    """Refused in one line that can be shown (True), or as the folder was, or as PEFT itself has it."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        found = ours(folder, out)
    except SoftpromptError as error:
        message = str(error)
        assert message.isprintable() and 10 < len(message) < 2500, (what, message)
        return True
    if torch.allclose(found, ours_unchanged(kind), atol=2e-5):
        return False
    assert torch.allclose(found, theirs(folder), atol=2e-5), f"{what}: taken, and is another model than PEFT's"
    return False


@functools.cache
def ours_unchanged(kind: str) -> torch.Tensor:
    return ours(folder_of(kind), MADE / f"{kind}-out")


def settings_of(kind: str) -> list[tuple[str, object]]:
    """Every key of the configuration, and some that PEFT does not know, with every value."""
    known = json.loads((folder_of(kind) / "adapter_config.json").read_text())
    return list(itertools.product([*known, "megatron_core", "use_new_thing", "r", "num_layers", "evil\x1b"], VALUES))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["lora", "prefix", "soft"])
def test_changed_configurations(kind, tmp_path):
    """A part of all (key, value), another one for each key."""
    pairs = settings_of(kind)[:: 11 if kind == "lora" else 7]
    refused = [run_with(kind, key, value, tmp_path) for key, value in pairs]
    assert len(refused) > 30 and sum(refused) > len(refused) // 3


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_all_changed_configurations(kind, tmp_path):
    assert sum([run_with(kind, key, value, tmp_path) for key, value in settings_of(kind)]) > 100


def run_with(kind: str, key: str, value: object, tmp_path: Path) -> bool:
    def change(config, tensors):
        config[key] = value

    return check(kind, changed(kind, tmp_path / kind, change), tmp_path / "out", f"{kind}: {key}={value!r}")


def _first(tensors) -> str:
    return sorted(tensors)[0]


DAMAGES = {
    "a tensor missing": lambda config, tensors: tensors.pop(_first(tensors)),
    "a tensor more": lambda config, tensors: tensors.update({"evil\x1b[2J" + "x" * 5000: torch.ones(2)}),
    "a tensor longer": lambda config, tensors: tensors.update({_first(tensors): torch.ones(7, 99)}),
    "a tensor flat": lambda config, tensors: tensors.update(
        {_first(tensors): tensors[_first(tensors)].flatten()[None, None]}
    ),
    "a tensor empty": lambda config, tensors: tensors.update({_first(tensors): torch.ones(0, 64)}),
    "NaN": lambda config, tensors: tensors[_first(tensors)].view(-1)[:1].fill_(float("nan")),
    "whole numbers": lambda config, tensors: tensors.update({_first(tensors): torch.ones(3, 64, dtype=torch.int64)}),
    "names of another base": lambda config, tensors: [
        tensors.update({f"x.{k}": tensors.pop(k)}) for k in list(tensors)
    ],
    "no tensors": lambda config, tensors: tensors.clear(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("kind", ["lora", "vera", "prefix", "soft", "multitask"])
def test_changed_tensors(kind, damage, tmp_path):
    folder = changed(kind, tmp_path / kind, DAMAGES[damage])
    assert check(kind, folder, tmp_path / "out", damage), "taken"


NOT_THEIRS = {
    "layers: none": ("lora", {"layers_to_transform": []}, "layers_to_transform"),
    "layers: texts": ("lora", {"layers_to_transform": ["a", "b"]}, "layers_to_transform"),
    "layers: 1.5": ("lora", {"layers_to_transform": 1.5}, "layers_to_transform"),
    "layers: 10^9": ("lora", {"layers_to_transform": [10**9]}, "layer 1000000000"),
    "layers: 0 and 10^9": ("lora", {"layers_to_transform": [0, 10**9]}, "follow one another"),
    "layers: a gap": ("lora", {"layers_to_transform": [0, 2]}, "follow one another"),
    "tokens: a text": ("lora", {"alora_invocation_tokens": "x"}, "alora_invocation_tokens"),
    "tokens: negative": ("lora", {"alora_invocation_tokens": [-5]}, "alora_invocation_tokens"),
    "tokens: beyond": ("lora", {"alora_invocation_tokens": [10**6]}, "alora_invocation_tokens"),
    "tokens: not the cue": ("lora", {"alora_invocation_tokens": [1]}, "active from the tokens"),
    "an endless expression": ("lora", {"target_modules": "(([a-z._0-9])+)+!"}, "target_modules"),
    "a rank of a million": ("lora", {"r": 10**6}, "r is 1,000,000"),
    "a rank within the file": ("lora", {"r": 50}, "has shape"),
    "a rank within the base": ("lora", {"r": 300}, "its file of tensors has room for 64"),
    "a classifier": ("lora", {"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
    "modules that are nowhere": ("lora", {"modules_to_save": ["evil"]}, "has no 'evil'"),
    "a key of a later PEFT": ("lora", {"use_new_thing": 3}, "unknown key 'use_new_thing'"),
    "a key of a later PEFT, a prompt": ("soft", {"use_new_thing": True}, "unknown key 'use_new_thing'"),
    "code by name": ("lora", {"megatron_core": "stranger.evil"}, "unknown key 'megatron_core'"),
    "a start of its own": ("lora", {"init_lora_weights": "pissa"}, "init_lora_weights"),
    "no such tuner": ("lora", {"peft_type": "EVIL\n"}, "no tuner"),
    "rows that meet": ("lora", {"peft_type": "LILY"}, "depends on other rows of its batch"),
    "fewer layers": ("prefix", {"num_layers": 1, "token_dim": 96}, "num_layers is 1"),
    "other heads": ("prefix", {"num_attention_heads": 8}, "num_attention_heads is 8"),
    "several tasks": ("multitask", {"num_tasks": 2}, "prompts for 2 tasks"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(NOT_THEIRS))
def test_what_does_not_fit_is_named(name, tmp_path):
    kind, change, words = NOT_THEIRS[name]
    folder = changed(kind, tmp_path / kind, lambda config, tensors: config.update(change))
    with pytest.raises(SoftpromptError) as caught:
        import_peft(folder, tiny_base(), tiny_task(), tmp_path / "out")
    assert words in str(caught.value) and str(caught.value).isprintable() and not (tmp_path / "out").exists()


NEEDS_BASE = {
    "layers: 10^9",
    "tokens: beyond",
    "tokens: not the cue",
    "an endless expression",
    "a rank within the file",
    "modules that are nowhere",
    "fewer layers",
    "other heads",
}


@pytest.mark.parametrize("name", sorted(NOT_THEIRS.keys() - NEEDS_BASE))
def test_what_needs_no_base_is_refused_without_one(name, tmp_path):
    kind, change, words = NOT_THEIRS[name]
    with pytest.raises(SoftpromptError) as caught:
        read_folder(changed(kind, tmp_path / kind, lambda config, tensors: config.update(change)))
    assert words in str(caught.value)


def test_a_switch_of_a_later_peft_that_is_off_says_nothing(tmp_path):
    folder = changed("lora", tmp_path / "lora", lambda config, tensors: config.update(use_new_thing=False, other=None))
    assert torch.equal(ours(folder, tmp_path / "out"), ours_unchanged("lora"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "start", [{"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}, {"loftq_config": {"x": 4}}]
)
def test_how_a_lora_was_begun_says_nothing_of_the_finished_one(start, tmp_path):
    folder = changed("lora", tmp_path / "lora", lambda config, tensors: config.update(start))
    assert torch.equal(ours(folder, tmp_path / "out"), ours_unchanged("lora"))


@pytest.mark.filterwarnings("ignore")
def test_embeddings_that_are_saved_beside_must_be_the_bases(tmp_path):
    name = "base_model.model.lm_head.weight"
    own = tiny_model("llama").get_output_embeddings().weight.detach()
    same = changed("lora", tmp_path / "same", lambda config, tensors: tensors.update({name: own.half().bfloat16()}))
    with pytest.raises(SoftpromptError, match="has others"):
        ours(same, tmp_path / "out")  # rounded twice
    for number, value in enumerate((own, own.bfloat16())):
        folder = changed("lora", tmp_path / "same", lambda config, tensors, value=value: tensors.update({name: value}))
        assert torch.equal(ours(folder, tmp_path / f"out{number}"), ours_unchanged("lora"))
    longer = torch.cat([own, own[:10]])
    folder = changed("lora", tmp_path / "longer", lambda config, tensors: tensors.update({name: longer}))
    with pytest.raises(SoftpromptError, match=r"\[330, 64\], base 'tiny-llama' has others \[320, 64\]"):
        ours(folder, tmp_path / "longer-out")


@pytest.mark.filterwarnings("ignore")
def test_another_base_by_name_is_told(tmp_path):
    told: list[str] = []
    for number, named in enumerate(("someone/Tiny-LLAMA", None, "someone/other\x1b")):
        folder = changed(
            "soft", tmp_path / "it", lambda config, tensors, n=named: config.update(base_model_name_or_path=n)
        )
        import_peft(folder, tiny_base(), tiny_task(), tmp_path / f"out{number}", told.append)
    told = [line for line in told if "instruction" not in line]
    assert (
        len(told) == 1 and r"'someone/other\x1b', and is imported on 'tiny-llama'" in told[0] and told[0].isprintable()
    )


@pytest.mark.parametrize(("kind", "said"), [("soft", 1), ("prefix", 1), ("lora", 0)])
def test_an_instruction_behind_a_learned_prompt_is_told(tmp_path, kind, said):
    told: list[str] = []
    import_peft(folder_of(kind), tiny_base(), tiny_task(), tmp_path / "out", told.append)
    assert ["the task's instruction stands behind the learned prompt" in line for line in told] == [True] * said
    bare = tiny_task(template={"input": "{{ text }}", "cue": ":"})
    import_peft(folder_of(kind), tiny_base(), bare, tmp_path / "bare", told.append)
    assert len(told) == said


def test_a_folder_of_adapters_names_them(tmp_path):
    shutil.copytree(folder_of("lora"), tmp_path / "all" / "mine")
    with pytest.raises(SoftpromptError, match="name one in it: mine"):
        read_folder(tmp_path / "all")


def test_a_folder_of_artifacts_names_them(tmp_path):
    import_peft(folder_of("soft"), tiny_base(), tiny_task(), tmp_path / "all" / "mine")
    with pytest.raises(SoftpromptError, match="name one in it: 'mine'"):
        load(tmp_path / "all")
    (tmp_path / "it.zip").touch()
    for name, words in ((tmp_path / "it.zip", "is a file; .* folder, unpacked"), ("a" * 5000, "cannot be read")):
        with pytest.raises(SoftpromptError, match=words):
            load(name)
