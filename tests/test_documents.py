"""What is kept of documents: content decides, a budget holds, and nothing half-read stays."""

from __future__ import annotations

import threading

import pytest
import torch
from helpers import tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt import Runtime
from softprompt.base import Base
from softprompt.documents import DocumentCache
from softprompt.engine.cache import RowCache

LONG = "joy and sun " * 13
TEMPLATE = {"instruction": "Read. ", "input": "Text: {{ text }}", "cue": "\nIt is:"}


def asking(base: Base, documents: DocumentCache | None = None, names: str = "AB") -> Runtime:
    runtime = Runtime(base, documents)
    for name in names:
        runtime.add(name, tiny_task(template={**TEMPLATE, "question": f"\n{name}?"}))
    return runtime


def alone(runtime: Runtime, text: str) -> list[dict[str, float]]:
    return [runtime.predict([text], name)[0].probabilities for name in runtime.names]


def right(runtime: Runtime, text: str, tolerance: float = 1e-5) -> None:
    found = [one.probabilities for one in runtime.ask(text)]
    assert found == [pytest.approx(one, abs=tolerance) for one in alone(runtime, text)]


@pytest.mark.parametrize("which", [1, 2, 3])
def test_what_fails_in_the_middle_leaves_nothing_behind(monkeypatch, which):
    """In reading two texts behind two instructions, or the questions behind one: then all is read anew, and right."""
    runtime = asking(tiny_base())
    runtime.add("C", tiny_task(template={**TEMPLATE, "instruction": "Other. ", "question": "\nC?"}))
    done, plain = [], Base.forward

    def forward(*given, **more):
        done.append(1)
        if len(done) == which:
            raise RuntimeError("out of memory")
        return plain(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Base, "forward", forward)
        with pytest.raises(RuntimeError, match="out of memory"):
            runtime.ask(LONG)
    assert (runtime.documents.state.texts, runtime.documents.state.nbytes) == (0, 0)
    right(runtime, LONG)


def test_questions_that_fail_behind_a_kept_text_are_read_the_next_time(monkeypatch):
    runtime = asking(tiny_base(), names="A")
    runtime.ask(LONG)
    before = runtime.documents.state
    runtime.add("B", tiny_task(template={**TEMPLATE, "question": "\nB?"}))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", lambda *given, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runtime.ask(LONG)
    (reading,) = runtime.documents._readings.values()
    assert len(reading.following) == 1 and runtime.documents.state.nbytes == before.nbytes
    right(runtime, LONG)
    assert len(reading.following) == 2


def test_a_budget_that_is_lowered_holds_from_the_next_call_on():
    runtime = asking(tiny_base())
    for number in range(4):
        runtime.ask(f"{LONG}{number}")
    state = runtime.documents.state
    runtime.documents.budget = state.nbytes // 2
    right(runtime, f"{LONG}0")
    assert runtime.documents.state.nbytes <= state.nbytes // 2 and 1 <= runtime.documents.state.texts < 4
    runtime.documents.budget = 0
    right(runtime, LONG)
    assert runtime.documents.state.texts == runtime.documents.state.nbytes == 0


def test_texts_that_go_while_they_are_asked_about_are_answered():
    """A budget of one text and four threads with a text each, so what one of them reads puts out what another one uses."""
    one = asking(tiny_base())
    one.ask(LONG)
    runtime = asking(tiny_base(), DocumentCache(int(1.2 * one.documents.state.nbytes)))
    texts = [f"{LONG}{number}" for number in range(4)]
    expected, wrong = {text: alone(runtime, text) for text in texts}, []

    def ask(text: str) -> None:
        for _ in range(4):
            found = [answer.probabilities for answer in runtime.ask(text)]
            if found != [pytest.approx(right, abs=1e-5) for right in expected[text]]:
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    kept = runtime.documents._readings.values()
    assert runtime.documents.state.nbytes == sum(reading.nbytes for reading in kept) <= runtime.documents.budget


def test_runtimes_share_a_cache_where_base_and_arithmetic_are_the_same():
    documents = DocumentCache()
    same = Base(tiny_model("llama"), tiny_tokenizer(), "another object of the same weights")
    half = Base(tiny_model("llama").bfloat16(), tiny_tokenizer(), "tiny-llama")
    other = Base(tiny_model("llama", seed=1), tiny_tokenizer(), "tiny-llama")
    assert same.digest == tiny_base().digest != other.digest
    runtimes = [asking(base, documents) for base in (tiny_base(), same, half, other)]
    for place, (runtime, texts) in enumerate(zip(runtimes, (1, 1, 2, 3), strict=True)):
        right(runtime, LONG, 5e-2 if runtime.base is half else 1e-5)
        assert (documents.state.texts, documents.state.hits) == (texts, int(place > 0))
    for runtime in runtimes:
        runtime.documents.clear()
        right(runtime, LONG, 5e-2 if runtime.base is half else 1e-5)


def test_a_row_is_there_only_once_it_is_whole():
    """Another thread may ask for it at any time, and copying may fail."""
    cache = RowCache((2, 2, 1, 0, 4), torch.float32)
    with pytest.raises(RuntimeError):
        cache.put((1, 2), torch.zeros(3, 3))
    assert (1, 2) not in cache and len(cache) == 0
    cache.put((1, 2), torch.ones(2, 2, 1, 2, 4))
    assert cache.get((1, 2)).sum() == 32
