"""What the command line shows, and how it ends: whatever the terminal, the signal or the mistake."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import warnings

import pytest
from rich.table import Table

from softprompt import interrupts, storage
from softprompt.cli import console, ending, streams
from softprompt.errors import ConfigError, DataError, SoftpromptError, visible_controls
from softprompt.parallel import Several


@contextlib.contextmanager
def stream(encoding: str):
    """Stdout as a stream of this encoding, made safe; yields what gives its text."""
    kept, held = sys.stdout, io.BytesIO()
    sys.stdout = io.TextIOWrapper(held, encoding=encoding, write_through=True)
    sys.stdout.isatty = lambda: encoding != "utf-8"
    try:
        streams.make_streams_safe()
        yield lambda: held.getvalue().decode(sys.stdout.encoding)
    finally:
        sys.stdout = kept


@pytest.mark.parametrize(
    "encoding, shown",
    [("latin-1", "café ? caf\\udce9 ?"), ("ascii", "caf? ? caf\\udce9 ?"), ("utf-8", "café … caf\\udce9 中")],
)
def test_output_goes_through_on_any_terminal(encoding, shown):
    with stream(encoding) as text:
        print("café … caf\udce9 中")
        assert text() == shown + "\n"


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\u2028", "\x7f"])
def test_a_strangers_text_cannot_steer_the_terminal(char):
    table, file = Table("name"), io.StringIO()
    table.add_row(f"in a cell {char}[31m")
    console = streams.VisibleConsole(file=file, markup=False, width=100)
    console.print(f"a line {char}[31m")
    console.print(table)
    assert char not in file.getvalue() and file.getvalue().count(repr(char)[1:-1]) == 2
    assert streams.visible_line(f"a\n{char}b").isprintable()
    assert visible_controls("two\nlines\tand 中文") == "two\nlines\tand 中文"


class Writes(io.StringIO):
    """A stream without a buffer, as `python -u` has it: each `write` goes out by itself."""

    def __init__(self):
        super().__init__()
        self.each = []

    def write(self, text: str) -> int:
        self.each.append(text)
        return len(text)


@pytest.mark.parametrize("error", [DataError("bad"), ConfigError("bad"), KeyError("x"), KeyboardInterrupt()])
def test_no_other_processs_lines_get_into_a_line(error, monkeypatch):
    """Under `torchrun` streams have no buffer: half a line of one process could have another's behind it."""
    stderr = Writes()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "__stderr__", stderr)
    with pytest.raises(SystemExit):
        raising(error)
    console._PlainLines()("training", 1, 2)
    console._PlainLines()("training", 2, 2)
    assert len(stderr.each) >= 3 and all(text.endswith("\n") for text in stderr.each), stderr.each
    assert isinstance(error, KeyError) == any(text.startswith("Traceback") for text in stderr.each)


def raising(error: BaseException):
    with ending.ended():
        raise error


@pytest.mark.parametrize(
    "error, code, line",
    [
        (SoftpromptError("no\x1b such"), 2, "error: no\\x1b such"),
        (OSError(28, "No space left on device", "runs/a"), 2, "error: runs/a: No space left on device"),
        (MemoryError(), 2, "error: out of memory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2, "error: a text that cannot be"),
        (RecursionError("too deep"), 1, "error: RecursionError: this is a bug in softprompt; please report"),
        (KeyError("x"), 1, "error: KeyError: this is a bug in softprompt; please report"),
        (KeyboardInterrupt(), 130, "ended by Ctrl-C"),
        (interrupts.Interrupted(signal.SIGTERM), 143, "ended by SIGTERM"),
        (interrupts.Interrupted(signal.SIGTERM, "goes on from step 3"), 143, "ended by SIGTERM; goes on from step 3"),
    ],
)
def test_every_end_is_one_line_and_a_code(error, code, line, capsys):
    with pytest.raises(SystemExit) as stop:
        raising(error)
    assert stop.value.code == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)


def test_many_problems_are_not_all_shown(capsys):
    with pytest.raises(SystemExit):
        raising(DataError("60 rows", [f"rows.csv:{line}: bad" for line in range(60)]))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 52 and lines[50] == "… and 10 more" and lines[51] == "error: 60 rows"


def test_the_version_is_told(capsys, monkeypatch):
    from softprompt.cli import main

    monkeypatch.setattr(sys, "argv", ["softprompt", "--version"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("softprompt ")


def test_without_a_home_only_the_cache_is_missing(monkeypatch, tmp_path):
    from softprompt.base.bundled import list_bases
    from softprompt.engine.cache import RowCache

    def nowhere(self):
        raise RuntimeError("Could not determine home directory.")

    for name in ("SOFTPROMPT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", nowhere)
    with pytest.raises(SoftpromptError, match="SOFTPROMPT_CACHE"):
        storage.cache_dir()
    assert not any(there for _, there in list_bases())
    import torch

    cache = RowCache((0, 4), torch.float32)
    cache.put((1, 2), torch.ones(2, 4))  # in memory
    assert cache.get((1, 2)).sum() == 8
    with pytest.raises(SoftpromptError, match="SOFTPROMPT_CACHE"):
        RowCache((0, 4), torch.float32, ram=0).put((1, 2), torch.ones(2, 4))


def test_a_cache_folder_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    import torch

    from softprompt.engine.cache import RowCache

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(SoftpromptError, match=r"file/rows: cannot be written .*SOFTPROMPT_CACHE.*cache\.ram_gb"):
        RowCache((0, 4), torch.float32, ram=0).put((1, 2), torch.ones(2, 4))
    with pytest.raises(SoftpromptError, match="set SOFTPROMPT_CACHE to another folder"):
        storage.write_text(storage.cache_dir() / "data" / "x.jsonl", "")


def test_a_warning_is_one_line_without_a_place_in_the_code(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with stream("utf-8"), warnings.catch_warnings():
        warnings.simplefilter("always")
        sys.stderr.write(warnings.formatwarning("trained before\nsay \x1b[1m", UserWarning, "/some/where.py", 7))
    assert capsys.readouterr().err == "warning: trained before\\nsay \\x1b[1m\n"


def test_json_that_is_shown_is_the_same_json():
    value = {"a\u202e": ["\x1b[2J\n", "\x9b", "中文 é", "\U000e0001"]}
    text = streams.visible_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert all(line.isprintable() for line in text.split("\n")) and "中文 é" in text
    assert json.loads(text) == value


def test_closed_streams_are_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    streams.make_streams_safe()
    assert sys.stdout.write("x") == 1 and not sys.stderr.isatty()


def test_a_world_of_processes_that_nobody_started_is_one_line(monkeypatch):
    accelerate = pytest.importorskip("accelerate")

    def refuse(**how):
        raise ValueError("Tried to launch on distributed with multinode, but `MASTER_ADDR` env was not set")

    monkeypatch.setattr(accelerate, "PartialState", refuse)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, but .*MASTER_ADDR.*unset WORLD_SIZE"):
        Several()


def test_work_goes_on_where_nobody_reads_its_progress(monkeypatch, capfd):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    with console.progress() as show:
        show("training", 1, 2)
        console.err.print("a notice")
        show("training", 2, 2)
    with pytest.raises(SystemExit) as stop:
        raising(ConfigError("nobody reads this"))
    assert stop.value.code == 2
    monkeypatch.setattr(sys, "__stderr__", Closed())
    with pytest.raises(SystemExit) as stop:
        raising(KeyError("nor its traceback"))
    assert stop.value.code == 1
    monkeypatch.undo()
    with console.progress() as show:
        show("training", 1, 2)
    assert "training: 1/2" in capfd.readouterr().err
