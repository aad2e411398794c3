"""Rows that no reader takes: each is told by its place, all of a file in one pass, in the words of JSON."""

from __future__ import annotations

import datetime
import enum
import json
import re

import numpy as np
import pytest
from helpers import tiny_task
from models import tiny_base

from softprompt.base import Base
from softprompt.data import Row, read_rows
from softprompt.errors import BaseModelError, ConfigError, DataError
from softprompt.methods import make_method
from softprompt.prepared import prepare
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.values import plain

WHOLE = {
    "classification": {"text": "fine", "label": "good"},
    "choice": {"text": "which?", "choices": ["x", "y"], "answer": 1},
    "generation": {"text": "say", "answer": "it"},
    "span": {"question": "how?", "context": "Paris is big", "answers": ["big"]},
    "conversation": {"talk": [{"role": "user", "content": "hi"}], "label": "good"},
    "shape": {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "ho"}]},
    "arc": {"text": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    "loop": {"parts": ["a", "b"], "label": "good"},
}
LABELS = {"verbalizer": ["good", "bad"]}
TASKS = {
    "classification": {"template": {"input": "{{ text }}"}, **LABELS},
    "choice": {"type": "choice", "template": {"input": "{{ text }}"}},
    "generation": {"type": "generation", "template": {"input": "{{ text }}"}},
    "span": {"type": "span", "template": {"input": "{{ context }} {{ question }}"}},
    "conversation": {"template": {"messages": "talk"}, **LABELS},
    "shape": {"type": "generation", "template": {"messages": "prompt"}},
    "arc": {"type": "choice", "template": {"input": "{{ text }}"}},
    "loop": {"template": {"input": "{% for part in parts %}{{ part }}{% endfor %}"}, **LABELS},
}
GONE = object()


class Marked(str):
    """A text of a class of its own."""

    def __str__(self):
        return "marked"


class Word(str, enum.Enum):
    """Texts by name: what Python prints of one is its name."""

    JOY = "joy"


NO_TEXT = (None, True, False, [], ["a"], {}, {"a": 1}, [["a"]], GONE)
TURN = {"role": "user", "content": "hi"}
CHANGES: dict[str, list[dict]] = {
    "classification": [
        *({"text": value} for value in (*NO_TEXT, "", "  ", "\n", "\u200b", "\ufeff \0")),
        *({"label": value} for value in (*NO_TEXT, "", "other", 1.5, -1, 0, "GOOD")),
    ],
    "choice": [
        *({"text": value} for value in (*NO_TEXT, "")),
        *({"choices": value} for value in (None, [], ["x"], "xy", 5, {}, True, GONE, ["x"] * 27)),
        *({"choices": ["x", value], "answer": 0} for value in (None, [], ["y"], {}, {"y": 1}, True, "", " ", "\u200b")),
        *({"answer": value} for value in (*NO_TEXT, -1, 2, 1.5, 1.0, "²", "1" * 5000, "z", "C", "AB", "-1", "٣", 10**30)),
        {"choices": [1, 2, 3], "answer": 1},
    ],
    "generation": [
        *({"text": value} for value in (*NO_TEXT, "")),
        *({"answer": value} for value in (None, True, [], {}, {"x": 1}, [["x"]], GONE, "", " ", [""], [None], [{}], [True])),
        *({"answer": value} for value in (["x", None], ["x", ["y"]], ["x", ""], "a\nb", "\u200b")),
    ],
    "span": [
        *({"context": value} for value in (*NO_TEXT, "")),
        *({"question": value} for value in NO_TEXT),
        *({"answers": value} for value in (None, [], {}, 7, True, GONE, "", [None], [{}], [["big"]], [True], ["small"])),
        *({"answers": {"text": value}} for value in (None, [], "small", 5, [None], [{"a": 1}], {})),
        *({"answers": {"text": ["big"], "answer_start": value}} for value in (["9"], 9, [9, 9], [8], [-1], [True], [9.5])),
    ],
    "conversation": [
        {"talk": value}
        for value in (
            *(None, [], {}, 3, True, GONE, ["hi"], [None], [[]], [{}], [{"role": "user"}], [{"content": "hi"}], ""),
            *([{**TURN, "content": None}], [{**TURN, "content": ["hi"]}], [{**TURN, "content": 5}], [{**TURN, "role": "bot"}]),
            *([{**TURN, "role": None}], [{**TURN, "role": "assistant"}], [{**TURN, "tool_calls": [{"id": 1}]}], [TURN, {}]),
            *('[{"role": "user", "content": "hi"}]', " [{'content': 'hi', 'role': 'user'}]"),  # as CSV files hold lists
            *([{**TURN, "content": " "}], [{"role": "system", "content": "be kind"}, {**TURN, "content": ""}]),
        )
    ],
    "shape": [
        *({"completion": value} for value in (None, [], {}, TURN, True, [TURN], [None, TURN], [{}], "")),
        {"completion": [{"role": "assistant", "content": "a"}] * 2},
        {"completion": [{"role": "assistant"}]},
        {"completion": [{"role": "assistant", "content": None}]},
        *({"prompt": value} for value in (None, [], {}, 5, True, [{}], [{"role": "bot", "content": "x"}], [TURN, "x"])),
    ],
    "arc": [
        {"choices": {"text": "xy", "label": "AB"}},
        {"choices": {"text": ["x"], "label": []}},
        {"choices": {"text": [], "label": []}},
        {"choices": {"text": ["x", "y"], "label": ["A", None]}},
        {"choices": {"text": ["x", None], "label": ["A", "B"]}},
        *({"answerKey": value} for value in ("C", "AB", True, [], {}, ["A"], None)),
    ],
    "loop": [
        *({"parts": value} for value in (None, [None], [["a"]], ["a", {"b": 1}], [True], GONE, [], "", 5)),
    ],
}  # fmt: skip
PYTHON = re.compile(
    r"NoneType|\bdict\b|\bint\b|\bfloat\b|\bstr\b|\bbool\b|None|True|False|datetime|Traceback|array\(|object at|<"
)


def bad_rows(kind):
    rows = ({**WHOLE[kind], **change} for change in CHANGES[kind])
    return [{name: value for name, value in row.items() if value is not GONE} for row in rows]


def task(kind):
    return Task.load({"name": "t", **TASKS[kind]})


def told(source, kind):
    with pytest.raises(DataError) as caught:
        task(kind).read(str(source))
    problems = caught.value.problems
    assert not [line for line in problems if "\n" in line or PYTHON.search(line.partition(": ")[2]) or len(line) > 600]
    return [line.partition(": ")[0] for line in problems], problems


def test_there_are_enough_kinds():
    assert sum(map(len, CHANGES.values())) >= 150  # in JSON alone, beside those of the tables and of single lines below


@pytest.mark.parametrize("kind", list(CHANGES))
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_each_row_is_told_by_its_place_in_one_pass(tmp_path, kind, suffix):
    bad = bad_rows(kind)
    rows = [row for one in bad for row in (one, WHOLE[kind])]
    path = tmp_path / f"rows.{suffix}"
    text = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    places, problems = told(path, kind)
    form = "{}[{}]" if suffix == "json" else "{}:{}"
    expected = [form.format(path, 2 * k + 1) for k in range(len(bad))]
    assert places == expected, sorted(set(expected) - set(places)) + problems[:3]


def test_lines_that_are_no_rows(tmp_path):
    lines = [
        *(b"", b"{", b"{}x", b"[1]", b"5", b'"s"', b"null", b"true", b'{"a": 1, "a": 2}', b'{"text": NaN}'),
        *(b'{"text": 1e999}', b'{"text": -Infinity}', b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"\\udc00": 1}'),
        *(b"[" * 50_000, b'{"text": ' + b"9" * 5000 + b"}", b"{'text': 'x'}", b'{"text": "a\tb"}', b'{"text": [NaN]}'),
        *(b'{"text": {"a": 1, "a": 2}}', b"\xef\xbb\xbf{}", b"\x00", b"{}"),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert told(path, "classification")[0] == [f"{path}:{k}" for k in range(1, len(lines) + 1)]
    items = [line for line in lines if json_or_constant(line)]
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b",".join(items) + b"]")
    assert told(path, "classification")[0] == [f"{path}[{k}]" for k in range(1, len(items) + 1)] and len(items) > 10


def json_or_constant(line):
    """Whether a line is JSON, but for constants and flaws inside of it, so that it can stand in a list."""
    try:
        return json.loads(line.decode()) is not GONE
    except (ValueError, RecursionError):
        return b"9" * 5000 in line


@pytest.mark.parametrize("suffix, sign", [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_tables_of_text(tmp_path, suffix, sign):
    lines = [
        "text,label",
        "fine,good",
        ",good",
        "  ,good",
        "x,",
        "x,other",
        "x",
        "x,good,more",
        "",
        "x,GOOD",
        "fine,bad",
    ]
    path = tmp_path / f"rows.{suffix}"
    data = "\n".join(lines).replace(",", sign).encode() + b"\n\xff" + sign.encode() + b"good\n"
    path.write_bytes(data)
    assert told(path, "classification")[0] == [f"{path}:{k}" for k in (3, 4, 5, 6, 7, 8, 9, 10, 12)]
    path.write_bytes(b"\xff\xfe" + "\n".join(lines[:2]).replace(",", sign).encode("utf-16-le"))
    assert [row.values for row in read_rows(path)] == [WHOLE["classification"]]


def arrow_columns(pyarrow):
    """Columns whose values are no texts."""
    day = datetime.date(2024, 1, 2)
    return {
        "bytes": pyarrow.array([b"a"]),
        "struct": pyarrow.array([{"a": 1}]),
        "list": pyarrow.array([["a"]]),
        "null": pyarrow.array([None], pyarrow.string()),
        "NaN": pyarrow.array([float("nan")]),
        "infinite": pyarrow.array([float("inf")]),
        "date": pyarrow.array([day]),
        "time": pyarrow.array([datetime.time(1, 2)]),
        "timestamp": pyarrow.array([datetime.datetime(2024, 1, 2)]),
        "duration": pyarrow.array([datetime.timedelta(1)]),
        "bool": pyarrow.array([True]),
        "map": pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "year 20000": pyarrow.array([2**59], pyarrow.timestamp("us")),
        "no UTF-8": pyarrow.Array.from_buffers(
            pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")]
        ),
    }


def test_parquet_and_datasets_hold_other_types(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    from pyarrow import parquet

    for kind, column in arrow_columns(pyarrow).items():
        folder = tmp_path / kind.replace(" ", "")
        folder.mkdir()
        path = folder / "train.parquet"
        parquet.write_table(pyarrow.table({"text": column, "label": ["good"]}), path)
        assert told(path, "classification")[0] == [f"{path}:1"], kind
        answered = pyarrow.table({"text": ["fine"], "answer": column})
        if kind != "list":  # several answers
            parquet.write_table(answered, path)
            assert told(path, "generation")[0] == [f"{path}:1"], kind
    parquet.write_table(pyarrow.table({"text": pyarrow.array([[b"a"]]), "label": ["good"]}), path)
    name = f"datasets:{path.parent}"
    assert told(name, "classification")[0] == [f"{name}[0]"]
    table = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(table, path)
    with pytest.raises(DataError, match="names a column twice"):
        read_rows(path)


def test_rows_in_memory(tmp_path):
    runtime = Runtime(tiny_base("llama"))
    runtime.add("a", tiny_task())
    values = [
        *(value for value in (*NO_TEXT, "", " ") if value is not GONE),
        *(
            float("nan"),
            float("inf"),
            np.float64("nan"),
            np.bool_(True),
            np.array(["a"]),
            b"a",
            datetime.date(2024, 1, 2),
        ),
        *(np.datetime64("2024-01-02", "ns"), np.timedelta64(5, "ns")),  # which NumPy gives as numbers
        *({"a"}, object(), 1j, np.datetime64("2024-01-02"), range(3), type, np.array(None)),
    ]
    rows = [row for value in values for row in ({"text": value}, {"text": "fine"})]
    with pytest.raises(DataError) as caught:
        runtime.predict([*rows, {"other": "x"}])
    problems = caught.value.problems
    places = [line.partition(": ")[0] for line in problems]
    assert places == [f"row {2 * k + 1}" for k in range(len(values))] + [f"row {2 * len(values) + 1}"]
    assert not [line for line in problems if PYTHON.search(line.partition(": ")[2])]
    assert str(caught.value).startswith("row 1: field 'text' is null; ") and "more of" in str(caught.value)
    fine = [np.str_("a"), np.float32(1.5), np.int64(3), 4, 2.5, Marked("joy"), Word.JOY]
    found = runtime.predict([{"text": value} for value in [*fine, "joy"]])
    assert len(found) == len(fine) + 1 and found[-3:-1] == [found[-1]] * 2
    row = Row({"text": Word.JOY, "label": "good"}, "here")
    kept = prepare(runtime.base, tiny_task(), make_method("hard"), rows={"dev": [row]}).splits["dev"][0]
    assert kept.values["text"] == "joy" and type(kept.values["text"]) is str


@pytest.mark.parametrize("rows", [{"text": "x"}, "x", [["x"]], 5, [None]])
def test_what_is_no_list_of_rows(rows):
    runtime = Runtime(tiny_base("llama"))
    runtime.add("a", tiny_task())
    with pytest.raises(DataError, match=r"^rows are a (dict|str|int); expected|^row 1: is (a list|null); expected"):
        runtime.predict(rows)
    assert len(runtime.predict({"text": text, "artifact": None} for text in "xy")) == 2


@pytest.mark.parametrize(
    "text, cells",
    [
        ('text\tlabel\n"Great" film\tgood\n', '"Great" film'),
        ('text\tlabel\n"unbalanced\tgood\nsecond "cell\tbad\n', '"unbalanced'),
        ('text\tlabel\n"begins here\tgood\nends here"\tbad\n', '"begins here'),
        ('text\tlabel\n"Hi" he\u2028said\tgood\n', '"Hi" he\u2028said'),
        ('text\tlabel\r\n"quoted"\t"good"\r\n', "quoted"),
        ('text\tlabel\n5" wide\tgood\n', '5" wide'),
        ('text\tlabel\n"say ""hi"""\tgood\n', 'say "hi"'),
        ('text\tlabel\n"two\nlines"\tgood\n', "two\nlines"),
        ('text\tlabel\n"a\ttab"\tgood\n', "a\ttab"),
    ],
)
def test_quotes_in_a_tsv_belong_to_its_texts_unless_they_stand_round_cells(tmp_path, text, cells):
    path = tmp_path / "rows.tsv"
    path.write_text(text, encoding="utf-8")
    assert read_rows(path)[0].values["text"] == cells


@pytest.mark.parametrize(
    "name, text",
    [
        ("rows.json", '{"text": "a"}\n{"text": "b"}\n'),
        ("rows.jsonl", '[{"text": "a"},\n {"text": "b"}]\n'),
        ("rows.csv", "\ufefftext\na\nb\n"),
        ("rows.csv", "text;n\na;1\nb;2\n"),
        ("rows.csv", 'n, text\n1, "a"\n2, "b"\n'),
        ("rows.csv", "text,n\r\r\na,1\r\r\nb,2\r\r\n"),
        ("rows.jsonl", '{"text": "a"}\r{"text": "b"}\r'),
        ("rows.json", '\ufeff[{"text": "a"}, {"text": "b"}]'),
    ],
)
def test_files_that_are_read_as_what_they_are(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert [row.values["text"] for row in read_rows(tmp_path / name)] == ["a", "b"]


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-32"])
def test_a_text_file_holds_no_nul_in_its_first_line(tmp_path, coding):
    (tmp_path / "rows.csv").write_bytes("text,label\nx,good\n".encode(coding))
    with pytest.raises(DataError, match="NUL characters in its first line"):
        read_rows(tmp_path / "rows.csv")


def test_demonstrations_are_rows():
    shape = {"name": "t", **TASKS["classification"]}
    rows = [WHOLE["classification"], {"text": None, "label": "good"}, {"text": "x", "label": "other"}]
    with pytest.raises(
        ConfigError, match=r"rows\[1\]: field 'text' is null; demonstrations.rows\[2\]: label is 'other'"
    ):
        Task.load({**shape, "demonstrations": {"k": 3, "rows": rows}})


@pytest.mark.parametrize(
    "option", ["{choice:9999999999}", "{choice.__class__}", "{0}", "{letter!r}", "{", "{other}", "x" * 2000]
)
def test_how_options_are_shown_is_no_format_of_python(option):
    with pytest.raises(ConfigError, match=r"can name \{letter\} and \{choice\} only|at most 1000 characters"):
        Task.load({"name": "t", **TASKS["choice"], "option": option})


def test_demonstrations_of_another_number_than_is_asked():
    rows = [{"text": "joy", "label": "good"}, {"text": "mud", "label": "bad"}]
    with pytest.raises(ConfigError, match=r"demonstrations.k is 3, demonstrations.rows holds 2; leave k out"):
        tiny_task(demonstrations={"k": 3, "rows": rows})
    assert len(tiny_task(demonstrations={"rows": rows}).spec.demonstrations.rows) == 2


@pytest.mark.parametrize("name", ["/no/such/base", "./base", "~/base"])
def test_a_base_that_was_moved(name):
    with pytest.raises(BaseModelError, match=r"no such folder or file.*name the new place"):
        Base.load(name)


def test_numbers_in_single_precision_are_what_was_written(tmp_path):
    pyarrow, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    from pyarrow import parquet

    columns = {"x": pyarrow.array([0.1, None], pyarrow.float32()), "y": pyarrow.array([0.1, 2.5])}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    wanted = [{"x": 0.1, "y": 0.1}, {"x": None, "y": 2.5}]
    assert [row.values for row in read_rows(tmp_path / "rows.parquet")] == wanted
    datasets.Dataset(pyarrow.table(columns)).save_to_disk(str(tmp_path / "saved"))
    assert [row.values for row in read_rows(f"datasets:{tmp_path / 'saved'}")] == wanted
    assert plain(np.float32(0.1)) == plain(np.float64(0.1)) == 0.1 and plain(np.float16(0.1)) == 0.1


def test_all_splits_of_a_saved_data_set_are_read_by_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "dev")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    for name in splits:
        assert [row.values["text"] for row in read_rows(f"datasets:{tmp_path / 'saved'}:{name}")] == [name]


@pytest.mark.parametrize("name, text", [("rows.csv", "text\na\n\n\r\n"), ("rows.jsonl", '{"text": "a"}\n\n  \n')])
def test_empty_lines_at_the_end_are_nothing(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert [row.values["text"] for row in read_rows(tmp_path / name)] == ["a"]
