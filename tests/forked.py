"""Interpreters that start at once: forked by a server that has torch, transformers and softprompt loaded.

A fresh interpreter takes seconds of a processor to load them. What a forked one does is real: its own process id, signals,
exit code, streams, folder and environment. What is about the start itself (encodings, what is imported, how Python is
found) is no matter for this module. The server is one of multiprocessing's and does nothing else, so that no thread and no
gradient of the tests is in what it forks.
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
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

LOADED = ["parallel_worker", "softprompt.cli", "softprompt.training", "softprompt.doctor", "peft", "accelerate"]
LOADED += ["torch.distributed.launcher.api", "torch.distributed.fsdp", "softprompt.benchmarks.compare.executors"]
CONTEXT = multiprocessing.get_context("forkserver")


@functools.cache
def server() -> psutil.Process:
    """The server, started by the first who asks."""
    us = psutil.Process()
    before = {child.pid for child in us.children()}
    with _environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1"):
        CONTEXT.set_forkserver_preload(LOADED)
        forkserver.ensure_running()
    new = [child for child in us.children() if child.pid not in before]
    return next(child for child in new if any("forkserver" in word for word in child.cmdline()))


def cpu_seconds() -> float:
    """Of a processor, that all forked processes that ended have taken, their children's too; the server's own not."""
    if not server.cache_info().currsize:
        return 0.0
    times = server().cpu_times()
    return times.children_user + times.children_system


class Forked(subprocess.Popen):
    """`Popen` of a command that begins with this interpreter, which is forked instead, in a session of its own."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        """In the stead of fork and exec; the streams are made, and read, by `Popen` itself."""
        cwd, env, streams = rest[3], rest[4], rest[8:14]
        stdin, _, _, stdout, _, stderr = streams
        server()
        own = [Connection(os.dup(ours if fd == -1 else fd)) for ours, fd in enumerate((stdin, stdout, stderr))]
        command = [os.fspath(word) for word in args[1:]]
        env = {os.fspath(name): os.fspath(value) for name, value in (os.environ if env is None else env).items()}
        self._forked = CONTEXT.Process(
            target=_become, args=(os.getpid(), command, os.fspath(cwd or Path.cwd()), env, *own)
        )
        try:
            self._forked.start()
        finally:
            for stream in own:
                stream.close()
            self._close_pipe_fds(*streams)
        self.pid, self._child_created = self._forked.pid, True

    def _internal_poll(self, *rest: Any, **named: Any) -> int | None:
        self.returncode = self._forked.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        self._forked.join(timeout)
        if self._internal_poll() is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def popen(command: Any, *rest: Any, **options: Any) -> subprocess.Popen:
    """A forked interpreter where one is asked for, else a process as ever."""
    forks = isinstance(command, list | tuple) and command[0] == sys.executable and command[1] in ("-m", "-c")
    return (Forked if forks else _POPEN)(command, *rest, **options)


_POPEN = subprocess.Popen


def _become(parent: int, command: list[str], cwd: str, env: dict[str, str], *streams: Connection) -> None:
    """Be the interpreter that was asked for; its parent is who asked, not the server."""
    os.getppid = lambda: parent if psutil.pid_exists(parent) else 1
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    # new ones: those that the server has belong to other files
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.exit(execute(command))


def execute(command: list[str]) -> int:
    """Do in this process what `python COMMAND` does in a new one, its end included; the exit code."""
    code: Any = None
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        elif command[0] == "-c":
            sys.argv = ["-c", *command[2:]]
            sys.path.insert(0, str(Path.cwd()))
            exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).resolve().parent))
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()  # multiprocessing leaves them out
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code or 0


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":  # of `torchrun --run-path`, whose handler of signals a new interpreter would not have
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    sys.exit(execute(sys.argv[1:]))
