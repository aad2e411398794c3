"""The demo, on a tiny base and few rows; on the bundled one it is run by hand (`make demo`)."""

import shutil
import sys
from pathlib import Path

import pytest
from models import tiny_base

import softprompt as sp
from softprompt.data import Row
from softprompt.errors import MissingExtraError

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def demo(monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("statsmodels")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo

    return demo


@pytest.fixture
def sizes(demo):
    return demo.Sizes({"train": 12, "dev": 4, "test": 10}, {"train": 3, "dev": 1, "test": 2}, 5)


def rows_of(demo):
    """Of each source texts of its own, as many of either label."""

    def row(name, split, place):
        label = ("positive", "negative")[place % 2]
        return Row({"text": f"{label[:3]} {name[:4]} $5 {split} {place}", "label": label}, f"{name}:{split}:{place}")

    return {
        name: {split: [row(name, split, place) for place in range(12)] for split in ("train", "dev", "test")}
        for name in demo.ORIGINS
    }


def test_all_ways_are_measured_once_and_drawn(demo, sizes, tmp_path, monkeypatch, capsys):
    base, rows = tiny_base("llama"), rows_of(demo)
    picture = demo.run(demo.Picture(), base, rows, tmp_path, sizes, fresh=False)
    first = capsys.readouterr().out
    for way in (*demo.WAYS, *demo.ORIGIN_WAYS):
        assert f"\n{way.title} " in first
    assert "infix prompt minus full fine-tuning, row by row: " in first and "(kept)" not in first
    assert "10 rows of two tasks in one batch: 10 get the same answer as alone" in first
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 50_000

    def no_training(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(sp, "train", no_training)
    demo.run(demo.Picture(), base, rows, tmp_path, sizes, fresh=False)
    again = capsys.readouterr().out
    assert again.count("  (kept)\n") == len(demo.WAYS) + len(demo.ORIGIN_WAYS)
    lines = {line for line in first.splitlines() if " points, " in line}
    assert lines and lines <= set(again.splitlines())


def test_what_is_kept_is_that_of_the_same_settings_and_artifact(demo, sizes, tmp_path, capsys):
    base = tiny_base("llama")
    task, some = demo.reviews_task(rows_of(demo)["movie-reviews"], sizes)
    fewer = {**some, "test": some["test"][1:]}
    way, file = demo.WAYS[0], tmp_path / "results.json"

    def is_kept(rows, fresh=False):
        demo.compare(base, task, rows, [way], tmp_path, demo.Store(file, fresh))
        return "  (kept)\n" in capsys.readouterr().out

    assert not is_kept(some) and is_kept(some)
    assert not is_kept(some, fresh=True)
    assert not is_kept(fewer)
    shutil.rmtree(tmp_path / way.method)
    assert not is_kept(fewer) and is_kept(fewer)
    file.write_text("{")
    assert not is_kept(fewer)


def test_a_missing_package_is_told_before_the_base_is_loaded(demo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(sp.Base, "load", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'softprompt\[bench\]'"):
        demo.main()
    assert not (tmp_path / "out").exists()
