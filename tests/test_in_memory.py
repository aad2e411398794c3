"""Rows that stand in memory: tables in place of files, texts in place of rows, results in place of folders."""

import datasets
import numpy as np
import pandas
import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.data import in_memory, rows_of
from softprompt.errors import ConfigError, DataError, InputError
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import train

SETTINGS = {"max_steps": 2, "batch_size": 8, "lr": 0.1}
DICTS = [
    {"text": f"{word} {place}", "label": label}
    for place in range(10)
    for word, label in (("joy", "good"), ("mud", "bad"))
]
TWO = {"name": "two", "template": {"input": "{{ question }} {{ context }}"}, "verbalizer": ["yes", "no"]}


def tables():
    named = datasets.Dataset.from_list([{**row, "label": ("bad", "good").index(row["label"])} for row in DICTS])
    named = named.cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    return {"dicts": DICTS, "frame": pandas.DataFrame(DICTS), "dataset": named, "tuple": tuple(DICTS)}


@pytest.mark.parametrize("form", ["dicts", "frame", "dataset", "tuple"])
def test_tables_give_the_same_rows(form):
    assert [values for _, values, _ in in_memory(tables()[form])] == DICTS


@pytest.mark.parametrize(
    "texts",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], object), pandas.Series(["a", "b"], [7, 3])],
)
def test_texts_in_a_row(texts):
    assert rows_of(texts) == ["a", "b"]


def test_columns_without_names_and_missing_values():
    assert rows_of(np.array([["a", "b"]])) == [{"x0": "a", "x1": "b"}]
    frame = pandas.DataFrame({"a": pandas.array(["x", None], "string"), 3: [1, 2]}, index=["u", "v"])
    assert rows_of(frame) == [{"a": "x", "3": 1}, {"a": None, "3": 2}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("x", "rows are a str; expected a list"),
        (5, "rows are a int; expected a list"),
        ({"text": "x"}, "rows are a dict; expected a list"),
        (np.array("x"), "rows are a single value"),
        (np.zeros((1, 1, 1)), "rows have 3 dimensions"),
        (pandas.DataFrame([["a", "b"]], columns=["t", "t"]), "two columns have one name, 't'"),
    ],
)
def test_what_is_no_table(data, told):
    with pytest.raises(InputError, match=told) as caught:
        rows_of(data)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, DataError)


@pytest.mark.parametrize("form", ["dicts", "frame", "dataset"])
def test_a_table_is_split_as_a_file_is(form, tmp_path):
    result = train(tiny_base("llama"), tiny_task(), "soft", train=SETTINGS, rows=tables()[form], test=True)
    sizes = {name: len(part) for name, part in result.prepared.splits.items()}
    assert sizes == {"train": 14, "dev": 3, "test": 3}
    path = tmp_path / "rows.jsonl"
    path.write_text(pandas.DataFrame(DICTS).to_json(orient="records", lines=True), encoding="utf-8")
    splits = tiny_task(data={"source": str(path)}).load_data()
    assert {name: [row.values for row in part] for name, part in result.prepared.splits.items()} == {
        name: [row.values for row in part] for name, part in splits.items()
    }


def test_splits_may_be_tables():
    frame = pandas.DataFrame(DICTS)
    result = train(
        tiny_base("llama"), tiny_task(), "soft", train=SETTINGS, rows={"train": frame[:12], "dev": DICTS[12:]}
    )
    assert [len(result.prepared.splits[name]) for name in ("train", "dev")] == [12, 8]
    assert result.prepared.splits["train"][3].where == "rows['train'][3]"


@pytest.mark.parametrize(
    ("rows", "error", "told"),
    [
        ({"text": ["x"]}, ConfigError, "a mapping with 'text'; expected them by split"),
        ({"train": DICTS, "validation": DICTS}, ConfigError, r"^rows\['validation'\] is no split .*; name it 'dev'$"),
        (
            {"train": DICTS, "dev": DICTS, "val": DICTS},
            ConfigError,
            r"rows\['val'\] .* \(known: dev, test, train\); rename it",
        ),
        (
            {"train": DICTS, "tset": DICTS, 7: DICTS},
            ConfigError,
            r"\(did you mean 'test'\?\); .*; rows\[7\] is no split",
        ),
        ([], DataError, "rows are empty"),
        ([{"text": "x", "label": "ugly"}], DataError, "rows: 1 of 1 rows cannot be used"),
        ({"train": ["x"]}, DataError, "rows cannot be used"),
        (tiny_rows(3)["train"], ConfigError, "rows are a list of Rows; give them by split"),
    ],
)
def test_rows_that_cannot_be_trained_on(rows, error, told):
    with pytest.raises(error, match=told):
        train(tiny_base("llama"), tiny_task(), "soft", train=SETTINGS, rows=rows)


def test_texts_are_answered_where_one_field_is_read():
    runtime = Runtime(tiny_base("llama"))
    runtime.add("a", tiny_task())
    whole = runtime.predict([{"text": "joy"}, {"text": "mud 3"}])
    for texts in (["joy", "mud 3"], pandas.Series(["joy", "mud 3"]), pandas.DataFrame({"text": ["joy", "mud 3"]})):
        assert runtime.predict(texts) == whole
    assert runtime.predict(["joy", {"text": "mud 3"}]) == whole
    runtime.add("two", Task.load(TWO))
    with pytest.raises(DataError, match="row 2: is a text, but task 'two' reads 'context', 'question'"):
        runtime.predict([{"question": "x", "context": "y"}, "x"], "two")


@pytest.mark.parametrize("method", ["infix", {"name": "lora", "r": 2}])
def test_a_result_stands_for_its_folder(method, tmp_path):
    base, texts = tiny_base("llama"), ["joy", "mud 3", "rain"]
    kept = train(base, tiny_task(), method, tmp_path, train=SETTINGS, rows=tiny_rows())
    held = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows())
    assert held.artifact is None and held.as_artifact().digest == kept.as_artifact().digest
    runtime = Runtime(base)
    runtime.add("folder", tmp_path)
    runtime.add("result", held)
    want = [one.probabilities for one in runtime.predict(texts, "folder")]
    assert [one.probabilities for one in runtime.predict(texts, "result")] == want
    assert [one.probabilities for one in held.predict(texts)] == want
