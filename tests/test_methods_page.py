"""The table of training defaults in docs/methods.md is that of the code."""

from pathlib import Path

import pytest

from softprompt.methods import make_method

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
SETTINGS = {
    "soft": "soft",
    "p_tuning": "p_tuning",
    "prefix": "prefix",
    'prefix with layers: "20-"': {"name": "prefix", "layers": "20-"},
    "prefix with reparameterization: mlp": {"name": "prefix", "reparameterization": "mlp"},
    "infix": "infix",
    "lora": "lora",
    "lora with activate: cue": {"name": "lora", "activate": "cue"},
    "peft:IA3 and other tuners": "peft:IA3",
    "peft:LOHA, peft:LOKR": "peft:LOKR",
    "peft:VERA": "peft:VERA",
    "full": "full",
}


def cells(line):
    return [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]


def test_training_defaults_are_those_of_the_code():
    section = PAGE.read_text(encoding="utf-8").partition("## Training defaults\n")[2].partition("\n### ")[0]
    head, _, *rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    assert head[1:] == ["lr", "epochs", "min_steps", "batch_size; with few rows at least", "warmup"]
    shown = {name: [float(value) for cell in values for value in cell.split(",")] for name, *values in rows}
    assert shown.keys() == SETTINGS.keys()
    for name, settings in SETTINGS.items():
        own = make_method(settings).defaults
        expected = [own.lr, own.epochs, own.min_steps, own.batch_size, own.least_batch, own.warmup]
        assert shown[name] == pytest.approx(expected), name
        assert (own.schedule, own.weight_decay) == ("linear", 0.0), name
