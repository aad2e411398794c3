"""Choice, generation and span: what is learned, what is written, and what is wrong said in one line."""

from __future__ import annotations

import json
import random

import pytest
import torch
from helpers import bound_form, close
from models import tiny_base, tiny_model, tiny_tokenizer
from tokenizers import normalizers

from softprompt.answers import LIKELIHOOD, evaluate
from softprompt.control import Control
from softprompt.data import Row
from softprompt.engine import Learned
from softprompt.errors import ConfigError, DataError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train
from softprompt.training.choosing import resolve_scoring

FAMILIES = ("llama", "gpt2")
CHOICE = {
    "name": "capitals",
    "type": "choice",
    "template": {"instruction": "Which one? ", "input": "Q: {{ question }}", "cue": "\nA:"},
}
LETTERS = {
    **CHOICE,
    "template": {**CHOICE["template"], "input": "Q: {{ question }}\n{{ options }}"},
    "scoring": {"by": "letter"},
}
WRITE = {
    "name": "echo",
    "type": "generation",
    "template": {"instruction": "Say it. ", "input": "In: {{ text }}", "cue": "\nOut:"},
    "generation": {"max_new_tokens": 12, "stop": ["\n"]},
    "metric": "exact_match",
}
SPAN = {
    "name": "where",
    "type": "span",
    "template": {"input": "{{ question }} {{ context }}", "cue": "\nA:"},
    "generation": {"max_new_tokens": 12},
}


def choice_rows(count=16, seed=0):
    rng, things = random.Random(seed), ["sun", "rain", "mud", "a gift", "hope", "deep pain"]
    found = []
    for place in range(count):
        options = rng.sample(things, 2 + place % 3)
        right = rng.randrange(len(options))
        found.append(
            Row(
                {"question": f"which is {options[right]}? " * (1 + place % 2), "choices": options, "answer": right},
                f"r:{place}",
            )
        )
    return found


def echo_rows(count=16):
    words = ["sun", "rain", "mud", "hope", "你好", "中文字"]
    return [Row({"text": f"{words[i % 6]} {i}", "answer": words[(i * 5) % 6]}, f"r:{i}") for i in range(count)]


def splits(rows):
    return {"train": rows[: len(rows) // 2], "dev": rows[len(rows) // 2 :], "test": rows[len(rows) // 2 :]}


def naive_scores(model, ready, example):
    """Log-likelihood of each option by one plain forward each."""
    front = [*ready.bound.prefix_ids, *example.text, *ready.bound.cue]
    scores = []
    for ids in example.candidates:
        logits = model(torch.tensor([[*front, *ids]])).logits[0].float().log_softmax(-1)
        scores.append(sum(logits[len(front) + k - 1, token] for k, token in enumerate(ids)))
    return torch.stack(scores)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "task", [CHOICE, LETTERS, {**CHOICE, "scoring": {"by": "pmi"}}], ids=["likelihood", "letter", "pmi"]
)
def test_options_are_scored_as_one_by_one(family, task):
    base, model = tiny_base(family), tiny_model(family).eval()
    ready = prepare(base, Task.load(task), make_method("hard"), rows=splits(choice_rows()))
    found = ready.form.predict(ready, ready.splits["dev"])
    front = [*ready.bound.prefix_ids, *ready.bound.cue]
    for example, one in zip(ready.splits["dev"], found, strict=True):
        with torch.no_grad():
            scores = naive_scores(model, ready, example)
            if task.get("scoring", {}).get("by") == "pmi":
                for place, ids in enumerate(example.candidates):
                    logits = model(torch.tensor([[*front, *ids]])).logits[0].float().log_softmax(-1)
                    scores[place] -= sum(logits[len(front) + k - 1, token] for k, token in enumerate(ids))
        per_token = scores / torch.tensor([len(ids) for ids in example.candidates])
        close(torch.tensor(list(one.scores.values())), per_token.log_softmax(0))
        assert one.gold == example.values["choices"][example.values["answer"]]
        assert one.predicted == example.values["choices"][int(per_token.argmax())]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["soft", "infix", "prefix"])
@pytest.mark.parametrize("task", [CHOICE, LETTERS], ids=["texts", "letters"])
def test_loss_over_options_and_its_gradient_are_those_of_the_scores(family, method, task):
    """The loss is minus the log-score that evaluation gives the right option; its gradient is that of single rows' losses."""
    base = tiny_base(family)
    ready = prepare(
        base, Task.load(task), make_method({"name": method, "length": 3}), rows=splits(choice_rows()), seed=0
    )
    rows, parameters = ready.splits["train"], ready.method.parameters()
    ready.engine.encode(rows)
    total, count = ready.form.loss(ready.engine, rows, ready.method.learned())
    assert count == len(rows)
    scored = ready.form.predict(ready, rows)
    close(total.detach(), torch.tensor(sum(one.nll for one in scored)), 1e-5)
    whole = torch.autograd.grad(total, parameters)
    single = [torch.zeros_like(value) for value in parameters]
    for row in rows:
        loss, _ = ready.form.loss(ready.engine, [row], ready.method.learned())
        for mine, more in zip(single, torch.autograd.grad(loss, parameters), strict=True):
            mine += more
    for a, b in zip(whole, single, strict=True):
        close(a, b, 1e-4)


def test_loss_over_options_against_a_plain_model():
    """LoRA of the whole model has no shortcut: gradients into a weight of the plain model are the reference."""
    base, model = tiny_base(), tiny_model("llama").eval()
    ready = prepare(base, Task.load(CHOICE), make_method("full"), rows=splits(choice_rows()), seed=0)
    rows = ready.splits["train"][:4]
    total, _ = ready.form.loss(ready.engine, rows, ready.method.learned())
    total.backward()
    expected = 0.0
    for row in rows:
        scores = naive_scores(model, ready, row) / torch.tensor([len(ids) for ids in row.candidates])
        expected = expected - scores.log_softmax(0)[row.gold]
    expected.backward()
    close(total.detach(), expected.detach())
    mine = dict(ready.method.branch.model.named_parameters())
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            close(mine[name].grad, weight.grad, 1e-4)


def test_the_way_of_scoring_is_chosen_on_dev(tmp_path):
    task = Task.load({**LETTERS, "scoring": {"by": "auto"}})
    told = []
    resolved = resolve_scoring(tiny_base(), task, splits(choice_rows(24)), control=Control(notice=told.append))
    values = {}
    for way in ("likelihood", "pmi", "letter"):
        ready = prepare(tiny_base(), task.scored_by(way), make_method("hard"), rows=splits(choice_rows(24)))
        values[way] = evaluate(ready, ready.splits["dev"]).estimate.value
    assert values[resolved.spec.scoring.by] == max(values.values()) and len(told) == 1
    result = train(tiny_base(), task, "infix", tmp_path, train={"epochs": 1, "lr": 0.01}, rows=splits(choice_rows(24)))
    held = json.loads((result.artifact / "manifest.json").read_text("utf-8"))
    assert held["task"]["scoring"]["by"] == resolved.spec.scoring.by


@pytest.mark.parametrize("method", ["hard", {"name": "soft", "length": 3}, {"name": "infix", "length": 3}, "lora"])
@pytest.mark.parametrize("beams", [1, 3])
def test_writing_equals_taking_the_best_token_step_by_step(method, beams):
    """Greedy: token by token through the engine's loss path. Beams: transformers on the plain model, behind the hard prompt."""
    base = tiny_base()
    task = Task.load({**WRITE, "generation": {**WRITE["generation"], "num_beams": beams, "stop": []}})
    ready = prepare(base, task, make_method(method), rows=splits(echo_rows()), seed=0)
    rows, learned = ready.splits["dev"], ready.method.learned()
    found = ready.form.predict(ready, rows)
    if beams > 1:
        if method != "hard":
            pytest.skip("plain transformers has the hard prompt only")
        for row, one in zip(rows, found, strict=True):
            ids = torch.tensor([[*ready.bound.prefix_ids, *row.text, *ready.bound.cue]])
            theirs = tiny_model("llama").generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=beams,
                max_new_tokens=12,
                eos_token_id=1,
                pad_token_id=2,
            )
            assert one.predicted == ready.form.read(tuple(theirs[0, ids.shape[1] :].tolist()))
        return
    for row, one in zip(rows, found, strict=True):
        ids: list[int] = []
        while len(ids) < 12:
            from dataclasses import replace

            probe = replace(row, candidates=((*ids, 0),), gold=0)
            with torch.no_grad():
                best = int(ready.engine.answers([probe], learned)[0][-1].argmax())
            if best in ready.form.ends:
                break
            ids.append(best)
        assert one.predicted == ready.form.read(tuple(ids))
        assert one.nll is not None and one.weight == len(row.answer)


def test_an_answer_is_learned_with_its_end_and_written_again(tmp_path):
    """Full fine-tuning of a tiny model on four rows knows them by heart, Chinese ones among them, and stops behind them."""
    rows = echo_rows(8)[2:6]
    data = {"train": rows, "dev": rows, "test": rows}
    task = Task.load(WRITE)
    result = train(
        tiny_base(), task, "full", tmp_path, train={"lr": 3e-3, "epochs": 60, "batch_size": 4}, rows=data, test=True
    )
    assert result.metrics["test"].estimate.metric == "exact_match" and result.metrics["test"].estimate.value == 1.0
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    assert {event["metric"] for event in events if event["event"] == "dev"} == {LIKELIHOOD}
    runtime = Runtime(tiny_base())
    runtime.add("it", tmp_path)
    asked = [{"text": row.values["text"]} for row in rows]
    found = runtime.predict(asked)
    assert [one.label for one in found] == [row.values["answer"] for row in rows] and "你好" in [
        one.label for one in found
    ]
    assert found[0].as_dict() == {"artifact": "it", "text": rows[0].values["answer"]}
    for row, one in zip(asked, found, strict=True):
        pieces: list[str] = []
        assert runtime.stream(row, tell=pieces.append) == one
        assert "".join(pieces) == one.label and "\ufffd" not in "".join(pieces)


def test_written_and_chosen_answers_in_one_batch(tmp_path):
    base = tiny_base()
    for name, task, rows, method in (
        ("write", WRITE, echo_rows(), {"name": "soft", "length": 4}),
        ("write2", WRITE, echo_rows(), {"name": "infix", "length": 2}),
        ("pick", CHOICE, choice_rows(), {"name": "infix", "length": 3}),
        ("pmi", {**CHOICE, "scoring": {"by": "pmi"}}, choice_rows(), {"name": "prefix", "length": 3}),
    ):
        train(base, Task.load(task), method, tmp_path / name, train={"epochs": 1, "lr": 0.01}, rows=splits(rows))
    runtime = Runtime(base)
    for name in ("write", "write2", "pick", "pmi"):
        runtime.add(name, tmp_path / name)
    rows = [{**row.values, "artifact": ("write", "write2")[i % 2]} for i, row in enumerate(echo_rows(6))]
    rows += [{**row.values, "artifact": ("pick", "pmi")[i % 2]} for i, row in enumerate(choice_rows(6))]
    random.Random(0).shuffle(rows)
    for row, one in zip(rows, runtime.predict(rows), strict=True):
        alone = runtime.predict([row])[0]
        assert (alone.artifact, alone.label) == (one.artifact, one.label)
        assert one.probabilities == pytest.approx(alone.probabilities, abs=1e-4)
    with pytest.raises(DataError, match="chooses its answers"):
        runtime.stream(
            rows[0] if rows[0]["artifact"] in ("pick", "pmi") else next(r for r in rows if r["artifact"] == "pick")
        )


def test_learning_to_choose():
    """A learned prompt tells options apart that the bare model does not: the right one is named in the question."""
    rows = {"train": choice_rows(64, 1), "dev": choice_rows(32, 2), "test": choice_rows(32, 3)}
    before = train(tiny_base(), Task.load(CHOICE), "hard", rows=rows).metrics["dev"].nll
    after = train(tiny_base(), Task.load(CHOICE), "full", train={"lr": 1e-3, "epochs": 6}, rows=rows).metrics["dev"].nll
    assert after < before - 0.2


GOOD_CHOICE = {"question": "中国的首都是哪里？", "choices": ["北京", "上海", "广州"], "answer": "北京"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"choices": []}, "two or more options"),
        ({"choices": ["北京"]}, "two or more options"),
        ({"choices": ["北京", " "]}, "choices[1] is empty"),
        ({"answer": "东京"}, "'东京' is not among the 3 choices"),
        ({"answer": 3}, "3 is an index from 0, and there are 3 choices"),
        ({"answer": "D"}, "'D' is not among the 3 choices"),
        ({"answer": None}, "missing field 'answer'"),
        ({"question": None}, "'question' is null"),
    ],
)
def test_bad_choices(changes, message):
    assert message in str(Task.load(CHOICE).check_row({**GOOD_CHOICE, **changes}))


def test_answers_by_text_index_and_letter():
    task = Task.load(CHOICE)
    for answer in ("上海", 1, "1", "B"):
        assert task.check_row({**GOOD_CHOICE, "answer": answer}) is None
        assert task.gold({**GOOD_CHOICE, "answer": answer}) == "上海"
    assert task.gold({"choices": ["3", "1", "2"], "answer": "1"}) == "1"  # a text comes before an index
    assert Task.load(LETTERS).candidates(GOOD_CHOICE) == (["A", "B", "C"], 0)
    assert Task.load(LETTERS).shown(GOOD_CHOICE)["options"] == "A. 北京\nB. 上海\nC. 广州"


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"context": "Paris is big", "answers": {"text": ["London"], "answer_start": [0]}},
            "'London' is not in the context",
        ),
        (
            {"context": "Paris is big", "answers": {"text": ["big"], "answer_start": [3]}},
            "not at answer_start 3 of the context (found at 9)",
        ),
        ({"context": "Paris is big", "answers": ["London"]}, "'London' is not in the context"),
        ({"context": "Paris is big", "answers": []}, "answers is empty"),
        ({"context": " ", "answers": ["x"]}, "context is empty"),
        ({"answers": ["x"]}, "missing field 'context'"),
        ({"context": "x"}, "missing field 'answers'"),
    ],
)
def test_bad_spans(row, message):
    assert message in str(Task.load(SPAN).check_row({"question": "Where?", **row}))


def test_spans_of_chinese_text():
    row = {"question": "首都？", "context": "中国的首都是北京。", "answers": {"text": ["北京"], "answer_start": [6]}}
    task = Task.load({**SPAN, "metric": "f1_zh"})
    assert task.check_row(row) is None and task.gold(row) == ["北京"] and task.spans(row) == [("北京", 6)]


@pytest.mark.parametrize(
    "task, message",
    [
        ({**WRITE, "metric": "accuracy"}, "metric 'accuracy' does not fit type 'generation'"),
        ({**CHOICE, "metric": "bleu"}, "metric 'bleu' does not fit type 'choice'"),
        ({**CHOICE, "scoring": {"by": "letter"}}, "add {{ options }}"),
        ({**CHOICE, "option": "{letter}) {text}"}, "can name {letter} and {choice} only"),
        ({**CHOICE, "verbalizer": {"a": "b"}}, "unknown key 'verbalizer'"),
        ({**WRITE, "generation": {"num_beam": 2}}, "did you mean 'num_beams'"),
    ],
)
def test_bad_task_files(task, message):
    with pytest.raises(ConfigError) as caught:
        Task.load(task)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_answers_of_free_text():
    task = Task.load(WRITE)
    assert "missing field 'answer'" in task.check_row({"text": "x"})
    assert task.check_row({"text": "x", "answer": " "}) == "answer is empty"
    assert "ends an answer" in task.check_row({"text": "x", "answer": "one\ntwo"})
    assert task.check_row({"text": "x", "answer": ["one", "two"]}) is None


def test_half_a_character_is_not_shown():
    form = bound_form(Task.load(WRITE), tiny_base().tokenizer, 200)
    whole = form.answer("中文")
    assert whole[-1] in form.ends
    assert form.read(whole[:-1]) == "中文" and form.read(whole[:-2]) == "中"


def test_learned_nothing_writes_the_same_in_any_batch():
    ready = prepare(tiny_base("gpt2"), Task.load(WRITE), make_method("hard"), rows=splits(echo_rows(20)))
    together = ready.form.predict(ready, ready.splits["dev"])
    for row, one in zip(ready.splits["dev"], together, strict=True):
        (alone,) = ready.form.predict(ready, [row])
        assert alone.predicted == one.predicted and alone.nll == pytest.approx(one.nll, rel=1e-4)
    assert isinstance(ready.method.learned(), Learned)


def test_options_that_are_the_same_tokens_are_counted():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    task = Task.load({"name": "t", "type": "choice", "template": {"input": "{{ question }}"}})
    form = bound_form(task, tokenizer, 256)
    for options in (["US", "us", "it"], ["a", "b"], ["a", "a"]):  # twice the same text is told by `remarks`
        form.encode({"question": "who?", "choices": options, "answer": 0})
    assert form.bound.tied == 1


def test_earlier_names_of_a_bound_task_are_read_with_a_warning():
    tokenizer, runtime = tiny_base().tokenizer, Runtime(tiny_base())
    with pytest.warns(FutureWarning, match=r"Task.bind is now softprompt.prepared.bind"):
        form = Task.load(WRITE).bind(tokenizer, 200)
    row = echo_rows(1)[0].values
    with pytest.warns(FutureWarning, match=r"example is now Generated.encode"):
        assert form.example(row) == form.encode(row)
    runtime.add("w", Task.load(WRITE))
    bound = runtime.get("w").bound
    with pytest.warns(FutureWarning, match=r"head is now BoundTask.prefix_ids"):
        assert bound.head == bound.prefix_ids
    with pytest.warns(FutureWarning):
        assert bound.ends == runtime.get("w").form.ends and bound.read(form.answer("sun")[:-1]) == "sun"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bound.nothing  # noqa: B018
    kv, by = torch.randn(3, 2, 1, 2, 4, tiny_base().shape.head_size), torch.tensor([3])
    with pytest.warns(FutureWarning, match=r"turn is now Base.rotate"):
        turned = tiny_base().turn(kv, by)
    for (keys, values), (other, same) in zip(turned, tiny_base().rotate(kv, by), strict=True):
        assert torch.equal(keys, other) and torch.equal(values, same)
