"""Processes that start at once: forked by a server that has torch, transformers and softprompt loaded.

A fresh interpreter takes seconds of a processor to load them. What a forked process does is real: its own process id,
signals, exit code, streams, folder and environment. What is about the start of an interpreter (encodings, imports, how
it is found) is no matter for this module. The server is one of multiprocessing's, a process that does nothing else, so
no thread and no gradient of the tests is in it.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

import psutil

TESTS = Path(__file__).parent
LOADED = ["parallel_worker", "softprompt.cli", "softprompt.training", "softprompt.doctor", "peft", "accelerate"]
LOADED += ["torch.distributed.launcher.api", "torch.distributed.fsdp"]
CONTEXT = multiprocessing.get_context("forkserver")


@functools.cache
def server() -> psutil.Process:
    """The server, started by the first who asks."""
    before = {child.pid for child in psutil.Process().children()}
    kept = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    try:
        CONTEXT.set_forkserver_preload(LOADED)
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    new = [child for child in psutil.Process().children() if child.pid not in before]
    return next(child for child in new if any("forkserver" in word for word in child.cmdline()))


def cpu_seconds() -> float:
    """Of a processor, that all forked processes that ended have taken, their children's too; the server's own not."""
    if not server.cache_info().currsize:
        return 0.0
    times = server().cpu_times()
    return times.children_user + times.children_system


class Forked:
    """A process, with as much of `subprocess.Popen` as the tests need.

    Args:
        command: as behind `python`: `-m MODULE ARGUMENT …` or `SCRIPT ARGUMENT …`.
        cwd: its folder.
        env: its environment; by default ours.
    """

    def __init__(self, command: Sequence[object], cwd: Path | str = ".", env: Mapping[str, str] | None = None) -> None:
        server()
        self.args = [str(word) for word in command]
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        arguments = (self.args, str(cwd), dict(os.environ if env is None else env), *self._streams)
        self._process = CONTEXT.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of a `Popen`: negative of the signal that ended it; None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait; what it wrote."""
        self.wait(timeout)
        return self.stdout, self.stderr

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._read(0)

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._read(1)

    def _read(self, stream: int) -> str:
        path = Path(self._streams[stream])
        return path.read_text(encoding="utf-8") if path.exists() else ""


def run(command: Sequence[object], cwd: Path | str = ".", timeout: float = 240, **options) -> Forked:
    """A process that has ended; after `timeout` seconds it is killed, and an error says so."""
    process = Forked(command, cwd, **options)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process


def _run(command: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Become what was asked for: in a session of its own."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # multiprocessing's server ignores it
    sys.exit(execute(command))


def execute(command: list[str]) -> int:
    """Do in this process what `python COMMAND` does in a new one, its end included; the exit code."""
    code = 0
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).resolve().parent))
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()  # multiprocessing leaves them out
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":  # of `torchrun --run-path`
    sys.exit(execute(sys.argv[1:]))
