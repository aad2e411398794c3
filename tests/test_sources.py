"""The catalogue's translations, address questions and definitions: real packages, checked rows."""

from __future__ import annotations

import json
import shutil

import pytest

from softprompt.data import CATALOGUE, get_source
from softprompt.data.sources import definitions
from softprompt.errors import DataError
from softprompt.tasks import Task

pytestmark = pytest.mark.real


def rows_of(name):
    return [json.loads(line) for line in get_source(name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("code", ["fr", "de", "es", "zh"])
def test_translations(code):
    rows = rows_of(f"ui-strings-{code}")
    assert len(rows) == CATALOGUE[f"ui-strings-{code}"].rows
    assert all(row["source"] and row["target"] for row in rows)
    assert len({(row["app"], row["source"], row["target"]) for row in rows}) == len(rows)
    assert any("%(" in row["source"] and "%(" in row["target"] for row in rows)  # placeholders stay
    splits = Task.load(f"ui-strings-{code}").load_data()
    assert {row.values["app"] for row in splits["test"]} == {"auth", "admindocs"}
    assert not {row.values["source"] for row in splits["test"]} & {row.values["source"] for row in splits["train"]}
    if code == "zh":
        assert "管理" in "".join(row["target"] for row in rows)


def test_addresses():
    rows = rows_of("addresses")
    assert len(rows) == CATALOGUE["addresses"].rows
    for row in rows:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text and text.strip() == text
    splits = Task.load("addresses").load_data()
    addresses = {name: {row.values["address"] for row in part} for name, part in splits.items()}
    assert not addresses["train"] & addresses["test"] and not addresses["dev"] & addresses["test"]


def test_definitions():
    if not definitions._SYSTEM.is_dir() and shutil.which("apt-get") is None:
        pytest.skip("neither WordNet nor apt on this machine")
    try:
        rows = rows_of("definitions")
    except DataError as error:
        if "apt cannot fetch it" in str(error):
            pytest.skip("Debian's packages cannot be reached")
        raise
    assert len(rows) == CATALOGUE["definitions"].rows
    for row in rows:
        assert row["answer"] in row["choices"] and len(set(row["choices"])) == 4
        assert row["word"][:5] not in row["answer"].lower().split()
    places = [row["choices"].index(row["answer"]) for row in rows]
    assert all(abs(places.count(place) / len(rows) - 0.25) < 0.03 for place in range(4))
    others = [[len(one) for one in row["choices"] if one != row["answer"]] for row in rows]
    longest = sum(len(row["answer"]) > max(rest) for row, rest in zip(rows, others, strict=True)) / len(rows)
    shortest = sum(len(row["answer"]) < min(rest) for row, rest in zip(rows, others, strict=True)) / len(rows)
    assert longest < 0.2 and shortest < 0.2  # length does not give it away


def test_a_wordnet_folder_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path))
    with pytest.raises(DataError, match=r"SOFTPROMPT_WORDNET=.*data.noun and index.noun") as caught:
        definitions.fetch(None)
    assert "\n" not in str(caught.value)
