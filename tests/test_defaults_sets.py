"""Data sets made from git repositories: cleaning, digests, and what is said where something is missing. No network."""

import dataclasses
import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from softprompt.benchmarks.defaults import records
from softprompt.benchmarks.defaults.__main__ import main
from softprompt.benchmarks.defaults.sets import clones, parsers
from softprompt.benchmarks.defaults.sets.cleaning import MAX_ROWS, as_csv, count_words, draw, keep
from softprompt.benchmarks.defaults.sets.clones import Repository, open_clone
from softprompt.benchmarks.defaults.sets.entries import ENTRIES, SetEntry
from softprompt.errors import DataError
from softprompt.storage import digest_of

ROOT = Path(__file__).parents[1]
FILE = "HUM:ind Who  wrote it ?\nLOC:other Where is caf\xe9 X ?\nHUM:ind Who wrote it ?\n".encode("latin-1")
MADE = "text,label\r\nWho wrote it ?,human\r\nWhere is café X ?,location\r\n".encode()


def git(folder, *arguments):
    own = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env=own
    ).stdout.strip()


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A repository of two commits in the place of GitHub; its newer commit has other files."""
    folder = tmp_path / "host" / "owner" / "name"
    (folder / "data/raw").mkdir(parents=True)
    git(folder, "init", "--quiet")
    for split, content in (("train", FILE), ("test", b"")):
        (folder / f"data/raw/TREC.{split}").write_bytes(content)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "data/raw/TREC.train").write_bytes(b"NUM:date When ?\n")
    git(folder, "commit", "--quiet", "-am", "second")
    monkeypatch.setattr(clones, "HOST", (tmp_path / "host").as_uri())
    return Repository("owner/name", commit)


@pytest.fixture
def entry(origin, monkeypatch):
    """The only set: questions of that repository."""
    only = SetEntry("questions", "judge", origin, parsers.trec, "free for all", hashlib.sha256(MADE).hexdigest())
    monkeypatch.setattr("softprompt.benchmarks.defaults.sets.make.ENTRIES", {"questions": only})
    return only


def make(tmp_path, *arguments):
    return main(["sets", str(tmp_path / "sets"), "--clones", str(tmp_path / "clones"), *arguments])


def test_rows_are_cleaned():
    rows = [
        ("  one\ttext\n", " a  label "),
        ("one text", "a label"),
        ("said twice", "yes"),
        ("said  twice", "no"),
        ("said twice", "yes"),
        (" ", "yes"),
        ("no label", " "),
        ("w " * 120, "fits"),
        ("w " * 121, "long"),
        ("字" * 120, "fits"),
        ("字" * 121, "long"),
    ]
    assert keep(rows) == [("one text", "a label"), ("w " * 119 + "w", "fits"), ("字" * 120, "fits")]


def test_a_chinese_character_is_a_word():
    assert count_words("two words") == 2 and count_words("苹果发布 iPhone 5了") == 7


def test_few_rows_stay_and_of_many_the_same_are_drawn():
    rows = [(f"text {number}", "label") for number in range(MAX_ROWS + 1)]
    assert draw(rows[:-1]) == rows[:-1]
    assert len(set(draw(rows))) == MAX_ROWS and draw(rows) == draw(rows) and set(draw(rows)) < set(rows)


def test_a_file_quotes_what_needs_it():
    assert as_csv([('a "b", c', "é")]) == 'text,label\r\n"a ""b"", c",é\r\n'.encode()


def test_a_set_is_made_from_the_recorded_commit_and_once(tmp_path, entry, capsys):
    assert make(tmp_path) == 0
    path = tmp_path / "sets/judge/questions.csv"
    assert path.read_bytes() == MADE
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"fetching {clones.HOST}/owner/name at {entry.repository.commit}",
        f"{path}: 2 rows, 2 labels, from owner/name at {entry.repository.commit}",
        "  licence: free for all",
    ]
    clone = tmp_path / "clones/owner/name"
    assert git(clone, "rev-list", "--count", entry.repository.commit) == "1" and not (clone / "data").exists()
    made = path.stat().st_mtime_ns
    assert make(tmp_path) == 0 and path.stat().st_mtime_ns == made
    assert "is there already" in capsys.readouterr().out
    path.unlink()
    assert make(tmp_path) == 0 and path.read_bytes() == MADE
    assert "fetching" not in capsys.readouterr().out


def test_a_clone_with_files_checked_out_serves_too(tmp_path, entry):
    (tmp_path / "host").rename(tmp_path / "clones")
    assert make(tmp_path) == 0 and (tmp_path / "sets/judge/questions.csv").read_bytes() == MADE


def test_another_digest_is_an_error_that_names_both(tmp_path, entry, capsys, monkeypatch):
    other = dataclasses.replace(entry, sha256="0" * 64)
    monkeypatch.setattr("softprompt.benchmarks.defaults.sets.make.ENTRIES", {"questions": other})
    assert make(tmp_path) == 2
    said = capsys.readouterr().err
    assert f"questions: gives a file with sha256 {entry.sha256}, recorded is {'0' * 64}" in said
    assert not (tmp_path / "sets").exists()


def test_a_file_of_another_origin_is_not_replaced(tmp_path, entry, capsys):
    path = tmp_path / "sets/judge/questions.csv"
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    assert make(tmp_path) == 2 and path.read_text(encoding="utf-8") == "mine"
    said = capsys.readouterr().err
    assert hashlib.sha256(b"mine").hexdigest() in said and entry.sha256 in said and "move the file away" in said


def test_missing_git_is_said(tmp_path, entry, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make(tmp_path) == 2
    assert capsys.readouterr().err == f"error: {clones.GIT_MISSING}\n"
    assert not list((tmp_path / "clones").rglob("*name*"))


def test_a_host_that_does_not_answer_is_said(tmp_path, entry, capsys):
    (tmp_path / "host").rename(tmp_path / "gone")
    assert make(tmp_path) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be fetched (" in said and "connect to the network" in said
    assert f"or clone the repository to {tmp_path / 'clones/owner/name'}" in said
    assert not list((tmp_path / "clones").rglob("*name*"))


def test_a_clone_without_the_commit_or_the_file_is_refused(tmp_path, origin):
    folder = tmp_path / "clones"
    clone = open_clone(origin, folder, print)
    with pytest.raises(DataError, match=f"holds no data/none at commit {origin.commit}"):
        clone.text("data/none")
    with pytest.raises(DataError, match=r"no clone of owner/name with the commit 1{40}; fetch the commit there"):
        open_clone(Repository(origin.name, "1" * 40), folder, print)


def test_a_wrong_name_is_refused(tmp_path, capsys):
    assert make(tmp_path, "--only", "trek") == 2
    assert "no set 'trek' (did you mean 'trec'?)" in capsys.readouterr().err


def test_measured_records_are_of_the_recorded_files():
    made = records.read_all(ROOT / "benchmarks/results/defaults")
    assert {record.task for record in made} == {name for name, entry in ENTRIES.items() if entry.group == "judge"}
    for record in made:
        sizes = {"rows": record.rows["train"], "test": record.rows["test"]}
        expected = {"data": ENTRIES[record.task].sha256, "contender": record.settings, **sizes}
        assert record.digest == digest_of(expected), (record.task, record.contender, record.seed)


def test_the_documentation_lists_every_set():
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    for name, entry in ENTRIES.items():
        use = {"judge": "judged", "tune": "tuned"}[entry.group]
        line = re.search(rf"^\| {name}(?: \([^|]*\))? \| {use} \|.*$", text, re.MULTILINE)
        assert line, name
        assert f"{entry.repository.name} {entry.repository.commit[:7]}" in line[0] and f"| {entry.licence} |" in line[0]
