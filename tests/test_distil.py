"""Context distillation: what the base answers behind a long prompt becomes a few learned tokens."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

import softprompt.training.loop as loop
from softprompt.answers import evaluate
from softprompt.data import Row
from softprompt.engine import NOTHING
from softprompt.errors import ConfigError, DataError
from softprompt.methods import make_method
from softprompt.training import prepare
from softprompt.training.distil import distil, long_prompt
from softprompt.training.teacher import ask, match, relabelled_rows

SHORT = {"instruction": "", "input": "T: {{ text }}", "question": "\nWhich?", "cue": "\nIs:"}
TRAIN = {"epochs": 8, "batch_size": 8, "lr": 0.03, "patience": 50}


def unlabelled(rows, keep):
    """The first `keep` training rows keep their labels, no other row has one."""
    bare = {name: [Row({"text": row.values["text"]}, row.where) for row in part] for name, part in rows.items()}
    return {**bare, "train": [*rows["train"][:keep], *bare["train"][keep:]]}


def teacher_of(base, task, rows, k=2):
    long, rest = long_prompt(task, make_method("infix"), rows["train"], k, None)
    return prepare(base, long, make_method("hard"), rows={**rows, "train": rest})


@pytest.mark.parametrize(
    "words", [{"good": "a", "bad": "b"}, {"good": "good indeed", "bad": "bad"}], ids=["one", "many"]
)
def test_the_teacher_states_are_those_of_a_plain_forward(words):
    """The kept states give the logits of a plain forward of the whole prompt and the answer, position by position."""
    base, task = tiny_base(), tiny_task(template=SHORT, verbalizer=words)
    ready = teacher_of(base, task, tiny_rows())
    examples = ready.splits["dev"]
    taught = ask(ready, examples)
    assert taught.labels == [item.predicted for item in ready.form.predict(ready, examples)]
    for example, label, states in zip(examples, taught.labels, taught.states, strict=True):
        answer = ready.bound.answer(words[label])
        ids = (*ready.bound.prefix_ids, *example.text, *ready.bound.behind, *answer[:-1])
        embeddings = base.embed(torch.tensor(ids))
        whole = base.forward(embeddings, [len(ids)], torch.zeros(1, dtype=torch.long)).states
        assert torch.allclose(base.logits(states), base.logits(whole[-len(answer) :]), atol=1e-3)


@pytest.mark.parametrize(
    "words", [{"good": "a", "bad": "b"}, {"good": "good indeed", "bad": "bad"}], ids=["one", "many"]
)
@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_nothing_is_left_to_learn_for_a_student_that_is_the_long_prompt(kind, words):
    """Learned tokens that start as the whole text of the long prompt are it: the objective and its gradient are 0."""
    base, task = tiny_base(), tiny_task(template=SHORT, verbalizer=words)
    rows = tiny_rows(8, 2, 2)
    ready = teacher_of(base, task, rows, k=2)
    taught = ask(ready, ready.splits["dev"])
    dev = relabelled_rows(task, rows["dev"], taught.labels)
    text = base.tokenizer.decode(ready.bound.prefix_ids)
    front = text[: text.rindex("T:")]  # the student's own prefix is the opening of the input
    length = len(base.tokenizer(front, add_special_tokens=False)["input_ids"])
    method = make_method({"name": kind, "length": length, "text": front})
    student = prepare(base, task, method, rows={"dev": dev})
    assert len(student.bound.prefix_ids) + length == len(ready.bound.prefix_ids)
    method.attach(base, student.bound, 0)
    states = {task.content(row): one for row, one in zip(dev, taught.states, strict=True)}
    loss, tokens = match(student.engine, task, states)(student.splits["dev"], method.learned())
    loss.backward()
    assert tokens == len(taught.states)  # each row is one decision
    assert abs(loss.item()) < 1e-4 and method.parameters()[0].grad.abs().max() < 1e-2
    moved = {key: value + 0.3 * torch.randn_like(value) for key, value in states.items()}
    other, _ = match(student.engine, task, moved)(student.splits["dev"], method.learned())
    assert other.item() > 100 * abs(loss.item())  # KL is positive


@pytest.mark.parametrize("kind", ["soft", "prefix", "infix"])
def test_agreement_rises_without_labels(kind):
    """On a random base that leans to one answer behind the long prompt, and to the other without it."""
    base, task = tiny_base("gpt2"), tiny_task(verbalizer={"good": "g", "bad": "b"})
    rows = tiny_rows(96, 24, 48)
    given = unlabelled(rows, keep=8)
    done = distil(base, task, {"name": kind, "length": 6}, demonstrations=4, rows=given, test=True, train=TRAIN, seed=1)
    losses = [event["loss"] for event in done.result.events if event["event"] == "step"]
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])
    assert done.report["accuracy"] == {}  # no row of dev and test has a label of its own
    student = done.result.prepared
    untrained = make_method({"name": kind, "length": 6})
    untrained.attach(base, student.bound, 1)
    before = evaluate(replace(student, method=untrained), student.splits["test"])
    after = done.report["agreement"]["test"]
    # the share of equal answers is coarse on 48 rows; the teacher's answer must have become likelier on rows not seen
    assert after["rows"] == 48 and after["value"] > 0.6
    if kind != "soft":  # six embeddings on a random base learn these rows and no others
        assert done.result.metrics["test"].nll < before.nll
    assert done.result.metrics["test"].estimate.metric == "agreement"


def test_the_report_counts_tokens_and_right_answers():
    base, task, rows = tiny_base(), tiny_task(), tiny_rows()
    done = distil(base, task, {"name": "soft", "length": 3}, demonstrations=4, rows=rows, test=True, train=TRAIN)
    long, rest = long_prompt(task, make_method("soft"), rows["train"], 4, None)
    ready = prepare(base, long, make_method("hard"), rows={**rows, "train": rest})
    found = evaluate(ready, ready.splits["test"]).estimate
    assert done.report["accuracy"]["test"]["prompt"] == found.as_dict()
    student = done.result.prepared
    assert done.report["prompt"] == {"demonstrations": 4, "tokens": len(ready.bound.prefix_ids)}
    assert done.report["saved"] == len(ready.bound.prefix_ids) - len(student.bound.prefix_ids) - 3
    assert len(student.splits["train"]) == len(rows["train"]) - 4  # the demonstrations are not learned from
    assert not student.task.spec.demonstrations.k and not student.task.spec.demonstrations.rows


def test_a_longer_instruction_is_a_long_prompt_too():
    base, task = tiny_base(), tiny_task()
    text = "Say good if the words are about nice things, bad if they are not. "
    done = distil(base, task, "infix", demonstrations=0, instruction=text, rows=unlabelled(tiny_rows(), 0), train=TRAIN)
    tokens, own = (len(base.tokenizer(part)["input_ids"]) for part in (text, "Good or bad? "))
    assert done.report["saved"] == tokens - own - 10
    assert done.result.prepared.task.spec.template.instruction == "Good or bad? "


def test_goes_on_where_it_was_cut_short_without_asking_again(tmp_path, monkeypatch):
    base, task, rows = tiny_base(), tiny_task(), tiny_rows()
    settings = {"demonstrations": 4, "rows": rows, "train": TRAIN}
    whole = distil(base, task, "infix", tmp_path / "whole", **settings)

    class Killed(Exception):
        pass

    look, seen = loop._Run.evaluate, []

    def dies(*args, **named):
        seen.append(1)
        if len(seen) == 3:
            raise Killed
        return look(*args, **named)

    monkeypatch.setattr(loop._Run, "evaluate", dies)
    monkeypatch.setattr("softprompt.training.checkpoints.FolderStore.due", lambda self, at_once=False: True)
    with pytest.raises(Killed):
        distil(base, task, "infix", tmp_path / "cut", **settings)
    monkeypatch.setattr(loop._Run, "evaluate", look)
    monkeypatch.setattr("softprompt.training.teacher.ask", lambda *args: pytest.fail("the teacher was asked again"))
    again = distil(base, task, "infix", tmp_path / "cut", **settings)
    events = [json.loads(line) for line in (tmp_path / "cut/events.jsonl").read_text().splitlines()]
    assert any(event["event"] == "resumed" for event in events)
    one, other = ((tmp_path / name / "artifact").iterdir() for name in ("whole", "cut"))
    assert {p.name: p.read_bytes() for p in one} == {p.name: p.read_bytes() for p in other}
    timeless = [{key: value for key, value in done.report.items() if key != "seconds"} for done in (whole, again)]
    assert timeless[0] == timeless[1]


def test_what_cannot_be_distilled_is_said_in_one_line():
    base, rows = tiny_base(), tiny_rows()
    with pytest.raises(ConfigError, match="'hard' is not trained by gradients"):
        distil(base, tiny_task(), "hard", rows=rows)
    with pytest.raises(ConfigError, match="no demonstrations and no instruction"):
        distil(base, tiny_task(template=SHORT), "soft", demonstrations=0, rows=rows)
    with pytest.raises(ConfigError, match="keeps the instruction, and the long prompt is nothing else"):
        distil(base, tiny_task(), "infix", demonstrations=0, rows=rows)
    with pytest.raises(DataError, match="4 demonstrations asked for"):
        distil(base, tiny_task(), "infix", demonstrations=4, rows=unlabelled(rows, 2))
    with pytest.raises(ConfigError, match="is of kind masked; use a causal or seq2seq base"):
        distil(tiny_base("bert"), tiny_task(verbalizer={"good": "g", "bad": "b"}), "soft", demonstrations=2, rows=rows)
    with pytest.raises(ConfigError, match=r"a head \(method\.head: true\) has none"):
        distil(base, tiny_task(), {"name": "soft", "head": True}, demonstrations=2, rows=rows)


def test_rows_without_labels_are_read_where_they_are_not_needed(tmp_path):
    lines = [{"text": f"joy {i}", "label": ("good", "bad")[i % 2]} for i in range(8)]
    lines += [{"text": f"mud {i}"} for i in range(20)] + [{"text": f"sun {i}", "label": None} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    split = {"train": 20, "dev": 6, "test": 6}
    task = tiny_task(data={"source": str(tmp_path / "rows.jsonl"), "split": split})
    with pytest.raises(DataError):
        task.load_data()
    found = task.load_data(labelled=False)
    assert {name: len(part) for name, part in found.items()} == split
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "joy", "label": "god"}) + "\n")
    with pytest.raises(DataError):
        task.load_data(labelled=False)  # a label that is none is a mistake, not a missing one


def test_command(tmp_path):
    from typer.testing import CliRunner

    from softprompt.cli import app, console, distil, train  # noqa: F401 - each adds its verb

    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    run = tmp_path / "run.yaml"
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row.values) + "\n" for part in tiny_rows().values() for row in part)
    )
    task = tiny_task().spec.model_dump(mode="json", exclude_none=True)
    task["data"] = {"source": str(tmp_path / "rows.jsonl"), "split": {"train": 20, "dev": 12, "test": 12}}
    run.write_text(json.dumps({"base": str(tmp_path / "base"), "task": task, "method": "infix", "train": TRAIN}))
    found = CliRunner().invoke(
        app, ["distil", str(run), "--demonstrations", "2", "--out", str(tmp_path / "out"), "--test"]
    )
    assert found.exit_code == 0, found.output
    assert "test agreement with the long prompt" in found.output and "saved per request" in found.output
    report = json.loads((tmp_path / "out/distil.json").read_text())
    assert report["prompt"]["demonstrations"] == 2
    found = CliRunner().invoke(app, ["distil", str(run), "--demonstrations", "2", "--out", str(tmp_path / "out")])
    assert found.exit_code == 0 and "this run is finished; nothing was changed" in found.output, found.output
    again = json.loads((tmp_path / "out/distil.json").read_text())
    assert again["agreement"] == report["agreement"] and again["accuracy"] == report["accuracy"]
    leans = max(report["commonest"].values()) > distil.LEANS
    assert leans == ("the long prompt gives one answer to" in " ".join(found.output.split()))
    for share, told in ((0.91, True), (0.9, False)):  # whatever this base's answers are
        with console.err.capture() as captured:
            distil._tell({**report, "commonest": {"dev": share}, "agreement": {}})
        assert told == ("use other demonstrations" in " ".join(captured.get().split()))


def test_nothing_learned_is_the_teacher_of_itself():
    """The bare base matched with itself: 0 at every position."""
    base, task = tiny_base(), tiny_task(verbalizer={"good": "good indeed", "bad": "bad"})
    ready = prepare(base, task, make_method("hard"), rows=tiny_rows())
    taught = ask(ready, ready.splits["dev"])
    dev = relabelled_rows(task, tiny_rows()["dev"], taught.labels)
    states = {task.content(row): one for row, one in zip(dev, taught.states, strict=True)}
    loss, _ = match(ready.engine, task, states)(ready.form.encode_rows(dev), NOTHING)
    assert abs(loss.item()) < 1e-4


def test_a_split_of_another_name_is_refused():
    with pytest.raises(ConfigError, match="'validation'"):
        distil(tiny_base(), tiny_task(), "soft", rows={**tiny_rows(), "validation": []})
