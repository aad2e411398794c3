"""Every tuner that PEFT has: it trains, is saved and restored to equal scores, or is refused in one line."""

from __future__ import annotations

import pytest
import torch
from helpers import scores, scores_of, tiny_rows, tiny_task
from models import tiny_base

from softprompt.adapters.tuner import types
from softprompt.errors import ConfigError
from softprompt.methods import make_method
from softprompt.training import prepare, train

from .cases import LORA, SETTINGS, name_of

ROWS = tiny_rows(12, 6, 0)
STEPS = {"max_steps": 3, "batch_size": 4, "lr": 0.02}
FITTING = {  # where PEFT's own settings are for larger models
    "C3A": {"block_size": 16},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 2},
    "VBLORA": {"vector_length": 16, "num_vectors": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 64},
    "TRAINABLE_TOKENS": {"token_indices": [4, 40, 41, 70, 71, 72, 73, 74, 75]},
}


@pytest.fixture
def base():
    """One that is still as it was, to the bit, when the test is over."""
    base = tiny_base()
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    yield base
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert not any(weight.requires_grad for weight in base.model.parameters())


@pytest.mark.filterwarnings("ignore")  # PEFT's advice
@pytest.mark.parametrize("kind", sorted(types()))
def test_every_tuner_trains_and_comes_back_or_is_refused(kind, base):
    method = {"name": f"peft:{kind}", **FITTING.get(kind, {})}
    try:
        run = train(base, tiny_task(), method, train=STEPS, rows=ROWS, seed=3)
    except ConfigError as refused:
        assert kind not in FITTING and "\n" not in str(refused)
        return
    ready = run.prepared
    again = make_method(ready.method.spec.model_dump())
    again.restore({name: value.clone() for name, value in ready.method.export().items()}, base)
    found = scores(prepare(base, tiny_task(), again, rows=ROWS))
    assert torch.allclose(found, scores(ready), atol=1e-5)
    alone = [ready.form.predict(ready, [row]) for row in ready.splits["dev"]]
    assert torch.allclose(torch.cat([scores_of(row) for row in alone]), found, atol=2e-5), "a row's company counts"
    bare = scores(prepare(base, tiny_task(), make_method("hard"), rows=ROWS))
    assert not torch.allclose(found, bare, atol=1e-4), "nothing was learned"
    ids = torch.arange(3, 40)[None]
    try:
        merged = ready.method.merged(base)
    except ConfigError as refused:
        assert kind == "BEFT" and f"cannot merge {kind}" in str(refused)
    else:
        with torch.no_grad():
            assert torch.allclose(ready.method.branch.model(ids).logits, merged(ids).logits, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(set(FITTING) - {"TRAINABLE_TOKENS"}))
def test_settings_that_do_not_fit_the_base_are_refused(kind, base):
    with pytest.raises(ConfigError, match=f"PEFT cannot put {kind} into this base: "):
        train(base, tiny_task(), f"peft:{kind}", train=STEPS, rows=ROWS)


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"name": "lora", "options": {"init_lora_weights": "pissa"}}, "changes the base's own weights"),
        ({"name": "lora", "options": {"init_lora_weights": "olora"}}, "changes the base's own weights"),
        ({"name": "lora", "options": {"layer_replication": [[0, 2], [1, 3]]}}, "layer_replication"),
        ({"name": "lora", "options": {"colour": 1}}, "colour"),
        ({"name": "lora", "target_modules": ["nowhere"]}, "nowhere"),
        ({"name": "peft:LORA", "alora_invocation_tokens": [4, 5]}, "activate: cue"),
        ({"name": "peft:ADAMSS", "use_asa": True}, "use_asa"),
        ({"name": "peft:TRAINABLE_TOKENS"}, "TRAINABLE_TOKENS"),
        ({"name": "peft:OSF", "layers": "1-"}, "takes no layers"),
        ({"name": "peft:ADALORA"}, "no tuner 'ADALORA'"),
        ({"name": "peft:LILY"}, "depends on other rows of its batch"),
        ({"name": "peft:PROMPT_TUNING"}, "no tuner 'PROMPT_TUNING'"),
    ],
    ids=lambda value: name_of(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_here_is_refused(method, problem, base):
    with pytest.raises(ConfigError, match=problem) as caught:
        train(base, tiny_task(), method, train=STEPS, rows=ROWS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [False, "gaussian", "orthogonal"])
def test_lora_starts_that_leave_the_base_alone(start, base):
    run = train(base, tiny_task(), {**LORA, "options": {"init_lora_weights": start}}, train=STEPS, rows=ROWS)
    assert torch.isfinite(scores(run.prepared)).all()


DROPOUT = [
    {**LORA, "dropout": 0.5},
    {"name": "peft:LOKR", "module_dropout": 0.5},
    {"name": "peft:BOFT", "boft_dropout": 0.5},
    {"name": "joint", "parts": ["soft", {**LORA, "dropout": 0.5}]},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", DROPOUT, ids=name_of)
def test_dropout_acts_in_training_only(method, base):
    """Losses of the same rows differ between draws in `training()`, and nowhere else; scores never do."""
    ready = train(base, tiny_task(), method, train={**STEPS, "lr": 0.05}, rows=ROWS).prepared
    rows = ready.splits["train"][:4]

    def losses():
        with torch.no_grad():
            return {float(ready.form.loss(ready.engine, rows, ready.method.learned())[0]) for _ in range(8)}

    assert len(losses()) == 1
    with ready.method.training():
        assert len(losses()) > 1
    assert len(losses()) == 1
    assert torch.equal(scores(ready), scores(ready))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_bases_own_dropout_never_acts(dropout):
    """GPT-2 has dropout of its own (0.1): without LoRA's, a training step is deterministic."""
    base = tiny_base("gpt2")
    ready = prepare(base, tiny_task(), make_method({**LORA, "dropout": dropout}), rows=ROWS, seed=0)
    own = [module for module in ready.method.branch.model.modules() if isinstance(module, torch.nn.Dropout)]
    with ready.method.training():
        active = [module for module in own if module.training]
        assert all(module.p == dropout for module in active) and bool(active) == (dropout > 0)
    assert not any(module.training for module in ready.method.branch.model.modules())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", DROPOUT, ids=name_of)
def test_dropout_is_a_function_of_seed_and_step(method, base, tmp_path, monkeypatch):
    """A run that was cut short goes on with the draws that it would have had."""
    from softprompt.training import checkpoints

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)

    def stop(what, done, total):
        if what.startswith("training") and done == 2:
            raise KeyboardInterrupt

    whole = train(base, tiny_task(), method, train={**SETTINGS, "max_steps": 4}, rows=ROWS)
    arguments = {"train": {**SETTINGS, "max_steps": 4}, "rows": ROWS}
    with pytest.raises(KeyboardInterrupt):
        train(base, tiny_task(), method, tmp_path, progress=stop, **arguments)
    torch.rand(7)
    went_on = train(base, tiny_task(), method, tmp_path, **arguments).prepared.method.export()
    assert all(torch.equal(value, went_on[name]) for name, value in whole.prepared.method.export().items())
