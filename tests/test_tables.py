"""Tables as people have them: other encodings and delimiters are read and told, bad rows are left out on request."""

from __future__ import annotations

import pytest
from helpers import tiny_task

from softprompt.data import read_rows
from softprompt.errors import DataError

ROWS = [{"text": "Größe passt – danke", "label": "a"}, {"text": "trop cher, à rendre", "label": "b"}]
PLAIN = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)


def read(path, data):
    told = []
    path.write_bytes(data)
    return [row.values for row in read_rows(path, notice=told.append)], told


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, coding):
    rows, told = read(tmp_path / "rows.csv", PLAIN.encode(coding))
    assert rows == ROWS
    assert [":2: is not UTF-8; read as cp1252" in line for line in told] == [True] * (coding == "cp1252")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode("cp1252") + b"\x81,a\n",  # what cp1252 does not define
        PLAIN.encode() + b"\xe9t\xe9,a\n",  # UTF-8 but for one line
        "text,label\nпривет,a\nмир,b\n".encode("cp1251"),
    ],
)
def test_what_is_neither_is_told_by_its_line(tmp_path, data):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "rows.csv", data)
    assert caught.value.problems and all("not valid UTF-8" in line for line in caught.value.problems)


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"), (",", None)])
def test_what_stands_between_cells_is_told_where_it_is_no_comma(tmp_path, sign, name):
    text = sign.join(("text", "label")) + "\n" + "".join(f'"{row["text"]}"{sign}{row["label"]}\n' for row in ROWS)
    rows, told = read(tmp_path / "rows.csv", text.encode())
    assert rows == ROWS and [name in line for line in told] == [True] * (name is not None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id;text, long;label\n1;a;b\n2;c, d;e\n", ["id", "text, long", "label"]),
        ("text,kind (a;b)\nx,a\ny,b\n", ["text", "kind (a;b)"]),
        ("yes|no\nx\ny\n", ["yes|no"]),
    ],
)
def test_a_sign_in_a_name_stands_between_no_cells(tmp_path, text, names):
    assert list(read(tmp_path / "rows.csv", text.encode())[0][0]) == names


def test_bad_rows_are_left_out_on_request(tmp_path):
    lines = [f"text {k},{'ab'[k % 2]}" for k in range(20)]
    lines[3], lines[5], lines[7], lines[9] = ",a", "text 5,", "one,two,three", "text 9,c"
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    data = {"source": str(tmp_path / "rows.csv")}
    with pytest.raises(DataError, match=r"4 of 20 rows cannot be used; .*data\.on_bad_rows: skip") as caught:
        tiny_task(data=data, verbalizer=["a", "b"]).load_data()
    assert [line.split(":")[1] for line in caught.value.problems] == ["5", "7", "9", "11"]
    task = tiny_task(data=data | {"on_bad_rows": "skip"}, verbalizer=["a", "b"])
    assert sum(map(len, task.load_data().values())) == 16 and task.left_out.unusable == 4
    told = task.notices[0]
    assert "left out: 4 rows that cannot be used (e.g. " in told and "rows.csv:5: field 'text' is empty" in told
    with pytest.raises(DataError, match="20 of 20 rows cannot be used, too many"):
        tiny_task(data=data | {"on_bad_rows": "skip"}, verbalizer=["x", "y"]).load_data()


def test_a_key_that_says_nothing_is_in_no_digest():
    assert "on_bad_rows" not in tiny_task().spec.model_dump(mode="json")["data"]
    assert tiny_task(data={"on_bad_rows": "skip"}).spec.model_dump(mode="json")["data"]["on_bad_rows"] == "skip"
