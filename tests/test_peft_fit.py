"""`sp.peft.fit`: PEFT loads what was trained to the same logits, at TRL's tokens; what differs is refused by name."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import peft
import pytest
import torch
from helpers import BAD, GOOD, close
from models import tiny_base, tiny_model, tiny_tokenizer
from peft.tuners.lora.config import LoftQConfig

import softprompt as sp
from softprompt.base import Base
from softprompt.errors import ConfigError, DataError, SoftpromptError

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's advice
CAUSAL = {"task_type": "CAUSAL_LM"}
STEPS = {"max_steps": 2, "batch_size": 4, "lr": 2e-2}
TEXTS = [
    {"prompt": f"Text: {word} {place}\nIt is:", "completion": " good" if word in GOOD else " bad"}
    for place, word in enumerate(GOOD + BAD)
]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"].strip()},
        ]
    }
    for row in TEXTS
]
TOKENIZER = tiny_tokenizer()
CUE = TOKENIZER("\nIt is:", add_special_tokens=False)["input_ids"]
TURN = TOKENIZER("<s>assistant: ", add_special_tokens=False)["input_ids"]
P = 4
CONFIGS = {
    "lora": lambda: (peft.LoraConfig(**CAUSAL, r=4, lora_dropout=0.1), TEXTS),
    "lora of patterns": lambda: (
        peft.LoraConfig(
            r=4,
            target_modules=["q_proj", "v_proj"],
            rank_pattern={"q_proj": 2},
            layers_to_transform=[1, 2],
            use_rslora=True,
        ),
        CHATS,
    ),
    "lora and saved modules": lambda: (
        peft.LoraConfig(r=4, target_modules="all-linear", modules_to_save=["lm_head"], init_lora_weights="gaussian"),
        TEXTS,
    ),
    "activated lora": lambda: (peft.LoraConfig(**CAUSAL, r=4, alora_invocation_tokens=CUE), TEXTS),
    "activated in a chat": lambda: (peft.LoraConfig(**CAUSAL, r=4, alora_invocation_tokens=TURN), CHATS),
    "oft": lambda: (peft.OFTConfig(**CAUSAL, oft_block_size=8, target_modules=["q_proj"]), TEXTS),
    "ia3": lambda: (peft.IA3Config(**CAUSAL), CHATS),
    "prompt": lambda: (peft.PromptTuningConfig(**CAUSAL, num_virtual_tokens=P), TEXTS),
    "prefix": lambda: (peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=P), CHATS),
    "prefix of a projection": lambda: (
        peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=P, prefix_projection=True, encoder_hidden_size=16),
        TEXTS,
    ),
    "p-tuning": lambda: (
        peft.PromptEncoderConfig(
            **CAUSAL, num_virtual_tokens=P, encoder_hidden_size=16, encoder_reparameterization_type="LSTM"
        ),
        TEXTS,
    ),
}
BY_PEFT = """
import json, sys, peft, torch
from transformers import AutoModelForCausalLM
asked = json.load(open(sys.argv[1]))
found = {}
for name, (folder, rows) in asked["folders"].items():
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(asked["base"]), folder).eval()
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([ids])).logits[0, -answer - 1 : -1] for ids, answer in rows]
    found[name] = torch.cat(logits)
torch.save(found, sys.argv[2])
"""


@functools.cache
def base() -> Base:
    return tiny_base()


def as_trl(row: dict) -> tuple[list[int], int]:
    """Ids of a row, and how many of them at its end TRL would learn: by plain transformers."""
    if "messages" not in row:
        text = row["prompt"], row["completion"] + TOKENIZER.eos_token
    else:
        whole = TOKENIZER.apply_chat_template(row["messages"], tokenize=False)
        before = TOKENIZER.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
        text = before, whole.removeprefix(before)
    before, learned = (TOKENIZER(part, add_special_tokens=False)["input_ids"] for part in text)
    return [*before, *learned], len(learned)


def test_peft_loads_what_was_trained_to_the_same_logits(tmp_path, forks):
    """In a process of its own, which knows the base's folder and ours, and nothing of softprompt."""
    base().model.save_pretrained(tmp_path / "base")
    ours, folders = {}, {}
    for name, make in CONFIGS.items():
        config, rows = make()
        result = sp.peft.fit(config, rows, base(), tmp_path / name, train=STEPS, seed=1)
        ready = result.prepared
        with torch.no_grad():
            found = [ready.form.logits(ready.engine, [row], ready.method.learned())[0] for row in ready.splits["train"]]
        ours[name] = torch.cat(found)
        folders[name] = (str(result.artifact), [as_trl(row) for row in rows])
    asked, answered = tmp_path / "asked.json", tmp_path / "answered.pt"
    asked.write_text(json.dumps({"base": str(tmp_path / "base"), "folders": folders}))
    subprocess.run([sys.executable, "-c", BY_PEFT, asked, answered], check=True)
    theirs = torch.load(answered)
    bare = base().model(input_ids=torch.tensor([as_trl(TEXTS[0])[0]])).logits[0]
    for name in CONFIGS:
        close(ours[name], theirs[name])
        assert not torch.allclose(ours[name][0], bare[-len(ours[name][0]) :][0], atol=1e-3), name


def learned_tokens(rows, config=None) -> list[tuple[list[int], int]]:
    """What the engine runs of rows, as `as_trl` says what TRL would."""
    config = config or peft.PromptTuningConfig(num_virtual_tokens=P)
    ready = sp.peft.fit(config, rows, base(), train={"max_steps": 1, "batch_size": 2}, check=False).prepared
    bound = ready.bound
    return [([*bound.prefix_ids, *row.text, *bound.cue, *row.answer], len(row.answer)) for row in ready.splits["train"]]


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "chats"])
def test_rows_of_all_holders_are_trls(rows):
    want = [as_trl(row) for row in rows]
    for held in (rows, tuple(rows), pd.DataFrame(rows), datasets.Dataset.from_list(rows), {"train": rows}):
        assert learned_tokens(held) == want
    turns = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in CHATS]
    assert learned_tokens(turns) == [as_trl(row) for row in CHATS]


def test_white_space_round_completions_and_an_end_that_is_there_already():
    rows = [{"prompt": row["prompt"], "completion": f"\n {row['completion'].strip()} \n"} for row in TEXTS]
    want = [as_trl(row) for row in rows]
    assert learned_tokens(rows) == want
    assert learned_tokens([{**row, "completion": row["completion"] + "</s>"} for row in rows]) == want
    assert learned_tokens([{**row, "answer": "another", "label": 1} for row in rows]) == want


def test_dev_and_test_rows_are_measured_and_all_others_learned():
    splits = {"train": TEXTS, "dev": TEXTS[:2], "test": pd.DataFrame(TEXTS[:3])}
    config = peft.LoraConfig(r=2)
    result = sp.peft.fit(config, splits, base(), train=STEPS, test=True)
    assert {name: found.estimate.rows for name, found in result.metrics.items()} == {"dev": 2, "test": 3}
    assert not sp.peft.fit(config, TEXTS, base(), train=STEPS).metrics


BAD_ROWS = {
    "language modelling": ([{"text": "x"}], "rows[0]: is a text alone"),
    "labels": ([TEXTS[0], {"text": "x", "label": 1}], "rows[1]: is a text with a label"),
    "preferences": ([{"prompt": "x", "chosen": "a", "rejected": "b"}], "'chosen'"),
    "two shapes": ([TEXTS[0], CHATS[0]], "rows[1]: is of another shape than rows[0]"),
    "a number": ([{"prompt": "x", "completion": 3}], "completion is a number"),
    "white space that differs": ([TEXTS[0], {"prompt": "x", "completion": "y"}], "rows[1]: completion has white space"),
    "a special token": ([{"prompt": "<s>x", "completion": "y"}], "rows[0]: prompt holds '<s>'"),
    "several turns": (
        [{"prompt": CHATS[0]["messages"][:1], "completion": CHATS[0]["messages"] * 2}],
        "completion must be one turn of the assistant",
    ),
    "no answer": (
        [{"messages": CHATS[0]["messages"][:1]}],
        "rows[0]: messages does not end in a turn of the assistant",
    ),
    "tools": ([{**CHATS[0], "tools": [{"name": "x"}]}], "tools"),
    "settings of the chat template": ([{**CHATS[0], "chat_template_kwargs": {"x": 1}}], "chat_template_kwargs"),
    "nothing": ([], "rows are empty"),
    "no split": ({}, "rows are a mapping with nothing; expected them by split"),
    "nothing to learn from": ({"dev": TEXTS}, "rows hold 'dev' only; give what is learned as rows['train']"),
    "no rows to learn from": ({"train": [], "dev": TEXTS}, "rows['train'] are empty"),
    "columns": (
        {"prompt": ["x"], "completion": ["y"]},
        "rows are a mapping with 'prompt', 'completion'; expected them",
    ),
    "a split of another name": (
        {"train": TEXTS, "validation": TEXTS},
        "rows['validation'] is no split that is read; name",
    ),
    "a table's split of another name": (
        datasets.DatasetDict({name: datasets.Dataset.from_list(TEXTS) for name in ("train", "evaluation", "dev")}),
        "rows['evaluation'] is no split that is read (known: dev, test, train); rename it or leave it out",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD_ROWS))
def test_rows_that_trl_would_read_otherwise_are_refused(name):
    rows, words = BAD_ROWS[name]
    with pytest.raises(SoftpromptError) as caught:
        sp.peft.fit(peft.LoraConfig(r=2), rows, base(), train=STEPS)
    told = [str(caught.value), *getattr(caught.value, "problems", [])]
    assert any(words in line for line in told), told
    assert "\n" not in told[0]


REFUSED = {
    "a start that changes the base": (lambda: peft.LoraConfig(init_lora_weights="pissa"), "init_lora_weights 'pissa'"),
    "a start of its own": (
        lambda: peft.LoraConfig(loftq_config=LoftQConfig(), init_lora_weights="loftq"),
        "LoraConfig.loftq_config is {",
    ),
    "layers twice": (lambda: peft.LoraConfig(layer_replication=[(0, 2), (1, 3)]), "LoraConfig.layer_replication is ["),
    "layers with a gap": (lambda: peft.LoraConfig(layers_to_transform=[0, 2]), "layers_to_transform is [0, 2]"),
    "modules outside of the layers": (
        lambda: peft.LoraConfig(layers_to_transform=[1], modules_to_save=["lm_head"]),
        "LoraConfig.modules_to_save is ['lm_head'] beside layers_to_transform [1]",
    ),
    "biases before the cue": (
        lambda: peft.LoraConfig(alora_invocation_tokens=CUE, bias="all"),
        "LoraConfig.bias is 'all' beside alora_invocation_tokens",
    ),
    "other tokens than between": (
        lambda: peft.LoraConfig(alora_invocation_tokens=CUE[1:3]),
        "alora_invocation_tokens",
    ),
    "a classifier": (lambda: peft.LoraConfig(task_type="SEQ_CLS"), "LoraConfig.task_type is 'SEQ_CLS'"),
    "no such module": (lambda: peft.LoraConfig(target_modules=["nowhere"]), "nowhere"),
    "another type": (lambda: peft.AdaLoraConfig(total_step=9), "AdaLoraConfig.peft_type is 'ADALORA'"),
    "a prompt of another kind": (
        lambda: peft.CPTConfig(**CAUSAL, cpt_token_ids=[4], cpt_tokens_type_mask=[1]),
        "CPTConfig.peft_type is 'CPT'",
    ),
    "no length": (lambda: peft.PromptTuningConfig(), "PromptTuningConfig.num_virtual_tokens is None"),
    "another width": (lambda: peft.PromptTuningConfig(num_virtual_tokens=P, token_dim=65), "token_dim is 65, base"),
    "modules beside a prompt": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=P, modules_to_save=["lm_head"]),
        "PromptTuningConfig.modules_to_save is ['lm_head']",
    ),
    "a tokenizer that is nowhere": (
        lambda: peft.PromptTuningConfig(
            num_virtual_tokens=P,
            prompt_tuning_init="TEXT",
            prompt_tuning_init_text="x",
            tokenizer_name_or_path="no/where",
        ),
        "PromptTuningConfig.tokenizer_name_or_path is 'no/where'",
    ),
    "dropout of an LSTM": (
        lambda: peft.PromptEncoderConfig(
            num_virtual_tokens=P, encoder_reparameterization_type="LSTM", encoder_dropout=0.1
        ),
        "PromptEncoderConfig.encoder_dropout is 0.1",
    ),
    "two decoders": (
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=P, num_transformer_submodules=2),
        "num_transformer_submodules is 2",
    ),
    "no configuration": (lambda: {"r": 8}, "config is an object; expected one of PEFT's"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_fields_that_are_not_honoured_are_refused_with_their_value(name):
    make, words = REFUSED[name]
    with pytest.raises((ConfigError, DataError)) as caught:
        sp.peft.fit(make(), TEXTS, base(), train=STEPS)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_prompt_that_peft_would_not_load_is_refused():
    with pytest.raises(ConfigError, match="peft_type is 'PROMPT_TUNING', which PEFT does not load on base 'tiny-t5'"):
        sp.peft.method(peft.PromptTuningConfig(num_virtual_tokens=P), tiny_base("t5"))


@pytest.mark.parametrize("bos", [False, True])
def test_a_text_to_start_from_is_read_as_peft_reads_it(tmp_path, bos):
    """Its special tokens included, repeated or cut to the length."""
    from peft.tuners.prompt_tuning import PromptEmbedding

    model = tiny_base(bos=bos)
    model.tokenizer.save_pretrained(tmp_path)
    for length in (3, 11):
        config = peft.PromptTuningConfig(
            num_virtual_tokens=length,
            token_dim=64,
            num_transformer_submodules=1,
            prompt_tuning_init="TEXT",
            prompt_tuning_init_text="sun joy",
            tokenizer_name_or_path=str(tmp_path),
        )
        theirs = PromptEmbedding(config, model.model.get_input_embeddings()).embedding.weight
        assert torch.equal(start_of(config, model), theirs)


def start_of(config, model: Base | None = None) -> torch.Tensor:
    """What a method starts from, as it would be saved, at a learning rate that moves nothing."""
    settings = {"max_steps": 1, "batch_size": 2, "lr": 1e-30}
    method = sp.peft.fit(config, TEXTS, model or base(), train=settings, check=False).prepared.method
    return next(iter(method.export().values()))


def test_starts_are_drawn_as_peft_draws_them():
    several = {"num_virtual_tokens": 50}
    for config in (peft.PromptTuningConfig(**several), peft.PrefixTuningConfig(**several)):
        drawn = start_of(config)
        assert abs(drawn.mean()) < 0.1 and abs(drawn.std() - 1) < 0.1
    assert not start_of(peft.PrefixTuningConfig(**several, init_weights="zero")).abs().max() > 1e-20
    assert (
        not start_of(peft.PrefixTuningConfig(**several, init_weights="zero", prefix_projection=True)).abs().max()
        > 1e-20
    )
    table = base().model.get_input_embeddings().weight
    drawn = start_of(peft.PromptTuningConfig(**several, prompt_tuning_init="SAMPLE_VOCAB"))
    tokens = [int((table == row).all(1).nonzero()[0]) for row in drawn]
    assert len(set(tokens)) > 30 and max(tokens) > 200


def test_peft_trains_the_same_numbers():
    """Two steps of plain PEFT on the same rows in the same order end at the same prompt."""
    config = peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=P, init_weights="zero")
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "lr": 1e-2,
        "schedule": "constant",
        "warmup": 0,
        "weight_decay": 0,
        "clip": 1e9,
    }
    ours = sp.peft.fit(config, TEXTS, base(), train=settings).prepared.method.export()["prompt_embeddings"]
    model = peft.get_peft_model(tiny_model("llama").eval(), config)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0)
    for _ in range(2):
        losses, tokens = [], 0
        for ids, answer in map(as_trl, TEXTS):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -answer - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[-answer:]), reduction="sum"))
            tokens += answer
        (sum(losses) / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    close(ours, trained[0].detach(), 1e-3)
    assert ours.abs().max() > 0.01


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    text = Path(sp.__file__).parents[1].joinpath("docs", "python.md").read_text("utf-8")
    section = text.partition("## PEFT configurations")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert code.count('"smollm2"') == 1
    monkeypatch.chdir(tmp_path)
    base().model.save_pretrained("base")
    base().tokenizer.save_pretrained("base")
    held: dict = {}
    exec(code.replace('"smollm2"', '"base"').replace("epochs=", "max_steps="), held)
    found = peft.PeftModel.from_pretrained(tiny_model("llama"), held["result"].artifact)
    assert "lora" in str(found.peft_config).lower()
