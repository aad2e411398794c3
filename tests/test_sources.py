"""The catalogue's translations, address questions, definitions and arithmetic: real packages, checked rows."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from fractions import Fraction

import pytest

from softprompt.data import CATALOGUE, get_source, normalize
from softprompt.data.sources import definitions
from softprompt.errors import DataError
from softprompt.metrics import estimate
from softprompt.tasks import Task

real = pytest.mark.real


def rows_of(name):
    return [json.loads(line) for line in get_source(name).read_text("utf-8").splitlines()]


@real
@pytest.mark.parametrize("code", ["fr", "de", "es", "zh"])
def test_translations(code):
    rows = rows_of(f"ui-strings-{code}")
    assert len(rows) == CATALOGUE[f"ui-strings-{code}"].rows
    assert all(row["source"] and row["target"] for row in rows)
    assert len({(row["app"], row["source"], row["target"]) for row in rows}) == len(rows)
    assert any("%(" in row["source"] and "%(" in row["target"] for row in rows)  # placeholders stay
    splits = Task.load(f"ui-strings-{code}").load_data()
    assert {row.values["app"] for row in splits["test"]} == {"auth", "admindocs"}
    texts = {name: {normalize(row.values["source"]) for row in part} for name, part in splits.items()}
    assert not texts["test"] & (texts["train"] | texts["dev"])
    # all texts of these apps are there, those too that stand in the rest
    assert texts["test"] == {normalize(row["source"]) for row in rows if row["app"] in ("auth", "admindocs")}
    if code == "zh":
        assert "管理" in "".join(row["target"] for row in rows)


@real
def test_addresses():
    rows = rows_of("addresses")
    assert len(rows) == CATALOGUE["addresses"].rows
    for row in rows:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text and text.strip() == text
    splits = Task.load("addresses").load_data()
    addresses = {name: {row.values["address"] for row in part} for name, part in splits.items()}
    assert not addresses["train"] & addresses["test"] and not addresses["dev"] & addresses["test"]


@real
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


_OPERATORS = {"plus": "+", "times": "*", "divided by": "/"}


def worked_out(question):
    """The answer, by reading what the question says and having Python work it out; another way than it was made."""
    numbers = [int(text) for text in re.findall(r"-?\d+", question)]
    if question.startswith(("Put", "Sort")):
        return ", ".join(map(str, sorted(numbers, reverse="decreasing" in question or "descending" in question)))
    if found := re.fullmatch(r"Solve (.+) = (.+) for (\w)\.", question):
        left, right, name = found.groups()
        at = [Fraction(eval(left, {name: Fraction(x)})) for x in (0, 1)]  # a line: its value at 0, and its slope
        return str((int(right) - at[0]) / (at[1] - at[0]))
    if "remainder" in question:
        return str(numbers[0] % numbers[1])
    for pattern, operator in (
        ("Add (.+) and (.+)", "+"),
        ("Multiply (.+) and (.+)", "*"),
        ("Divide (.+) by (.+)", "/"),
    ):
        if found := re.fullmatch(pattern + r"\.", question):
            return str(Fraction(eval(f"Fraction({found[1]}) {operator} ({found[2]})")))
    if found := re.fullmatch(r"Subtract (.+) from (.+)\.", question):
        return str(int(found[2]) - int(found[1]))
    text = re.fullmatch(r"(?:What is|Calculate|Work out) (.+)[.?]", question)[1]
    for word, operator in _OPERATORS.items():
        text = text.replace(word, operator)
    return str(Fraction(eval(re.sub(r"^(-?\d+)", r"Fraction(\1)", text))))


def test_arithmetic(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")  # nothing is fetched
    rows = rows_of("arithmetic")
    assert len(rows) == CATALOGUE["arithmetic"].rows and set(rows[0]) == set(CATALOGUE["arithmetic"].fields)
    for row in rows:
        assert row["answer"] == worked_out(row["question"]), row
    assert len(set(Counter(row["kind"] for row in rows).values())) == 1
    assert len({row["question"] for row in rows}) == len(rows)
    # nor is a problem given again in other words: what has the same numbers asks for something else, or in another order
    symmetric = {"add", "multiply", "sort"}
    problems = set()
    for row in rows:
        numbers = [int(text) for text in re.findall(r"-?\d+", row["question"].replace("- ", "-"))]
        if row["question"].startswith("Subtract"):
            numbers.reverse()
        problems.add((row["kind"], *(sorted(numbers) if row["kind"] in symmetric else numbers), row["answer"]))
    assert len(problems) == len(rows)
    before = (tmp_path / "data" / "arithmetic.jsonl").read_bytes()
    (tmp_path / "data" / "arithmetic.jsonl").write_bytes(before[:-1])  # another content is never trusted
    assert get_source("arithmetic").read_bytes() == before


def test_arithmetic_that_would_change_is_refused(tmp_path, monkeypatch):
    from softprompt.data.sources import arithmetic

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    monkeypatch.setattr(arithmetic, "_EACH", 10)
    with pytest.raises(DataError, match="arithmetic: converted to sha256"):
        get_source("arithmetic")


def test_the_arithmetic_task(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    task = Task.load("arithmetic")
    splits = task.load_data()
    assert {name: len(part) for name, part in splits.items()} == {"train": 512, "dev": 128, "test": 500}
    assert (task.left_out.copies, task.left_out.contradicting) == (0, 0)
    assert estimate(task.spec.metric, [["-7"], ["1, 2"]], ["7", "1,  2"]).value == 0.5  # a sign counts
