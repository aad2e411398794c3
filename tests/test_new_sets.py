"""A file whose cells hold several labels: told from sentences and ordinary labels, it becomes a run of several labels."""

from __future__ import annotations

import json
import random

import pytest
from models import tiny_base
from test_cli import cli, refused
from test_new import proposed, saved

from softprompt import yaml_file
from softprompt.errors import DataError
from softprompt.proposal import look, propose_run, summary, written
from softprompt.proposal.sets import several_labels
from softprompt.tasks import Task

TOPICS = ["account", "billing", "returns", "shipping"]


def topics(count=48, seed=0):
    """Of each row its topics."""
    rng = random.Random(seed)
    return [[topic for topic in TOPICS if rng.random() < 0.4] for _ in range(count)]


def lines(separator, count=48):
    return [
        f'a ticket on {" and ".join(own) or "nothing"} as number {k},"{separator.join(own)}"'
        for k, own in enumerate(topics(count))
    ]


@pytest.mark.parametrize("separator", [";", "|", ",", "; ", " | ", ", "])
def test_a_column_of_several_labels_is_a_task_of_several(tmp_path, separator):
    path = saved(
        tmp_path / "t.csv", "message,topics,number", [f"{line},{k % 7}" for k, line in enumerate(lines(separator))]
    )
    found = proposed(path, "message", label="topics")
    assert (found.task["type"], found.task["labels"]) == ("multilabel", TOPICS)
    assert found.task["separator"] == separator.strip()
    assert (found.run["base"], found.run["method"]) == ("minilm", "probe")
    assert found.seen.labels == {topic: sum(topic in own for own in topics()) for topic in TOPICS}
    text = written(found, tmp_path, "x")
    held = yaml_file.load(text, "x.yaml")
    held["task"]["data"]["source"] = str(path.resolve())
    assert held == found.run
    for key in ("type", "labels", "separator", "method"):
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
        assert "  # " in line and "auto" not in line, line
    task = Task.load(held["task"])
    read = {row.where: task.gold(row.values) for part in found.splits.values() for row in part}
    assert len(read) == 48 and sorted(map(tuple, read.values())) == sorted(map(tuple, topics()))
    said = "\n".join(summary(found))
    for words in (
        "topics (several of 4 labels in a cell)",
        "task: multilabel; reads 'message', predicts 'topics'",
        f"a cell holds several labels with {separator.strip()!r} between them; --type classification reads it as one",
        "4 labels: 'account' ",
        f"{topics().count([])} rows have an empty 'topics', so they have no label",
    ):
        assert words in said, said


def test_columns_are_found_by_themselves(tmp_path):
    found = proposed(saved(tmp_path / "t.csv", "message,topics", lines("|")))
    assert found.seen.roles.kind == "multilabel" and found.seen.roles.fields == ("message",)
    rows = [{"text": f"about {' '.join(own)} {k}", "topics": own} for k, own in enumerate(topics())]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = proposed(tmp_path / "t.jsonl")
    assert (found.task["type"], found.task["labels"]) == ("multilabel", TOPICS) and "separator" not in found.task
    assert "a cell holds several labels in lists" in "\n".join(summary(found))


def test_the_type_that_is_named_decides(tmp_path):
    path = saved(tmp_path / "t.csv", "message,topics", lines(","))
    assert proposed(path, kind="classification").task["type"] == "classification"
    few = saved(
        tmp_path / "few.csv", "message,codes", [f'text number {k},"{("1,7", "7", "1")[k % 3]}"' for k in range(12)]
    )
    found = proposed(few, label="codes", kind="multilabel")
    assert (found.task["labels"], found.task["separator"]) == (["1", "7"], ",")
    assert proposed(few, label="codes").task["type"] == "classification"
    empty = saved(tmp_path / "empty.csv", "message,codes", [f"text number {k}," for k in range(12)])
    with pytest.raises(DataError, match="column 'codes' holds no label"):
        look(empty, ["message"], ["codes"], "multilabel")


def genres(count=300):
    """As of films: many labels, most sets stand once."""
    rng = random.Random(1)
    names = ["Action", "Comedy", "Drama", "Romance", "Sci-Fi", "War", "Western", "Family", "Crime", "Mystery"]
    return ["|".join(sorted(rng.sample(names, rng.choices((1, 2, 3, 4), (3, 4, 2, 1))[0]))) for _ in range(count)]


def no_sets():
    """Cells that hold a separator, and one label or none."""
    rng = random.Random(2)
    towns = [("Paris", "France"), ("Lyon", "France"), ("Berlin", "Germany"), ("Bonn", "Germany"), ("Rome", "Italy")]
    words = [
        "it",
        "came",
        "late",
        "and",
        "broke",
        "but",
        "was",
        "cheap",
        "so",
        "we",
        "kept",
        "them",
        "all",
        "in",
        "spite",
        "of",
        "that",
    ]
    paths = ["Home", "Home|Beds", "Home|Lamps", "Phones", "Phones|Cases", "Phones|Cables", "Toys|Cars", "Toys"]
    return {
        "sentences": [
            ", ".join(" ".join(rng.sample(words, 4)) for _ in range(rng.choice((1, 2, 3)))) for _ in range(60)
        ],
        "a few sentences": [
            ("it came late, sorry", "no, thanks", "yes, please", "fine")[rng.randrange(4)] for _ in range(60)
        ],
        "towns": [", ".join(rng.choice(towns)) for _ in range(60)],
        "labels with commas": [rng.choice(["books", "food, drinks", "health, beauty", "toys"]) for _ in range(60)],
        "two axes": [f"{rng.choice(('Sales', 'Support'))}, {rng.choice(('EMEA', 'APAC'))}" for _ in range(60)],
        "paths": [rng.choice(paths) for _ in range(60)],
        "decimals": [rng.choice(["3,5", "4", "4,5", "5", "3", "2,5"]) for _ in range(60)],
        "names": [f"name{k}; first{k % 30}" for k in range(60)],
        "one label": [rng.choice(TOPICS) for _ in range(60)],
        "one of many": [f"{rng.choice(TOPICS)}" for _ in range(59)] + ["billing;returns"],
        "mixed": [rng.choice(TOPICS) for _ in range(30)] + [1] * 30,
    }


def test_what_several_labels_are_told_from():
    wide = several_labels(genres(), False)
    assert wide is not None and wide.separator == "|" and len(wide.counts) == 10
    for name, cells in no_sets().items():
        assert several_labels(cells, name == "decimals") is None, name


def test_sentences_beside_labels_are_read_as_ever(tmp_path):
    cells = no_sets()
    rows = [f'"{text}","{label}"' for text, label in zip(cells["sentences"], cells["labels with commas"], strict=True)]
    found = proposed(saved(tmp_path / "t.csv", "text,shelf", rows))
    assert found.task["type"] == "classification" and len(found.seen.labels) == 4


def test_a_column_of_one_label_goes_first(tmp_path):
    """As before sets were known; the type, or the name, asks for the other."""
    rows = [f"{line},{('new', 'old')[k % 2]}" for k, line in enumerate(lines(";", 300))]
    path = saved(tmp_path / "t.csv", "message,topics,state", rows)
    with pytest.raises(DataError, match="any of several columns may be the label"):
        proposed(path)
    found = proposed(path, kind="multilabel")
    assert found.seen.roles.answer == "topics" and proposed(path, label="state").task["type"] == "classification"
    wide = [f"text number {k} of them,{sets},{('new', 'old')[k % 2]}" for k, sets in enumerate(genres(120))]
    path = saved(tmp_path / "wide.csv", "plot,genres,state", wide)
    assert proposed(path).seen.roles.answer == "state"
    assert proposed(path, kind="multilabel").seen.roles.answer == "genres"
    assert proposed(saved(tmp_path / "w.csv", "plot,genres", [row.rpartition(",")[0] for row in wide])).seen.labels


def marked_lines(count=48):
    """A row with a column of 0 and 1 for each topic."""
    own = topics(count)
    return [f"ticket number {k} of them," + ",".join(str(int(t in row)) for t in TOPICS) for k, row in enumerate(own)]


def test_a_column_of_0_and_1_for_each_label(tmp_path):
    path = saved(tmp_path / "t.csv", ",".join(["message", *TOPICS]), marked_lines())
    found = propose_run(look(path, (), TOPICS[::-1]))
    assert found.task["labels"] == TOPICS[::-1] and not {"separator", "verbalizer"} & {*found.task}
    assert found.seen.labels == {topic: sum(topic in own for own in topics()) for topic in TOPICS[::-1]}
    assert found.seen.roles.fields == ("message",) and "columns" not in found.task["data"]
    task = Task.load(found.run["task"])
    read = [task.gold(row.values) for part in found.splits.values() for row in part]
    assert sorted(map(sorted, read)) == sorted(map(sorted, topics()))
    said = "\n".join(summary(found))
    assert "and 'billing' and 'account'\n" in said and "each label has a column of 0 and 1" in said
    assert yaml_file.load(written(found, tmp_path / "other", "x"), "f") == found.run


@pytest.mark.parametrize(
    ("columns", "options", "told"),
    [
        ("message,a,b", ["--label", "a", "--label", "c"], "has no column 'c'"),
        ("message,a,b", ["--label", "a", "--label", "message"], "column 'message' holds 'text number 0"),
        ("message,a,b", ["--label", "a", "--label", "a"], "--label a: is named twice"),
        (
            "message,a,b",
            ["--label", "a", "--label", "b", "--type", "span"],
            "has one answer, and --label names 2 columns",
        ),
        ("message,a,labels", ["--label", "a", "--label", "b"], "has no column 'b'"),
        ("message,a,b,labels", ["--label", "a", "--label", "b"], "has a column 'labels', which a task reads first"),
    ],
)
def test_columns_that_are_no_labels(tmp_path, columns, options, told):
    rows = [
        ",".join([f"text number {k}", str(k % 2), str(k % 3 // 2), "x"][: columns.count(",") + 1]) for k in range(12)
    ]
    saved(tmp_path / "t.csv", columns, rows)
    refused(cli("new", "t.csv", *options, cwd=tmp_path), told)


def test_from_a_table_to_labels(tmp_path):
    """`train` on the rows, the file that `new` writes, and answers."""
    base = tiny_base("llama")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    saved(tmp_path / "t.csv", "message,topics", lines(";"))
    done = cli("train", "t.csv", "base=base", "--out", "runs/t", "--test", cwd=tmp_path)
    assert done.returncode == 0 and "test micro_f1" in done.stdout, done.stderr
    assert "task: multilabel" in done.stderr and "chosen" not in done.stderr
    done = cli("new", "t.csv", cwd=tmp_path)
    assert done.returncode == 0 and "next: softprompt train t.yaml" in done.stdout, done.stderr
    done = cli("train", "t.yaml", "base=base", "method=infix", "train.max_steps=2", "--out", "runs/u", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "new.csv").write_text("message\na ticket on billing\n", encoding="utf-8")
    done = cli("predict", "runs/t", "--input", "new.csv", cwd=tmp_path)
    assert done.returncode == 0 and set(json.loads(done.stdout)["probabilities"]) == {*TOPICS}, done.stderr
    saved(tmp_path / "m.csv", ",".join(["message", *TOPICS]), marked_lines())
    named = [word for topic in TOPICS for word in ("--label", topic)]
    done = cli("train", "m.csv", *named, "base=base", "--out", "runs/m", cwd=tmp_path)
    assert done.returncode == 0 and "dev micro_f1" in done.stdout, done.stderr
    refused(cli("train", "t.csv", "method=auto", cwd=tmp_path), "auto chooses for classifications", "type 'multilabel'")
