"""What single methods, and the tasks that they answer, promise beyond what all do."""

from __future__ import annotations

import pytest
import torch
from helpers import scores, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt import load, registry
from softprompt.answers import evaluate
from softprompt.base import Base
from softprompt.errors import ArtifactError, ConfigError, DataError, TrainingError
from softprompt.methods import make_method
from softprompt.methods.hard import Hard
from softprompt.training import prepare, train

from .cases import SETTINGS, name_of


def test_demonstrations_are_not_trained_on_and_travel_along():
    base, task = tiny_base(), tiny_task(demonstrations={"k": 4})
    rows = tiny_rows()
    ready = prepare(base, task, make_method("hard"), rows=rows)
    shots = ready.task.spec.demonstrations.rows
    assert len(shots) == 4 and len(ready.splits["train"]) == len(rows["train"]) - 4
    assert sorted(shot["label"] for shot in shots) == ["bad", "bad", "good", "good"]
    assert not {shot["text"] for shot in shots} & {example.values["text"] for example in ready.splits["train"]}
    assert all(shot["text"] in base.tokenizer.decode(ready.bound.prefix_ids) for shot in shots)


def test_contextual_calibration_takes_the_prompts_leaning_out():
    base = tiny_base()
    plain = prepare(base, tiny_task(), make_method("hard"), rows=tiny_rows())
    task = tiny_task(scoring={"calibration": "contextual", "content_free": ["N/A"]})
    calibrated = prepare(base, task, make_method("hard"), rows=tiny_rows())
    a = plain.form.predict(plain, plain.splits["test"])
    b = calibrated.form.predict(calibrated, calibrated.splits["test"])
    blank = plain.form.predict(plain, [plain.form.encode({"text": "N/A"})])[0]
    shifted = torch.tensor(list(a[0].scores.values())) - torch.tensor(list(blank.scores.values()))
    assert torch.allclose(shifted.log_softmax(0), torch.tensor(list(b[0].scores.values())), atol=1e-4)


def test_a_prompt_of_another_base_or_place_is_no_start(tmp_path):
    base, rows = tiny_base(), tiny_rows()
    for kind in ("soft", "prefix", "infix"):
        train(base, tiny_task(), {"name": kind, "length": 3}, tmp_path / kind, train=SETTINGS, rows=rows)

    def start(kind, source, on=base):
        method = {"name": kind, "length": 3, "init": "artifact", "artifact": str(tmp_path / source)}
        prepare(on, tiny_task(), made := make_method(method), rows=rows, seed=0)
        return made.value

    for kind in ("soft", "prefix", "infix"):
        held = make_method({"name": kind, "length": 3})
        held.restore(load(tmp_path / kind).tensors, base)
        assert torch.equal(start(kind, kind), held.value)
    assert start("soft", "soft").shape == (3, 64)
    with pytest.raises(ConfigError, match="for place 'front', this method needs 'infix'"):
        start("infix", "prefix")
    with pytest.raises(ConfigError, match="starts from"):
        start("soft", "prefix")
    with pytest.raises(ArtifactError, match="belongs to base"):
        start("soft", "soft", Base(tiny_model("llama", seed=4), tiny_tokenizer(), "other"))


@pytest.mark.parametrize("method", ["hard", "probe"])
def test_where_nothing_is_learned_a_text_runs_once(method, monkeypatch):
    """Also over dev evaluations and over the trials of a sweep that share what is prepared."""
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
    again = train(base, task, method, rows=rows, test=True, reuse=[first.prepared])
    assert sum(ran) == once
    assert again.metrics["test"].outcomes == first.metrics["test"].outcomes


def test_probe_does_not_depend_on_how_the_task_normalises():
    """Its scores are the regression's, whatever the answers' lengths."""
    found = []
    for normalize in ("tokens", "none"):
        task = tiny_task(verbalizer={"good": "very good indeed", "bad": "bad"}, scoring={"normalize": normalize})
        ready = train(tiny_base(), task, "probe", rows=tiny_rows(40)).prepared
        found.append(scores(ready))
    assert torch.equal(*found)


def test_evaluation_needs_labels():
    ready = prepare(tiny_base(), tiny_task(), make_method("hard"), rows=tiny_rows())
    with pytest.raises(DataError, match="no label"):
        evaluate(ready, [ready.form.encode({"text": "joy"}, "here:7")])


def test_full_trains_biases_only_where_there_are_any():
    """BitFit moves the biases and nothing else; a family without biases is refused by name."""
    base = tiny_base("gpt2")
    result = train(base, tiny_task(), {"name": "full", "train": "bitfit"}, train=SETTINGS, rows=tiny_rows())
    mine = dict(result.prepared.method.branch.model.named_parameters())
    moved = {name for name, weight in base.model.named_parameters() if not torch.equal(weight, mine[name])}
    assert moved and all(name.endswith("bias") for name in moved)
    assert set(result.prepared.method.export()) == {name for name in mine if name.endswith("bias")}
    with pytest.raises(ConfigError, match="no biases"):
        train(tiny_base(), tiny_task(), {"name": "full", "train": "bitfit"}, train=SETTINGS, rows=tiny_rows())


@pytest.mark.parametrize("method", [{"name": "lora", "layers": "1-1"}, {"name": "full", "layers": "1-1"}])
def test_layers_that_are_not_named_stay_as_they_are(method):
    result = train(tiny_base(), tiny_task(), method, train={**SETTINGS, "epochs": 1}, rows=tiny_rows())
    names = list(result.prepared.method.export())
    assert names and all(".layers.1." in name for name in names)
    for layers, problem in (("3-", "layers 0 to 2"), ("2-1", "layers 0 to 2"), ("x", "layers")):
        with pytest.raises(ConfigError, match=problem):
            train(tiny_base(), tiny_task(), {**method, "layers": layers}, train=SETTINGS, rows=tiny_rows())


MERGEABLE = [{"name": "lora"}, {"name": "lora", "dora": True, "rslora": True}, {"name": "peft:IA3"}, {"name": "full"}]


@pytest.mark.parametrize("method", MERGEABLE, ids=name_of)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_is_a_plain_model_with_the_logits_of_the_branch(family, method):
    """And merging, too, leaves the base as it was."""
    base = tiny_base(family)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    ready = train(base, tiny_task(), method, train={**SETTINGS, "epochs": 1}, rows=tiny_rows()).prepared
    ids = torch.tensor([[*ready.bound.prefix_ids, *ready.splits["dev"][0].text, *ready.bound.cue]])
    merged = ready.method.merged(base)
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert set(merged.state_dict()) == set(base.model.state_dict())
    with torch.no_grad():
        branch, alone, bare = (model(ids).logits for model in (ready.method.branch.model, merged, base.model))
    assert torch.allclose(branch, alone, atol=1e-4) and not torch.allclose(bare, alone, atol=1e-2)
    again = make_method(ready.method.spec.model_dump())
    again.restore(ready.method.export(), base)
    with torch.no_grad():
        assert torch.allclose(again.merged(base)(ids).logits, alone, atol=1e-5)


@pytest.mark.parametrize("method", [{"name": "lora", "activate": "cue"}, "peft:BEFT"], ids=name_of)
def test_what_cannot_be_merged_is_refused(method):
    base = tiny_base()
    ready = train(base, tiny_task(), method, train={**SETTINGS, "epochs": 1}, rows=tiny_rows()).prepared
    with pytest.raises(ConfigError, match="merge"):
        ready.method.merged(base)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (["lora", "peft:IA3"], "more than one changes the base's weights"),
        (["soft", "lora", "full"], "more than one changes the base's weights"),
        (["joint", "infix"], "cannot be part of another"),
        (["soft", "probe"], "not trained by gradients"),
        (["soft"], "parts"),
    ],
)
def test_parts_that_cannot_be_learned_together_are_refused(parts, problem):
    with pytest.raises(ConfigError, match=problem):
        make_method({"name": "joint", "parts": parts})


@pytest.mark.parametrize(
    "parts", [["lora", "soft"], ["soft", "infix"], ["prefix", "prefix"], ["infix", "full", "soft"]]
)
def test_parts_are_all_learned(parts):
    """In whatever order, and two of one kind."""
    method = {"name": "joint", "parts": parts}
    ready = train(tiny_base(), tiny_task(), method, train=SETTINGS, rows=tiny_rows(12, 0, 0), seed=1).prepared
    start = prepare(ready.base, tiny_task(), make_method(method), rows=tiny_rows(12, 0, 0), seed=1)
    before = start.method.export()
    assert not [name for name, value in ready.method.export().items() if torch.equal(value, before[name])]


def test_a_prefix_in_the_upper_layers_holds_its_whole_text_unless_told_otherwise():
    """The layers below read texts behind that text: a part of it would be another text. A short one is repeated."""
    base, task = tiny_base(), tiny_task(template={"instruction": "Good or bad? ", "input": "{{ text }}", "cue": ":"})
    tokens = len(base.tokenizer("Good or bad? ", add_special_tokens=False)["input_ids"])
    cases = (
        ({"layers": "1-"}, tokens * -(-40 // tokens)),
        (
            {"layers": "1-", "text": "a text " * 30},
            len(base.tokenizer("a text " * 30, add_special_tokens=False)["input_ids"]),
        ),
        ({"layers": "1-", "length": 3}, 3),
        ({"layers": "1-", "init": "random"}, 20),
        ({"layers": "0-"}, 20),
        ({}, 20),
    )
    for settings, length in cases:
        ready = prepare(base, task, made := make_method({"name": "prefix", **settings}), rows=tiny_rows(), seed=0)
        assert made.length == made.value.shape[3] == length
        again = make_method(made.spec.model_dump(mode="json"))
        again.restore(made.export(), base)
        assert again.length == length and torch.equal(again.value, made.value)
        assert ready.bound.room + length == prepare(base, task, make_method("hard"), rows={}).bound.room + tokens


@pytest.mark.parametrize("method", [{"name": "prefix"}, {"name": "prefix", "layers": "1-"}, {"name": "infix"}])
def test_a_prompt_longer_than_the_base_has_positions_is_told(method):
    base, long = tiny_base("gpt2"), 300
    with pytest.raises(ConfigError, match=f"{long}.*has {base.max_positions} positions in all; make it shorter"):
        prepare(base, tiny_task(), make_method({**method, "length": long}), rows=tiny_rows(), seed=0)
    if "layers" in method:
        with pytest.raises(ConfigError, match=r"initial text has \d+ tokens.*give method.length or"):
            prepare(base, tiny_task(), make_method({**method, "text": "many words " * 99}), rows=tiny_rows(), seed=0)


def test_states_behind_another_start_are_not_shared():
    """Rows of an upper prefix are read behind what it starts from: two seeds of a random one keep two caches."""
    base, rows = tiny_base(), tiny_rows()
    start = {"name": "prefix", "length": 3, "layers": "1-", "init": "random"}
    first = prepare(base, tiny_task(), make_method(start), rows=rows, seed=0)
    for split in first.splits.values():
        first.engine.encode(split)
    for seed, same in ((0, True), (1, False)):
        shared = prepare(base, tiny_task(), make_method(start), rows=rows, reuse=[first], seed=seed)
        assert (shared.engine.cache is first.engine.cache) == same
        alone = prepare(base, tiny_task(), make_method(start), rows=rows, seed=seed)
        for ready in (shared, alone):
            ready.engine.encode(ready.splits["train"])
        losses = [
            ready.form.loss(ready.engine, ready.splits["train"], ready.method.learned())[0] for ready in (shared, alone)
        ]
        assert torch.equal(*losses)


def test_a_run_that_starts_from_another_artifact_by_now_does_not_go_on(tmp_path):
    base, source = tiny_base(), tmp_path / "source"

    def start_from(text):
        first = {"name": "prefix", "length": 3, "text": text}
        train(base, tiny_task(), first, source, train=SETTINGS, rows=tiny_rows(), fresh=True)
        method = {"name": "prefix", "layers": "1-", "init": "artifact", "artifact": str(source / "artifact")}
        return train(base, tiny_task(), method, tmp_path / "run", train=SETTINGS, rows=tiny_rows())

    assert start_from("one text").prepared.method.length == 3
    start_from("one text")
    with pytest.raises(TrainingError, match="other settings, data or base"):
        start_from("another text")


@pytest.mark.parametrize("hook", ["share", "loss_weight", "whole"])
def test_a_method_with_a_hook_that_nothing_asks_is_refused(hook, monkeypatch):
    """A package written for an earlier version would else train another loss in silence."""

    class Strange(Hard):
        pass

    setattr(Strange, hook, lambda self, *given: 1)
    monkeypatch.setattr(registry, "find", lambda group, name: Strange)
    with pytest.raises(
        ConfigError, match=rf"method 'mine' \(.*Strange\) defines `{hook}`, which is no longer asked: .*; rename"
    ):
        make_method("mine")
