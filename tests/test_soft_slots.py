"""Soft slots of a template: what is learned in them equals a plain forward over embeddings that are put together by hand."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from covering import covering
from helpers import bound_form, close, scores, tiny_rows, tiny_task
from models import tiny_base

from softprompt.artifact import load
from softprompt.engine import SLOTS
from softprompt.errors import ConfigError, DataError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.template.slots import MARK
from softprompt.training import prepare, train

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 0.05}
PLACES = {
    "front": (
        {"instruction": "{{ soft(4) }}Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:"},
        "|Good or bad? Text: {text}\nIt is:",
        [4],
    ),
    "middle": (
        {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "{{ soft(3) }}\nIt is:"},
        "Good or bad? Text: {text}|\nIt is:",
        [3],
    ),
    "end": (
        {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:{{ soft(2) }}"},
        "Good or bad? Text: {text}\nIt is:|",
        [2],
    ),
    "in-text": (
        {"instruction": "Judge. ", "input": "Text: {{ text }}{{ soft(3) }} Again: {{ text }}", "cue": "\nIt is:"},
        "Judge. Text: {text}| Again: {text}\nIt is:",
        [3],
    ),
    "everywhere": (
        {
            "instruction": "Good {{ soft(2) }}or bad?{{soft( 1, init='random' )}}",
            "input": '{{ soft(3, "See") }} Text: {{ soft("a film") }}{{ text }}{{ soft(2) }}; {{ text }} of {{ soft(1) }}',
            "cue": "\nIt{{ soft(2, init='labels') }} is:",
        },
        "Good |or bad?|| Text: |{text}|; {text} of |\nIt| is:",
        [2, 1, 3, None, 2, 1, 2],
    ),
}
CHINESE = {
    "instruction": "判断{{ soft(2) }}评论：",
    "input": "评论：{{ text }}{{ soft(3, '好看吗') }}，再看：{{ text }}",
    "cue": "\n结论：",
}


def task_of(template, **changes):
    return tiny_task(template=template, **({"scoring": {"over": "vocabulary"}} | changes))


def ready(base, template, method="soft", seed=1, rows=None, **changes):
    return prepare(base, task_of(template, **changes), make_method(method), rows=rows or tiny_rows(10, 4, 4), seed=seed)


def groups_of(base, sizes):
    count = len(base.tokenizer("a film", add_special_tokens=False)["input_ids"])
    return [count if size is None else size for size in sizes]


def naive_loss(base, shape, rows, learned):
    """One row after the other, by the plain model; the text between two slots is tokenized by itself."""
    embed, tokenizer = base.model.get_input_embeddings(), base.tokenizer
    total = 0.0
    for row in rows:
        stretches = shape.replace("{text}", row.values["text"]).split("|")
        groups, pieces = iter(learned), []
        for place, text in enumerate(stretches):
            if place:
                pieces.append(next(groups))
            ids = tokenizer(text, add_special_tokens=not place)["input_ids"]  # BOS in front, if the tokenizer has it
            pieces.append(embed(torch.tensor(ids, dtype=torch.long)))
        pieces.append(embed(torch.tensor(row.answer[:-1], dtype=torch.long)))
        logits = base.model(inputs_embeds=torch.cat(pieces)[None]).logits[0]
        size = len(row.answer)
        total = total + F.cross_entropy(logits[-size:], torch.tensor(row.answer), reduction="sum")
    return total


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_slots_equal_embeddings_put_together_by_hand(family, place, bos):
    """Loss and gradient over ragged rows, kept texts included; also in micro-batches."""
    base, (template, shape, sizes) = tiny_base(family, bos), PLACES[place]
    sizes = groups_of(base, sizes)
    run = ready(base, template)
    rows, method = run.splits["train"], run.method
    assert [len(group) for group in method.learned().segments.values()] == sizes == method.spec.groups
    assert method.length == method.positions == sum(sizes)
    run.engine.encode(rows)
    assert (len(run.engine.cache) > 0) == (place in ("middle", "end", "in-text"))
    total, _ = run.form.loss(run.engine, rows, method.learned())
    total.backward()
    theirs = method.value.detach().clone().requires_grad_()
    expected = naive_loss(base, shape, rows, theirs.split(sizes))
    expected.backward()
    close(total, expected)
    close(method.value.grad, theirs.grad)
    whole, method.value.grad = method.value.grad.clone(), None
    for begin in range(0, len(rows), 3):
        run.form.loss(run.engine, rows[begin : begin + 3], method.learned())[0].backward()
    close(method.value.grad, whole)


def test_chinese_texts_keep_their_slots():
    base = tiny_base()
    rows = tiny_rows(6, 2, 0)
    for place, row in enumerate(rows["train"]):
        row.values["text"] = "好看的电影！" * (1 + place % 3) + "😀"
    run = ready(base, CHINESE, rows=rows)
    assert not run.bound.cut
    total, _ = run.form.loss(run.engine, run.splits["train"], run.method.learned())
    shape = "判断|评论：评论：{text}|，再看：{text}\n结论："
    close(total, naive_loss(base, shape, run.splits["train"], run.method.value.split([2, 3])))


def test_slots_of_a_row_say_where_they_stand():
    base = tiny_base()
    bound = ready(base, PLACES["everywhere"][0]).bound
    shown = [(slot.name, slot.part if slot.name == "text" else (slot.start, slot.stop)) for slot in bound.slots]
    size, cue = len(bound.prefix_ids), bound.prompter.holes["cue"][0]
    first, second = bound.prompter.holes["prefix_ids"][0], bound.prompter.holes["prefix_ids"][1]
    assert shown == [
        ("prefix_ids", (None, first)),
        ("soft0", (None, None)),
        ("prefix_ids", (first, second)),
        ("soft1", (None, None)),
        ("soft2", (None, None)),
        ("prefix_ids", (second, size)),
        ("soft3", (None, None)),
        ("text", 0),
        ("soft4", (None, None)),
        ("text", 1),
        ("soft5", (None, None)),
        ("text", 2),
        ("cue", (None, cue)),
        ("soft6", (None, None)),
        ("cue", (cue, None)),
        ("answer", (None, None)),
    ]
    assert bound_form(tiny_task(), base.tokenizer, 100).bound.slots == SLOTS


def test_a_text_that_is_cut_takes_its_slots_along():
    base = tiny_base()
    run = ready(base, PLACES["in-text"][0], max_text_tokens=6)
    rows = run.splits["train"]
    assert all(len(row.text) <= 6 and row.holes[0] <= 6 for row in rows) and any(row.truncated for row in rows)
    assert torch.isfinite(run.form.loss(run.engine, rows, run.method.learned())[0])
    for row in rows:
        assert row.part(0) + row.part(1) == row.text == row.part(None)


HARD = {  # the texts have as many tokens as the slots
    "instruction": "Good {{ soft('or bad') }}?{{ soft(2, '!!') }}",
    "input": "Text: {{ text }}{{ soft(' abc') }} Again: {{ text }}",
    "cue": "\nIt{{ soft(3, 'abc') }} is:",
}


@pytest.mark.parametrize("method", ["soft", "p_tuning"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_slots_start_as_the_texts_that_hard_reads(family, method):
    """The same scores at step 0, with and without demonstrations."""
    base = tiny_base(family)
    for changes in ({}, {"demonstrations": {"k": 2}}):
        rows = tiny_rows(10, 4, 4)
        soft, hard = (ready(base, HARD, name, rows=rows, **changes) for name in (method, "hard"))
        close(scores(soft), scores(hard))
        assert soft.bound.groups and not hard.bound.groups and hard.bound.slots == SLOTS


@pytest.mark.parametrize("method", ["hard", "prefix", "infix", "lora", "full", "probe", "peft:LN_TUNING"])
def test_other_methods_read_the_texts_and_refuse_slots_without(method, tmp_path):
    result = train(tiny_base(), task_of(HARD), method, tmp_path / "run", train=SETTINGS, rows=tiny_rows(), seed=1)
    runtime = Runtime(tiny_base())
    runtime.add("it", result.artifact)
    found = runtime.predict([row.values for row in tiny_rows()["dev"]])
    ours = torch.tensor([list(one.probabilities.values()) for one in found])
    assert torch.allclose(ours, scores(result.prepared).exp(), atol=1e-4)
    with pytest.raises(ConfigError, match=r"soft slot without a text.*train soft or p_tuning") as caught:
        ready(tiny_base(), PLACES["in-text"][0], method)
    assert "\n" not in str(caught.value)


LEARNED = [
    "soft",
    {"name": "p_tuning", "encoder": "lstm", "hidden": 8},
    {"name": "joint", "parts": ["soft", {"name": "lora", "r": 2}]},
    {"name": "joint", "parts": [{"name": "infix", "length": 3, "cue": 4}, "soft"]},
    {"name": "joint", "parts": [{"name": "lora", "r": 2, "activate": "cue"}, {"name": "p_tuning", "hidden": 8}]},
]


@pytest.mark.parametrize(
    ("method", "place"),
    covering(
        LEARNED, ["in-text", "everywhere"], name=lambda value: value["name"] if isinstance(value, dict) else value
    ),
)
def test_trains_travels_and_serves(method, place, tmp_path):
    """Saved, loaded in a runtime, restored by hand; equal scores, also beside other artifacts and one by one."""
    base, template = tiny_base(), PLACES[place][0]
    result = train(base, task_of(template), method, tmp_path / "a", train=SETTINGS, rows=tiny_rows(), seed=1)
    other = train(base, task_of(PLACES["middle"][0]), "soft", tmp_path / "b", train=SETTINGS, rows=tiny_rows(), seed=2)
    again = make_method(load(result.artifact).manifest.method)
    again.restore(result.prepared.method.export(), base)
    want = scores(result.prepared)
    close(scores(prepare(base, task_of(template), again, rows=tiny_rows())), want)
    if isinstance(method, dict) and method["name"] == "joint":
        names = result.prepared.method.learned().segments
        assert any(name.endswith(".soft0") for name in names)
    runtime = Runtime(base)
    for name, source in (("it", result.artifact), ("other", other.artifact), ("bare", tiny_task())):
        runtime.add(name, source)
    rows = [{**row.values, "artifact": name} for row in tiny_rows()["dev"] for name in runtime.names]
    mixed = runtime.predict(rows)
    ours = torch.tensor([list(one.probabilities.values()) for one in mixed if one.artifact == "it"])
    assert torch.allclose(ours, want.exp(), atol=1e-4)
    for row, found in zip(rows, mixed, strict=True):
        assert found.probabilities == pytest.approx(runtime.predict([row])[0].probabilities, abs=1e-4)


@pytest.mark.parametrize(
    "place, bos, where", [("front", False, "front"), ("front", True, "other"), ("middle", False, "other")]
)
def test_plain_peft_is_promised_only_what_stands_in_front(place, bos, where, tmp_path):
    """Behind BOS is not in front of everything."""
    result = train(
        tiny_base(bos=bos), task_of(PLACES[place][0]), "soft", tmp_path, train=SETTINGS, rows=tiny_rows(), seed=1
    )
    manifest = load(result.artifact).manifest
    assert manifest.layout.place == where and manifest.layout.length == sum(PLACES[place][2])
    assert manifest.loads_in == ("peft" if where == "front" else None)
    assert (result.artifact / "adapter_config.json").exists() == (where == "front")
    assert manifest.method["groups"] == PLACES[place][2]
    card = (result.artifact / "README.md").read_text(encoding="utf-8")
    assert ("soft slots of its template" in card) == (where == "other")


def test_templates_without_slots_leave_no_trace(tmp_path):
    result = train(tiny_base(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows(), seed=1)
    assert "groups" not in json.loads((result.artifact / "manifest.json").read_text(encoding="utf-8"))["method"]


def test_where_groups_start():
    """A group's own start wins; those without share the method's, and no two drawn at random are alike."""
    base = tiny_base()
    template = {
        "instruction": "{{ soft(3) }}{{ soft(4, 'abcd') }}{{ soft(2, init='random') }}{{ soft(2, init='random') }}",
        "input": "Text: {{ text }}{{ soft(2) }}",
        "cue": "\nIt is:{{ soft(6, init='vocabulary') }}{{ soft(4, init='labels') }}",
    }
    method = ready(base, template, {"name": "soft", "text": "uvwxyz"}).method
    found = list(method.learned().segments.values())

    def ids(text):
        return base.embed(torch.tensor(base.tokenizer(text, add_special_tokens=False)["input_ids"]))

    close(torch.cat([found[0], found[4]]), ids("uvwxy"))
    close(found[1], ids("abcd"))
    assert not torch.equal(found[2], found[3])
    table = base.model.get_input_embeddings().weight
    assert all((table == vector).all(1).any() for vector in found[5])
    close(found[6], ids(" good")[:4])


def test_an_artifact_starts_all_groups(tmp_path):
    template = PLACES["everywhere"][0]
    first = train(tiny_base(), task_of(template), "soft", tmp_path, train=SETTINGS, rows=tiny_rows(), seed=1)
    again = ready(tiny_base(), template, {"name": "soft", "init": "artifact", "artifact": str(first.artifact)})
    assert torch.equal(again.method.value.detach(), first.prepared.method.value.detach())


def test_a_prompt_and_a_template_that_do_not_belong_together_are_refused():
    base = tiny_base()
    trained = ready(base, PLACES["middle"][0]).method
    for template in (PLACES["everywhere"][0], tiny_task().spec.template.model_dump()):
        with pytest.raises(ConfigError, match="use the template that it was trained with"):
            prepare(base, task_of(template), trained, rows=tiny_rows())
    with pytest.raises(ConfigError, match="more than one learns"):
        ready(base, PLACES["middle"][0], {"name": "joint", "parts": ["soft", "p_tuning"]})
    with pytest.raises(ConfigError, match="stands in front"):
        make_method({"name": "prefix", "groups": [3]})


def test_a_row_cannot_make_a_slot():
    base, template = tiny_base(), PLACES["in-text"][0]
    form = ready(base, template).form
    row = form.encode({"text": "a {{ soft(3) }} b", "label": "good"})
    assert len(row.holes) == 1 and "{{ soft(3) }} b" in base.tokenizer.decode(row.text)
    with pytest.raises(DataError, match="the mark that stands for a slot"):
        form.encode({"text": f"a{MARK}b", "label": "good"}, "rows.jsonl:3")


def test_the_doctor_examines_slots():
    from softprompt.doctor import Case, checks, examine, sample

    run = ready(tiny_base(), PLACES["everywhere"][0])
    found = examine(
        Case(run, sample(run.splits["train"], 6)), checks(["padding", "positions", "effect", "norms", "joints"])
    )
    assert {item.level for item in found} == {"ok", "skipped"}
    assert sum(item.check == "effect" for item in found) == len(run.method.spec.groups)


def test_a_run_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    from softprompt.training import checkpoints

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)

    class Stopped(Exception):
        pass

    def stop(what, done, total):
        if what.startswith("training") and done == 2:
            raise Stopped

    task, arguments = task_of(PLACES["everywhere"][0]), {"train": SETTINGS, "rows": tiny_rows(), "seed": 1}
    whole = train(tiny_base(), task, "p_tuning", **arguments)
    with pytest.raises(Stopped):
        train(tiny_base(), task, "p_tuning", tmp_path, progress=stop, **arguments)
    went_on = train(tiny_base(), task, "p_tuning", tmp_path, **arguments)
    assert torch.equal(went_on.prepared.method.value, whole.prepared.method.value)


def test_what_stands_in_slots_cannot_be_pruned(tmp_path):
    from softprompt.training.prune import prune

    task = task_of(PLACES["middle"][0])
    result = train(tiny_base(), task, "soft", tmp_path / "a", train=SETTINGS, rows=tiny_rows(), seed=1)
    with pytest.raises(ConfigError, match="write shorter slots"):
        prune(tiny_base(), task, load(result.artifact), [1], tmp_path / "b", rows=tiny_rows())


@pytest.mark.parametrize("calibration", ["none", "contextual"])
@pytest.mark.parametrize(
    "template",
    [
        {"messages": "talk", "instruction": "Good {{ soft(2) }}or bad?"},
        {"chat": True, "input": "{{ soft(2) }}{{ text }}{{ soft(1) }} so", "cue": "{{ soft(1) }}?", "system": "Judge."},
    ],
    ids=["messages", "chat"],
)
def test_chats_are_trained_and_served(template, calibration, tmp_path):
    rows = tiny_rows()
    for row in (row for part in rows.values() for row in part):
        said = {"role": "user", "content": row.values["text"]}
        row.values["talk"] = (
            [said, {"role": "assistant", "content": "Well?"}, said] if len(said["content"]) % 2 else [said]
        )
    task = task_of(template, scoring={"calibration": calibration})
    result = train(tiny_base(bos=True), task, "soft", tmp_path, train=SETTINGS, rows=rows, seed=1)
    runtime = Runtime(tiny_base(bos=True))
    runtime.add("it", result.artifact)
    found = runtime.predict([row.values for row in rows["dev"]])
    ours = torch.tensor([list(one.probabilities.values()) for one in found])
    assert torch.allclose(ours, scores(result.prepared).exp(), atol=1e-4)
