"""Answers that are chosen end: none is the beginning of another without loss and scores knowing it."""

from __future__ import annotations

import random

import pytest
import torch
from helpers import bound_form, tiny_rows, tiny_task
from models import tiny_base, tiny_tokenizer

from softprompt.answers.ends import some_begins_another
from softprompt.data import Row
from softprompt.errors import ConfigError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train

STARS = {"1": "1", "10": "10", "5": "5"}
EOS = 1


def bound(verbalizer, family="llama", rules=2, **changes):
    base = tiny_base(family)
    task = Task.load({**tiny_task().spec.model_dump(), "verbalizer": verbalizer, **changes}, rules)
    writes = 100 if family in ("t5", "bart") else None
    return bound_form(task, base.tokenizer, 200, closing=base.reader.bidirectional, writes=writes)


def words_of(bound, text="x"):
    """Each word with the ids that it is scored by."""
    return dict(zip(bound.bound.task.words, bound.encode({"text": text}).candidates, strict=True))


def naive_begins_another(found):
    return any(a != b and b[: len(a)] == a for a in found for b in found)


def test_what_begins_another_is_found():
    rng = random.Random(0)
    for _ in range(300):
        found = [tuple(rng.randrange(2) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 5))]
        assert some_begins_another(found) == naive_begins_another(found)


@pytest.mark.parametrize(
    "verbalizer",
    [
        STARS,
        {"no": "not relevant", "maybe": "not relevant at all", "yes": "relevant"},
        {"a": ["good", "fine"], "b": ["goods"]},
        {"a": "A", "aa": "AA", "aaa": "AAA"},
        {"neg": "un", "pos": "under", "x": "unders"},
        {"zh": "不", "zh2": "不是"},
        {"low": "3", "mid": "3.5", "high": "35"},
        {"a": "new", "b": "new york", "c": "new york city"},
        {"a": ["x", "y"], "b": ["z", "zz"]},
        {"true": "true", "untrue": "true?"},
    ],
    ids=lambda value: "-".join(value),
)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_words_that_begin_another_get_an_end_and_others_stay(verbalizer, family):
    with_ends = bound(verbalizer, family)
    for word, ids in words_of(with_ends).items():
        assert ids == (*with_ends.answer(word), EOS)
    assert not naive_begins_another(list(words_of(with_ends).values()))
    apart = bound({"a": "good", "b": "bad"}, family)
    assert words_of(apart) == {word: apart.answer(word) for word in ("good", "bad")}


def test_artifacts_of_format_1_are_scored_as_they_were_trained():
    old = bound(STARS, rules=1)
    assert words_of(old) == {word: old.answer(word) for word in STARS}
    masked = bound({"a": "good", "b": "bad"}, "bert", rules=1)
    assert words_of(masked) == {word: masked.answer(word) for word in ("good", "bad")}


def test_demonstrations_show_what_ends_an_answer():
    shots = {"k": 1, "rows": [{"text": "hi", "label": "1"}]}
    found = words_of(bound(STARS, demonstrations=shots))
    separator = tiny_tokenizer()("\n\n", add_special_tokens=False)["input_ids"]
    assert {ids[-1] for ids in found.values()} == {separator[0]}


def test_scores_of_answers_that_end_are_those_of_different_texts():
    """Likelihoods of answers none of which begins another sum to less than one; else they need not."""
    data = {name: [Row({"text": "a", "label": "10"}, "row")] * 2 for name in ("train", "dev", "test")}
    ready = prepare(tiny_base("llama"), tiny_task(verbalizer=STARS), make_method("hard"), rows=data)
    rows = [ready.form.encode({"text": text}) for text in ("a", "b c")]
    ((_, batch),) = ready.engine.contexts(rows, ready.method.learned())
    for found in batch.score([row.candidates for row in rows]):
        assert found.exp().sum() < 1


def test_labels_of_which_one_begins_the_other_are_learned():
    """Without an end both losses go to zero on all texts, and one of the labels is never given."""
    rows = {
        name: [Row({**row.values, "label": {"good": "1", "bad": "11"}[row.values["label"]]}, row.where) for row in part]
        for name, part in tiny_rows(train=32, dev=8).items()
    }
    settings = {"epochs": 16, "batch_size": 8, "lr": 4e-3}
    found = train(tiny_base("llama"), tiny_task(verbalizer=["1", "11"]), "full", train=settings, rows=rows).metrics[
        "dev"
    ]
    assert found.estimate.value == 1 and {one.predicted for one in found.outcomes} == {"1", "11"}


def test_what_is_spoken_is_the_word_itself():
    ready = bound(STARS)
    assert [ready.spoken(ids) for ids in words_of(ready).values()] == [ready.answer(word) for word in STARS]
    masked = bound({"a": "good", "b": "bad"}, "bert")
    assert [masked.spoken(ids) for ids in words_of(masked).values()] == [
        masked.answer(word) for word in ("good", "bad")
    ]


def test_a_masked_base_compares_answers_at_as_many_masks():
    tokenizer = tiny_base("bert").tokenizer
    found = words_of(bound({"a": "good", "b": "bad", "c": ["e", "fine"]}, "bert"))
    assert len({len(ids) for ids in found.values()}) == 1
    for ids, word in zip(found.values(), found, strict=True):
        own = tuple(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
        assert ids == own + (tokenizer.sep_token_id,) * (len(ids) - len(own))
    alike = bound({"a": "good", "b": "fine"}, "bert")
    assert words_of(alike) == {word: alike.answer(word) for word in ("good", "fine")}
    hard = prepare(tiny_base("bert"), tiny_task(), make_method("hard"), rows=tiny_rows()).form
    assert words_of(hard) == {word: hard.answer(word) for word in ("good", "bad")}  # nothing is learned from them


def choice(**scoring):
    return Task.load(
        {"name": "c", "type": "choice", "template": {"input": "{{ q }}", "cue": "\nA:"}, "scoring": scoring}
    )


@pytest.mark.parametrize("scoring", [{}, {"train": "answer"}, {"by": "pmi"}, {"normalize": "none"}], ids=str)
def test_options_end_where_one_of_their_row_begins_another(scoring):
    base = tiny_base("llama")
    ready = bound_form(choice(**scoring), base.tokenizer, 200)
    one = ready.encode({"q": "x", "choices": ["1", "10"], "answer": 0})
    assert one.candidates == ((*ready.answer("1"), EOS), (*ready.answer("10"), EOS)) and one.answer[-1] == EOS
    other = ready.encode({"q": "x", "choices": ["2", "10"]})
    assert other.candidates == (ready.answer("2"), ready.answer("10"))


def test_on_a_masked_base_options_are_filled_where_only_the_right_one_is_learned():
    base, row = tiny_base("bert"), {"q": "x", "choices": ["sun", "a gift"], "answer": 0}
    sizes = {}
    for way in ("options", "answer"):
        found = bound_form(choice(train=way), base.tokenizer, 200, closing=True).encode(row).candidates
        sizes[way] = len({len(ids) for ids in found})
    assert sizes == {"options": 2, "answer": 1}


def test_a_runtime_keeps_no_texts_of_its_users():
    runtime = Runtime(tiny_base("llama"))
    runtime.add("c", choice())
    for place in range(5):
        runtime.predict([{"q": "x", "choices": [f"one {place}", f"other {place}"]}], "c")
    assert not [ids for ids in runtime.get("c").bound._answers.values() if ids]


def test_thousands_of_words_are_no_loop_in_a_loop():
    many = {f"label {place}": [f"word {place} {k}" for k in range(2)] for place in range(4000)}
    task = tiny_task(verbalizer=many)
    labels = task.label_scores(torch.zeros(8000), [1] * 8000)
    assert len(labels) == 4000 and task.candidates({"label": "label 3999"})[1] == 7998
    with pytest.raises(ConfigError, match="at most"):
        tiny_task(verbalizer={f"{place}": f"w{place}" for place in range(20_001)})
