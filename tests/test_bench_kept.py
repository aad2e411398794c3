"""`bench speed` that is stopped: rows are kept one by one, no process stays, the same command goes on, its time is foretold."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import cli, refused

from softprompt.benchmarks.speed import kept, schedule, sides
from softprompt.benchmarks.speed import main as speed
from softprompt.benchmarks.speed.cases import CASES
from softprompt.benchmarks.speed.grid import METHODS, points
from softprompt.benchmarks.speed.schedule import Schedule, Span, Speed
from softprompt.benchmarks.speed.turns import Turns, interval
from softprompt.errors import ConfigError, DataError
from softprompt.interrupts import Interrupted

HERE = Path(__file__).parent


def row_of(case, **changes):
    """What a case would give."""
    sizes = {
        "prompt_length": case.method.get("length"),
        "batch": case.batch,
        "tokens": case.tokens,
        "text_tokens": 24.0,
    }
    return {
        "name": case.name,
        "peer": case.peer,
        **sizes,
        "our_seconds": 1.0,
        "peer_seconds": 3.0,
        "speedup": 3.0,
        "speedup_interval": (2.9, 3.1),
        "losses_equal": True,
        **changes,
    }


@pytest.fixture
def measured(monkeypatch):
    """Names of the cases that are measured; nothing is really."""
    names = []

    def compare(base, case, turns, progress, peer=True):
        names.append(case.name)
        progress(f"{case.name}, steps", 1, 1)
        return row_of(case)

    monkeypatch.setattr(speed, "compare", compare)
    monkeypatch.setattr(Speed, "measured", staticmethod(lambda base: Speed(1.0, 1.0)))
    return names


BENCH = ("bench", "speed", "--base", "base", "--only", "soft-p20", "--only", "prefix", "--only", "lora")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_same_command_goes_on(measured, monkeypatch, tmp_path, number, code):
    fake = speed.compare

    def stopped(base, case, turns, progress):
        if case.name == "prefix":
            os.kill(os.getpid(), number)
        return fake(base, case, turns, progress)

    with monkeypatch.context() as patch:
        patch.setattr(speed, "compare", stopped)
        done = cli(*BENCH, "--json", "speed.json", cwd=tmp_path)
    assert done.returncode == code
    assert "1 of 3 cases kept in runs/speed; the same command goes on with the others" in done.stderr
    assert "3 cases: about" in done.stderr and "soft-p20: 1 s against 3 s" in done.stderr
    assert [path.name for path in (tmp_path / "runs/speed").iterdir()] == ["rows.json"]
    done = cli(*BENCH, "--json", "speed.json", cwd=tmp_path)
    assert done.returncode == 0 and measured == ["soft-p20", "prefix", "lora"]
    assert "1 case of 3 measured before (runs/speed); 2 left: about" in done.stderr
    assert "2 cases in" in done.stderr and "foretold" in done.stderr
    first = json.loads((tmp_path / "speed.json").read_text())
    done = cli(*BENCH, "--json", "again.json", cwd=tmp_path)
    assert done.returncode == 0 and len(measured) == 3 and "done: 3 cases measured before" in done.stderr
    assert all(name in done.stdout for name in measured)
    assert json.loads((tmp_path / "again.json").read_text()) == first
    done = cli(*BENCH[:6], "--fresh", cwd=tmp_path)
    assert done.returncode == 0 and measured[3:] == ["soft-p20"] and "lora" not in done.stdout


def test_rows_of_other_settings_are_refused(measured, monkeypatch, tmp_path):
    assert cli(*BENCH[:6], cwd=tmp_path).returncode == 0
    other_steps = (
        "soft-p20 was measured with another number of steps (then 3 to 7, now 2); use another --out, or --fresh"
    )
    refused(cli(*BENCH, "--steps", 2, cwd=tmp_path), other_steps)
    assert (
        cli(*BENCH[:4], "--only", "lora", "--steps", 2, cwd=tmp_path).returncode == 0
    )  # another row of the same folder
    refused(
        cli("bench", "speed", "--only", "lora", "--steps", 2, "--base", "more", cwd=tmp_path), "another base (then base"
    )
    assert cli(*BENCH[:6], "--steps", 2, "--fresh", cwd=tmp_path).returncode == 0
    monkeypatch.setattr(kept, "_digest_of_code", lambda: "other")
    refused(cli(*BENCH[:6], "--steps", 2, cwd=tmp_path), "other code")
    assert measured == ["soft-p20", "lora", "soft-p20"]
    (tmp_path / "runs/speed/rows.json").write_text("[]")
    refused(cli(*BENCH, cwd=tmp_path), "is damaged")


def test_what_differs_is_said():
    settings = kept.settings_of("base", "base", "3", {"torch": "2"})
    assert kept._difference(settings, settings) == ""
    there = {**settings, "machine": {**settings["machine"], "threads": 64}}
    assert kept._difference(there, settings).startswith("another threads (then 64, now ")
    assert kept._difference({**settings, "versions": {"torch": "1"}}, settings) == "another torch (then 1, now 2)"
    there = {**settings, "code": "0", "commit": "a" * 40}
    assert kept._difference(there, {**settings, "commit": "b" * 40}) == "other code (commit aaaaaaaaaa, now bbbbbbbbbb)"
    assert kept._difference({**settings, "code": "0"}, settings) == "other code, not committed"


def test_a_case_whose_losses_differ_is_measured_again(measured, monkeypatch, tmp_path):
    none = {"our_seconds": None, "peer_seconds": None, "speedup": None, "speedup_interval": None, "losses_equal": False}
    with monkeypatch.context() as patch:
        patch.setattr(speed, "compare", lambda base, case, *rest: row_of(case, **none))
        refused(cli(*BENCH[:6], cwd=tmp_path), "losses differ where they must be equal: soft-p20")
    assert cli(*BENCH[:6], cwd=tmp_path).returncode == 0 and measured == ["soft-p20"]


def test_a_grid_goes_on(measured, monkeypatch, tmp_path):
    """What is kept feeds the forecast as what is measured does; a peer that was left out is still said."""
    from softprompt.benchmarks.speed import grid

    memory = {"our_peak_gb": 1.0, "our_loaded_gb": 1.0, "peer_peak_gb": 2.0, "peer_loaded_gb": 1.0}
    more = {**memory, "our_cpu_seconds": 1.0, "peer_cpu_seconds": 1.0}
    asked = []

    def compare(base, case, turns, progress, peer=True):
        asked.append((case.name, peer))
        if len(asked) == 3:
            raise Interrupted(signal.SIGTERM)
        alone = {} if peer else {"peer_seconds": None, "peer_peak_gb": None, "speedup": None}
        return row_of(case, **{**more, **alone})

    monkeypatch.setattr(grid, "compare", compare)
    monkeypatch.setattr(grid, "free_gigabytes", lambda: 5.0)
    arguments = {"only": ["soft"], "grid": "P=5,20,100 B=8 T=30", "folder": tmp_path}
    with pytest.raises(Interrupted, match=r"SIGTERM; 2 of 3 cases kept in .*; the same command goes on"):
        speed.main("base", **arguments)
    found = speed.main("base", **arguments)
    assert asked == [("soft P=5 B=8 T=30", True), ("soft P=20 B=8 T=30", True), *[("soft P=100 B=8 T=30", False)] * 2]
    assert found["left_out"] == ["soft P=100 B=8 T=30, PEFT prompt tuning, P=100: it would take about 4 GB of 5"]
    again = speed.main("base", **arguments)
    assert len(asked) == 4 and again["left_out"] == found["left_out"]
    assert (
        again["rows"] == json.loads(json.dumps(found["rows"]))
        and len(again["rows"]) == 3
        and again["rows"][2]["peer_seconds"] is None
    )


def test_turns_end_when_the_interval_is_narrow():
    turns = Turns.of(None)
    assert not turns.enough([2.0, 2.0]) and turns.enough([2.0, 2.01, 1.99]) and not turns.enough([2.0, 3.0, 1.5])
    assert turns.enough([2.0, 3.0] * 4) and str(turns) == "3 to 7"
    fixed = Turns.of(2)
    assert str(fixed) == "2" and not fixed.enough([1.0]) and fixed.enough([1.0, 9.0])
    assert interval([2.0]) is None
    low, high = interval([1.0, 2.0, 4.0])
    assert math.sqrt(low * high) == pytest.approx(2.0)
    assert math.log(high / 2) == pytest.approx(4.302653 * math.log(2) / math.sqrt(3))  # t of two degrees of freedom


def test_what_was_measured_corrects_what_is_left():
    now = [0.0]
    left = Schedule({"a": Span(10, 20), "b": Span(30, 60), "c": Span(10, 20)}, lambda: now[0])
    assert left.left() == Span(50, 100)
    left.begin("a")
    now[0] = 5.0
    assert left.left() == Span(45, 95)
    left.done("a", 30.0)  # twice as long as foretold
    assert left.left() == Span(80, 160) and left.left().middle == 120 and left.names == ["b", "c"]
    left.begin("b")
    now[0] += 100.0  # longer than even that: the rest takes longer as well
    assert left.left().least == pytest.approx((30 + 100) / (15 + 45) * 10)  # of c
    left.drop("c")
    left.done("b", 100.0)
    assert left.left() == Span(0, 0)
    assert [schedule.in_words(seconds) for seconds in (0, 40, 570, 4800)] == ["1 s", "40 s", "10 min", "80 min"]
    assert schedule.in_words(6000) == "1 h 40 min"


def test_the_standard_cases_take_ten_minutes_or_more():
    """On the machine whose seconds are recorded."""
    spans = speed._spans({}, speed._measures("base", None, None, None), None, Speed(1.0, 1.0))
    assert sum(span.least for span in spans.values()) <= 600
    largest = next(points("soft", {"P": (20,), "B": (16,), "T": (300,)}))
    like = schedule.of_case(METHODS["soft"], Turns(1, 1), Speed(1.0, 1.0))
    longer = schedule.of_case(largest, Turns(1, 1), Speed(1.0, 1.0), METHODS["soft"])
    fixed = schedule.READY + 2 * schedule.PEAK
    assert (longer.least - fixed) / (like.least - fixed) == pytest.approx((300 + 20) / (30 + 20))
    assert 0.1 < Speed.measured("no folder").step < 1000
    assert {case.name for case in CASES} <= set(schedule.RECORDED)


@pytest.fixture
def slow(monkeypatch, tmp_path, request):
    """Sides that take long, in a folder of their own; forked (forked.py), or interpreters as a user has them."""
    if not getattr(request, "param", False):
        request.getfixturevalue("forks")
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.chdir(tmp_path)


def wait_until(what, seconds=120.0):
    """Poll; a machine that others use may take long to start a process."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def workers(but=0):
    """Processes that are at work here."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cwd").resolve() == Path.cwd() and int(path.name) not in (os.getpid(), but):
                found.append(path.name)
    return found


COMMAND = """
from softprompt.benchmarks.speed.sides import Side
with Side("slow_side") as side:
    side.set_up({})
    side.step()
"""


def signal_when(file, number):
    """Send this process a signal as soon as there is such a file."""
    code = (
        f"import os, time\nwhile not os.path.exists({file!r}): time.sleep(.05)\nos.kill({os.getpid()}, {int(number)})"
    )
    return subprocess.Popen([sys.executable, "-S", "-c", code])


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
def test_ctrl_c_in_a_step_leaves_no_process(slow, monkeypatch, tmp_path):
    monkeypatch.setattr(sides, "OURS", "slow_side")
    monkeypatch.setattr(sides, "PEERS", "slow_side")
    monkeypatch.setattr(sides, "rows_for", lambda tokens, count: [])
    with signal_when("stepping", signal.SIGINT):
        done = cli(*BENCH[:6], cwd=tmp_path)
    assert done.returncode == 130 and not workers()
    last = "0 of 1 case kept in runs/speed; the same command goes on with the others"
    assert done.stderr.splitlines()[-1] == f"ended by Ctrl-C; {last}"


def test_a_stop_while_a_side_sets_up_ends_it(slow):
    def stop(number, frame):
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with signal_when("setting-up", signal.SIGTERM), pytest.raises(Interrupted), sides.Side("slow_side") as side:
            side.set_up({"sets_up_slowly": True})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert side.process.poll() == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.full)], indirect=True)
def test_a_killed_command_leaves_no_process(slow):
    """The worker looks every two seconds whether its parent is there, also in the middle of a step."""
    process = subprocess.Popen([sys.executable, "-c", COMMAND])
    try:
        wait_until(Path("stepping").exists)
        assert len(workers(but=process.pid)) == 1
    finally:
        process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    wait_until(lambda: not workers(), 20)


def test_two_commands_at_a_time_are_refused(measured, tmp_path):
    from softprompt.holding import held

    folder = tmp_path / "runs/speed"
    code = f"import fcntl, os, sys; h = os.open({str(folder)!r}, 0); fcntl.flock(h, 2); print(1, flush=True); sys.stdin.read()"
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        refused(cli(*BENCH, cwd=tmp_path), "another run is at work here")
        other.stdin.close()
    with held(folder, ""):
        assert not measured


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "rows.json").write_text('{"format": 2, "rows": {}}')
    with pytest.raises(DataError, match="or is damaged"):
        speed.main("base", only=["lora"], folder=tmp_path)
    with pytest.raises(ConfigError, match="no case"):
        speed.main("base", only=["lor"], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_configuration_is_another_base(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    digest = kept._files_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert digest and kept._files_of(tmp_path) != digest and kept._files_of(tmp_path / "none") is None
