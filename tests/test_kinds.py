"""Which kind a checkpoint is loaded as, what is refused, and the bundled encoder."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from helpers import close
from models import FAMILIES, MASKED, SEQ2SEQ, tiny_base, tiny_model, tiny_tokenizer

from softprompt.base import Base, bundled
from softprompt.errors import BaseModelError


def save(folder, model, frame="masked", architectures="as saved"):
    """A checkpoint; `architectures` are written over those of the model's class, None takes them out."""
    model.save_pretrained(folder)
    tiny_tokenizer(frame=frame).save_pretrained(folder)
    if architectures != "as saved":
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = architectures
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def refused(match, folder, **how):
    with pytest.raises(BaseModelError, match=match) as told:
        Base.load(folder, device="cpu", **how)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("architectures", ["as saved", None])
@pytest.mark.parametrize("family", [*FAMILIES, *MASKED, *SEQ2SEQ])
def test_every_family_is_loaded_as_what_it_is(tmp_path, family, architectures):
    known = tiny_base(family)
    base = Base.load(save(tmp_path, tiny_model(family), "", architectures), device="cpu")
    assert (base.kind, base.shape, base.gated, base.start_ids) == (
        known.kind,
        known.shape,
        known.gated,
        known.start_ids,
    )
    assert base.digest == Base.load(tmp_path, dtype="bf16", device="cpu").digest


@pytest.mark.parametrize("family", MASKED)
def test_a_masked_models_encoder_alone(tmp_path, family):
    folder = save(tmp_path, tiny_model(family))
    base, masked = Base.load(folder, device="cpu", kind="encoder"), Base.load(folder, device="cpu", kind="masked")
    assert (base.kind, masked.kind, base.shape) == ("encoder", "masked", masked.shape)
    assert base.digest == Base.load(folder, device="cpu", kind="encoder").digest != masked.digest  # nothing is made up
    ids = torch.arange(9, 15)
    one, other = (
        some.forward(some.embed(ids), [6], torch.zeros(1, dtype=torch.long)).states for some in (base, masked)
    )
    assert torch.equal(one, other)


def test_an_encoder_with_a_head_for_a_task(tmp_path, capfd):
    from transformers import BertForSequenceClassification, RobertaForQuestionAnswering, T5EncoderModel

    bert = BertForSequenceClassification(tiny_model("bert").config)
    save(tmp_path / "a", bert)
    capfd.readouterr()
    base = Base.load(tmp_path / "a", device="cpu")
    assert not any(capfd.readouterr())  # no table of the weights that are left out
    assert base.kind == "encoder" and base.digest == Base.load(tmp_path / "a", device="cpu").digest
    ids = torch.arange(9, 15)
    states = base.forward(base.embed(ids), [6], torch.zeros(1, dtype=torch.long)).states
    close(states, bert.eval().bert(ids[None]).last_hidden_state[0])
    assert (
        Base.load(save(tmp_path / "b", RobertaForQuestionAnswering(tiny_model("roberta").config)), device="cpu").kind
        == "encoder"
    )
    assert Base(bert, tiny_tokenizer(frame="masked")).kind == "encoder"
    t5 = Base.load(save(tmp_path / "c", tiny_model("t5")), device="cpu", kind="encoder")
    assert t5.kind == "encoder" and t5.shape == tiny_base("t5").encoder.shape
    both = (t5, tiny_base("t5").encoder)
    close(*(some.forward(some.embed(ids), [6], torch.zeros(1, dtype=torch.long)).states for some in both))
    alone = T5EncoderModel(tiny_model("t5").config)
    assert Base.load(save(tmp_path / "d", alone), device="cpu").shape == t5.shape


def test_the_head_of_masked_words_in_a_checkpoint_with_another_one_beside_it(tmp_path):
    from transformers import BertForPreTraining

    model = BertForPreTraining(tiny_model("bert").config).eval()
    base = Base.load(save(tmp_path, model), device="cpu")
    ids = torch.arange(9, 15)
    states = base.forward(base.embed(ids), [6], torch.zeros(1, dtype=torch.long)).states
    close(base.logits(states), model(ids[None]).prediction_logits[0])


def test_kinds_that_a_checkpoint_cannot_be(tmp_path):
    from transformers import BertModel, ViTConfig, ViTModel

    bert = save(tmp_path / "bert", tiny_model("bert"))
    llama = save(tmp_path / "llama", tiny_model("llama"), "")
    refused("kind 'mask' is not known .did you mean 'masked'", bert, kind="mask")
    refused("is a BertForMaskedLM, it cannot run as a causal language model; leave out base.kind", bert, kind="causal")
    refused("is a LlamaForCausalLM, it cannot run as a masked language model", llama, kind="masked")
    refused("is a LlamaForCausalLM, it cannot run as an encoder", llama, kind="encoder")
    refused("cannot run as a sequence-to-sequence model", bert, kind="seq2seq")
    bare = save(tmp_path / "bare", BertModel(tiny_model("bert").config))
    assert Base.load(bare, device="cpu").kind == "encoder"
    refused(
        r"cannot run as a masked language model: .* does not hold cls\..* load it with kind 'encoder'",
        bare,
        kind="masked",
    )
    seen = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32)
    refused("is a ViTModel, not a causal language model, nor a masked one", save(tmp_path / "vit", ViTModel(seen)))
    refused("is a LlamaForSequenceClassification, not a causal language model", save(
        tmp_path / "head", transformers.LlamaForSequenceClassification(tiny_model("llama").config), ""
    ))  # fmt: skip


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_quantised_bases_of_other_kinds(tmp_path, family, kind):
    """8 or 4 bits a weight move states a little, rows still do not see each other, and a branch shares the weights."""
    pytest.importorskip("bitsandbytes")
    folder, known = save(tmp_path, tiny_model(family)), tiny_base(family)
    base = Base.load(folder, device="cpu", quantization=kind)
    assert (base.quantization, base.kind, base.digest) == (kind, known.kind, Base.load(folder, device="cpu").digest)
    side, exact = (base.encoder, known.encoder) if family in SEQ2SEQ else (base, known)
    ids, sizes, zero = torch.arange(9, 29), [14, 6], torch.zeros(2, dtype=torch.long)
    states = side.forward(side.embed(ids), sizes, zero).states
    close(side.forward(side.embed(ids[14:]), [6], zero[:1]).states, states[14:])
    want = exact.forward(exact.embed(ids), sizes, zero).states
    assert 0 < (states - want).abs().mean() < {"int8": 0.05, "nf4": 0.5}[kind] * want.std()
    branch = base.branch()
    other = branch.encoder if family in SEQ2SEQ else branch
    assert torch.equal(other.forward(other.embed(ids), sizes, zero).states, states)
    given = {"encoder_hidden_states": states.split(sizes)} if family in SEQ2SEQ else {}
    out = base.forward(base.embed(ids), sizes, zero, **given).states
    assert base.logits(out).shape == (20, base.shape.vocab_size)


@pytest.mark.real
def test_minilm_equals_the_plain_model_on_real_sentences(monkeypatch):
    base = Base.load("minilm", device="cpu")
    assert (base.kind, base.bidirectional, base.max_positions, base.gated) == ("encoder", True, 512, True)
    assert base.shape.as_dict() == {
        "layers": 6, "kv_heads": 12, "head_size": 32, "hidden_size": 384, "vocab_size": 30522,
    }  # fmt: skip
    texts = [
        "A warm, funny and engaging film.",
        "An engaging and funny movie, full of warmth.",
        "The bank raised its rates.",
    ]
    folder = bundled.get("minilm")
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text)["input_ids"] for text in texts]
    assert rows == [base.tokenizer(text)["input_ids"] for text in texts] and rows[0][0] == tokenizer.cls_token_id
    sizes = [len(row) for row in rows]
    assert len(set(sizes)) > 1
    with torch.no_grad():
        ids = torch.tensor([i for row in rows for i in row])
        states = base.forward(base.embed(ids), sizes, torch.zeros(3, dtype=torch.long)).states
        padded = tokenizer(texts, padding=True, return_tensors="pt")
        want = model(**padded).last_hidden_state[padded["attention_mask"].bool()]
    close(states, want)
    vectors = torch.nn.functional.normalize(torch.stack([part.mean(0) for part in states.split(sizes)]), dim=-1)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.7 and alike[0, 2] < 0.3  # it is the trained model
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("asked the network"))
    assert Base.load("minilm", device="cpu").digest == base.digest
