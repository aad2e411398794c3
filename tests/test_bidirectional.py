"""Masked models and encoders: answers at mask tokens, or by a head; equal to plain models, whatever stands beside a row."""

from __future__ import annotations

import random

import pytest
import torch
from helpers import close, scores_of, tiny_rows, tiny_task
from models import MASKED, tiny_base, tiny_model, tiny_tokenizer
from zoo import quiet
from zoo_models import build

from softprompt import load
from softprompt.base import Base
from softprompt.data import Row
from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods import make_method
from softprompt.methods.headed import Headed, HeadShape
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train

SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.02}
METHODS = [
    "hard",
    "probe",
    {"name": "soft", "length": 3},
    {"name": "p_tuning", "length": 3, "hidden": 16},
    {"name": "prefix", "length": 3},
    {"name": "infix", "length": 3},
    {"name": "infix", "length": 3, "form": "embeddings"},
    {"name": "lora", "r": 2},
    "full",
    {"name": "joint", "parts": [{"name": "prefix", "length": 2}, {"name": "soft", "length": 2}]},
]
# words of one and of several tokens, and a text behind the masks
TASK = {
    "verbalizer": {"good": ["e", "fine"], "bad": "bad"},
    "template": {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is", "end": "!"},
}


def encoder(family="bert"):
    """The same model without its head of masked words."""
    return Base(tiny_model(family).base_model, tiny_tokenizer(frame="masked"), f"tiny-{family}-encoder")


def name_of(method):
    return method if isinstance(method, str) else "-".join(str(value) for value in method.values())[:40]


@pytest.mark.parametrize("family", MASKED)
def test_a_cloze_is_that_of_the_plain_model(family):
    """Scores of words of several lengths, in ragged batches, are Σ log p at the masks of one plain forward each."""
    base, model = tiny_base(family), tiny_model(family).eval()
    over = {"scoring": {"over": "vocabulary"}}
    ready = prepare(base, tiny_task(**TASK, **over), make_method("hard"), rows=tiny_rows())
    found = scores_of(ready.form.predict(ready, ready.splits["dev"]))
    special = base.tokenizer.all_special_ids
    assert ready.bound.prefix_ids[0] in special and ready.bound.tail[-1] in special and len(ready.bound.tail) == 2
    for row, mine in zip(ready.splits["dev"], found, strict=True):
        values = []
        for ids in row.candidates:
            front = [*ready.bound.prefix_ids, *row.text, *ready.bound.cue]
            whole = torch.tensor([[*front, *[base.mask_id] * len(ids), *ready.bound.tail]])
            with torch.no_grad():
                logp = model(input_ids=whole).logits[0].float().log_softmax(-1)
            values.append(sum(logp[len(front) + k, token] for k, token in enumerate(ids)))
        lengths = [len(ids) for ids in row.candidates]
        close(mine, ready.bound.task.label_scores(torch.stack(values), lengths))


@pytest.mark.parametrize("family", MASKED)
def test_learned_embeddings_and_keys_have_the_gradients_of_rows_alone(family):
    """Padding, neighbours and micro-batches change nothing: loss and gradients are the sums of those of single rows."""
    for method in (
        {"name": "soft", "length": 3},
        {"name": "prefix", "length": 3},
        {"name": "prefix", "length": 3, "head": True},
    ):
        ready = prepare(tiny_base(family), tiny_task(**TASK), make_method(method), rows=tiny_rows(), seed=0)
        rows, parameters = ready.splits["train"][:7], ready.method.parameters()
        total, count = ready.form.loss(ready.engine, rows, ready.method.learned())
        whole = torch.autograd.grad(total, parameters)
        single, tokens = [torch.zeros_like(value) for value in parameters], 0
        for row in rows:
            loss, more = ready.form.loss(ready.engine, [row], ready.method.learned())
            tokens += more
            for mine, value in zip(single, torch.autograd.grad(loss, parameters), strict=True):
                mine += value
        assert tokens == count and all(value.abs().max() > 0 for value in whole)
        for a, b in zip(whole, single, strict=True):
            close(a, b, 1e-4)


def test_a_soft_prompt_that_starts_from_a_text_reads_as_that_text():
    base, text = tiny_base("bert"), "Good or bad? "
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    soft = prepare(base, tiny_task(**TASK), make_method({"name": "soft", "length": len(ids)}), rows=tiny_rows(), seed=0)
    row = soft.splits["dev"][0]
    words = [word for word in row.candidates if len(word) == len(row.candidates[0])]
    front = [*ids, *soft.bound.prefix_ids, *row.text, *soft.bound.cue]
    whole = [*front, *[base.mask_id] * len(words[0]), *soft.bound.tail]
    with torch.no_grad():
        logp = tiny_model("bert").eval()(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        ((_, batch),) = soft.engine.contexts([row], soft.method.learned())
        expected = [sum(logp[len(front) + k, token] for k, token in enumerate(word)) for word in words]
        close(batch.score([words])[0], torch.stack(expected))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@pytest.mark.parametrize("kind", ["masked", "encoder"])
def test_every_method_trains_saves_and_serves(tmp_path, method, kind):
    base = tiny_base("bert") if kind == "masked" else encoder()
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    result = train(base, tiny_task(**TASK), method, tmp_path, train=SETTINGS, rows=tiny_rows(), test=True)
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    assert isinstance(result.prepared.method, Headed) == (kind == "encoder" and method != "probe")
    runtime = Runtime(base)
    runtime.add("it", tmp_path)
    found = runtime.evaluate("it", tiny_rows()["test"])
    assert found.estimate == result.metrics["test"].estimate
    close(scores_of(found.outcomes), scores_of(result.metrics["test"].outcomes))


def test_deep_prompts_with_a_head_learn(tmp_path):
    """P-tuning v2 on a tiny encoder separates rows whose words say the label."""
    rows = tiny_rows(64, 32, 32)
    found = train(
        encoder(),
        tiny_task(),
        {"name": "prefix", "length": 4},
        tmp_path,
        train={"epochs": 30, "lr": 0.05, "batch_size": 8, "patience": 100},
        rows=rows,
    )
    assert found.metrics["dev"].estimate.value >= 0.9


def test_a_prefix_under_a_head_has_defaults_of_its_own():
    """Short and fast where the head reads pooled states; as ever where it points, or without a head."""
    for task, rows, base, length, lr, head_lr in (
        (tiny_task(), tiny_rows(), encoder(), 5, 0.05, 0.01),
        (Task.load(SPANS), spans(), encoder(), 20, 0.02, 0.005),
        (tiny_task(), tiny_rows(), tiny_base("bert"), 20, 0.02, None),
    ):
        method = prepare(base, task, make_method("prefix"), rows=rows, seed=0).method
        assert (method.length, method.defaults.lr) == (length, lr)
        assert method.spec.length == length  # so the artifact says it
        scales = [scale for _, scale in method.groups()]
        assert scales == ([1.0] if head_lr is None else [1.0, pytest.approx(head_lr / lr)])
    given = prepare(encoder(), tiny_task(), make_method({"name": "prefix", "length": 3}), rows=tiny_rows(), seed=0)
    assert given.method.length == 3


def test_an_instruction_is_not_averaged_with_the_text_unless_asked_for():
    def prefix_ids(base, method):
        return prepare(base, tiny_task(**TASK), make_method(method), rows=tiny_rows(), seed=0).bound.prefix_ids

    for name in ("hard", "infix", "full"):
        plain, asked = prefix_ids(encoder(), name), prefix_ids(encoder(), {"name": name, "instruction": True})
        assert len(plain) < len(asked) == len(prefix_ids(tiny_base("bert"), name))


def test_two_artifacts_in_one_call_and_a_missing_head(tmp_path):
    base = encoder()
    for seed, name in enumerate(("a", "b")):
        train(
            base,
            tiny_task(),
            {"name": "prefix", "length": 3},
            tmp_path / name,
            train=SETTINGS,
            rows=tiny_rows(),
            seed=seed,
        )
    runtime = Runtime(base)
    runtime.add("a", tmp_path / "a")
    runtime.add("b", tmp_path / "b")
    rows = [{**row.values, "artifact": "ab"[i % 2]} for i, row in enumerate(tiny_rows()["dev"])]
    for row, one in zip(rows, runtime.predict(rows), strict=True):
        assert one.probabilities == pytest.approx(runtime.predict([row])[0].probabilities, abs=1e-5)
    method = Headed(make_method({"name": "prefix", "length": 3}), HeadShape(2))
    with pytest.raises(ArtifactError, match=r"holds no head \(head.weight \[K, 64\]"):
        method.restore({"prompt_embeddings": torch.zeros(3, 3 * 2 * 64)}, base)


def test_what_these_bases_cannot_do_is_said_in_one_line():
    rows = {"train": [Row({"text": "x", "choices": ["a", "b"], "answer": 0}, "r:1")]}
    choice = Task.load({"name": "c", "type": "choice", "template": {"input": "{{ text }}"}})
    write = Task.load({"name": "w", "type": "generation", "template": {"input": "{{ text }}"}})
    for base, task, method, message in (
        (tiny_base("bert"), write, "soft", "use a causal base"),
        (encoder(), choice, "prefix", "use type classification"),
        (tiny_base("llama"), tiny_task(**TASK), "soft", "template.end"),
        (tiny_base("bert"), tiny_task(), {"name": "prefix", "length": 3, "layers": "1-"}, "method.layers"),
        (encoder(), tiny_task(), {"name": "soft", "head": False}, "cannot be false"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            prepare(base, task, make_method(method), rows=rows if task is choice else tiny_rows(), seed=0)
        assert "\n" not in str(caught.value)


def test_a_head_on_a_causal_base(tmp_path):
    """It reads the state at the end of the context; texts in front of an infix are still encoded once."""
    method = {"name": "infix", "length": 3, "head": True}
    result = train(tiny_base(), tiny_task(), method, tmp_path, train=SETTINGS, rows=tiny_rows(), test=True)
    assert result.prepared.engine.plan.keeps_texts
    runtime = Runtime(tiny_base())
    runtime.add("it", tmp_path)
    close(scores_of(runtime.evaluate("it", tiny_rows()["test"]).outcomes), scores_of(result.metrics["test"].outcomes))


def test_options_at_masks():
    """A choice is scored at as many masks as each option has tokens, and learned by comparing options."""
    rows = [Row({"text": f"t {i}", "choices": ["sun", "deep rain"], "answer": i % 2}, f"r:{i}") for i in range(24)]
    task = Task.load({"name": "c", "type": "choice", "template": {"input": "{{ text }}", "cue": "\nIt is"}})
    result = train(
        tiny_base("roberta"),
        task,
        {"name": "soft", "length": 2},
        train=SETTINGS,
        rows={"train": rows[:16], "dev": rows[16:]},
    )
    assert 0 <= result.metrics["dev"].estimate.value <= 1 and result.metrics["dev"].nll > 0


SPANS = {"name": "s", "type": "span", "template": {"input": "{{ question }} {{ context }}"}, "metric": "f1"}


def span_rows(count, seed=0):
    """The answer is the word behind `is`; contexts are ragged, some Chinese."""
    rng, found = random.Random(seed), []
    for place in range(count):
        answer = rng.choice(["mud", "sun", "hope", "北京"])
        front, back = "so " * rng.randrange(4), " ok" * rng.randrange(3)
        context = f"{front}it is {answer}{back}"
        row = {
            "question": "what?",
            "context": context,
            "answers": {"text": [answer], "answer_start": [context.index(answer)]},
        }
        found.append(Row(row | {"id": place}, f"r:{place}"))
    return found


def spans(count=48, seed=0):
    rows = span_rows(count, seed)
    return {"train": rows[: count // 2], "dev": rows[count // 2 :], "test": rows[count // 2 :]}


def test_pointing_is_that_of_the_plain_encoder():
    """Log-probabilities of both ends, and gradients, are those of one plain forward of each row alone."""
    base, model = encoder("bert"), tiny_model("bert").base_model.eval()
    ready = prepare(base, Task.load(SPANS), make_method({"name": "soft", "length": 2}), rows=spans(), seed=0)
    rows, learned = ready.splits["train"][:6], ready.method.learned()
    found = ready.form.pointers(ready.engine, rows, learned)
    total, count = ready.form.loss(ready.engine, rows, learned)
    expected = 0.0
    for row, mine in zip(rows, found, strict=True):
        ids = torch.tensor([[*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *ready.bound.tail]])
        embeddings = torch.cat([ready.method.inner.value[None], base.embed(ids)], dim=1)
        states = model(inputs_embeds=embeddings).last_hidden_state[0]
        start = 2 + len(ready.bound.prefix_ids)
        logits = ready.method.head(states[start : start + len(row.text)])
        inside = torch.tensor([b > a for a, b in row.offsets])
        logp = logits.masked_fill(~inside[:, None], float("-inf")).log_softmax(0)
        close(mine[inside], logp[inside])
        expected = expected - (logp[row.target[0], 0] + logp[row.target[1], 1]) / 2
        text = row.values["context"][row.offsets[row.target[0]][0] : row.offsets[row.target[1]][1]]
        assert text == row.values["answers"]["text"][0]
    assert count == len(rows)
    parameters = ready.method.parameters()
    mine, theirs = (torch.autograd.grad(value, parameters) for value in (total, expected))
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, 1e-4)


def test_a_head_learns_to_point_and_its_artifact_travels(tmp_path):
    settings = {"epochs": 20, "lr": 2e-3, "batch_size": 8, "patience": 100}
    result = train(encoder(), Task.load(SPANS), "full", tmp_path, train=settings, rows=spans(64), test=True)
    assert result.metrics["test"].estimate.value >= 0.9
    runtime = Runtime(encoder())
    runtime.add("it", tmp_path)
    assert runtime.evaluate("it", spans(64)["test"]).estimate == result.metrics["test"].estimate
    row = {"question": "what?", "context": "so it is 北京 ok"}
    assert runtime.predict([row])[0].label in row["context"]
    with pytest.raises(ConfigError, match="cannot point at them"):
        prepare(tiny_base(), Task.load(SPANS), make_method({"name": "soft", "head": True}), rows=spans(), seed=0)


def test_words_are_not_cut():
    from softprompt.answers.extracted import whole_words

    assert whole_words("960 RIVONA DR", 4, 9) == "RIVONA" and whole_words("960 RIVONA DR", 5, 10) == "RIVONA"
    assert whole_words("中国的首都是北京。", 6, 7) == "北" and whole_words("a-b", 0, 1) == "a"


def test_a_prompt_starts_from_that_of_an_artifact_with_a_head(tmp_path):
    base, rows, settings = encoder(), tiny_rows(), {**SETTINGS, "max_steps": 2}
    train(base, tiny_task(), {"name": "prefix", "length": 3}, tmp_path, train=settings, rows=rows)
    held = load(tmp_path).tensors["prompt_embeddings"]
    method = {"name": "prefix", "length": 3, "init": "artifact", "artifact": str(tmp_path)}
    ready = prepare(base, tiny_task(), make_method(method), rows=rows, seed=0)
    assert isinstance(ready.method, Headed) and torch.equal(ready.method.export()["prompt_embeddings"], held)


@pytest.mark.parametrize("method", ["soft", "p_tuning"])
def test_embeddings_of_another_size_than_the_states_are_learned_saved_and_read(tmp_path, method):
    """ALBERT's: 32 numbers a token, states of 64."""
    with quiet():
        base = Base(build("masked", "albert"), tiny_tokenizer(frame="masked"), "albert")
    assert (base.shape.embedded, base.shape.hidden_size) == (32, 64)
    result = train(
        base, tiny_task(), {"name": method, "length": 3}, tmp_path, train=SETTINGS, rows=tiny_rows(), test=True
    )
    assert load(tmp_path).tensors["prompt_embeddings"].shape == (3, 32)
    runtime = Runtime(base)
    runtime.add("it", tmp_path)
    assert runtime.evaluate("it", tiny_rows()["test"]).estimate == result.metrics["test"].estimate
