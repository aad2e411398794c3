"""Keys turn as the model turns them, layer by layer; where that is not found, learned keys behind the text are refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import close, scores, scores_of, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer
from zoo import quiet
from zoo_models import build

from softprompt.artifact import load
from softprompt.base import Base, rotary, rotations
from softprompt.errors import BaseModelError
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.training import prepare, train

# halves, some of them; pairs with halved tables; layers without positions; no table at all; backwards; the last
# dimensions only; a norm behind
FAMILIES = ["llama", "gpt_neox", "glm4", "smollm3", "gptj", "nanochat", "deepseek_v2", "hunyuan_v1_dense"]
INFIX = {"name": "infix", "length": 3}
QUICK = {"max_steps": 2, "batch_size": 4}


def zoo_base(family):
    with quiet():
        return Base(build("causal", family), tiny_tokenizer(), family)


def keys_and_values(base, at):
    ids = torch.arange(5, 5 + len(at))
    with torch.no_grad():
        return base.forward(base.embed(ids), [1] * len(at), at, record=True).kv


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_turn_as_the_model_turns_them(family):
    """A token alone has, at another place, the turned key: at once, and turned half the way twice; values stay."""
    base, at = zoo_base(family), torch.tensor([0, 1, 38, 90, 200])
    here, there = keys_and_values(base, torch.zeros_like(at)), keys_and_values(base, at)
    assert not torch.allclose(here[0][0], there[0][0], atol=1e-2)
    for turned in (base.rotate(here, at), base.rotate(base.rotate(here, at // 2), at - at // 2)):
        for (keys, values), want in zip(turned, there, strict=True):
            close(keys, want[0], 3e-5)
            close(values, want[1], 1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert-generation"])
def test_keys_that_do_not_rotate_stay_as_they_are(family):
    base = zoo_base(family)
    kv = keys_and_values(base, torch.tensor([0, 1]))
    assert base._rotary is None and base.rotate(kv, torch.tensor([3, 4])) is kv


def test_a_rotation_in_half_precision_is_found():
    base, at = Base(tiny_model("llama").to(torch.bfloat16), tiny_tokenizer(), "half"), torch.tensor([0, 7, 90])
    here, there = keys_and_values(base, torch.zeros_like(at)), keys_and_values(base, at)
    for (keys, _), want in zip(base.rotate(here, at), there, strict=True):
        close(keys, want[0], 0.02)


def test_planes_that_no_table_tells_are_measured(monkeypatch):
    """Without the model's tables of frequencies they are read off its keys."""
    told = tiny_base("llama")
    monkeypatch.setattr(rotations, "_tables", lambda base: [])
    base = Base(tiny_model("llama"), tiny_tokenizer(), "untold")
    assert not base.rotated_in_format_1
    kv, by = torch.randn(3, 2, 1, 2, 4, 16), torch.tensor([1, 77, 240])
    for ours, theirs in zip(base.rotate(kv, by), told.rotate(kv, by), strict=True):
        close(ours[0], theirs[0], 1e-4)


@pytest.fixture
def unknown(monkeypatch):
    """A base whose keys turn in a way that nobody finds."""
    monkeypatch.setattr(rotations, "_known", lambda tables, size, start, scale: iter(()))
    monkeypatch.setattr(rotations, "_measured", lambda keys, steps, limit: iter(()))
    return Base(tiny_model("llama"), tiny_tokenizer(), "odd")


def test_where_the_turn_is_not_found_only_learned_keys_behind_the_text_are_refused(unknown):
    with pytest.raises(BaseModelError, match=r"base 'odd'.*layer 0 was not found.*method\.form: embeddings") as caught:
        prepare(unknown, tiny_task(), make_method(INFIX), rows=tiny_rows(), seed=0)
    assert "\n" not in str(caught.value)
    for method in ({**INFIX, "form": "embeddings"}, {"name": "prefix", "length": 3}):
        train(unknown, tiny_task(), method, train=QUICK, rows=tiny_rows())


def test_an_error_of_the_device_is_not_taken_for_another_layout(monkeypatch):
    base = tiny_base("llama")

    def fails(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(rotations.Rotation, "matrix", fails)
    with pytest.raises(RuntimeError, match="CUDA error"):
        rotary.find_rotary(base)


def test_an_artifact_of_format_1_keeps_its_keys_where_they_were(tmp_path, monkeypatch):
    """It was trained without the turn, so it is used without it, and says so."""
    base = zoo_base("smollm3")
    with monkeypatch.context() as before:
        before.setattr(base, "_rotary", None)
        ready = train(base, tiny_task(), INFIX, tmp_path, train=QUICK, rows=tiny_rows()).prepared
        want = scores(ready)
    held = load(tmp_path)
    assert held.manifest.method["turned"] is True

    def found(settings):
        method = make_method(settings)
        method.restore(held.tensors, base)
        prompt = bind(base, tiny_task(), method)
        return scores_of(prompt.form.predict(prompt, ready.splits["dev"]))

    assert not torch.allclose(found(held.manifest.method), want, atol=1e-3)
    with pytest.warns(UserWarning, match="train it again"):
        close(found({key: value for key, value in held.manifest.method.items() if key != "turned"}), want)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_an_artifact_of_format_1_is_turned_where_it_was_turned(family):
    """Silently: there it is what it was."""
    base, method = tiny_base(family), make_method(INFIX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.restore({"infix_kv": torch.zeros(method.shape(base))}, base)
    assert method.spec.turned is None
