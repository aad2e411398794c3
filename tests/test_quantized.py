"""Quantised bases: the same checkpoint, the same artifacts, less memory; rows stay alone, gradients are right."""

from __future__ import annotations

import copy
import gc
import logging
import sys

import pytest
import torch
import yaml
from covering import covering
from helpers import bound_form, tiny_rows, tiny_task
from models import FAMILIES, tiny_model, tiny_tokenizer
from pydantic import ValidationError
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from softprompt import registry
from softprompt.base import Base
from softprompt.base.quantized import shared_tensors, weight_bytes
from softprompt.cli.console import base_of
from softprompt.engine import SLOTS, Engine, plan
from softprompt.errors import BaseModelError, ConfigError, MissingExtraError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.training import BaseSpec, load_run, train

pytest.importorskip("bitsandbytes")

SETTINGS = {"max_steps": 3, "batch_size": 8, "lr": 0.01}
TRAINABLE = [name for name in registry.names("softprompt.methods") if name != "full"]  # whole numbers have no gradient
KINDS = [("int8", True), ("int8", False), ("nf4", True)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each family, as a user would have it."""
    found = {}
    for family in FAMILIES:
        found[family] = tmp_path_factory.mktemp(family)
        tiny_model(family).save_pretrained(found[family])
        tiny_tokenizer().save_pretrained(found[family])
    return found


@pytest.fixture(scope="module")
def load(folders):
    """Loads each base once."""
    held = {}

    def get(family="llama", quantization=None, isolated=True, dtype="fp32"):
        key = (family, quantization, isolated, dtype)
        if key not in held:
            held[key] = Base.load(folders[family], dtype, "cpu", quantization=quantization, isolated=isolated)
        return held[key]

    return get


def bytes_of(base):
    """All that the base consists of, as one comparable value."""
    tensors = [*base.model.state_dict().values(), *(t for t in shared_tensors(base.model) if torch.is_tensor(t))]
    return [t.detach().clone().flatten().view(torch.uint8) for t in tensors]


def dequantised(base, family):
    """The same model with plain fp32 layers that hold what the quantised ones stand for."""
    import bitsandbytes as bnb

    plain = tiny_model(family)
    for name, layer in base.model.named_modules():
        if isinstance(layer, bnb.nn.Linear8bitLt):
            weight = layer.state.CB.float() * layer.state.SCB[:, None] / 127
        elif isinstance(layer, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        else:
            continue
        there = plain.get_submodule(name)
        there.weight.data = weight if isinstance(there, nn.Linear) else weight.t().contiguous()  # GPT-2 has Conv1D
    return Base(plain, tiny_tokenizer())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_checkpoint_is_one_base_and_only_linear_layers_are_quantised(load, family, kind):
    base = load(family, *kind)
    assert base.digest == load(family).digest == load(family, dtype="bf16").digest
    assert (base.quantization, base.isolated) == kind
    assert base.label_of_dtype == kind[0] and base.dtype == torch.float32
    assert len({load(family, *k).arithmetic for k in [(None, True), *KINDS]}) == 4  # no row cache is shared
    floats = {n: p.dtype for n, p in base.model.named_parameters() if p.is_floating_point()}
    assert set(floats.values()) == {torch.float32}
    assert type(base.model.get_output_embeddings()) is nn.Linear
    linear = [m for m in base.model.modules() if type(m).__name__ in ("Linear8bitLt", "Linear4bit")]
    assert len(linear) == {"gpt2": 12}.get(family, 21)
    assert not any("prepacked" in repr(vars(layer).get("forward")) for layer in linear)
    assert not any(p.requires_grad for p in base.model.parameters()) and not base.model.training
    assert weight_bytes(base.model) < weight_bytes(load(family).model)


@pytest.mark.parametrize("kind", [("int8", True), ("nf4", True)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["soft", "prefix", "infix"])
def test_losses_and_gradients_are_those_of_the_dequantised_model(load, family, kind, method):
    """To fp32 rounding: nothing but the weights is rounded."""
    base = load(family, *kind)
    results = []
    for some in (base, dequantised(base, family)):
        way = make_method({"name": method, "length": 4})
        form = bound_form(
            tiny_task(), some.tokenizer, some.max_positions - way.positions, instruction=way.keeps_instruction
        )
        way.attach(some, form.bound, 0)
        engine = Engine(some, plan(way.segments(SLOTS, len(form.bound.cue))), form.bound.prefix_ids, form.bound.cue)
        examples = form.encode_rows(tiny_rows()["train"][:4])
        engine.encode(examples)
        with torch.no_grad():
            engine.loss(examples, way.learned())  # an inference first must not cut the gradients off afterwards
        loss, _ = engine.loss(examples, way.learned())
        loss.backward()
        results.append((loss.detach(), [p.grad for p in way.parameters()]))
    (loss, grads), (want, wanted) = results
    assert torch.allclose(loss, want, rtol=1e-4)
    for grad, right in zip(grads, wanted, strict=True):
        assert right.abs().max() > 0
        assert (grad - right).abs().max() <= 1e-5 * right.abs().max()


@pytest.mark.parametrize(("family", "kind"), covering(FAMILIES, KINDS))
def test_every_method_trains_and_leaves_the_base_as_it_was(load, family, kind, caplog):
    base = load(family, *kind)
    before = bytes_of(base)
    with pytest.raises(ConfigError, match=rf"cannot train {base.quantization} weights.*use method: lora"):
        train(base, tiny_task(), "full", rows=tiny_rows(8, 4, 4))
    for method in TRAINABLE:
        result = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows(8, 4, 4))
        tensors = result.prepared.method.export()
        assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in tensors.values()), method
        assert torch.isfinite(torch.tensor(result.metrics["dev"].nll)), method
    after = bytes_of(base)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not caplog.records  # one warning per layer and call would bury everything else


def last_logits(base, rows):
    lengths = [len(row) for row in rows]
    embeddings = base.embed(torch.tensor([token for row in rows for token in row]))
    with torch.no_grad():
        states = base.forward(embeddings, lengths, torch.zeros(len(rows), dtype=torch.long)).states
        return base.logits(states[torch.tensor(lengths).cumsum(0) - 1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [("int8", True), ("nf4", True)])
def test_rows_do_not_depend_on_their_company(load, family, kind):
    base = load(family, *kind)
    rows = [[(7 * i + 11 * row + 3) % 300 + 3 for i in range(size)] for row, size in enumerate((5, 23, 1, 12))]
    alone = torch.cat([last_logits(base, [row]) for row in rows])
    assert (alone - last_logits(base, rows)).abs().max() <= 2e-6 * alone.abs().max()
    assert (alone - last_logits(base, rows[::-1]).flip(0)).abs().max() <= 2e-6 * alone.abs().max()


def test_rows_of_a_batched_int8_do_depend_on_their_company(load):
    """Why isolated is the default: bitsandbytes picks the columns that it spares over all rows together."""
    import bitsandbytes as bnb

    base = load("llama", "int8", False)
    states = torch.zeros(1, 2, 64)
    states[0, 0], states[0, 1, 7] = torch.linspace(-5, 5, 64), 60.0
    layer = next(m for m in base.model.modules() if isinstance(m, bnb.nn.Linear8bitLt))
    with torch.no_grad():
        assert (layer(states)[0, 0] - layer(states[:, :1])[0, 0]).abs().max() > 1e-4
        isolated = load("llama", "int8")
        layer = next(m for m in isolated.model.modules() if isinstance(m, bnb.nn.Linear8bitLt))
        assert (layer(states)[0, 0] - layer(states[:, :1])[0, 0]).abs().max() <= 1e-6 * layer(states).abs().max()


@pytest.mark.parametrize("kind", [("int8", True), ("nf4", True)])
def test_artifacts_go_from_one_to_the_other(load, tmp_path, kind):
    rows = tiny_rows()
    plain, small = load(), load("llama", *kind)
    for place, (made, served) in enumerate(((plain, small), (small, plain))):
        result = train(made, tiny_task(), "soft", tmp_path / str(place), train=SETTINGS, rows=rows)
        assert result.artifact is not None
        runtime = Runtime(served)
        runtime.add("it", result.artifact)
        found = runtime.predict([{"text": "joy"}, {"text": "rain and mud"}], "it")
        assert {item.label for item in found} <= {"good", "bad"}
        manifest = (result.artifact / "manifest.json").read_text()
        assert f'"dtype": "{made.label_of_dtype}"' in manifest


def test_a_run_remembers_how_its_base_was_held(load, folders, tmp_path):
    base = load("llama", "int8", False)
    train(base, tiny_task(), "soft", tmp_path / "run", train=SETTINGS, rows=tiny_rows())
    spec = load_run(tmp_path / "run" / "run.yaml", []).base
    assert (spec.name, spec.dtype, spec.quantization, spec.isolated) == (str(folders["llama"]), "fp32", "int8", False)
    section = base_of(tmp_path / "run", "other", None)
    assert (section.name, section.quantization, section.isolated) == (str(folders["llama"]), "int8", False)
    assert base_of(tmp_path / "run", "other", None, "bf16", "none").quantization is None
    assert base_of(tmp_path / "run", "other", "mine", None, "nf4").model_dump(exclude={"device"}) == {
        "name": "mine",
        "dtype": "fp32",
        "quantization": "nf4",
        "isolated": True,
        "kind": None,
    }
    with pytest.raises(ConfigError, match="quantization"):
        base_of(tmp_path / "run", "other", None, None, "int3")


def test_a_run_goes_on_only_on_the_base_as_it_was_held(load, tmp_path):
    from softprompt.errors import TrainingError

    train(load(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows())
    with pytest.raises(TrainingError):
        train(load("llama", "int8"), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows())


def test_the_run_file_prefers_the_bundled_name_as_loading_does(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    base = copy.copy(load())
    base.name = "smollm2"
    train(base, tiny_task(), "soft", tmp_path / "run", train=SETTINGS, rows=tiny_rows())
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["base"]["name"] == "smollm2"


def test_settings_that_mean_nothing_are_refused(folders):
    with pytest.raises(BaseModelError, match=r"'int3' is not known.*int8"):
        Base.load(folders["llama"], quantization="int3")
    with pytest.raises(BaseModelError, match="isolated=False"):
        Base.load(folders["llama"], quantization="nf4", isolated=False)
    with pytest.raises(ValidationError, match="isolated: false is for"):
        BaseSpec(isolated=False)
    assert BaseSpec(quantization="int8", isolated=False).isolated is False


def test_a_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"'int8' needs bitsandbytes: pip install 'softprompt\[quant\]'"):
        Base.load(folders["llama"], quantization="int8")


def test_sizes_that_nf4_cannot_cut_on_the_cpu_are_refused(tmp_path):
    sizes = {"vocab_size": 320, "hidden_size": 80, "intermediate_size": 64, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"80 inputs; nf4 on the CPU needs multiples of 64; use int8"):
        Base.load(tmp_path, device="cpu", quantization="nf4")
    assert Base.load(tmp_path, device="cpu", quantization="int8").quantization == "int8"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_quantised_elsewhere(load, folders, kind, tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = {
        "int8": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0 if kind[1] else 6.0),
        "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    }[kind[0]]
    model = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32, quantization_config=config)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    base = Base(model, tiny_tokenizer())
    assert (base.quantization, base.isolated) == kind
    if kind[0] == "int8":  # double quantisation has no part in it
        ours = load("llama", *kind)
        rows = [[5, 6, 7, 8]]
        assert torch.allclose(last_logits(base, rows), last_logits(ours, rows), atol=1e-5)
    again = Base.load(tmp_path, device="cpu")  # saved as it is, its folder says how it is quantised
    assert (again.quantization, again.isolated, again.digest) == (*kind, base.digest)
    with pytest.raises(BaseModelError, match="quantised already"):
        Base.load(tmp_path, device="cpu", quantization="int8")


def test_a_model_that_bitsandbytes_has_repacked_is_refused(folders):
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    model = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32, quantization_config=config)
    with pytest.raises(BaseModelError, match="quantised as fp4"):
        Base(model, tiny_tokenizer())
    if not bnb.functional.has_avx512bf16():
        pytest.skip("this processor has no instructions to re-pack for")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32, quantization_config=config)
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    with pytest.raises(BaseModelError, match="load it again"):
        Base(model, tiny_tokenizer())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_copy_can_share_every_weight(load, family, kind):
    base = load(family, *kind)
    model = base.model
    shared = [*model.parameters(), *model.buffers(), *shared_tensors(model)]
    twin = copy.deepcopy(model, {id(item): item for item in shared})
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, twin(ids).logits)
    assert weight_bytes(nn.ModuleList([model, twin])) == weight_bytes(model)
    for one, other in zip(model.modules(), twin.modules(), strict=True):
        assert one is not other
        if "forward" in vars(other) and hasattr(other.forward, "__self__"):
            assert other.forward.__self__ is not one.forward.__self__
            assert other.forward.__self__.layer is other


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", [("int8", True), ("nf4", True)])
def test_halves_of_precision(load, kind, dtype):
    base = load("llama", *kind, dtype=dtype)
    assert base.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    result = train(base, tiny_task(), "infix", train=SETTINGS, rows=tiny_rows(8, 4, 4))
    assert all(torch.isfinite(v).all() for v in result.prepared.method.export().values())


def test_warnings_that_matter_are_still_shown(load, caplog):
    load("llama", "int8", False)
    logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


@pytest.mark.full  # tiny ones above: what they compute, and what their weights take
@pytest.mark.real
def test_the_bundled_base_shrinks_and_agrees():
    plain = Base.load("smollm2", device="cpu")
    ids = [plain.tokenizer("The capital of France is")["input_ids"]]
    want, size, digest = last_logits(plain, ids), weight_bytes(plain.model), plain.digest
    del plain
    for quantization, share in (("int8", 0.42), ("nf4", 0.33)):
        base = Base.load("smollm2", device="cpu", quantization=quantization)
        assert base.digest == digest
        assert weight_bytes(base.model) <= share * size
        if quantization == "int8":
            assert last_logits(base, ids).argmax() == want.argmax()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", TRAINABLE)
def test_every_method_trains_quantised_on_a_gpu(load, folders, method, kind):
    base = Base.load(folders["llama"], "fp16", "cuda", quantization=kind[0], isolated=kind[1])
    assert base.digest == load().digest
    result = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows())
    assert all(torch.isfinite(v).all() for v in result.prepared.method.export().values())


@pytest.mark.gpu
@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", TRAINABLE)
def test_a_quantised_base_takes_less_memory_of_a_gpu(method, kind):
    peaks = []
    for quantization, isolated in ((None, True), kind):
        gc.collect()  # layers and their forwards point at each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = Base.load("smollm2", "fp16", "cuda", quantization=quantization, isolated=isolated)
        train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows())
        peaks.append(torch.cuda.max_memory_allocated())
        del base
    assert peaks[1] < peaks[0]
