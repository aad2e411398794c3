"""The catalogue's translations, address questions, definitions and arithmetic: real packages, checked rows."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest

from softprompt.data import CATALOGUE, get_source, normalize
from softprompt.data.sources import definitions
from softprompt.errors import DataError
from softprompt.metrics import estimate
from softprompt.storage import sha256_file
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
@pytest.mark.parametrize("name", ["address-tags", "entities-zh"])
def test_tagged_words(name):
    rows, task = rows_of(name), Task.load(name)
    assert len(rows) == CATALOGUE[name].rows
    some = rows[:: len(rows) // 1500]
    assert [problem for row in some if (problem := task.check_row(row))] == []
    assert {tag for row in some for tag in task.gold(row)} == set(task.spec.tags)
    if name == "entities-zh":
        spans = Counter(row["text"][one["start"] : one["end"]] for row in rows for one in row["entities"])
        assert spans["中国"] > 1000 and spans["新华社"] > 100
        return
    splits = task.load_data()
    addresses = {part: {row.values["address"] for row in some} for part, some in splits.items()}
    assert sum(map(len, addresses.values())) == len(set().union(*addresses.values())) == 1487


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


# (word, its gloss in data.noun, times that its sense was met in texts)
NOUNS = [
    ("anchor", 'a heavy hook that holds a ship; "they dropped it"', 3),
    ("barrel", "a round vessel of wooden staves", 1),
    ("café", "a small place to eat and drink", 2),
    ("drizzle", "a light and very fine rain", 4),
    ("elbow", "the joint of the upper limb", 9),
    ("ferry", "a boat that carries people across", 2),
    ("goblet", "a glass with a foot and a stem", 0),  # never met
    ("hat", "short gloss", 5),
]


def wordnet(folder, nouns=NOUNS, encoding="utf-8"):
    """A WordNet of these nouns in the format of wndb(5WN), with the licence at the top and a hypernym pointer each."""
    folder.mkdir(exist_ok=True)
    data, index = ["  1 This is a licence.  ", "  2 It has two lines.  "], ["  1 This is a licence.  "]
    for number, (word, gloss, met) in enumerate(nouns):
        offset = f"{1000 + number:08d}"
        data.append(f"{offset} 06 n 02 {word} 0 {word}_thing 0 001 @ 00001000 n 0000 | {gloss}  ")
        index.append(f"{word} n 1 1 @ 1 {int(met > 0)} {offset}  ")
    (folder / "data.noun").write_bytes(("\n".join(data) + "\n").encode(encoding))
    (folder / "index.noun").write_bytes(("\n".join(index) + "\n").encode(encoding))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def told(name="definitions"):
    with pytest.raises(DataError) as caught:
        get_source(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wordnet_of_the_users_own(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(wordnet(tmp_path / "mine")))
    path = get_source("definitions")
    assert path.parent == cache and path.name.startswith("definitions-") and get_source("definitions") == path
    rows = rows_of("definitions")
    assert [row["word"] for row in rows] == ["anchor", "barrel", "café", "drizzle", "elbow", "ferry"]
    assert rows[0]["answer"] == "a heavy hook that holds a ship"
    assert all(row["answer"] in row["choices"] and len(set(row["choices"])) == 4 for row in rows)
    assert len(Task.load("definitions").read("definitions")) == 6
    wordnet(tmp_path / "latin", encoding="latin-1")
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path / "latin"))
    assert rows_of("definitions") == rows and get_source("definitions") != path
    wordnet(tmp_path / "mine", NOUNS[:5])  # changed in place
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path / "mine"))
    assert len(rows_of("definitions")) == 5 and get_source("definitions") != path


def test_a_wordnet_of_the_users_own_and_the_pinned_one_are_kept_apart(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(definitions, "_SYSTEM", wordnet(tmp_path / "system"))
    digests = {name: sha256_file(tmp_path / "system" / name) for name in definitions._FILES}
    monkeypatch.setattr(definitions, "_FILES", digests)
    monkeypatch.delenv("SOFTPROMPT_WORDNET", raising=False)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in definitions.parse(tmp_path / "system"))
    pinned = replace(CATALOGUE["definitions"], jsonl_sha256=hashlib.sha256(content.encode()).hexdigest())
    monkeypatch.setitem(CATALOGUE, "definitions", pinned)
    assert get_source("definitions") == cache / "definitions.jsonl" and len(rows_of("definitions")) == 6
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(wordnet(tmp_path / "mine", NOUNS[:5])))  # not ignored as one is cached
    assert len(rows_of("definitions")) == 5
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path / "nothing"))
    assert "SOFTPROMPT_WORDNET=" in told() and "or unset it" in told()
    monkeypatch.delenv("SOFTPROMPT_WORDNET")
    assert get_source("definitions") == cache / "definitions.jsonl" and len(rows_of("definitions")) == 6


def test_a_system_wordnet_of_another_version_is_not_taken_for_the_pinned_one(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("SOFTPROMPT_WORDNET", raising=False)
    monkeypatch.setattr(definitions, "_SYSTEM", wordnet(tmp_path / "system"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt
    assert "WordNet 3.0 is not on this machine" in told() and "SOFTPROMPT_WORDNET" in told()


@pytest.mark.parametrize(
    "name, line, message",
    [
        ("data.noun", "00001000 06 n zz anchor", "data.noun:3: not a line of WordNet's data files"),
        ("data.noun", "00001000 06", "data.noun:3: not a line of WordNet's data files"),
        ("index.noun", "anchor n", "index.noun:2: not a line of WordNet's data files"),
        ("index.noun", "anchor n 1 1 @ 1 1 00009999", "index.noun:2: sense 00009999 is not in data.noun"),
    ],
)
def test_a_broken_wordnet_is_told_by_its_line(tmp_path, cache, monkeypatch, name, line, message):
    file = wordnet(tmp_path / "mine") / name
    lines = file.read_text("utf-8").splitlines()
    lines[[text.startswith(("anchor", "00001000")) for text in lines].index(True)] = line
    file.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path / "mine"))
    assert message in told() and not list(cache.glob("*"))


def test_a_wordnet_folder_that_gives_nothing(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_WORDNET", str(tmp_path))
    assert "holds no data.noun and index.noun" in told()
    wordnet(tmp_path, NOUNS[:3])  # three distractors are needed
    assert "gives no row of 'definitions'" in told() and not list(cache.glob("*"))


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
