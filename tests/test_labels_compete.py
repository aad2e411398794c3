"""`scoring.over: labels`: a token competes with those that other labels go on with, against sums over the plain model."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from helpers import close, scores_of, tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt.base import Base
from softprompt.engine import WordTree, distinct_beginnings
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train

WORDS = {"good": "great", "fair": "grey", "bad": "bad", "none": "great!"}
ROWS = {name: [type(row)({**row.values}, row.where) for row in part] for name, part in tiny_rows(6, 4, 4).items()}


def task_of(over: str | None = "labels", words=WORDS, **template) -> Task:
    scoring = {} if over is None else {"over": over}
    settings = tiny_task().spec.model_dump()
    settings["template"] |= template
    return Task.load({**settings, "verbalizer": words, "scoring": scoring})


def ready(base, method="soft", over="labels", words=WORDS, **template):
    return prepare(base, task_of(over, words, **template), make_method(method), rows=ROWS, seed=0)


def whole_words(prepared) -> list[tuple[int, ...]]:
    """The labels' ids, ended where one begins another, and not cut: what the plain model is asked."""
    form = type(prepared.form)(prepared.bound)
    form._over_labels = False
    return list(form.candidates(prepared.task.words))


def naive(logits_behind, words: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Log p of each word: at each token the softmax over the tokens with which words of the same beginning go on."""
    found = []
    for ids in words:
        total = torch.zeros(())
        for step, token in enumerate(ids):
            rivals = sorted({other[step] for other in words if other[:step] == ids[:step] and len(other) > step})
            logits = logits_behind(ids[:step])[rivals]
            total = total + logits[rivals.index(token)] - logits.logsumexp(0)
        found.append(total)
    return found


def test_beginnings_that_tell_answers_apart():
    assert distinct_beginnings([(1, 2, 3), (1, 2, 4), (5, 6)]) == ((1, 2, 3), (1, 2, 4), (5,))
    assert distinct_beginnings([(1, 2), (1, 2), (3,)]) == ((1,), (1,), (3,))
    tree = WordTree.of(((1, 2, 3), (1, 2, 4), (5,)))
    assert tree.branches == {(): (1, 5), (1, 2): (3, 4)}
    assert tree.tokens == (1, 3, 4, 5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_logits_of_some_tokens_are_columns_of_all(family):
    base = tiny_base(family)
    states, tokens = torch.randn(5, base.shape.hidden_size), torch.tensor([7, 3, 200])
    close(base.logits(states, tokens), base.logits(states)[:, tokens])


def test_some_tokens_are_capped_as_all_are():
    model = tiny_model("gemma3")
    model.config.final_logit_softcapping = 0.5
    base = Base(model, tiny_tokenizer(), "capped")
    states, tokens = torch.randn(5, base.shape.hidden_size), torch.tensor([7, 3])
    close(base.logits(states, tokens), 0.5 * torch.tanh((states @ model.lm_head.weight.T)[:, tokens] / 0.5))


def test_a_head_with_a_hook_runs_as_a_whole():
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda layer, inputs, logits: logits * 2)
    base = Base(model, tiny_tokenizer(), "hooked")
    states, tokens = torch.randn(5, base.shape.hidden_size), torch.tensor([7, 3])
    close(base.logits(states, tokens), (states @ model.lm_head.weight.T)[:, tokens] * 2)


def test_a_learned_head_has_the_gradient_of_all_logits():
    prepared = ready(tiny_base(), "full")
    rows, learned, tree = prepared.splits["train"], prepared.method.learned(), prepared.form.tree
    weights = [*learned.base.model.parameters()]
    every, _ = prepared.engine.answers(tree.shortened(rows), learned)
    some, _ = prepared.engine.answers(tree.shortened(rows), learned, tree.tokens)
    wanted = torch.autograd.grad(tree.loss(every[:, list(tree.tokens)], tree.shortened(rows)), weights)
    for found, expected in zip(
        torch.autograd.grad(tree.loss(some, tree.shortened(rows)), weights), wanted, strict=True
    ):
        close(found, expected)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_scores_are_those_of_the_plain_model(family):
    base = tiny_base(family)
    prepared = ready(base, "hard")
    outcomes = prepared.form.predict(prepared, prepared.splits["dev"])
    words = whole_words(prepared)
    for example, own in zip(prepared.splits["dev"], scores_of(outcomes), strict=True):
        text = (*prepared.bound.prefix_ids, *example.text, *prepared.bound.cue)

        def behind(ids, text=text):
            with torch.no_grad():
                if family == "t5":
                    read = torch.tensor([[*text, *prepared.bound.tail]])
                    return base.model(input_ids=read, decoder_input_ids=torch.tensor([[*base.start_ids, *ids]])).logits[
                        0, -1
                    ]
                return base.model(torch.tensor([[*text, *ids]])).logits[0, -1]

        plain = torch.stack(naive(behind, words))
        close(own, plain)
        assert plain.logsumexp(0).item() == pytest.approx(0, abs=1e-5)  # they are probabilities of all that can be


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_loss_and_gradient_are_those_of_naive_sums(family):
    prepared = ready(tiny_base(family))
    rows, method = prepared.splits["train"], prepared.method
    words = whole_words(prepared)
    total, weight = prepared.form.loss(prepared.engine, rows, method.learned())
    (gradient,) = torch.autograd.grad(total, method.parameters())
    assert weight == len(rows)

    from dataclasses import replace

    expected = torch.zeros(())
    for example in rows:
        logits = {}
        for ids in words:
            own, _ = prepared.engine.answers([replace(example, candidates=(ids,), gold=0)], method.learned())
            logits |= {ids[:step]: own[step] for step in range(len(ids))}
        expected = expected - naive(logits.__getitem__, words)[example.gold]
    (plain,) = torch.autograd.grad(expected, method.parameters())
    close(total, expected)
    close(gradient, plain)


def test_masks_of_a_row_make_labels_compete_as_wholes():
    prepared = ready(tiny_base("bert"), "prefix")
    rows, method = prepared.splits["train"], prepared.method
    total, _ = prepared.form.loss(prepared.engine, rows, method.learned())
    logits, _ = prepared.engine.answers(rows, method.learned())
    words = prepared.form.candidates(prepared.task.words)
    at_masks = logits.view(len(rows), len(words[0]), -1)
    expected = 0.0
    for row, example in zip(at_masks, rows, strict=True):
        sums = torch.stack([sum(row[k, token] for k, token in enumerate(ids)) for ids in words])
        expected = expected - sums.log_softmax(0)[example.gold]
    close(total, expected)
    outcomes = scores_of(prepared.form.predict(prepared, rows))
    assert -sum(own[example.gold] for own, example in zip(outcomes, rows, strict=True)).item() == pytest.approx(
        total.item(), rel=1e-4
    )


def test_the_loss_is_what_answering_says_of_the_right_label():
    for family, method in product(("llama", "t5"), ("soft", "infix")):
        prepared = ready(tiny_base(family), method)
        rows = prepared.splits["train"]
        total, _ = prepared.form.loss(prepared.engine, rows, prepared.method.learned())
        outcomes = prepared.form.predict(prepared, rows)
        assert sum(one.nll for one in outcomes) == pytest.approx(total.item(), rel=1e-4)


def test_words_of_one_token_are_compared_as_over_the_vocabulary():
    words = {"good": "g", "bad": "b"}
    outcomes = [
        scores_of(one.form.predict(one, one.splits["dev"]))
        for one in (ready(tiny_base(), "hard", over, words, answer="{{ answer }}") for over in ("labels", "vocabulary"))
    ]
    close(outcomes[0], outcomes[1])


def test_a_first_loss_is_about_the_log_of_the_number_of_labels():
    prepared = ready(tiny_base())
    total, weight = prepared.form.loss(prepared.engine, prepared.splits["train"], prepared.method.learned())
    assert total.item() / weight < 2 * math.log(len(WORDS))


def test_what_was_trained_serves_beside_artifacts_over_the_vocabulary(tmp_path):
    base = tiny_base()
    runtime = Runtime(base)
    for name in ("labels", "vocabulary"):
        train(base, task_of(name), "infix", tmp_path / name, rows=ROWS, train={"max_steps": 2}, check=False)
        runtime.add(name, tmp_path / name)
        assert runtime.task(name).spec.scoring.over == name
    asked = [{"text": "joy sun", "artifact": name} for name in ("labels", "vocabulary", "labels")]
    mixed = runtime.predict(asked)
    alone = [runtime.predict([row])[0] for row in asked]
    for one, other in zip(mixed, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_new_runs_let_labels_compete_and_earlier_artifacts_do_not(tmp_path):
    base = tiny_base()
    train(base, task_of(None), "infix", tmp_path / "new", rows=ROWS, train={"max_steps": 1}, check=False)
    runtime = Runtime(base)
    runtime.add("new", tmp_path / "new")
    assert runtime.task("new").spec.scoring.over == "labels"
    earlier = task_of(None).spec.model_dump(mode="json", exclude_none=True)
    assert "over" not in earlier["scoring"]
    assert not Task.of_artifact(earlier, 2).over_labels and not Task.of_artifact(earlier, 1).over_labels
    assert task_of(None).over_labels
