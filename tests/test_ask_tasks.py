"""One document for artifacts of all task types, templates and methods: each answers as it does by itself."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import tiny_rows
from models import tiny_base, tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from softprompt import Runtime
from softprompt.answers import compiled
from softprompt.artifact import load
from softprompt.base import Base
from softprompt.cli import import_verbs
from softprompt.cli.app import app
from softprompt.data import Row
from softprompt.documents import REST
from softprompt.engine import CacheConfig
from softprompt.ensemble import Together
from softprompt.errors import DataError
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.readings import reading_digest
from softprompt.tasks import Task
from softprompt.training import train

INFIX = {"name": "infix", "length": 4, "init": "random"}
TOKENS = {"name": "infix", "form": "embeddings", "length": 3, "cue": 4}
ACTIVATED = {"name": "lora", "r": 2, "activate": "cue"}
LABELS = {"verbalizer": {"good": ["good", "very good"], "bad": "bad"}}
WORDS = {"labels": ["a", "b", "c"], "metric": "micro_f1", "thresholds": {"a": 0.2, "b": 0.5, "c": 0.8}}
WRITTEN = {"max_new_tokens": 4}
SHOWN = {"text": "joy </s>", "label": "good"}
CONTEXT = {"input": "{{ context }}\n{{ question }}"}

# name: (type, template, other settings of the task, method)
TASKS = {
    "plain": ("classification", {}, LABELS, INFIX),
    "calibrated": ("classification", {}, {**LABELS, "scoring": {"calibration": "contextual"}}, INFIX),
    "calibrated and activated": ("classification", {}, {**LABELS, "scoring": {"calibration": "contextual"}}, ACTIVATED),
    "over all words": ("classification", {}, {**LABELS, "scoring": {"over": "vocabulary"}}, ACTIVATED),
    "demonstrations": ("classification", {}, {**LABELS, "demonstrations": {"rows": [SHOWN]}}, INFIX),
    "max_text_tokens": ("classification", {}, {**LABELS, "max_text_tokens": 70}, INFIX),
    "sets": ("multilabel", {}, WORDS, INFIX),
    "sets, activated": ("multilabel", {"question": "\nWhich?"}, WORDS, ACTIVATED),
    "writes": ("generation", {}, {"generation": WRITTEN}, INFIX),
    "writes, activated": ("generation", {}, {"generation": WRITTEN}, ACTIVATED),
    "beams": ("generation", {}, {"generation": {**WRITTEN, "num_beams": 2}}, INFIX),
    "draws": ("generation", {}, {"generation": {**WRITTEN, "do_sample": True, "top_k": 5}}, TOKENS),
    "chat": ("classification", {"chat": True}, LABELS, INFIX),
    "chat, activated": ("classification", {"chat": True, "system": "You."}, LABELS, ACTIVATED),
    "conversation": ("classification", "messages", LABELS, INFIX),
    "in the middle": ("classification", {"input": "Text: {{ text }} -- so far."}, LABELS, INFIX),
    "several fields": ("classification", {"input": "{{ title }}: {{ text }} ({{ title }})"}, LABELS, TOKENS),
    "slot behind": ("classification", {"cue": "\nIt{{ soft(2) }} is:"}, LABELS, {"name": "p_tuning", "hidden": 8}),
    "joint": ("classification", {}, LABELS, {"name": "joint", "parts": [INFIX, ACTIVATED]}),
    "no space": ("classification", {"question": "?? ", "instruction": ""}, LABELS, INFIX),
    "only a question": ("classification", {"cue": ""}, LABELS, "hard"),
    "nothing behind": ("classification", {"question": "", "cue": ""}, LABELS, "hard"),
    "soft": ("classification", {}, LABELS, {"name": "soft", "length": 3}),
    "options": ("choice", {"input": "{{ text }}\n{{ options }}"}, {"scoring": {"by": "letter"}}, INFIX),
    "pmi": ("choice", {}, {"scoring": {"by": "pmi"}}, ACTIVATED),
    "likelihood": ("choice", {}, {"scoring": {"by": "likelihood"}}, INFIX),
    "span": ("span", CONTEXT, {"generation": WRITTEN}, INFIX),
    "question first": ("span", {"input": "{{ question }}\n{{ context }}"}, {"generation": WRITTEN}, ACTIVATED),
}
ALONE = {"soft"}
DOCUMENTS = {
    "long": "joy and sun " * 13,
    "short": "mud and rain",
    "one token": "j",
    "special tokens": "a </s> b <s> " + "joy and sun " * 6,
    "breaks around": "\n\n" + "joy and sun " * 6 + " \n",
    "grows with the question": "joy and sun " * 6 + "?",
    "Chinese": "喜 😀 é " * 12,
    "beyond the context": "joy and sun " * 60,
}


def task_of(kind: str, template, settings) -> Task:
    template = (
        {"messages": "messages", "instruction": "Be."}
        if template == "messages"
        else {"instruction": "Read. ", "input": "Text: {{ text }}", "question": "\nSo?", "cue": "\nIt is:", **template}
    )
    return Task.load({"name": "tiny", "type": kind, "template": template, **settings})


def hold(runtime: Runtime, name: str, task: Task, method, seed: int) -> None:
    """A prompt of random numbers under a name: nothing needs to be trained for this."""
    prompt = bind(runtime.base, task, make_method(method), CacheConfig(ram=0, disk=0), seed=seed)
    with torch.no_grad():
        for parameter in prompt.method.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.3)
    runtime._names[name] = Together((compiled(prompt),))


@pytest.fixture(scope="module", params=["llama", pytest.param("gemma3", marks=pytest.mark.full)])
def asked(request) -> Runtime:
    runtime = Runtime(tiny_base(request.param))
    for place, (name, (kind, template, settings, method)) in enumerate(TASKS.items()):
        hold(runtime, name, task_of(kind, template, settings), method, place)
    return runtime


def fields(text: str) -> dict:
    """A document for all of them; each reads its own fields."""
    turns = [("user", text), ("assistant", "Yes?"), ("user", "Why?")]
    return {
        "text": text,
        "title": "A title",
        "choices": ["sun", "rain again", "mud"],
        "question": "What is there?",
        "context": text,
        "messages": [{"role": role, "content": content} for role, content in turns],
        "artifact": "a field like any other",
    }


OFTEN = ("long", "one token", "breaks around", "beyond the context")


@pytest.mark.parametrize(
    "text",
    [pytest.param(DOCUMENTS[name], id=name, marks=() if name in OFTEN else pytest.mark.full) for name in DOCUMENTS],
)
def test_each_answers_as_it_does_alone(asked, text):
    document = fields(text)
    alone = asked.predict([{**document, "artifact": name} for name in asked.names])
    for _ in range(2):  # the second time from what was kept
        for together, by_itself in zip(asked.ask(document), alone, strict=True):
            name = by_itself.artifact
            assert (together.artifact, together.label, together.truncated) == (
                name,
                by_itself.label,
                by_itself.truncated,
            )
            assert together.probabilities == pytest.approx(by_itself.probabilities, rel=1e-5, abs=1e-9), name
            assert together.shown.get("labels") == by_itself.shown.get("labels")
    keys = dict(zip(asked.names, asked.readings(document), strict=True))
    assert {name for name, (key,) in keys.items() if key is None} <= ALONE | {"nothing behind"}
    if text == DOCUMENTS["beyond the context"]:
        assert all(one.truncated for one in alone)


def test_a_document_that_is_cut_at_other_places_is_read_once(monkeypatch):
    """Each leaves room for its own question and answers, so each cuts it at another place."""
    runtime = Runtime(tiny_base())
    for place, question in enumerate(("\nA?", "\nA longer question?", "\nAn even longer question, is it not?")):
        hold(runtime, question, task_of("classification", {"question": question}, LABELS), INFIX, place)
    text = DOCUMENTS["beyond the context"]
    examples = [runtime.get(name).form.encode({"text": text}) for name in runtime.names]
    assert len({len(one.text) for one in examples}) == 3
    alone = [runtime.predict([text], name)[0].probabilities for name in runtime.names]
    tokens, plain = [], Base.forward

    def forward(base, inputs, lengths, *rest, **more):
        tokens.append(sum(lengths))
        return plain(base, inputs, lengths, *rest, **more)

    monkeypatch.setattr(Base, "forward", forward)
    found = [one.probabilities for one in runtime.ask(text)]
    assert all(a == pytest.approx(b, rel=1e-5) for a, b in zip(found, alone, strict=True))
    assert len({key for (key,) in runtime.readings(text)}) == 1 == runtime.documents.state.texts
    assert sum(tokens) < len(examples[0].text) + 3 * REST


def test_a_beginning_that_lacks_much_is_read_by_itself():
    """Else every prompt would read the long rest of the document once more."""
    runtime = Runtime(tiny_base())
    for name, most in (("first", 64), ("all", 64 + REST), ("more", 64 + REST + 1)):
        hold(runtime, name, task_of("classification", {}, {**LABELS, "max_text_tokens": most}), INFIX, 1)
    keys = [key for (key,) in runtime.readings("joy and sun " * 60)]
    assert keys[0] == keys[1] != keys[2]


def test_what_cannot_be_asked_is_said_with_the_artifacts_name(asked):
    messages = {
        "a text": "the document is a text, but task 'tiny' reads",
        7: "the document is a number; expected a text, or its fields",
        ("a", "b"): "the document is a list; expected",
        (("text", "a"),): "artifact 'conversation': missing field 'messages' (known: text); 6 more of 28 artifacts",
        (("text", " "), ("title", "")): "artifact 'plain': field 'text' is empty",
        (("text", "a"), ("title", "b"), ("choices", "c"), ("context", "d"), ("question", "e"), ("messages", 3)): (
            "artifact 'conversation': field 'messages' is 3"
        ),
    }
    for document, message in messages.items():
        pairs = isinstance(document, tuple) and isinstance(document[0], tuple)
        with pytest.raises(DataError) as refused:
            asked.ask(dict(document) if pairs else list(document) if isinstance(document, tuple) else document)
        assert message in str(refused.value) and "row 1" not in str(refused.value)


def test_ensembles_share_with_artifacts_and_each_other_over_two_bases():
    runtime = Runtime([tiny_base(), tiny_base("qwen")])
    parts = {}
    for place, (name, family, method, template) in enumerate(
        [
            ("one", "llama", INFIX, {}),
            ("two", "llama", ACTIVATED, {"instruction": "Other. "}),
            ("three", "qwen", INFIX, {}),
            ("four", "llama", {"name": "soft", "length": 3}, {}),
        ]
    ):
        other = Runtime(tiny_base(family))
        hold(other, name, task_of("classification", template, LABELS), method, place)
        parts[name] = other.get(name)
    for name, members in {"both": ("one", "three"), "all": ("one", "two", "three", "four"), "one": ("one",)}.items():
        weights = tuple(1 / len(members) for _ in members)
        runtime._names[name] = Together(tuple(parts[member] for member in members), weights)
    text = DOCUMENTS["long"]
    for found in runtime.ask(text):
        assert found.probabilities == pytest.approx(runtime.predict([text], found.artifact)[0].probabilities, rel=1e-5)
    both, every, (one,) = runtime.readings(text)
    assert every == [one, every[1], both[1], None] and both[0] == one != both[1] != every[1] != one
    assert runtime.documents.state.texts == 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Artifacts whose answers are no label, a slot that is learned behind the text, and their base."""
    folder = tmp_path_factory.mktemp("tasks")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    base = Base.load(folder / "base")
    sets = [Row({"text": f"joy {k}", "labels": ["a", "b"][: k % 3]}, f"row:{k}") for k in range(6)]
    tags = [Row({"tokens": ["joy", f"P{k}"], "tags": ["O", "B-x"]}, f"row:{k}") for k in range(4)]
    words = [Row({"text": f"joy {k}", "answer": "sun"}, f"row:{k}") for k in range(4)]
    written = {"generation": {"max_new_tokens": 2}}
    for name, task, method, rows in (
        ("sets", task_of("multilabel", {}, {"labels": ["a", "b"], "metric": "micro_f1"}), INFIX, sets),
        ("tags", task_of("tagging", {}, {"tags": ["O", "B-x"]}), "hard", tags),
        ("writes", task_of("generation", {}, written), INFIX, words),
        ("slot", task_of(*TASKS["slot behind"][:3]), TASKS["slot behind"][3], tiny_rows(4, 2, 2)["train"]),
    ):
        splits = {"train": rows, "dev": rows[:2], "test": []}
        train(base, task, method, folder / name, train={"max_steps": 1, "epochs": 1}, rows=splits, check=False)
    return folder


def test_the_shell_shows_answers_of_all_kinds_and_who_shares(folders, tmp_path):
    import_verbs()
    names = ("sets", "tags", "writes", "slot")
    (tmp_path / "letter.txt").write_bytes(DOCUMENTS["beyond the context"].encode() + b"\r\n\r\n")
    call = ["ask", str(tmp_path / "letter.txt"), *(f"--with={folders / name}" for name in names)]
    found = CliRunner().invoke(app, [*call, "--json", str(tmp_path / "told.json")])
    assert found.exit_code == 0, found.exception
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert [sorted(one)[1:] for one in told["answers"]] == [
        ["labels", "probabilities"],
        ["spans", "tags", "tokens"],
        ["text"],
        ["label", "probabilities"],
    ]
    assert told["answers"][1]["tokens"][-1] == "sun", "what ends the file is no part of the text"
    lines = {line.split()[1]: line for line in found.output.splitlines() if "│" in line}
    assert {name for name in names if "with others" in lines[name]} == {"sets", "writes", "slot"}
    assert "by itself" in lines["tags"], "a head reads each of its tokens"
    assert told["readings"] == 2 and "read 2 times for 4 artifacts" in found.output
    assert "the document was too long and was cut for sets, writes, slot" in found.output
    assert "warning: writes: 1 of 1 written answers were cut" in found.output
    digests = {name: reading_digest(load(folders / name / "artifact").manifest) for name in names}
    assert digests["tags"] is None and digests["sets"] == digests["writes"] == digests["slot"] is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "text": "b"}', "key 'text' stands twice"),
        ('{"text": NaN}', "NaN is not a number in JSON"),
        ('{"text": "a"', "not valid JSON"),
        ('{"text":\n "a" "b"}', "at line 2, column"),
        ("[" * 100_000, "is nested too deeply"),
        ('["a"]', 'expected an object such as {"text": …}, got a list'),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_fields_in_a_file_are_read_as_strictly_as_rows(folders, tmp_path, content, message):
    import_verbs()
    file = tmp_path / "document.json"
    file.write_text(content, encoding="utf-8")
    refused = CliRunner().invoke(app, ["ask", str(file), f"--with={folders / 'sets'}"])
    assert isinstance(refused.exception, DataError) and message in str(refused.exception), refused.exception
    assert "\n" not in str(refused.exception)


def test_fields_of_other_artifacts_do_not_matter(asked):
    document = fields(DOCUMENTS["short"])
    lean = {"text": document["text"]}
    assert asked.ask(document, ["plain"]) == asked.ask(lean, ["plain"]) == asked.ask(lean["text"], ["plain"])
