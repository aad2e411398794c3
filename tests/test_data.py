"""Readers tell every bad row by its line; splits keep their promises; the catalogue believes digests only."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from functools import partial

import pytest
from helpers import tiny_task
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.data import CATALOGUE, Row, deduplicate, few_shot, get_source, read_rows, split
from softprompt.data import fetch as fetching
from softprompt.data.duplicates import normalize
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Task


def problems(path, check=None):
    with pytest.raises(DataError) as caught:
        read_rows(path, check)
    return caught.value.problems or [str(caught.value)]


def test_jsonl_tells_all_problems_in_one_pass(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "ok"}\r\n{"text": }\n[1]\n\n{"a": 1, "a": 2}\n{"x": NaN}\n{"t": "\xff"}\n{"t": "\\ud800"}\n"s"\n'
        + b"[" * 100_000
        + b'\n{"text": "bad"}'
    )
    found = problems(path, lambda row: "no good" if row.get("text") == "bad" else None)
    assert [line[len(str(path)) + 1 :].split(":")[0] for line in found] == [str(number) for number in range(2, 12)]
    text = "\n".join(found)
    for words in (
        "column 10",
        "got a list",
        "line is empty",
        "'a' stands twice",
        "NaN",
        "UTF-8 (byte 8)",
        "surrogate",
        "no good",
    ):
        assert words in text, words


def test_csv_counts_physical_lines(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"two\nlines",a\n只有,b\nshort\nx,y,z\n', encoding="utf-8")
    found = problems(path)
    assert len(found) == 2 and ":5: 1 cells" in found[0] and ":6: 3 cells" in found[1]
    path.write_text('text,label\n"two\nlines",a\n好,b\n', encoding="utf-8")
    rows = read_rows(path, columns={"content": "text"})
    assert [row.values["content"] for row in rows] == ["two\nlines", "好"]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]
    assert "did you mean 'label'" in problems_of_columns(path, {"label": "lable"})


def test_files_that_name_their_columns_differently(tmp_path):
    """Of several names the first that a row has is taken; the others may mean something else there."""
    rows = [{"query": "a", "response": "b", "answer": "other"}, {"question": "c", "answer": "d"}, {"query": "e"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    columns = {"question": ["query", "question"], "answer": ["response", "answer"]}
    found = read_rows(tmp_path / "rows.jsonl", columns=columns)
    assert [(row.values["question"], row.values["answer"]) for row in found] == [("a", "b"), ("c", "d")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = problems_of_columns(tmp_path / "rows.jsonl", columns)
    assert ":3: missing column 'response' or 'answer'" in problem


def problems_of_columns(path, columns):
    with pytest.raises(DataError) as caught:
        read_rows(path, columns=columns)
    return caught.value.problems[0]


def test_other_formats(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.tsv").write_text("text\tlabel\na\tx\nb\ty\n")
    assert [row.values for row in read_rows(tmp_path / "rows.json")] == rows
    assert [row.values for row in read_rows(tmp_path / "rows.tsv")] == rows
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [row.values for row in read_rows(tmp_path / "rows.parquet")] == rows
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    assert "not a readable Parquet" in problems(tmp_path / "bad.parquet")[0]


def test_hub_datasets_by_local_folder(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    rows = read_rows(f"datasets:{tmp_path / 'set'}:train")
    assert [row.values["text"] for row in rows] == ["a", "b"] and rows[0].where.endswith("[0]")
    assert "expected datasets:NAME" in problems("datasets:")[0]
    assert "expected datasets:NAME" in problems("datasets:a:b:c:d")[0]


def test_parts_of_splits_and_configs(tmp_path):
    """`train[1:3]` is a part of a split, its colon none of ours."""
    pytest.importorskip("datasets")
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        rows = "".join(json.dumps({"text": f"{name} {k}"}) + "\n" for k in range(10))
        (tmp_path / "data" / f"{name}.jsonl").write_text(rows)
    files = [{"split": name, "path": f"data/{name}.jsonl"} for name in ("train", "test")]
    (tmp_path / "README.md").write_text(
        f"---\nconfigs: {json.dumps([{'config_name': 'main', 'data_files': files}])}\n---\n"
    )

    def texts(name):
        return [row.values["text"] for row in read_rows(f"datasets:{tmp_path}:{name}")]

    assert texts("train[1:3]") == texts("main:train[1:3]") == ["train 1", "train 2"]
    assert texts("main:test[80%:]") == ["test 8", "test 9"] and texts("train[:1]+test[:1]") == ["train 0", "test 0"]
    assert "cannot be loaded" in problems(f"datasets:{tmp_path}:main:dev")[0]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.csv", b" \n", "is empty"),
        ("rows.csv", b"a,b\n", "is empty"),
        ("rows.csv", b"a,a\n1,2\n", "twice"),
        ("rows.xlsx", b"x", "not read"),
        ("rows.json", b'{"a": 1}', "expected a list"),
        ("rows.csv", b"a,b\n\xff,1\n", ":2: not valid UTF-8"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in problems(tmp_path / name)[0]


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    assert "did you mean 'rows.jsonl'" in problems(tmp_path / "row.jsonl")[0]
    assert "is a folder" in problems(tmp_path)[0]


def rows_of(labels, texts=None):
    return [
        Row({"text": (texts or {}).get(i, f"text {i}"), "label": label}, f"r:{i}") for i, label in enumerate(labels)
    ]


def text(row):
    return row.values["text"]


def label(row):
    return row.values["label"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=30, max_size=120), st.integers(0, 5))
def test_splits_are_disjoint_stratified_and_nested(labels, seed):
    rows = rows_of(labels)
    small = split(rows, {"train": 6, "dev": 7, "test": 9}, label, seed)
    large = split(rows, {"train": None, "dev": 7, "test": 9}, label, seed)
    assert [len(small[name]) for name in ("train", "dev", "test")] == [6, 7, 9]
    everyone = [row.where for part in large.values() for row in part]
    assert len(everyone) == len(set(everyone)) == len(rows)
    assert small["dev"] == large["dev"] and small["test"] == large["test"]  # held-out rows stay
    assert large["train"][:6] == small["train"]  # a smaller training set is the beginning of a larger one
    for name, size in (("dev", 7), ("test", 9), ("train", 6)):
        for value in "abc":
            share = labels.count(value) / len(labels) * size
            assert abs(sum(label(row) == value for row in small[name]) - share) < 2


def test_only_equal_rows_are_the_same_and_contradictions_go():
    rows = rows_of("aaaab" + "ab" * 10, {0: "twice", 1: "twice", 2: "Twice", 3: "said", 4: "said"})
    kept, report = deduplicate(rows, text, label)
    assert (report.copies, report.contradicting) == (1, 2) and "said" not in map(text, kept)
    assert [row.where for row in kept] == ["r:0", "r:2", *(f"r:{k}" for k in range(5, 25))]
    assert str(report) == (
        "1 rows that are copies of other rows, 2 rows that ask the same as others and have different labels "
        "(e.g. r:1 is r:0 again; r:3 and r:4 have different labels)"
    )
    kept, report = deduplicate(rows, text, label, several=True)
    assert len(kept) == 24 and report.contradicting == 0


def test_a_row_that_stands_twice_in_a_list_is_kept_once():
    one, other = rows_of("ab", {0: "one", 1: "other"})
    for several in (False, True):
        kept, report = deduplicate([one, other, one, one], text, label, several)
        assert kept == [one, other] and report.copies == 2 and report.examples == ("r:0 is r:0 again",)


def saved(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def generating(source, **changes):
    data = {"source": source, "split": {"train": None, "dev": 4, "test": 4}} | changes.pop("data", {})
    template = {"input": "{{ text }}"}
    return Task.load({"name": "t", "type": "generation", "metric": "exact_text", "template": template, "data": data})


@pytest.mark.parametrize(
    "pair", [("2²", "22"), ("½", "1⁄2"), ("ﬁ", "fi"), ("Polish", "polish"), ("a b", "a  b"), ("Ａ", "A")]
)
def test_rows_that_differ_by_a_letter_are_two(tmp_path, pair):
    rows = [{"text": f"{text} {k}", "label": "ab"[k % 2]} for k in range(10) for text in pair]
    task = tiny_task(data={"source": saved(tmp_path / "rows.jsonl", rows)}, verbalizer=["a", "b"])
    parts = task.load_data()
    assert sum(map(len, parts.values())) == 20 and not task.left_out
    told = [line for line in task.notices if "in case, width or white space only" in line]
    assert len(told) == 1 and "rows.jsonl:" in told[0]


def test_rows_of_format_1_are_cut_as_they_were(tmp_path):
    """An artifact's own test rows stay out of what it was trained on."""
    texts = {1: "Same  text", 2: "same text", 3: "SAME TEXT", 4: "ﬁne", 5: "fine"}
    rows = rows_of("aaaaab" + "ab" * 10, texts)
    data = {"source": saved(tmp_path / "rows.jsonl", [row.values for row in rows])}
    data["split"] = {"train": None, "dev": 4, "test": 8}
    task = tiny_task(data=data, verbalizer=["a", "b"])
    old = type(task)(task.spec, rules=1)
    parts = old.load_data()
    seen = [normalize(text(row)) for part in parts.values() for row in part]
    assert len(seen) == len(set(seen)) == 22 and (old.left_out.copies, old.left_out.contradicting) == (2, 2)
    assert sum(map(len, task.load_data().values())) == 26
    data["split"] = {}
    with pytest.raises(DataError, match="dev 256, train 1024"):
        type(task)(tiny_task(data=data, verbalizer=["a", "b"]).spec, rules=1).load_data()


def test_references_of_one_text_are_kept_and_stay_together(tmp_path):
    rows = [{"text": f"place {k}", "answer": f"{k} is {word}"} for k in range(10) for word in ("cheap", "dear", "far")]
    task = generating(saved(tmp_path / "rows.jsonl", [*rows, rows[0]]))
    parts = task.load_data()
    assert sum(map(len, parts.values())) == 30 and task.left_out.copies == 1
    owners = [{row.values["text"] for row in part} for part in parts.values()]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 10
    rows = [row | {"city": k // 5} for k, row in enumerate(rows)]  # texts and groups overlap in chains
    grouped = generating(
        saved(tmp_path / "rows.jsonl", rows), data={"split": {"train": None, "dev": 1, "test": 1, "group": "city"}}
    )
    parts = grouped.load_data()
    for field in ("text", "city"):
        owners = [{row.values[field] for row in part} for part in parts.values()]
        assert sum(map(len, owners)) == len(set().union(*owners))


def test_a_question_with_other_options_is_another_row(tmp_path):
    rows = [{"question": "which?", "choices": [f"{c}{k}" for c in "abc"], "answer": k % 3} for k in range(20)]
    shape = {"name": "t", "type": "choice", "template": {"input": "{{ question }}"}}
    task = Task.load({**shape, "data": {"source": saved(tmp_path / "rows.jsonl", [*rows, rows[3]])}})
    assert sum(map(len, task.load_data().values())) == 20 and task.left_out.copies == 1
    saved(tmp_path / "rows.jsonl", [*rows, rows[3] | {"answer": 1}])
    assert sum(map(len, task.load_data().values())) == 19 and task.left_out.contradicting == 2
    saved(tmp_path / "rows.jsonl", [*rows[:-1], rows[-1] | {"choices": ["same", "same", "other"]}])
    ((what, _),) = task.remarks(task.load_data())
    assert "1 of 20 rows have an option twice" in what and "rows.jsonl:20" in what


def test_a_text_in_two_separate_files_is_refused_or_left_out_and_near_ones_are_told(tmp_path):
    for name, words in (
        ("train", ["some text", "more", "new"]),
        ("dev", ["some text", "other"]),
        ("test", ["Other", "new"]),
    ):
        saved(tmp_path / f"{name}.jsonl", [{"text": word, "label": "good"} for word in words])
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "test")}
    with pytest.raises(
        DataError, match=r"2 rows are held out in another split too; .* data.skip_leaked: true"
    ) as caught:
        tiny_task(data=data).load_data()
    assert any("train.jsonl:1" in line and "dev.jsonl:1" in line for line in caught.value.problems)
    assert any("train.jsonl:3" in line and "test.jsonl:2" in line for line in caught.value.problems)
    task = tiny_task(data=data | {"skip_leaked": True})
    parts = task.load_data()
    assert [row.values["text"] for row in parts["train"]] == ["more"] and task.left_out.leaked == 2
    assert any("dev.jsonl:2 from" in line and "test.jsonl:1" in line for line in task.notices)


@pytest.mark.parametrize(
    "sizes, rows, expected",
    [
        ({}, 60, {"train": 42, "dev": 9, "test": 9}),
        ({}, 8, {"train": 6, "dev": 1, "test": 1}),
        ({}, 3000, {"train": 2100, "dev": 450, "test": 450}),
        ({"test": 20}, 60, {"train": 33, "dev": 7, "test": 20}),
        ({"train": 40}, 60, {"train": 40, "dev": 10, "test": 10}),
        ({"dev": 0}, 20, {"train": 17, "dev": 0, "test": 3}),
        ({"train": None}, 20, {"train": 14, "dev": 3, "test": 3}),
        ({"train": 0.8, "dev": 0.1, "test": 0.1}, 15, {"train": 12, "dev": 1, "test": 2}),
        ({"train": 0.34, "dev": 0.33, "test": 0.33}, 10, {"train": 4, "dev": 3, "test": 3}),
        ({"test": 100}, 2000, {"train": 1024, "dev": 256, "test": 100}),
    ],
)
def test_sizes_that_are_not_given(tmp_path, sizes, rows, expected):
    path = saved(tmp_path / "rows.jsonl", [{"text": f"text {k}", "label": "ab"[k % 2]} for k in range(rows)])
    task = tiny_task(data={"source": path, "split": sizes}, verbalizer=["a", "b"])
    parts = task.load_data()
    assert {name: len(part) for name, part in parts.items()} == expected
    assert abs(sum(row.values["label"] == "a" for row in parts["train"]) - expected["train"] / 2) <= 1
    said = f"{expected['train']} train, {expected['dev']} dev, {expected['test']} test; data.split gives no"
    told = (len(sizes) < 3 and rows < 2000) or not sizes
    assert any(said in line for line in task.notices) == told
    assert type(task).load(task.spec.model_dump(mode="json", exclude_none=True)).spec == task.spec


def test_sizes_that_cannot_be(tmp_path):
    path = saved(tmp_path / "rows.jsonl", [{"text": f"text {k}", "label": "ab"[k % 2]} for k in range(7)])
    with pytest.raises(
        DataError, match=r"7 different rows, too few to be divided; name data.split.train, dev and test"
    ):
        tiny_task(data={"source": path}, verbalizer=["a", "b"]).load_data()
    with pytest.raises(DataError, match=r"fractions of the splits sum to 1\.2"):
        split(rows_of("ab" * 5), {"train": 0.8, "dev": 0.2, "test": 0.2}, label, 0)


@pytest.mark.parametrize("none", [None, "", -1, "-1"])
def test_rows_without_a_label_are_refused_or_left_out_on_request(tmp_path, none):
    rows = [{"text": f"text {k}", "label": none if k % 5 == 0 else "ab"[k % 2]} for k in range(20)]
    data = {"source": saved(tmp_path / "rows.jsonl", rows)}
    with pytest.raises(DataError, match="4 of 20 rows") as caught:
        tiny_task(data=data, verbalizer=["a", "b"]).load_data()
    assert "data.skip_unlabelled: true leaves rows without a label out" in caught.value.problems[0]
    task = tiny_task(data=data | {"skip_unlabelled": True}, verbalizer=["a", "b"])
    assert sum(map(len, task.load_data().values())) == 16
    assert task.left_out.unlabelled == 4 and "left out: 4 rows without a label" in task.notices
    if none in (-1, "-1"):  # where it is a label
        assert sum(map(len, tiny_task(data=data, verbalizer=["a", "b", -1]).load_data().values())) == 20


def test_datasets_have_rows_without_a_label_and_texts_in_two_splits(tmp_path):
    """Nobody can edit them."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "nli").mkdir()
    kinds = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"text": datasets.Value("string"), "label": kinds})
    for name, first in (("train", 0), ("test", 18)):
        rows = {
            "text": [f"text {k}" for k in range(first, first + 20)],
            "label": [k % 2 if k % 5 else -1 for k in range(20)],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "nli" / f"{name}.parquet")
    data = {name: f"datasets:{tmp_path / 'nli'}:{name}" for name in ("train", "test")}
    task = tiny_task(data=data, verbalizer=["a", "b"])
    parts = task.load_data()
    assert (task.left_out.unlabelled, task.left_out.leaked) == (8, 1)
    assert {name: len(part) for name, part in parts.items()} == {"test": 16, "dev": 3, "train": 12}


def test_csv_tells_all_bad_rows_in_one_pass(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"a"b,good\nfine,good\n\xff,bad\nalso fine,bad\nx,y,z\n')
    found = problems(path)
    assert [line.removeprefix(str(path)).split(":")[1] for line in found] == ["2", "4", "6"], found
    assert "UTF-8" in found[1]


def test_splits_that_ask_for_too_much():
    with pytest.raises(DataError, match=r"ask for 12 rows.*there are 10"):
        split(rows_of("ab" * 5), {"train": 10, "test": 2}, label, 0)
    with pytest.raises(DataError, match="only one"):
        split(rows_of("ab"), {"train": None, "test": None}, label, 0)
    assert len(split(rows_of("ab" * 5), {"train": None, "test": 0.2}, label, 0)["test"]) == 2


def test_few_shot_is_balanced_and_seeded():
    rows = rows_of("a" * 20 + "b" * 5 + "c")
    shots = few_shot(rows, 8, label, 3)
    assert sorted(map(label, shots)) == ["a"] * 4 + ["b"] * 3 + ["c"]
    assert shots == few_shot(rows, 8, label, 3) != few_shot(rows, 8, label, 4)
    with pytest.raises(DataError, match="30 demonstrations"):
        few_shot(rows, 30, label, 0)


# The catalogue, against a package index of our own on the loopback.


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A simple index that serves one small sdist; gives (sha256, folder)."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        _add(archive, "hutto_ICWSM_2014/rows.txt", b"1\t2.5\tgood one\n2\t-0.4\tunsure\n3\t-3.0\tbad one\n")
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        _add(archive, "p-1/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    folder = tmp_path / "index"
    (folder / "small-package").mkdir(parents=True)
    (folder / "p-1.tar.gz").write_bytes(outer.getvalue())
    (folder / "small-package" / "index.html").write_text('<a class="x" href="../p-1.tar.gz#sha256=00">p-1.tar.gz</a>')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    yield hashlib.sha256(outer.getvalue()).hexdigest(), folder
    server.shutdown()
    server.server_close()


def _add(archive, name, data):
    item = tarfile.TarInfo(name)
    item.size = len(data)
    archive.addfile(item, io.BytesIO(data))


def test_fetch_checks_the_digest_and_then_needs_no_network(index, monkeypatch, tmp_path):
    sha256, _ = index
    seen = []
    path = fetching.fetch_release_file(
        "Small.Package", "p-1.tar.gz", sha256, lambda done, total: seen.append((done, total))
    )
    assert path.parent == tmp_path / "cache" / "downloads" and seen[-1][0] == seen[-1][1] > 0
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    assert fetching.fetch_release_file("small-package", "p-1.tar.gz", sha256) == path
    path.write_bytes(b"tampered")
    with pytest.raises(DataError, match=r"cannot be reached.*place the file at"):
        fetching.fetch_release_file("small-package", "p-1.tar.gz", sha256)


def test_a_wrong_digest_is_refused_and_nothing_stays(index, tmp_path):
    with pytest.raises(DataError, match="expected ffff"):
        fetching.fetch_release_file("small-package", "p-1.tar.gz", "f" * 64)
    assert not list((tmp_path / "cache" / "downloads").glob("*"))
    with pytest.raises(DataError, match="does not list it"):
        fetching.fetch_release_file("small-package", "p-2.tar.gz", "f" * 64)


def test_conversion_is_checked_too(index, monkeypatch):
    from dataclasses import replace
    from functools import partial

    from softprompt.data.source import release
    from softprompt.data.sources import vader

    sha256, _ = index
    source = replace(
        CATALOGUE["tweets"],
        fetch=release("small-package", "p-1.tar.gz", sha256),
        parse=partial(vader.parse, name="rows.txt"),
    )
    monkeypatch.setitem(CATALOGUE, "tweets", source)
    with pytest.raises(DataError, match="converted to sha256"):
        get_source("tweets")
    rows = [
        {"id": "1", "text": "good one", "label": "positive", "score": 2.5},
        {"id": "3", "text": "bad one", "label": "negative", "score": -3.0},
    ]
    digest = hashlib.sha256("".join(json.dumps(row) + "\n" for row in rows).encode()).hexdigest()
    monkeypatch.setitem(CATALOGUE, "tweets", replace(source, jsonl_sha256=digest))
    assert [row.values for row in read_rows(get_source("tweets"))] == rows
    with pytest.raises(DataError, match="did you mean 'tweets'"):
        get_source("tweet")


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(name for name, source in CATALOGUE.items() if source.labels))
def test_the_real_catalogue(name):
    source = CATALOGUE[name]
    rows = read_rows(get_source(name))
    assert len(rows) == source.rows
    assert {row.values["label"] for row in rows} == set(source.labels)
    assert all((row.values["score"] > 0) == (row.values["label"] == "positive") for row in rows)


def test_one_point_zero_is_no_size():
    data = {"source": "rows.jsonl", "split": {"train": 1.0}}
    with pytest.raises(ConfigError, match=r"split.train: is 1.0, which may be all rows or one; write null"):
        Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], "data": data})


def test_all_columns_that_a_file_lacks_are_named_at_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"body": "a", "dept": "b"}\n', encoding="utf-8")
    task = {
        "name": "t",
        "template": {"input": "{{ message }} {{ topic }}"},
        "verbalizer": ["a", "b"],
        "data": {"columns": {"label": "team", "topic": ["about", "subject"]}},
    }
    with pytest.raises(DataError) as refused:
        Task.load(task).read(str(tmp_path / "rows.jsonl"))
    assert refused.value.problems[0].endswith(
        "rows.jsonl:1: missing column 'team'; missing column 'about' or 'subject'; missing column 'message' (known: body, dept)"
    )
    task["data"] = {}
    assert Task.load(task).check_any({"body": "a"}) == "missing field 'message'; missing field 'topic' (known: body)"
    assert Task.load(task).check_any({"topc": "a", "message": "b"}) == "missing field 'topic' (did you mean 'topc'?)"
