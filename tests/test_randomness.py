"""Whatever we draw, the process's own random numbers stay as they were."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import pytest
import rich.style  # noqa: F401 - draws a number as it is imported, which scikit-learn does late
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt import doctor
from softprompt.artifact import load
from softprompt.base import Base
from softprompt.doctor.cases import of_artifact
from softprompt.randomness import seeded
from softprompt.runtime import Runtime
from softprompt.training import train


@contextmanager
def untouched():
    """The random states of Python, NumPy and torch are the same behind it."""

    def states():
        found = {
            "random": random.getstate(),
            "numpy": np.random.get_state()[1].tolist(),
            "torch": torch.get_rng_state().tolist(),
        }
        return {name: hash(str(state)) for name, state in found.items()}

    before = states()
    yield
    assert states() == before


METHODS = [
    "soft",
    {"name": "soft", "length": 3, "init": "random"},
    {"name": "infix", "length": 3},
    {"name": "prefix", "length": 3, "reparameterization": "mlp"},
    {"name": "p_tuning", "length": 3},
    {"name": "lora", "r": 2, "dropout": 0.1},
    {"name": "soft", "length": 3, "head": True},
    "peft:IA3",
    "full",
    "probe",
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_training_and_evaluation(method, tmp_path):
    base, task, rows = tiny_base(), tiny_task(), tiny_rows(8, 4, 4)
    with untouched():
        train(base, task, method, tmp_path, train={"epochs": 1, "batch_size": 4}, rows=rows, test=True)
    runtime = Runtime(base)
    with untouched():
        runtime.add("it", tmp_path)
        runtime.predict([row.values for row in rows["test"]], "it")
        runtime.evaluate("it", rows["test"])


def test_loading_and_its_check(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with untouched():
        Base.load(str(tmp_path), "fp32", "cpu")


def test_the_doctor(tmp_path):
    base, rows = tiny_base(), tiny_rows(8, 4, 4)
    train(base, tiny_task(), "lora", tmp_path, train={"epochs": 1, "batch_size": 4}, rows=rows)
    with untouched():
        doctor.examine(of_artifact(load(tmp_path / "artifact"), base, 4))


def test_what_is_seeded_begins_anew_and_ends_even_by_an_error():
    with untouched(), seeded(5):
        first = torch.rand(3)
    with untouched(), pytest.raises(ValueError, match="no"), seeded(5):
        assert torch.rand(3).equal(first)
        raise ValueError("no")
    with seeded(6):
        assert not torch.rand(3).equal(first)


@pytest.mark.gpu
def test_on_a_device():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda:0")
    before = torch.cuda.get_rng_state(device)
    with seeded(5, device):
        first = torch.rand(3, device=device)
    with seeded(5, device):
        assert torch.rand(3, device=device).equal(first)
    assert torch.cuda.get_rng_state(device).equal(before)
