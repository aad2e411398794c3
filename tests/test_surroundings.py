"""What the program around us has set in torch changes nothing that is computed, and stays set."""

from __future__ import annotations

import contextlib
import pickle
import signal

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt.base import Base
from softprompt.errors import ConfigError, DataError
from softprompt.interrupts import Interrupted
from softprompt.runtime import Runtime
from softprompt.training import train

TRAIN = {"max_steps": 2, "batch_size": 4, "lr": 0.02}


@contextlib.contextmanager
def default_type(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SURROUNDINGS = {
    "nothing": contextlib.nullcontext,
    "fp64": lambda: default_type(torch.float64),
    "bf16": lambda: default_type(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def settings():
    named = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    return (*named, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))


def work(source, folder):
    """A base, a LoRA that is trained on it, served from its folder."""
    base = Base.load(source)
    done = train(base, tiny_task(), "lora", folder, train=TRAIN, rows=tiny_rows(8, 4, 4))
    runtime = Runtime(base)
    runtime.add("it", done.artifact)
    answers = runtime.predict([{"text": "joy"}, {"text": "rain"}])
    return base.digest, done.prepared.method.export(), [answer.probabilities for answer in answers]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    return work(source, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_results_are_those_of_a_program_that_has_set_nothing(name, source, plain, tmp_path):
    with SURROUNDINGS[name]():
        before = settings()
        digest, tensors, answers = work(source, tmp_path)
        assert settings() == before
    assert digest == plain[0] and answers == plain[2]
    assert all(torch.equal(tensors[key], value) for key, value in plain[1].items()) and len(tensors) == len(plain[1])


def test_settings_are_put_back_after_an_error():
    with default_type(torch.bfloat16), torch.no_grad():
        with pytest.raises(DataError):
            Runtime(tiny_base()).predict([{"text": "joy"}], "missing")
        assert torch.get_default_dtype() == torch.bfloat16 and not torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "smollm2"}, r"base is a text; expected a Base, e.g. Base.load"),
        ({"task": {"name": "t"}}, r"task is an object; expected a Task, e.g. Task.load"),
        ({"method": None}, r"method: missing key 'name'"),
        ({"rows": [{"text": "joy"}]}, r"rows: 1 of 1 rows cannot be used"),
        ({"rows": {"dev": tiny_rows()["dev"]}}, r"there are no training rows"),
    ],
)
def test_what_is_given_in_python_is_looked_at(changes, words):
    given = {"base": tiny_base(), "task": tiny_task(), "method": "soft", "rows": tiny_rows(8, 4, 4), **changes}
    with pytest.raises((ConfigError, DataError), match=words):
        train(given["base"], given["task"], given["method"], rows=given["rows"], train=TRAIN)


def test_an_interruption_comes_from_another_process_as_it_is():
    found = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM, "goes on from step 3")))
    assert (found.number, found.said, str(found)) == (
        15,
        "goes on from step 3",
        "ended by SIGTERM; goes on from step 3",
    )
