"""A checkpoint whose files and settings do not belong together is refused in one line; what is harmless is loaded exactly."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from zoo_models import build

from softprompt.base import Base
from softprompt.errors import BaseModelError
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import train

_FIRST = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path):
    base = tiny_base()
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def with_settings(folder, **settings) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def with_tensors(folder, change) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refusal(folder, **how) -> str:
    with pytest.raises(BaseModelError) as told:
        Base.load(folder, device="cpu", **how)
    assert str(told.value).isprintable()
    return str(told.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_hidden_layers": 2}, "holds model.layers.2.input_layernorm.weight, and its config.json says 2 layers"),
        ({"num_hidden_layers": 0}, "says 0 layers; at least 1"),
        (
            {"rope_parameters": {"rope_type": "mrope", "rope_theta": 1e4}},
            "its settings say 'mrope', which transformers",
        ),
        ({"num_attention_heads": 0}, "a setting of its JSON files does not fit"),
        ({"quantization_config": {"quant_method": "foo"}}, "quantised by 'foo', which transformers does not know"),
        ({"quantization_config": {}}, "names no quant_method"),
    ],
)
def test_settings_that_are_not_the_files_are_refused(folder, settings, words):
    with_settings(folder, **settings)
    assert words in refusal(folder)


@pytest.mark.parametrize("config", [{"load_in_8bit": True}, {"quant_method": "bitsandbytes", "load_in_4bit": True}])
def test_plain_weights_that_are_called_quantised(folder, config):
    pytest.importorskip("bitsandbytes")
    with_settings(folder, quantization_config=config)
    assert "but they are plain numbers; remove quantization_config from it" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"{_FIRST}.bias", torch.ones(64), "which its config.json leaves out"),
        ("model.layers.3.mlp.up_proj.weight", torch.ones(128, 64), "and its config.json says 3 layers"),
        ("model.layers.0.self_attn.q_norm.weight", torch.ones(16), "which layers of 'llama' do not have"),
        (
            f"{_FIRST}.weight_scale_inv",
            torch.ones(1, 1),
            "its weights are quantised, and its config.json does not say how",
        ),
        (f"{_FIRST}.weight", torch.ones(64, 64, dtype=torch.int8), "holds whole numbers (I8)"),
        (f"{_FIRST}.weight", torch.full((64, 64), torch.inf), "holds numbers that are none"),
    ],
)
def test_weights_that_the_settings_leave_out_are_refused(folder, name, value, words):
    """transformers loads these without them: another model than was saved."""
    with_tensors(folder, lambda tensors: tensors.update({name: value}))
    assert name in (said := refusal(folder)) and words in said


def test_one_weight_that_is_no_number_is_found_wherever_it_is(folder):
    def spoil(tensors):
        tensors["model.embed_tokens.weight"][300, 5] = torch.nan

    with_tensors(folder, spoil)
    assert "model.embed_tokens.weight holds numbers that are none (nan or inf)" in refusal(folder)


def test_heads_and_layers_for_more_predictions_are_no_part_of_the_model(folder):
    ids = torch.arange(9, 40)
    want = tiny_base().model(ids[None]).logits[0]
    more = {"score.weight": torch.ones(2, 64), "model.layers.3.mlp.up_proj.weight": torch.ones(128, 64)}
    more["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # which older versions kept
    with_tensors(folder, lambda tensors: tensors.update(more))
    with_settings(
        folder, num_nextn_predict_layers=1, attn_implementation="flash_attention_2"
    )  # which need not be there
    base = Base.load(folder, device="cpu")
    close(base.logits(base.forward(base.embed(ids), [31], torch.zeros(1, dtype=torch.long)).states), want)


def test_layers_with_a_window_that_is_not_given_say_so():
    model = tiny_model("gemma3")
    model.config.sliding_window = None
    with pytest.raises(BaseModelError, match="layers with a sliding window, and sliding_window is null"):
        Base(model, tiny_tokenizer())


def test_windows_of_each_layer_are_not_asked_of_all():
    """transformers refuses to say the one of a config whose layers have their own."""
    with pytest.raises(BaseModelError, match=r"\(NeoMMEForMaskedLM\) is not supported"):
        Base(build("masked", "neomme"), tiny_tokenizer(frame="masked"))


@pytest.mark.parametrize(("name", "token"), [("decoder_start_token_id", 320), ("forced_bos_token_id", -1)])
def test_a_decoder_that_begins_with_a_token_that_there_is_not(name, token):
    model = tiny_model("t5")
    setattr(model.generation_config, name, token)
    with pytest.raises(BaseModelError, match=f"with token {token}, and it has tokens 0 to 319"):
        Base(model, tiny_tokenizer(frame="seq2seq"))


def test_a_row_without_numbers_is_no_answer(tmp_path):
    """A base may be sound, and its numbers too large for fp16; here a weight is spoilt after the base was proved."""
    base = Base(tiny_model("llama"), tiny_tokenizer())
    writing = Task.load({"name": "writing", "type": "generation", "template": {"input": "{{ text }}", "cue": ":"}})
    for task, method in ((tiny_task(), "soft"), (writing, "hard")):
        rows = tiny_rows(train=4, dev=2)
        for row in [*rows["train"], *rows["dev"], *rows["test"]]:
            row.values["answer"] = row.values["label"]
        train(base, task, method, tmp_path / task.name, train={"epochs": 1, "batch_size": 4}, rows=rows)
    runtime = Runtime(base)
    for name in ("tiny", "writing"):
        runtime.add(name, tmp_path / name)
    (letter,) = base.tokenizer("z", add_special_tokens=False)["input_ids"]
    base.model.model.embed_tokens.weight.data[letter] = torch.nan
    for name in ("tiny", "writing"):
        assert len(runtime.predict([{"text": "joy"}], name)) == 1
        with pytest.raises(BaseModelError, match=r"gives no numbers \(nan\), so there is no answer"):
            runtime.predict([{"text": "joy"}, {"text": "joy z"}], name)
