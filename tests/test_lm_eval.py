"""`SoftpromptLM` in the lm-evaluation-harness: as the harness's own model answers, alone and with a folder that PEFT loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed: pip install 'softprompt[lm-eval]'")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from softprompt.base import Base
from softprompt.errors import ConfigError, DataError
from softprompt.lm_eval import SoftpromptLM
from softprompt.training import train

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 0.05}
STORY = "an instruction that all of these contexts begin with, and that is longer than a few tokens. "
ROOT = Path(__file__).parents[1]


def asked(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=each, idx=place) for place, each in enumerate(arguments)]


def theirs(bos=False):
    return HFLM(pretrained=tiny_model("llama").eval(), tokenizer=tiny_tokenizer(bos), device="cpu", batch_size=4)


def same(ours, others):
    for one, other in zip(ours, others, strict=True):
        assert one[0] == pytest.approx(other[0], rel=1e-5, abs=1e-5) and one[1] == other[1]


@pytest.mark.parametrize("bos", [False, True])
def test_continuations_are_split_and_scored_as_the_harness_does(bos):
    pairs = [(f"{STORY}Text {place}:", word) for place in range(9) for word in (" yes", " no", " perhaps not", "a")]
    pairs += [
        ("", "a whole text"),
        ("", "<s>begun"),  # behind its own first token
        ("trailing spaces  ", "go to the continuation"),
        ("po", "se er a"),  # tokens that would join across the border
        ("<s>begun already", " with its mark"),
        ("x" * 300, " cut from the left"),
    ]
    requests = asked("loglikelihood", *pairs)
    found = SoftpromptLM(tiny_base("llama", bos), batch_size=3).loglikelihood(requests, disable_tqdm=True)
    same(found, theirs(bos=bos).loglikelihood(requests, disable_tqdm=True))


def test_long_texts_are_read_in_windows_that_count_each_token_once():
    requests = asked("loglikelihood_rolling", ("words and more words " * 20,), ("short",), ("",))
    model = SoftpromptLM(tiny_base(), max_length=50)
    other = theirs()
    other._max_length = 50
    found = model.loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(other.loglikelihood_rolling(requests, disable_tqdm=True), rel=1e-5)
    assert found[2] == 0.0 and found[0] < found[1] < 0


def test_written_answers_end_where_the_harness_ends_them():
    greedy = {"until": ["e", "\n"], "max_gen_toks": 20}
    contexts = [f"{STORY}{place}" for place in range(9)] + ["z" * 400]
    requests = asked("generate_until", *[(text, greedy) for text in contexts], ("z", {"until": [], "max_gen_toks": 7}))
    found = SoftpromptLM(tiny_base()).generate_until(requests, disable_tqdm=True)
    assert found == theirs().generate_until(requests, disable_tqdm=True)
    assert not any("e" in text for text in found[:-1])


def test_draws_follow_the_seed_and_the_number_of_times_asked():
    how = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0}
    requests = asked("generate_until", ("z", how), ("z", how), ("y", how))
    model = SoftpromptLM(tiny_base())
    torch.manual_seed(5)
    first, again = (model.generate_until(requests, disable_tqdm=True) for _ in range(2))
    assert first == again and first[0] != first[1]
    torch.manual_seed(6)
    assert model.generate_until(requests, disable_tqdm=True) != first


@pytest.mark.filterwarnings("ignore")  # PEFT's advice on positions
@pytest.mark.parametrize(
    "method", [{"name": "soft", "length": 5}, {"name": "prefix", "length": 5}, {"name": "lora", "r": 2}]
)
def test_an_artifact_is_the_same_folder_in_peft(method, tmp_path):
    peft = pytest.importorskip("peft")
    train(tiny_base(), tiny_task(), method, tmp_path, train=SETTINGS, rows=tiny_rows(), check=False)
    pairs = [(f"{STORY}Text {place}:", word) for place in range(9) for word in (" yes", " no", " perhaps not")]
    requests = asked("loglikelihood", *pairs, ("", "alone"))
    model = SoftpromptLM(tiny_base(), artifact=tmp_path)
    found = model.loglikelihood(requests, disable_tqdm=True)
    other = theirs()
    other._model = peft.PeftModel.from_pretrained(other.model, tmp_path / "artifact").eval()
    same(found, other.loglikelihood(requests, disable_tqdm=True))
    bare = SoftpromptLM(tiny_base()).loglikelihood(requests, disable_tqdm=True)
    assert max(abs(a[0] - b[0]) for a, b in zip(found, bare, strict=True)) > 1e-2
    assert model.max_length == 256 - model.method.positions


def test_the_example_is_run_by_the_harness(monkeypatch):
    monkeypatch.chdir(ROOT)  # its data stand at a path from there
    names = ["tickets_team", "tickets_written"]
    manager = TaskManager(include_path="examples/lm_eval", include_defaults=False)
    results = [
        lm_eval.simple_evaluate(model=model, tasks=names, task_manager=manager, bootstrap_iters=0)
        for model in (SoftpromptLM(tiny_base()), theirs())
    ]
    for name in names:
        ours, others = (result["results"][name] for result in results)
        assert ours == others and ours["sample_len"] == 20
        answers, expected = ([row["filtered_resps"] for row in result["samples"][name]] for result in results)
        if name == "tickets_written":
            assert answers == expected
        else:
            same([pair for row in answers for pair in row], [pair for row in expected for pair in row])
    assert results[0]["config"]["base_digest"] == tiny_base().digest


def test_the_name_is_registered_beside_the_harness_own():
    assert get_model("softprompt") is SoftpromptLM
    assert get_model("hf") is HFLM


def test_the_command_line_names_a_gpu_where_nobody_did(monkeypatch):
    loaded = []
    monkeypatch.setattr(Base, "load", lambda name, dtype, device, **how: loaded.append((name, device)) or tiny_base())
    for there, device in ((False, "cuda:0"), (True, "cuda:0"), (False, "cpu"), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        get_model("softprompt").create_from_arg_obj({"base": "x"}, {"batch_size": 1, "device": device})
    assert loaded == [("x", "auto"), ("x", "cuda:0"), ("x", "cpu"), ("x", "auto")]


def test_conversations_and_caches():
    model = SoftpromptLM(tiny_base())
    turns = [{"role": "user", "content": "hi"}]
    assert model.apply_chat_template(turns) == "<s>user: hi</s><s>assistant: "
    assert model.chat_template(True) == tiny_tokenizer().chat_template
    assert model.tokenizer_name != SoftpromptLM(tiny_base(bos=True)).tokenizer_name


def test_what_cannot_be_is_one_line():
    with pytest.raises(ConfigError, match="batch_size is 'many'"):
        SoftpromptLM(tiny_base(), batch_size="many")
    with pytest.raises(ConfigError, match="max_length is 300"):
        SoftpromptLM(tiny_base(), max_length=300)
    model = SoftpromptLM(tiny_base(), max_length=20)
    with pytest.raises(DataError, match="has 40 tokens, there is room for 20"):
        model.loglikelihood(asked("loglikelihood", ("x", "y" * 40)), disable_tqdm=True)
    with pytest.raises(DataError, match="has no tokens"):
        model.loglikelihood(asked("loglikelihood", ("x", "")), disable_tqdm=True)
    with pytest.raises(ConfigError, match="max_gen_toks is 256"):
        model.generate_until(asked("generate_until", ("x", {})), disable_tqdm=True)
