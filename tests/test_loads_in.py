"""An artifact says where plain PEFT loads it, and there PEFT's logits are ours."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_model, tiny_tokenizer
from pydantic import ValidationError
from zoo import quiet
from zoo_models import build

from softprompt import load
from softprompt.artifact import Manifest
from softprompt.artifact.card import model_card
from softprompt.base import Base
from softprompt.base.own_cache import prefix_in_peft
from softprompt.engine import SLOTS, make_engine, plan
from softprompt.training import train
from softprompt.training.importing import import_peft
from softprompt.types import Example

pytestmark = pytest.mark.filterwarnings("ignore")
P = 3


@pytest.mark.parametrize(("family", "window"), [("llama", None), ("gpt2", None), ("gemma3", 8)])
def test_pefts_logits_are_ours_in_rows_within_the_window(tmp_path, family, window):
    plain, base = copy.deepcopy(tiny_model(family)).eval(), Base(tiny_model(family), tiny_tokenizer(), "tiny")
    settings = {"train": {"max_steps": 2}, "rows": tiny_rows()}
    method = train(base, tiny_task(), {"name": "prefix", "length": P}, tmp_path, **settings).prepared.method
    manifest = load(tmp_path).manifest
    said = f"peft within the window of {window} tokens" if window else "peft"
    assert manifest.loads_in == said and ("window of 8 tokens" in model_card(manifest)) is bool(window)
    theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path / "artifact")).eval()
    engine = make_engine(base, plan(method.segments(SLOTS, 0)), (), ())
    ids = base.tokenizer("joy sun gift hope", add_special_tokens=False)["input_ids"]
    for length in range(1, len(ids) + 1):
        row = Example(tuple(ids[:length]), ((1,),), 0, "row:1", {})
        with torch.no_grad():
            ((_, batch),) = engine.contexts([row], method.learned(), continued=False)
            want = theirs(input_ids=torch.tensor([row.text]), attention_mask=torch.ones(1, length).long()).logits[0, -1]
        same = torch.allclose(base.logits(batch.last)[0], want, atol=1e-5)
        assert same is (window is None or P + length <= window), length
    told = []
    bare = tiny_task(template={"input": "Text: {{ text }}", "cue": "\nIt is:"})
    import_peft(tmp_path / "artifact", base, bare, tmp_path / "back", told.append)
    assert ["measure it on rows of your length" in line for line in told] == ([True] if window else [])


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("gpt_bigcode", None),  # one key head for all
        ("deepseek_v3", None),  # its own cache holds latents
        ("mistral", "peft within the window of 12 tokens"),
        ("glm4", "peft"),
    ],
)
def test_where_peft_cannot_put_a_prefix_nothing_is_said_to_load_it(tmp_path, family, said):
    with quiet():
        base = Base(build("causal", family), tiny_tokenizer(), family)
        train(base, tiny_task(), {"name": "prefix", "length": P}, tmp_path, train={"max_steps": 1}, rows=tiny_rows())
    assert prefix_in_peft(base) == load(tmp_path).manifest.loads_in == said
    assert (tmp_path / "artifact" / "adapter_config.json").exists() is (said is not None)


@pytest.mark.parametrize(("activate", "said"), [("cue", None), ("always", "peft")])
def test_peft_activates_no_lora_on_the_parameters_of_experts(tmp_path, activate, said):
    with quiet():
        base = Base(build("causal", "qwen3_moe"), tiny_tokenizer(), "qwen3_moe")
        method = {"name": "lora", "r": 2, "activate": activate}
        train(base, tiny_task(), method, tmp_path, train={"max_steps": 1}, rows=tiny_rows())
    assert load(tmp_path).manifest.loads_in == said
    if said:
        peft.PeftModel.from_pretrained(build("causal", "qwen3_moe"), str(tmp_path / "artifact"))


def test_a_manifest_says_nothing_else():
    fields = Manifest.__pydantic_validator__
    for said in ("peft", "transformers", None, "peft within the window of 512 tokens"):
        assert fields.validate_assignment(Manifest.model_construct(), "loads_in", said)
    for said in ("peft within the window of 0 tokens", "vllm", "peft\n", "peft within the window of 9 tokens; see x"):
        with pytest.raises(ValidationError):
            fields.validate_assignment(Manifest.model_construct(), "loads_in", said)
