"""How a server begins and ends: its address first, no request cut off, folders that cannot be read."""

from __future__ import annotations

import errno
import http.client
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base
from test_serve_openai import writes
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from softprompt import Runtime
from softprompt.cli import app
from softprompt.errors import ConfigError
from softprompt.serve.limits import Limits
from softprompt.serve.running import listen, server_of
from softprompt.serve.service import Service, artifacts_in
from softprompt.serve.watching import Follower
from softprompt.serve.writing import Writer
from softprompt.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ended") / "labels"
    train(tiny_base(), tiny_task(), "soft", folder, train={"max_steps": 1}, rows=tiny_rows(), check=False)
    return folder


@contextmanager
def opened(service: Service, grace: float = 5.0):
    """A server on a free port, in a thread; its port, itself, and what `serve_on` gives."""
    listening = listen("127.0.0.1", 0)
    server, ended = server_of(service, grace=grace), []
    thread = threading.Thread(target=lambda: ended.append(server.serve_on(listening)))
    thread.start()
    try:
        yield listening.getsockname()[1], server, ended
    finally:
        if not server.should_exit:
            server.stop()
        thread.join(20)
        assert not thread.is_alive()


def writing_service(**limits) -> Service:
    runtime = Runtime(tiny_base())
    runtime.add("writes", writes(max_new_tokens=200))
    return Service(runtime, limits=Limits(**limits))


def ask(port: int, stream: bool) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"model": "writes", "prompt": "joy", "stream": stream})
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read().decode()


def slow(monkeypatch, seconds: float = 0.05) -> None:
    plain = Writer.step
    monkeypatch.setattr(Writer, "step", lambda self: time.sleep(seconds) or plain(self))


def until(condition, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("twice", [False, True], ids=["grace", "second signal"])
def test_whoever_waits_at_the_end_of_the_grace_is_refused_and_not_cut(monkeypatch, twice):
    slow(monkeypatch)
    service = writing_service()
    with opened(service, grace=60.0 if twice else 0.4) as (port, server, _), ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, port, stream) for stream in (True, False)]
        until(lambda: service.scheduler.writing == 2)
        began = time.monotonic()
        server.stop()
        if twice:
            server.stop()
        (status, events), (refused, body) = (one.result(20) for one in asked)
        assert time.monotonic() - began < 8
    assert status == 200 and refused == 503
    assert json.loads(body) == {"error": "the server is stopping; ask another one"}
    *pieces, last = [json.loads(line.removeprefix("data: ")) for line in events.split("\n\n") if line]
    assert (pieces or twice) and all("choices" in piece for piece in pieces)
    assert last["error"]["message"] == "the server is stopping; ask another one"
    assert last["error"]["type"] == "server_error" and last["error"]["code"] == 503
    until(lambda: not service.scheduler.writing)
    assert service.close(5)


def test_what_finishes_within_the_grace_is_answered(monkeypatch):
    slow(monkeypatch, 0.002)
    service = writing_service()
    with opened(service, grace=30.0) as (port, server, ended), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, port, True)
        until(lambda: service.scheduler.writing == 1)
        server.stop()
        status, events = asked.result(20)
    assert status == 200 and events.endswith("data: [DONE]\n\n") and "error" not in events
    assert ended == [True]


def test_an_outcome_that_comes_after_the_end_is_thrown_away(run, monkeypatch):
    """The batch that ran goes on, and finds that its request has been refused."""
    from softprompt.serve import scheduler
    from softprompt.serve.service import Stopping

    entered, let_go, plain = threading.Event(), threading.Event(), scheduler.answer

    def held(rows, prompts):
        entered.set()
        assert let_go.wait(10)
        return plain(rows, prompts)

    monkeypatch.setattr(scheduler, "answer", held)
    runtime = Runtime(tiny_base())
    runtime.add("labels", run)
    service = Service(runtime)
    under_way = service.submit(["labels"], ["joy"], False)
    assert entered.wait(10)
    waiting = service.submit(["labels"], ["mud"], False)
    service.abandon()
    for request in (under_way, waiting):
        assert isinstance(request.outcome.exception(0), Stopping)
    let_go.set()
    assert service.close(10) and not service.scheduler._open


def test_an_address_in_use_is_told_before_a_base_is_loaded(run, monkeypatch):
    monkeypatch.setattr("softprompt.cli.serve.runtime_for", lambda *_: pytest.fail("a base is loaded first"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for address in (["--port", port], ["--host", "203.0.113.7"], ["--host", "a" * 70 + ".example"]):
            refused = CliRunner().invoke(app, ["serve", str(run), *address])
            assert isinstance(refused.exception, ConfigError)
            message = str(refused.exception)
            assert message.startswith("cannot listen on") and "use another --host or --port" in message


def test_a_token_that_guards_nothing_is_told_before_a_base_is_loaded(run, monkeypatch):
    monkeypatch.setattr("softprompt.cli.serve.runtime_for", lambda *_: pytest.fail("a base is loaded first"))
    refused = CliRunner().invoke(app, ["serve", str(run), "--port", "0", "--admin-token", ""])
    assert isinstance(refused.exception, ConfigError) and "a token is empty" in str(refused.exception)


@pytest.fixture
def followed(run, tmp_path):
    """A service whose two artifacts lie in a folder that is followed, and what was noted."""
    root = tmp_path / "runs"
    for name in ("one", "two"):
        shutil.copytree(run, root / name)
    runtime = Runtime(tiny_base())
    for name, folder in artifacts_in(root).items():
        runtime.add(name, folder)
    service, notes = Service(runtime, [root]), []
    yield root, service, Follower(service, artifacts_in(root), [root], notes.append), notes
    assert service.close(5)


UNREAD = {"permission": PermissionError(errno.EACCES, "Permission denied"), "disk": OSError(errno.EIO, "I/O error")}


@pytest.mark.parametrize("error", UNREAD.values(), ids=UNREAD)
@pytest.mark.parametrize("what", [".", "two"], ids=["root", "one artifact"])
def test_a_folder_that_cannot_be_read_is_not_empty(followed, monkeypatch, what, error):
    root, service, follower, notes = followed
    stat, iterdir, broken = Path.stat, Path.iterdir, root / what

    def fails(plain):
        def do(path, *given, **how):
            if path == broken or broken in path.parents:
                raise error
            return plain(path, *given, **how)

        return do

    with monkeypatch.context() as bad:
        bad.setattr(Path, "stat", fails(stat))
        bad.setattr(Path, "iterdir", fails(iterdir))
        for _ in range(3):
            follower.look()
        assert service.runtime.names == ["one", "two"]
        assert [note.split(" (")[0] for note in notes] == [f"{broken} cannot be read"]
    follower.look()
    assert notes[1:] == [f"{broken} can be read again"]
    shutil.rmtree(root / "two")
    follower.look()
    assert service.runtime.names == ["one"] and notes[2:] == ["removed two"]


def test_a_root_that_is_exchanged_keeps_its_artifacts(followed, run):
    root, service, follower, notes = followed
    root.rename(root.with_name("away"))
    follower.look()
    assert service.runtime.names == ["one", "two"] and "cannot be read" in notes[0]
    shutil.copytree(run, root / "three")
    follower.look()
    assert service.runtime.names == ["three"]
    assert notes[1:] == [f"{root} can be read again", "loaded three", "removed one", "removed two"]
