"""One suite over every registered method and family: what a method promises, it keeps. A new method gets it for free."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import FAMILIES, tiny_base

from softprompt import registry
from softprompt.base import Base
from softprompt.evaluate import evaluate, outcomes
from softprompt.methods import make_method
from softprompt.training import prepare, train

METHODS = [
    *registry.names("softprompt.methods"),
    {"name": "infix", "form": "embeddings", "length": 3},
    {"name": "infix", "length": 3, "cue": 4},
    {"name": "soft", "length": 3, "instruction": True},
    {"name": "prefix", "length": 3, "layers": "2-"},
    {"name": "prefix", "length": 3, "reparameterization": "mlp", "hidden": 16},
    {"name": "p_tuning", "length": 3, "encoder": "lstm", "hidden": 8},
    {"name": "lora", "activate": "cue", "r": 2},
    {"name": "lora", "layers": "1-", "rslora": True},
    {"name": "full", "layers": "1-1"},
    {"name": "joint", "parts": ["infix", {"name": "lora", "activate": "cue"}]},
    "peft:LN_TUNING",
]
SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.05}


def name_of(method):
    return method if isinstance(method, str) else "-".join(f"{k}={v}" for k, v in method.items())


@pytest.fixture(params=METHODS, ids=name_of)
def method(request):
    return request.param


def scores_of(found):
    return torch.tensor([list(item.scores.values()) for item in found])


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_saves_and_restores(method, family):
    """Only its own parameters move, the base's bytes stay, and what was exported scores the same when restored."""
    base = tiny_base(family)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    result = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows(), seed=1)
    ready = result.prepared
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert not any(weight.requires_grad for weight in base.model.parameters())
    expected = scores_of(outcomes(ready.engine, ready.method, ready.bound, ready.splits["dev"]))

    tensors = {name: value.clone() for name, value in ready.method.export().items()}
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in tensors.values())
    again = make_method(ready.method.spec.model_dump())
    again.restore(tensors, base)
    fresh = prepare(base, tiny_task(), again, rows=tiny_rows())
    found = scores_of(outcomes(fresh.engine, again, fresh.bound, fresh.splits["dev"]))
    assert torch.allclose(found, expected, atol=1e-5)
    assert {name: value.shape for name, value in again.export().items()} == {k: v.shape for k, v in tensors.items()}


def test_learning_moves_the_loss(method):
    base = tiny_base()
    result = train(base, tiny_task(), method, train={**SETTINGS, "epochs": 6, "patience": 20}, rows=tiny_rows(48))
    losses = [event["loss"] for event in result.events if event["event"] == "step"]
    if losses:
        assert sum(losses[-3:]) < sum(losses[:3])
        assert not torch.equal(result.prepared.method.parameters()[0], torch.zeros(1))


def test_same_seed_same_tensors_other_seed_other_tensors(method):
    base = tiny_base()
    runs = [train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows(), seed=seed) for seed in (3, 3, 4)]
    first, second, third = (run.prepared.method.export() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    if runs[0].prepared.method.parameters():
        assert any(not torch.equal(first[name], third[name]) for name in first)


def test_accumulation_changes_nothing(method):
    """1 × 8 rows = 4 × 2 rows, though their answers have different lengths."""
    base, task = tiny_base(), tiny_task(verbalizer={"good": "good indeed", "bad": "bad"})
    runs = [
        train(base, task, method, train={**SETTINGS, "epochs": 1, "micro_batch": size}, rows=tiny_rows())
        for size in (8, 2)
    ]
    losses, norms = ([[e[key] for e in run.events if e["event"] == "step"] for run in runs] for key in ("loss", "norm"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and norms[0] == pytest.approx(norms[1], rel=1e-3)
    a, b = (run.prepared.method.export() for run in runs)
    # element by element Adam turns a gradient of nearly zero into a step of either sign
    assert all((a[name] - b[name]).norm() <= 1e-3 * max(1.0, a[name].norm()) for name in a)


def test_scores_do_not_depend_on_the_batch(method):
    base = tiny_base()
    ready = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows()).prepared
    examples = ready.splits["dev"]
    together = scores_of(outcomes(ready.engine, ready.method, ready.bound, examples))
    alone = torch.cat([scores_of(outcomes(ready.engine, ready.method, ready.bound, [row])) for row in examples])
    assert torch.allclose(together, alone, atol=1e-4)


def test_unknown_setting_is_refused(method):
    from softprompt.errors import ConfigError

    settings = {"name": method} if isinstance(method, str) else method
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        make_method({**settings, "colour": 1})


def test_missing_and_extra_tensors_are_refused(method):
    from softprompt.errors import ArtifactError

    base = tiny_base()
    ready = train(base, tiny_task(), method, train={**SETTINGS, "max_steps": 1}, rows=tiny_rows()).prepared
    tensors = ready.method.export()
    with pytest.raises(ArtifactError):
        make_method(ready.method.spec.model_dump()).restore({**tensors, "extra": torch.zeros(2)}, base)
    if tensors:
        with pytest.raises(ArtifactError):
            make_method(ready.method.spec.model_dump()).restore({}, base)
        other = {name: torch.zeros(*value.shape[:-1], value.shape[-1] + 1) for name, value in tensors.items()}
        with pytest.raises(ArtifactError):
            make_method(ready.method.spec.model_dump()).restore(other, base)


# Identities between methods: the same thing, reached two ways.


def _scores(base, task, method, rows):
    ready = prepare(base, task, method, rows=rows)
    if method.parameters() == [] and method.spec.name != "hard":
        method.attach(base, ready.bound, 0)
    return scores_of(outcomes(ready.engine, method, ready.bound, ready.splits["test"]))


@pytest.mark.parametrize("kind", ["soft", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_that_starts_from_the_instruction_equals_the_instruction(family, kind):
    """soft(embeddings of the text) = hard(text), and so does prefix(K/V of the text), within a sliding window."""
    base, rows = tiny_base(family), tiny_rows()
    task = tiny_task(template={"instruction": "Ab. ", "input": "T: {{ text }}", "cue": "\nIs:"})
    if family == "gemma3" and kind == "prefix":
        pytest.skip("a learned prefix stays visible behind Gemma's window of 8 tokens; the instruction does not")
    length = len(base.tokenizer("Ab. ", add_special_tokens=False)["input_ids"])
    hard = _scores(base, task, make_method("hard"), rows)
    ready = prepare(base, task, method := make_method({"name": kind, "length": length}), rows=rows)
    method.attach(base, ready.bound, 0)
    learned = scores_of(outcomes(ready.engine, method, ready.bound, ready.splits["test"]))
    assert torch.allclose(hard, learned, atol=1e-4)


def test_demonstrations_are_not_trained_on_and_travel_along():
    base, task = tiny_base(), tiny_task(demonstrations={"k": 4})
    rows = tiny_rows()
    ready = prepare(base, task, make_method("hard"), rows=rows)
    shots = ready.task.spec.demonstrations.rows
    assert len(shots) == 4 and len(ready.splits["train"]) == len(rows["train"]) - 4
    assert sorted(shot["label"] for shot in shots) == ["bad", "bad", "good", "good"]
    assert not {shot["text"] for shot in shots} & {example.values["text"] for example in ready.splits["train"]}
    assert all(shot["text"] in base.tokenizer.decode(ready.bound.head) for shot in shots)


def test_contextual_calibration_takes_the_prompts_leaning_out():
    base = tiny_base()
    plain = prepare(base, tiny_task(), make_method("hard"), rows=tiny_rows())
    task = tiny_task(scoring={"calibration": "contextual", "content_free": ["N/A"]})
    calibrated = prepare(base, task, make_method("hard"), rows=tiny_rows())
    a = outcomes(plain.engine, plain.method, plain.bound, plain.splits["test"])
    b = outcomes(calibrated.engine, calibrated.method, calibrated.bound, calibrated.splits["test"])
    blank = outcomes(plain.engine, plain.method, plain.bound, [plain.bound.example({"text": "N/A"})])[0]
    shifted = torch.tensor(list(a[0].scores.values())) - torch.tensor(list(blank.scores.values()))
    assert torch.allclose(shifted.log_softmax(0), torch.tensor(list(b[0].scores.values())), atol=1e-4)


def test_a_prompt_of_another_base_or_place_is_no_start(tmp_path):
    from models import tiny_model, tiny_tokenizer

    from softprompt import load
    from softprompt.errors import ArtifactError, ConfigError

    base, rows = tiny_base(), tiny_rows()
    for kind in ("soft", "prefix", "infix"):
        train(base, tiny_task(), {"name": kind, "length": 3}, tmp_path / kind, train=SETTINGS, rows=rows)

    def start(kind, source, on=base):
        method = {"name": kind, "length": 3, "init": "artifact", "artifact": str(tmp_path / source)}
        ready = prepare(on, tiny_task(), made := make_method(method), rows=rows)
        made.attach(on, ready.bound, 0)
        return made.value

    for kind in ("soft", "prefix", "infix"):
        held = make_method({"name": kind, "length": 3})
        held.restore(load(tmp_path / kind).tensors, base)
        assert torch.equal(start(kind, kind), held.value)
    assert start("soft", "soft").shape == (3, 64)
    with pytest.raises(ConfigError, match="stand front, these stand infix"):
        start("infix", "prefix")
    with pytest.raises(ConfigError, match="starts from"):
        start("soft", "prefix")
    with pytest.raises(ArtifactError, match="belongs to base"):
        start("soft", "soft", Base(tiny_model("llama", seed=4), tiny_tokenizer(), "other"))


@pytest.mark.parametrize("method", ["hard", "probe"])
def test_where_nothing_is_learned_a_text_runs_once(method, monkeypatch):
    """Also over dev looks and over the trials of a sweep that share what is prepared."""
    template = {
        "instruction": "Good or bad? ",
        "input": "Text: {{ text }}",
        "cue": "\nIt is:",
        "answer": "{{ answer }}",
    }
    words = {"good": "a", "bad": "b"} if method == "hard" else {"good": "very good", "bad": "bad"}
    base, task = tiny_base(), tiny_task(template=template, verbalizer=words)
    ran, real = [], Base.forward

    def counted(self, embeddings, lengths, *rest, **named):
        ran.append(len(lengths))
        return real(self, embeddings, lengths, *rest, **named)

    monkeypatch.setattr(Base, "forward", counted)
    rows = tiny_rows()
    first = train(base, task, method, rows=rows, test=True)
    texts = {row.values["text"] for part in rows.values() for row in part}
    once = sum(ran)
    assert once <= len(texts) + 1  # and the instruction
    again = train(base, task, method, rows=rows, test=True, share=first.prepared)
    assert sum(ran) == once
    assert again.metrics["test"].outcomes == first.metrics["test"].outcomes


def test_probe_does_not_depend_on_how_the_task_normalises():
    """Its scores are the regression's, whatever the answers' lengths."""
    found = []
    for normalize in ("tokens", "none"):
        task = tiny_task(verbalizer={"good": "very good indeed", "bad": "bad"}, scoring={"normalize": normalize})
        ready = train(tiny_base(), task, "probe", rows=tiny_rows(40)).prepared
        found.append(scores_of(outcomes(ready.engine, ready.method, ready.bound, ready.splits["dev"])))
    assert torch.equal(*found)


def test_evaluation_needs_labels():
    from softprompt.errors import DataError

    ready = prepare(tiny_base(), tiny_task(), make_method("hard"), rows=tiny_rows())
    with pytest.raises(DataError, match="no label"):
        evaluate(ready.engine, ready.method, ready.bound, [ready.bound.example({"text": "joy"}, "here:7")])
