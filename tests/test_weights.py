"""Artifacts of weights from outside: plain model folders, merging, PEFT's folders brought in, optimizers with less state."""

from __future__ import annotations

import peft
import pytest
import torch
from helpers import bound_form, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel
from zoo_models import build

from softprompt import Runtime, load
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError
from softprompt.training import merging, train
from softprompt.training.importing import import_peft

SETTINGS = {"epochs": 1, "batch_size": 8}


def plain_logits(model, ids):
    """Next-token logits [V] of a plain model (or PEFT's)."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[
            0, -1
        ]


def served_logits(base, artifact):
    """Ids of a context, and the logits [V] of the artifact after it."""
    runtime = Runtime(base)
    runtime.add("it", artifact)
    prompt = runtime.get("it")
    example = prompt.form.encode(tiny_rows()["dev"][0].values)
    ((_, batch),) = prompt.engine.contexts([example], prompt.method.learned(), continued=False)
    return [*prompt.bound.prefix_ids, *example.text, *prompt.bound.cue], batch.base.logits(batch.last)[0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_full_fine_tuning_is_saved_as_a_plain_model_folder(tmp_path, family):
    base = tiny_base(family)
    train(base, tiny_task(), "full", tmp_path, train={**SETTINGS, "lr": 1e-3}, rows=tiny_rows())
    folder = tmp_path / "artifact"
    assert load(folder).manifest.loads_in == "transformers" and not (folder / "adapter_model.safetensors").exists()
    ids, logits = served_logits(base, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is type(base.model) and "softprompt" not in (folder / "config.json").read_text()
    assert torch.allclose(plain_logits(model, ids), logits, atol=1e-5)
    assert not torch.allclose(plain_logits(base.model, ids), logits, atol=1e-3)
    assert AutoTokenizer.from_pretrained(folder)("a b")["input_ids"] == base.tokenizer("a b")["input_ids"]
    assert "AutoModelForCausalLM" in (folder / "README.md").read_text()
    again = Base.load(str(folder))  # and a base for further prompts
    assert again.shape == base.shape and again.digest != base.digest

    train(base, tiny_task(), "full", tmp_path, train={**SETTINGS, "lr": 1e-3}, rows=tiny_rows(), fresh=True)  # replaced
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(ArtifactError, match=r"config\.json: sha256"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.json"):
        load(folder)


def test_some_layers_are_saved_without_the_rest(tmp_path):
    base = tiny_base()
    train(base, tiny_task(), {"name": "full", "layers": "2-"}, tmp_path, train=SETTINGS, rows=tiny_rows())
    held = load(tmp_path)
    assert held.manifest.loads_in is None and all(".layers.2." in name for name in held.tensors)


def tuners(cue):
    common = {"task_type": "CAUSAL_LM"}
    return {
        "lora": peft.LoraConfig(**common, r=4, lora_alpha=7, use_rslora=True, target_modules=["q_proj", "o_proj"]),
        "dora": peft.LoraConfig(**common, use_dora=True, layers_to_transform=[1, 2]),
        "alora": peft.LoraConfig(**common, alora_invocation_tokens=cue),
        "ia3": peft.IA3Config(**common),
        "vera": peft.VeraConfig(**common, r=4, target_modules=["o_proj"]),
    }


@pytest.mark.parametrize("kind", ["lora", "dora", "alora", "ia3", "vera"])
def test_folders_of_pefts_tuners_come_in(tmp_path, kind):
    base = tiny_base()
    cue = list(bound_form(tiny_task(), base.tokenizer, 256).bound.cue)
    model = peft.get_peft_model(tiny_model("llama"), tuners(cue)[kind])
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.1)
    model.eval().save_pretrained(tmp_path / "peft")
    ids, logits = served_logits(base, import_peft(tmp_path / "peft", base, tiny_task(), tmp_path / "ours"))
    assert torch.allclose(logits, plain_logits(model, ids), atol=1e-5)
    assert not torch.allclose(logits, plain_logits(base.model, ids), atol=1e-3)


def test_peft_folders_that_do_not_fit_are_refused(tmp_path):
    base = tiny_base()
    model = peft.get_peft_model(tiny_model("llama"), tuners([7, 8])["alora"])
    model.save_pretrained(tmp_path / "alora")
    with pytest.raises(ConfigError, match=r"active from the tokens \[7, 8\] on"):
        import_peft(tmp_path / "alora", base, tiny_task(), tmp_path / "out")
    wide = peft.get_peft_model(tiny_model("gpt2"), peft.LoraConfig(task_type="CAUSAL_LM"))
    wide.save_pretrained(tmp_path / "gpt2")
    with pytest.raises((ArtifactError, ConfigError)):
        import_peft(tmp_path / "gpt2", base, tiny_task(), tmp_path / "out")
    (tmp_path / "alora" / "adapter_model.safetensors").rename(tmp_path / "alora" / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="pickle"):
        import_peft(tmp_path / "alora", base, tiny_task(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_model_ties_what_its_base_ties(tmp_path):
    """T5Gemma's output shares the decoder's table, and PEFT looks at the encoder's."""
    base = Base(build("seq2seq", "t5gemma"), tiny_tokenizer(frame="seq2seq"), "t5gemma")
    rows = tiny_rows(train=4, dev=2, test=0)
    ready = train(base, tiny_task(), "lora", train={**SETTINGS, "max_steps": 1}, rows=rows).prepared
    merged = ready.method.merged(base)
    assert merged.config.tie_word_embeddings is True
    merged.save_pretrained(tmp_path)
    _, about = type(merged).from_pretrained(tmp_path, output_loading_info=True)
    assert not about["missing_keys"]


def test_merge_makes_a_plain_model_folder(tmp_path):
    from typer.testing import CliRunner

    from softprompt.cli import app, merge, methods  # noqa: F401 - each adds its verb

    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = Base.load(str(tmp_path / "base"))
    train(base, tiny_task(), "lora", tmp_path / "run", train={**SETTINGS, "lr": 0.05}, rows=tiny_rows())
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "run"), "--out", str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    ids, logits = served_logits(base, tmp_path / "run")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(plain_logits(merged, ids), logits, atol=1e-4)
    assert not torch.allclose(plain_logits(base.model, ids), logits, atol=1e-3)
    again = CliRunner().invoke(app, ["merge", str(tmp_path / "run"), "--out", str(tmp_path / "merged")])
    assert isinstance(again.exception, ConfigError) and "exists already" in str(again.exception)


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw8bit"])
def test_optimizers_with_less_state_train_and_resume_exactly(tmp_path, optimizer):
    base = tiny_base()
    settings = {"epochs": 4, "batch_size": 8, "lr": 1e-2, "optimizer": optimizer, "patience": 20}
    whole = train(base, tiny_task(), "full", train=settings, rows=tiny_rows())
    losses = [event["loss"] for event in whole.events if event["event"] == "step"]
    assert sum(losses[-3:]) < sum(losses[:3])

    def stop(what, done, total):
        if what.startswith("training") and done == 5:
            raise KeyboardInterrupt

    from softprompt.training import checkpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "SECONDS", 0.0)
        patch.setattr(checkpoints, "SHARE", 1e9)
        with pytest.raises(KeyboardInterrupt):
            train(base, tiny_task(), "full", tmp_path, train=settings, rows=tiny_rows(), progress=stop)
    again = train(base, tiny_task(), "full", tmp_path, train=settings, rows=tiny_rows())
    a, b = (run.prepared.method.export() for run in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


def encoder_folder(folder):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=320, max_position_embeddings=256, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer(frame="masked").save_pretrained(folder)
    return str(folder)


def test_merging_an_encoders_weights_keeps_its_head_as_an_artifact_on_the_merged_model(tmp_path):
    from typer.testing import CliRunner

    from softprompt.cli import app, merge, methods  # noqa: F401 - each adds its verb

    base = Base.load(encoder_folder(tmp_path / "base"), kind="encoder")
    train(
        base, tiny_task(), {"name": "lora", "r": 2}, tmp_path / "run", train={**SETTINGS, "lr": 0.05}, rows=tiny_rows()
    )
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "run"), "--out", str(tmp_path / "merged")])
    assert done.exit_code == 0 and f"head: {tmp_path / 'merged' / 'artifact'}" in done.output, done.output
    merged = Base.load(str(tmp_path / "merged"))
    before, after = Runtime(base), Runtime(merged)
    before.add("a", tmp_path / "run" / "artifact")
    after.add("a", tmp_path / "merged" / "artifact")
    rows = [{"text": "joy sun 3"}, {"text": "mud"}]
    for one, other in zip(before.predict(rows, "a"), after.predict(rows, "a"), strict=True):
        assert one.label == other.label
        assert all(abs(one.probabilities[k] - other.probabilities[k]) < 1e-5 for k in one.probabilities)
    plainly = AutoModel.from_pretrained(tmp_path / "merged", add_pooling_layer=False)
    assert not torch.equal(
        plainly.encoder.layer[0].attention.self.query.weight, base.model.encoder.layer[0].attention.self.query.weight
    )


def test_what_peft_trained_of_an_encoder_comes_in_without_a_head_and_can_be_merged(tmp_path):
    base = Base.load(encoder_folder(tmp_path / "base"), kind="encoder")
    config = peft.LoraConfig(task_type="FEATURE_EXTRACTION", r=4, target_modules=["query", "value"])
    model = peft.get_peft_model(AutoModel.from_pretrained(tmp_path / "base", add_pooling_layer=False), config)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.1)
    model.eval().save_pretrained(tmp_path / "peft")
    told = []
    found = import_peft(tmp_path / "peft", base, tiny_task(), tmp_path / "ours", told.append)
    assert len(told) == 1 and "holds no head" in told[0] and "softprompt merge" in told[0]
    with pytest.raises(ArtifactError, match="holds no head"):
        Runtime(base).add("a", found)
    assert merging.merge(load(found), base, tmp_path / "merged", "ours") is None
    ids = torch.arange(6, 30)[None]
    with torch.no_grad():
        theirs = model(ids).last_hidden_state
        ours = AutoModel.from_pretrained(tmp_path / "merged", add_pooling_layer=False).eval()(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
