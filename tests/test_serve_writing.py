"""Answers that are written together: each is the one that `predict` gives, whoever joins and leaves beside it."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from helpers import tiny_task
from models import tiny_base

from softprompt import Runtime
from softprompt.base import Base
from softprompt.data import Row
from softprompt.documents import DocumentCache
from softprompt.engine import Past
from softprompt.errors import BaseModelError
from softprompt.serve.writing import Writer, WrittenAnswer
from softprompt.tasks import Task
from softprompt.tasks.generation import GenerationSpec
from softprompt.training import train

LONG = "joy and sun " * 13
TEXTS = ["joy", "mud and rain", "x" * 40, "of the sea", "no 7", "中文"]
DRAWN = {"do_sample": True, "temperature": 1.5}
METHODS = {
    "soft": ({"name": "soft", "length": 5}, {}),
    "prefix": ({"name": "prefix", "length": 7}, {**DRAWN, "top_k": 40, "top_p": 0.9, "seed": 3}),
    "infix": ({"name": "infix", "length": 4}, {"repetition_penalty": 1.6, "max_new_tokens": 9}),
    "lora": ({"name": "lora", "r": 2}, {**DRAWN, "repetition_penalty": 1.3}),
    "hard": ({"name": "hard"}, {"max_new_tokens": 4}),
    "infix3e": ({"name": "infix", "form": "embeddings", "length": 3, "cue": 4}, {**DRAWN, "max_new_tokens": 20}),
}


def writing(name: str = "writes", **generation) -> Task:
    """A task that writes, each name with another instruction."""
    template = {"instruction": f"Say {name}. ", "input": "Text: {{ text }}", "cue": "\nIt is:"}
    generation = {"max_new_tokens": 12, "stop": [], **generation}
    return Task.load(
        {"name": name, "type": "generation", "metric": "exact_text", "template": template, "generation": generation}
    )


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def served(request, tmp_path_factory) -> Runtime:
    """A runtime with artifacts of many kinds, each with settings of its own; all on one base."""
    runtime, folder = Runtime(tiny_base(request.param)), tmp_path_factory.mktemp("served")
    rows = {
        split: [Row({"text": text, "answer": text[::-1]}, f"{split}:{place}") for place, text in enumerate(TEXTS)]
        for split in ("train", "dev", "test")
    }
    how = {"epochs": 1, "batch_size": 3, "lr": 0.05}
    for place, (name, (method, generation)) in enumerate(METHODS.items()):
        train(runtime.base, writing(name, **generation), method, folder / name, train=how, rows=rows, seed=place)
        runtime.add(name, folder / name)
    return runtime


@pytest.fixture
def bare() -> Runtime:
    """A runtime with a task that writes up to 12 tokens."""
    runtime = Runtime(tiny_base("gemma3"))
    runtime.add("writes", writing())
    return runtime


class Asked:
    """A request: what was told of its answer, and what came of it."""

    def __init__(self, runtime: Runtime, name: str, text: str, prompt=None, **how) -> None:
        self.name, self.text = name, text
        self.told: list[str] = []
        self.results: list[object] = []
        prompt = prompt or runtime.get(name)
        example = prompt.form.encode({"text": text})
        self.answer = WrittenAnswer(example, prompt, self.results.append, **{"tell": self.told.append, **how})

    @property
    def written(self) -> tuple[str, bool]:
        (outcome,) = self.results
        return outcome.predicted, outcome.cut

    def alone(self, runtime: Runtime) -> tuple[str, bool]:
        found = runtime.predict([self.text], self.name)[0]
        return found.label, found.cut


def finish(writer: Writer) -> int:
    """Steps until all answers have ended."""
    steps = 0
    while writer.active:
        writer.step()
        steps += 1
    return steps


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """How many rows each forward of any base has run."""
    counts: list[int] = []
    plain = Base.forward

    def forward(base, inputs, lengths, *rest, **more):
        counts.append(len(lengths))
        return plain(base, inputs, lengths, *rest, **more)

    monkeypatch.setattr(Base, "forward", forward)
    return counts


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_each_answer_is_the_one_it_is_alone(served, gap):
    """All at once, and joining one after the other while others have ended or go on."""
    writer, asked = Writer(), []
    for text, name in zip([*TEXTS, *TEXTS[::-1]], [*METHODS, *METHODS], strict=True):
        asked.append(Asked(served, name, text))
        writer.add([asked[-1].answer])
        for _ in range(gap):
            writer.step()
    finish(writer)
    assert [one.written for one in asked] == [one.alone(served) for one in asked]
    assert ["".join(one.told) for one in asked] == [one.written[0] for one in asked]
    assert len({one.written[0] for one in asked}) > len(METHODS), "they say too little to tell one from another"
    assert max(len(one.told) for one in asked) > 3, "nothing is told before the end"


def test_texts_and_tokens_end_answers(bare):
    """Where a stop string or an end token comes first, and the rest goes on; ends in a first token as well."""
    whole = bare.predict(TEXTS)
    bare.add("stops", writing(stop=[whole[4].label[3:5], whole[0].label[:1]]))
    ends = (bare.base.tokenizer.convert_tokens_to_ids(whole[1].label[-1]),)
    bare.get("stops").form.ends = bare.get("writes").form.ends = ends
    asked = [Asked(bare, name, text) for text in TEXTS for name in ("stops", "writes")]
    writer = Writer()
    writer.add([one.answer for one in asked])
    assert 0 < writer.active < len(asked), "an answer that ends in its first token is never under way"
    finish(writer)
    assert [one.written for one in asked] == [one.alone(bare) for one in asked]
    assert ["".join(one.told) for one in asked] == [one.written[0] for one in asked]
    assert {one.written[1] for one in asked} == {True, False}
    assert any(one.answer.ids[-1] in ends for one in asked), "no answer was ended by a token"


def test_a_request_brings_settings_of_its_own(bare):
    """They take the place of the task's, its texts to stop at included; the task's answers stay as they were."""
    plain = bare.predict(TEXTS[4:5])[0].label
    own = {"max_new_tokens": 17, "stop": [plain[3:5]], "do_sample": True, "temperature": 1.2, "seed": 5}
    bare.add("own", writing(**own))
    bare.add("stops", writing(stop=[plain[3:5]]))
    want = [bare.predict([text], name)[0].label for text in TEXTS[4:] for name in ("own", "writes")]
    asked = [
        Asked(bare, "stops", text, generation=GenerationSpec(**given))
        for text in TEXTS[4:]
        for given in (own, {"max_new_tokens": 12, "stop": []})
    ]
    writer = Writer()
    writer.add([one.answer for one in asked])
    finish(writer)
    assert [one.written[0] for one in asked] == want
    assert want[1] == plain and Asked(bare, "stops", TEXTS[4]).alone(bare)[0] == plain[:3]


def test_answers_of_many_artifacts_take_as_many_forwards_as_the_longest(served, forwards):
    names = ["soft", "prefix", "hard", "infix3e"]
    asked = [Asked(served, name, text) for name, text in zip(names, TEXTS[:4], strict=True)]
    writer = Writer()
    writer.add([one.answer for one in asked])
    assert forwards == [4], "contexts run together"
    steps = finish(writer)
    sizes = [len(one.answer.ids) for one in asked]
    assert steps == max(sizes) - 1 and len(forwards) == max(sizes) < sum(sizes) - len(sizes)
    assert forwards[1:] == [sum(size > step for size in sizes) for step in range(1, max(sizes))]


def test_other_weights_run_by_themselves(served, forwards):
    asked = [Asked(served, name, TEXTS[0]) for name in ("lora", "soft", "lora", "prefix")]
    writer = Writer()
    writer.add([one.answer for one in asked])
    writer.step()
    assert forwards == [2, 2, 2, 2]


def test_a_cancelled_answer_leaves_and_the_others_go_on(served, forwards):
    asked = [Asked(served, name, text) for name, text in zip(("soft", "prefix", "infix"), TEXTS[:3], strict=True)]
    writer = Writer()
    writer.add([one.answer for one in asked])
    writer.step()
    late = Asked(served, "hard", TEXTS[3])
    writer.add([late.answer])
    writer.cancel(asked[1].answer)
    writer.cancel(late.answer)
    size = len(asked[1].answer.ids)
    forwards.clear()
    writer.step()
    assert forwards == [2] and writer.active == 2
    finish(writer)
    assert not asked[1].results and not late.results and len(asked[1].answer.ids) == size
    assert [one.written for one in asked[::2]] == [one.alone(served) for one in asked[::2]]


def test_what_is_cancelled_before_it_has_run_beside_others_is_freed(bare):
    """Its context is kept until the next step, and no longer, though the same rows as before go on."""

    def pasts() -> int:
        gc.collect()
        return sum(isinstance(one, Past) for one in gc.get_objects())

    writer, first, late = Writer(), Asked(bare, "writes", TEXTS[0]), Asked(bare, "writes", TEXTS[1])
    before = pasts()
    writer.add([first.answer])
    writer.step()
    writer.add([late.answer])
    assert pasts() == before + 1
    writer.cancel(late.answer)
    writer.step()
    assert pasts() == before and writer.active == 1


@pytest.mark.parametrize("text", [LONG, "short"], ids=["long", "short"])
def test_answers_behind_one_reading_are_those_of_each_alone(served, text, monkeypatch):
    """A long text's keys and values are not copied for each answer behind it."""
    names = ["infix", "infix", "hard", "soft"]
    plain = [served.get(name) for name in names]
    examples = [prompt.form.encode({"text": text}) for prompt in plain]
    prompts = DocumentCache().behind_texts(examples, plain)
    asked = [Asked(served, name, text, prompt) for name, prompt in zip(names, prompts, strict=True)]
    assert sum(prompt.reading is not None for prompt in prompts) == (3 if text == LONG else 2)
    copies: list[int] = []
    forward = Base.forward

    def looking(base, inputs, lengths, starts, blocks, *rest, **more):
        copies.append(max((block.kv[0].shape[1] for block in blocks if block.positions.shape[1] >= 128), default=0))
        return forward(base, inputs, lengths, starts, blocks, *rest, **more)

    writer = Writer()
    for one in asked:
        writer.add([one.answer])
        writer.step()
    with monkeypatch.context() as patch:
        patch.setattr(Base, "forward", looking)
        finish(writer)
    assert [one.written for one in asked] == [one.alone(served) for one in asked]
    assert max(copies) == (text == LONG), "the text was copied, or none was long"


def test_nothing_is_kept_of_answers_that_have_ended(served, monkeypatch):
    seen: list[weakref.ref] = []
    forward = Base.forward

    def looking(base, inputs, lengths, starts, blocks, *rest, **more):
        hidden = forward(base, inputs, lengths, starts, blocks, *rest, **more)
        seen.extend(weakref.ref(layer) for layer in hidden.kv)
        seen.extend(weakref.ref(block) for block in blocks)
        return hidden

    monkeypatch.setattr(Base, "forward", looking)
    writer = Writer()
    asked = [Asked(served, name, text) for name, text in zip(METHODS, TEXTS, strict=True)]
    writer.add([one.answer for one in asked])
    writer.step()
    gc.collect()
    assert any(one() is not None for one in seen), "this would not see what is kept"
    for one in asked[:3]:
        writer.cancel(one.answer)
    finish(writer)
    gc.collect()
    assert not [one() for one in seen if one() is not None]


def test_a_row_without_numbers_ends_alone(served):
    """In its context, as here, or later; those beside it go on."""
    prompt = served.get("prefix")
    broken = replace(prompt.shared_prefix, kv=[layer * torch.nan for layer in prompt.shared_prefix.kv])
    bad = Asked(served, "prefix", TEXTS[0], replace(prompt, shared_prefix=broken))
    asked = [Asked(served, name, text) for name, text in zip(("soft", "infix3e"), TEXTS[:2], strict=True)]
    writer = Writer()
    writer.add([asked[0].answer, bad.answer, asked[1].answer])
    assert isinstance(bad.results[0], BaseModelError) and "nan" in str(bad.results[0]) and not bad.answer.ids
    finish(writer)
    assert len(bad.results) == 1 and [one.written for one in asked] == [one.alone(served) for one in asked]


def test_numbers_that_end_later_end_that_answer(bare, monkeypatch):
    asked = [Asked(bare, "writes", text) for text in TEXTS[:3]]
    want = [one.alone(bare) for one in asked]
    writer = Writer()
    writer.add([one.answer for one in asked])
    forward = Base.forward

    def losing(base, *rest, **more):
        hidden = forward(base, *rest, **more)
        states = hidden.states.clone()
        states[1] = torch.nan
        return replace(hidden, states=states)

    with monkeypatch.context() as patch:
        patch.setattr(Base, "forward", losing)
        writer.step()
    finish(writer)
    assert isinstance(asked[1].results[0], BaseModelError) and len(asked[1].answer.ids) == 1
    assert [one.written for one in asked[::2]] == want[::2]


def test_an_error_reaches_those_it_concerns(bare, monkeypatch):
    """A token that the base has not, a listener that has gone, memory that runs out in a step."""
    good, bad, gone = (Asked(bare, "writes", text) for text in TEXTS[:3])
    bad.answer.example = replace(bad.answer.example, text=(9999,))

    def hang_up(text: str) -> None:
        raise ConnectionError("gone")

    gone.answer.tell = hang_up
    writer = Writer()
    writer.add([good.answer, bad.answer, gone.answer])
    assert isinstance(bad.results[0], BaseModelError) and writer.active
    finish(writer)
    assert isinstance(gone.results[0], ConnectionError) and good.written == good.alone(bare)

    asked = [Asked(bare, "writes", text) for text in TEXTS[:2]]
    writer.add([one.answer for one in asked])

    def full(*given, **more):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Base, "forward", full)
        writer.step()
    assert all(isinstance(one.results[0], MemoryError) for one in asked) and not writer.active


def test_what_cannot_be_written_so_is_refused_before_anything_runs(bare, forwards):
    bare.add("beams", writing(num_beams=3))
    bare.add("chosen", tiny_task())
    other = Runtime(tiny_base("t5"))
    other.add("writes", writing())
    room = bare.get("writes").bound.room
    long = Asked(bare, "writes", "long", generation=GenerationSpec(max_new_tokens=room))
    refused = {
        "num_beams is 3": Asked(bare, "beams", "x"),
        "chooses its answers": Asked(bare, "chosen", "x"),
        r"'tiny-t5' \(seq2seq\)": Asked(other, "writes", "x"),
        "max_new_tokens is 300": Asked(bare, "writes", "x", generation=GenerationSpec(max_new_tokens=300)),
        f"has room for {room - len(long.answer.example.text)}": long,
    }
    writer, good = Writer(), Asked(bare, "writes", "x")
    forwards.clear()
    for message, one in refused.items():
        with pytest.raises(ValueError, match=message):
            writer.add([good.answer, one.answer])
    assert not forwards and not writer.active and not good.results
