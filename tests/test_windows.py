"""Contexts that are too long for a head that points are read in windows: what is learned, found and refused."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import bound_form, close
from models import tiny_base
from test_bidirectional import SPANS, encoder, span_rows, spans

from softprompt import doctor
from softprompt.answers.extracted import best_span
from softprompt.answers.windows import ReadField, holder, window_bounds
from softprompt.data import Row
from softprompt.doctor import Case
from softprompt.engine import bidirectional
from softprompt.engine import windows as engine_windows
from softprompt.errors import DataError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train

# what stands behind the context is part of every window, too
TWO_SIDES = {"input": "{{ question }} {{ context }} (end)"}
NARROW = {**SPANS, "template": TWO_SIDES, "max_text_tokens": 40, "window_overlap": 9}
METHODS = ["full", {"name": "soft", "length": 2}, {"name": "prefix", "length": 2}]


def long_rows(count, seed=0, most=24):
    """As `span_rows`, three of four within words that say nothing, so that most contexts take several windows."""
    rng, found = random.Random(seed), []
    for place, row in enumerate(span_rows(count, seed)):
        if place % 4 == 3:
            found.append(row)
            continue
        front, back = "so " * rng.randrange(most), " ok" * rng.randrange(most)
        answer, context = row.values["answers"]["text"][0], front + row.values["context"] + back
        start = context.index("is " + answer) + len("is ")
        found.append(
            Row({**row.values, "context": context, "answers": {"text": [answer], "answer_start": [start]}}, row.where)
        )
    return found


def long_splits(count=24, **changes):
    rows = long_rows(count, **changes)
    return {"train": rows[: count // 2], "dev": rows[count // 2 :], "test": rows[count // 2 :]}


def ready_for(task=NARROW, method="full", rows=None, base=None):
    return prepare(base or encoder(), Task.load(task), make_method(method), rows=rows or long_splits(), seed=0)


def by_hand(ready, row, size=40, overlap=9):
    """Of one row: each window as (ids, whether each is of the context), and where the right answer is to be found."""
    context, (answer,) = row.values["context"], row.values["answers"]["text"]
    own = f"{row.values['question']} {context} (end)"
    found = ready.base.tokenizer(own, add_special_tokens=False, return_offsets_mapping=True)
    begin, start = own.index(context), row.values["answers"]["answer_start"][0]
    tokens = [(i, a - begin, b - begin) for i, (a, b) in zip(found["input_ids"], found["offset_mapping"], strict=True)]
    inside = [a >= 0 and b <= len(context) for _, a, b in tokens]
    first, stop = inside.index(True), len(inside) - inside[::-1].index(True)
    room, windows = size - first - (len(tokens) - stop), []
    if len(tokens) <= size:
        room = stop - first
    for at in range(first, stop, room - overlap):
        windows.append([*range(first), *range(at, min(at + room, stop)), *range(stop, len(tokens))])
        if at + room >= stop:
            break
    ends = [k for k, (_, a, b) in enumerate(tokens) if inside[k] and a < start + len(answer) and b > start]
    around = [
        min(ends[0] - window[first], window[stop - len(tokens) - 1] - ends[-1])
        if {ends[0], ends[-1]} <= set(window) else -1
        for window in windows
    ]  # fmt: skip
    best = around.index(max(around))
    gold = (best, windows[best].index(ends[0]), windows[best].index(ends[-1]))
    return [([tokens[k][0] for k in window], torch.tensor([inside[k] for k in window])) for window in windows], gold


def plain_logits(ready, windows):
    """Logits of both ends in each window [T, 2], by one plain forward of each."""
    learned, found = ready.method.learned(), []
    base = learned.base or ready.base
    for ids, inside in windows:
        whole = torch.tensor([*ready.bound.prefix_ids, *ids, *ready.bound.cue, *ready.bound.tail])
        front = [learned.segments["prompt"]] if "prompt" in learned.segments else []
        given = torch.cat([*front, base.embed(whole)])[None]
        states = base.model(inputs_embeds=given).last_hidden_state[0]
        start = sum(map(len, front)) + len(ready.bound.prefix_ids)
        logits = ready.method.head(states[start : start + len(ids)])
        found.append(logits.masked_fill(~inside[:, None], float("-inf")))
    return found


@pytest.mark.parametrize("method", METHODS[:2], ids=["full", "soft"])
def test_windows_are_those_of_plain_forwards(method):
    """Log-probabilities, loss, gradients and the best span: one softmax over all windows, each run alone by the plain model."""
    ready = ready_for(method=method)
    rows, learned = ready.splits["train"], ready.method.learned()
    assert sum(len(row.windows) > 2 for row in rows) > 3 and any(not row.windows for row in rows)
    found, (total, count) = (
        ready.form.pointers(ready.engine, rows, learned),
        ready.form.loss(ready.engine, rows, learned),
    )
    told, expected = ready.form.predict(ready, rows), 0.0
    for row, mine, one in zip(rows, found, told, strict=True):
        windows, (which, first, last) = by_hand(ready, row)
        assert list(row.text) == [token for ids, _ in windows for token in ids] and not row.truncated
        assert list(row.windows) == ([len(ids) for ids, _ in windows] if len(windows) > 1 else [])
        logp = torch.cat(plain_logits(ready, windows)).log_softmax(0)
        inside = torch.cat([some for _, some in windows])
        close(mine[inside], logp[inside])
        assert bool((mine[~inside] == float("-inf")).all())
        before = sum(len(ids) for ids, _ in windows[:which])
        assert row.target == (before + first, before + last)
        nll = -(logp[before + first, 0] + logp[before + last, 1]) / 2
        expected = expected + nll
        assert one.nll == pytest.approx(nll.item(), rel=1e-4)
        spans_of = [
            ((part[a, 0] + part[b, 1]).item(), k, a, b)
            for k, part in enumerate(logp.split([len(ids) for ids, _ in windows]))
            for a in range(len(part)) for b in range(a, len(part))
        ]  # fmt: skip
        _, which, a, b = max(spans_of)
        before = sum(len(ids) for ids, _ in windows[:which])
        assert best_span(mine.detach(), 64, row.windows) == (before + a, before + b)
        assert one.predicted and one.predicted in row.values["context"]
    assert count == len(rows) and ready.bound.cut == 0
    parameters = ready.method.parameters()
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    mine = torch.autograd.grad(total, parameters, allow_unused=True)
    close(total.detach(), expected.detach())
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b, 1e-4)


def test_a_row_that_fits_is_as_if_there_were_no_windows():
    """To the bit: the same example, loss and gradients, whatever the size of windows would have been."""
    results = []
    for changes in ({}, {"max_text_tokens": 40, "window_overlap": 3}):
        ready = ready_for({**SPANS, **changes}, METHODS[1], spans())
        rows = ready.splits["train"]
        total, _ = ready.form.loss(ready.engine, rows, ready.method.learned())
        results.append((rows, total, torch.autograd.grad(total, ready.method.parameters())))
    (rows, total, gradients), (same_rows, same_total, same_gradients) = results
    assert rows == same_rows and torch.equal(total, same_total)
    assert all(map(torch.equal, gradients, same_gradients))


@pytest.mark.parametrize("method", METHODS, ids=["full", "soft", "prefix"])
def test_many_windows_take_bounded_memory(monkeypatch, method):
    """Few tokens run at once, with gradients as well, and nothing else changes."""
    ready = ready_for(method=method)
    rows, parameters = ready.splits["train"], ready.method.parameters()

    def loss(rows):
        total, _ = ready.form.loss(ready.engine, rows, ready.method.learned())
        return total.detach(), torch.autograd.grad(total, parameters, allow_unused=True)

    expected, sizes, run = loss(rows), [], bidirectional.run
    many = max(rows, key=lambda row: len(row.windows))
    alone = loss([many])
    monkeypatch.setattr(engine_windows, "TOKENS_PER_FORWARD", 100)
    monkeypatch.setattr(
        bidirectional,
        "run",
        lambda base, some, **more: sizes.append(sum(r.size for r in some)) or run(base, some, **more),
    )
    for wanted, some in ((alone, [many]), (expected, rows)):
        sizes.clear()
        total, gradients = loss(some)
        most = max(100, len(some) * max(len(window.text) for row in some for window in row.runs))
        assert len(sizes) > 2 and max(sizes) <= most + 10 * len(some)
        close(total, wanted[0])
        for a, b in zip(gradients, wanted[1], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                close(a, b, 1e-4)
    buckets = list(engine_windows.in_forwards(ready.engine, [many] * 200))
    assert max(map(len, buckets)) * len(many.text) <= 4096


def test_the_answer_in_the_last_window_is_found(tmp_path):
    """Trained, saved and served; Chinese contexts among them, by characters."""
    rows = {name: long_rows(count, seed) for name, count, seed in (("train", 64, 1), ("dev", 16, 2), ("test", 32, 3))}
    task = {**NARROW, "metric": "f1_zh"}
    settings = {"epochs": 12, "lr": 3e-3, "eval_every": 32, "batch_size": 8, "patience": 100}
    result = train(encoder(), Task.load(task), "full", tmp_path, train=settings, rows=rows, test=True)
    assert result.truncated == 0 and result.metrics["test"].estimate.value >= 0.9
    runtime = Runtime(encoder())
    runtime.add("it", tmp_path)
    assert runtime.evaluate("it", rows["test"]).estimate == result.metrics["test"].estimate
    context = "so " * 60 + "it is 北京 ok"
    asked = [{"question": "what?", "context": context}, {"question": "what?", "context": "it is mud"}]
    found = runtime.predict(asked)
    assert [one.as_dict() for one in found] == [{"artifact": "it", "text": text} for text in ("北京", "mud")]
    assert runtime.get("it").bound.cut == 0 and len(runtime.get("it").form.encode(asked[0]).windows) > 8


def test_windows_cover_the_context_and_share_their_ends():
    rng = random.Random(0)
    for _ in range(200):
        first, size, room = rng.randrange(9), 1 + rng.randrange(99), 1 + rng.randrange(20)
        overlap = rng.randrange(room)
        parts = window_bounds(first, first + size, room, overlap, "r:1", ReadField("context", "answers", "pointed at"))
        assert parts[0][0] == first and parts[-1][1] == first + size
        assert all(0 < end - begin <= room for begin, end in parts)
        assert all(one[1] - two[0] == overlap for one, two in pairwise(parts))
        assert len(parts) == 1 or parts[-2][1] < first + size
        for begin in range(first, first + size - overlap):  # answers of one token more than the overlap
            assert holder(parts, begin, begin + overlap) is not None
    assert holder([(0, 10), (6, 16), (12, 20)], 7, 8) == 0 and holder([(0, 10), (6, 16), (12, 20)], 8, 9) == 1
    assert holder([(0, 10), (6, 16)], 5, 12) is None


def test_an_answer_on_a_border_is_trained_where_it_is_whole():
    ready = ready_for({**NARROW, "max_text_tokens": 24, "window_overlap": 6})
    front = ready.bound.prompter.tokenizer("so ", add_special_tokens=False)["input_ids"]
    seen = set()
    for words in range(2, 12):
        context = "so " * words + "hope" + " so" * 12
        values = {"question": "what?", "context": context, "answers": {"text": ["hope"], "answer_start": [3 * words]}}
        row = ready.form.encode(values, "r:1")
        seen.add((len(front) * words) % 8)
        places = [row.offsets[k] for k in range(row.target[0], row.target[1] + 1)]
        assert context[places[0][0] : places[-1][1]].strip() == "hope"
        assert all(one[1] == two[0] for one, two in pairwise(places))  # in one window
    assert len(seen) > 2


def test_an_answer_that_no_window_holds_is_refused_in_training_and_counts_as_wrong():
    answer = "hope " * 30 + "sun"
    values = {
        "question": "what?",
        "context": "so " + answer + " ok",
        "answers": {"text": [answer], "answer_start": [3]},
    }
    rows = long_splits()
    rows["train"] = [*rows["train"], Row(values, "data.jsonl:7")]
    with pytest.raises(DataError) as caught:
        train(encoder(), Task.load(NARROW), "full", train={"epochs": 1}, rows=rows)
    assert caught.value.problems == [
        "data.jsonl:7: no window holds the whole of a right answer; raise task.window_overlap or leave the row out"
    ]
    rows = {**long_splits(), "dev": [Row(values, "data.jsonl:7"), *long_rows(2)]}
    told = []
    result = train(encoder(), Task.load(NARROW), "full", train={"epochs": 1, "lr": 1e-4}, rows=rows, notice=told.append)
    assert len(result.metrics["dev"].outcomes) == 3
    assert any(
        "1 of 15 right answers do not fit into any window whole, the first data.jsonl:7" in line for line in told
    )
    # another right answer that a window holds will do
    two = {**values, "answers": {"text": [answer, "ok"], "answer_start": [3, len(values["context"]) - 2]}}
    row = ready_for().form.encode(two)
    assert row.gold == 0 and values["context"][row.offsets[row.target[0]][0] :].strip() == "ok"


@pytest.mark.parametrize(
    "changes, question, message",
    [
        ({"window_overlap": 28}, "what?", "room for 28 tokens of the context, but neighbours are to share window_overlap (28)"),
        ({}, "what " * 12, "leave no room for the context (28 tokens too many); shorten them"),
        ({}, "what " * 5, "set it below 8, or shorten what stands around the context"),
    ],
)  # fmt: skip
def test_what_leaves_no_room_is_said_in_one_line(changes, question, message):
    form = ready_for({**NARROW, **changes}, rows=spans()).form
    values = {**long_rows(1)[0].values, "question": question, "context": "so " * 40}
    with pytest.raises(DataError) as caught:
        form.encode(values, "data.jsonl:7")
    assert message in str(caught.value) and str(caught.value).startswith("data.jsonl:7: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS, ids=["full", "soft", "prefix"])
def test_all_checks_run(method):
    ready = ready_for(method=method)
    rows = [row for row in ready.splits["train"] if row.windows]
    found = doctor.examine(Case(ready, rows))
    assert {finding.level for finding in found} <= {"ok", "skipped"}
    assert any("are read in windows" in finding.what for finding in found)


def test_a_causal_base_cuts_as_before():
    """Only a head that points reads windows."""
    form = bound_form(Task.load(NARROW), tiny_base().tokenizer, 256)
    row = form.encode(long_rows(1, most=60)[0].values)
    assert row.truncated and form.bound.cut == 1 and not row.windows and len(row.text) == 40
    assert row.runs == (row,) and replace(row, windows=(20, 20)).runs[1].text == row.text[20:]
