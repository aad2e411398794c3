"""What a client may do with its connection: be slow, lie, leave; and what HTTP (RFC 9110) asks of every answer."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from functools import partial

import pytest
from helpers import tiny_task
from models import tiny_base
from test_serve_end import ask, opened, slow, until, writing_service

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
import uvicorn
from fastapi.testclient import TestClient

from softprompt import Runtime
from softprompt.serve.connection import Connection
from softprompt.serve.http import create_app
from softprompt.serve.limits import Limits
from softprompt.serve.scheduler import Scheduler
from softprompt.serve.service import Service

SOON = 0.4  # seconds that clients have here
CHUNKED = "POST /v1/classify HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
JSON = "content-type: application/json\r\n"


async def toy(scope, receive, send):
    """Answers at once, with 64 MB at /large."""
    size = 64_000_000 if scope["path"] == "/large" else 2
    headers = [(b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture(scope="module")
def toys():
    """The toy behind our connections; its port."""
    config = uvicorn.Config(
        toy, port=0, http=partial(Connection, seconds=SOON), lifespan="off", ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1], server
    server.should_exit = server.force_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def small():
    """The whole server with small limits; its port."""
    runtime = Runtime(tiny_base())
    runtime.add("labels", tiny_task())
    service = Service(runtime, limits=Limits(seconds=SOON, body=2000))
    with opened(service) as (port, *_):
        yield port
    service.close(5)


def say(port: int, *parts: str, pause: float = 0.0, forever: bool = False) -> str:
    """Send parts, and read all until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part.encode("latin-1"))
                time.sleep(pause)
            while forever:
                connection.sendall(parts[-1].encode("latin-1"))
                time.sleep(pause)
        except OSError:
            pass
        found = b""
        try:
            while got := connection.recv(65536):
                found += got
        except OSError:
            pass
        return found.decode("latin-1")


CLOSED = {
    "silent": ([], {}),
    "a head that trickles": (["GET / HTTP/1.1\r\n", "x: y\r\n"], {"pause": SOON / 4, "forever": True}),
    "behind its answer": ([CHUNKED, "1\r\nx\r\n"], {"pause": SOON / 4, "forever": True}),
}


@pytest.mark.parametrize("parts, how", CLOSED.values(), ids=CLOSED)
def test_a_connection_on_which_nothing_is_asked_is_closed(toys, parts, how):
    began = time.monotonic()
    say(toys[0], *parts, **how)
    assert SOON / 2 < time.monotonic() - began < 8
    until(lambda: not toys[1].server_state.connections)


def test_who_stops_reading_is_cut_off(toys):
    port, server = toys
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        until(lambda: server.server_state.connections)
        until(lambda: not server.server_state.connections and not server.server_state.tasks)


def test_who_reads_on_gets_all(toys):
    """Slowly, but on: no bound on the whole."""
    with socket.create_connection(("127.0.0.1", toys[0])) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        size, began = 0, time.monotonic()
        while got := connection.recv(1 << 20):
            size += len(got)
            time.sleep(0.015)
        assert size > 64_000_000 and time.monotonic() - began > 1.5 * SOON


def test_what_is_no_http_is_refused_in_json(toys):
    found = say(toys[0], "\x16\x03\x01 hello\r\n\r\n")
    head, _, body = found.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 ") and "connection: close" in head
    assert "no HTTP request" in json.loads(body)["error"]


def post(body: str, said: int | None = None, more: str = "") -> str:
    size = len(body) if said is None else said
    return f"POST /v1/classify HTTP/1.1\r\nhost: a\r\n{JSON}{more}content-length: {size}\r\n\r\n{body}"


GOOD = json.dumps({"model": "labels", "text": "joy"})
BODIES = {
    "trickles": ([post("{", 100), " "], {"pause": SOON / 4, "forever": True}, "408", "has not come whole within 0.4 seconds"),
    "says more than it is": ([post(GOOD, len(GOOD) + 9)], {}, "408", "has not come whole"),
    "says less": ([post(GOOD + "garbage\r\n\r\n", len(GOOD))], {}, "200", "no HTTP request"),
    "says too much": ([post("{", 2001)], {}, "413", "the body has more than 2000 bytes"),
    "says too much, and asks first": ([post("", 2001, "expect: 100-continue\r\n")], {}, "413", "the body has more"),
    "is too much": ([CHUNKED, "400\r\n" + " " * 1024 + "\r\n"],
                    {"pause": 0.01, "forever": True}, "413", "the body has more than"),
    "two lengths": ([post(GOOD, 3, f"content-length: {len(GOOD)}\r\n")], {}, "400", "no HTTP request"),
}  # fmt: skip


@pytest.mark.parametrize("parts, how, status, message", BODIES.values(), ids=BODIES)
def test_bodies_that_are_not_what_they_say(small, parts, how, status, message):
    found = say(small, *parts, **how)
    assert found.startswith(f"HTTP/1.1 {status} ") and message in found and "100 Continue" not in found
    assert status == "200" or "connection: close" in found.lower()


def test_requests_that_come_together_are_answered_in_their_order(small):
    rest = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    found = say(small, post(GOOD) + rest)
    assert found.count("HTTP/1.1 200 OK") == 3
    assert found.index('"results"') < found.index('"status"') < found.index('"list"')


def test_who_leaves_a_stream_is_written_no_more(monkeypatch):
    slow(monkeypatch)
    service = writing_service()
    with opened(service) as (port, *_):
        body = json.dumps({"model": "writes", "prompt": "joy", "stream": True})
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(post(body).replace("/v1/classify", "/v1/completions").encode())
            until(lambda: service.scheduler.writing == 1)
            (row,) = next(iter(service.scheduler._writer._groups.values())).rows
        until(lambda: service.scheduler.writing == 0)
        assert len(row.answer.ids) < 100 and not service.scheduler._open
        monkeypatch.undo()
        assert ask(port, False)[0] == 200  # and others are answered


def test_who_leaves_before_an_answer_is_not_answered(monkeypatch):
    """What nobody waits for leaves the queue, so that clients with short patience do not fill it."""
    entered, let_go, plain, sizes = threading.Event(), threading.Event(), Scheduler._answer, []

    def held(self, batch):
        sizes.append(len(batch))
        entered.set()
        assert let_go.wait(20)
        plain(self, batch)

    monkeypatch.setattr(Scheduler, "_answer", held)
    runtime = Runtime(tiny_base())
    runtime.add("labels", tiny_task())
    service = Service(runtime)
    with opened(service) as (port, *_):
        first = service.submit(["labels"], ["joy"], False)
        assert entered.wait(10)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(post(GOOD).encode())
            until(lambda: service.scheduler.waiting == 1)
        until(lambda: all(request.outcome.cancelled() for request in service.scheduler._waiting))
        let_go.set()
        first.outcome.result(10)
        until(lambda: not service.scheduler.waiting)
        assert sizes == [1] and not service.scheduler._open


@pytest.fixture(scope="module")
def service():
    runtime = Runtime(tiny_base())
    for name in ("labels", "team/x", "ä b"):
        runtime.add(name, tiny_task())
    service = Service(runtime)
    yield service
    assert service.close(5)


@pytest.fixture
def client(service) -> TestClient:
    app = create_app(service, token="secret", admin_token="admin")
    return TestClient(app, headers={"authorization": "Bearer secret"}, raise_server_exceptions=False)


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/labels"])
def test_head_is_get_without_a_body(client, path):
    got, headed = client.get(path), client.head(path)
    assert got.status_code == headed.status_code == 200 and got.content and not headed.content
    assert got.headers["content-type"] == headed.headers["content-type"]
    if path != "/metrics":  # which move on
        assert got.headers["content-length"] == headed.headers["content-length"]
    assert "GET, HEAD" in client.options(path).headers["allow"]


def test_another_method_says_which_are_allowed(client):
    for method, path, allowed in (
        ("GET", "/v1/classify", "POST"),
        ("HEAD", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/v1/artifacts", "POST"),
        ("PATCH", "/v1/artifacts/x", "DELETE"),
    ):
        found = client.request(method, path)
        assert found.status_code == 405 and found.headers["allow"] == allowed


WRONG = {
    "none": {},
    "no scheme": {"authorization": "SECRET"},
    "another scheme": {"authorization": "Basic SECRET"},
    "another token": {"authorization": "Bearer SECRETX"},
    "a scheme alone": {"authorization": "Bearer"},
    "no space": {"authorization": "BearerSECRET"},
    "no ASCII": {"authorization": "Bearer é".encode("latin-1")},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_a_token_needs_its_scheme(service, headers):
    """The word Bearer may be written as one likes (RFC 9110, 11.1), but not be left out."""
    client = TestClient(create_app(service, token="SECRET", admin_token="SECRET"))
    new = {"name": "x", "folder": "y"}
    for found in (
        client.get("/v1/models", headers=headers),
        client.post("/v1/artifacts", json=new, headers=headers),
        client.delete("/v1/artifacts/x", headers=headers),
    ):
        assert found.status_code == 401 and list(found.json()) == ["error"]
        invalid = str(headers.get("authorization", "")).startswith("Bearer ") or headers == WRONG["no ASCII"]
        assert found.headers["www-authenticate"] == ('Bearer error="invalid_token"' if invalid else "Bearer")
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert client.get("/v1/models", headers={"authorization": f"{scheme} SECRET"}).status_code == 200


def test_without_an_admin_token_no_token_would_help(service):
    found = TestClient(create_app(service)).delete("/v1/artifacts/labels")
    assert found.status_code == 403 and "--admin-token" in found.json()["error"]
    assert "www-authenticate" not in found.headers and "labels" in service.runtime.names


NAMES = {
    "labels": 200, "team%2Fx": 200, "team/x": 200, "%C3%A4%20b": 200, "labls": 404, "%00": 404, "%FF": 404, "%ED%A0%80": 404,
    "..": 404, "%2e%2e%2fhealthz": 404, "a" * 5000: 404, "%F0%9F%98%80": 404, "a%0Ab%1B": 404, "labels/": 404, "%E2%80%AE": 404,
}  # fmt: skip


@pytest.mark.parametrize("name, status", NAMES.items(), ids=range(len(NAMES)))
def test_a_model_by_any_name(client, name, status):
    found = client.get(f"/v1/models/{name}")
    assert found.status_code == status
    if status == 404:
        assert found.json()["error"].isprintable() and len(found.json()["error"]) < 1100
    else:
        assert found.json()["parent"] == tiny_base().name and found.json()["type"] == "classification"
    assert client.get(f"/v1/models/{tiny_base().name}").json() == {
        "id": tiny_base().name, "object": "model", "owned_by": "base",
    }  # fmt: skip


def test_names_that_nobody_knows_leave_nothing(client, service):
    def series() -> int:
        return sum(len(family.samples) for family in service.figures.registry.collect())

    def unknown(place: int) -> None:
        assert client.post("/v1/classify", json={"model": f"n{place}", "text": "a"}).status_code == 404
        assert client.get(f"/v1/models/n{place}").status_code == client.get(f"/n{place}").status_code == 404
        assert client.request(f"M{place}", "/v1/models").status_code == 405

    unknown(0)
    before = series()
    for place in range(1, 40):
        unknown(place)
    assert series() == before


def test_a_fault_has_the_id_of_its_request(client, service, monkeypatch):
    monkeypatch.setattr(service, "models", lambda: {}["fault"])
    found = client.get("/v1/models", headers={"x-request-id": "mine"})
    assert found.status_code == 500 and found.headers["x-request-id"] == "mine"
    assert found.json() == {"error": "the server has failed with this request; its log says why"}


def test_a_request_that_is_cut_by_the_end_is_refused(service, monkeypatch):
    """uvicorn cancels what is left at the very end."""
    from softprompt.serve.middleware import Logged

    sent = []

    async def forever(*_):
        await asyncio.sleep(60)

    async def main():
        async def send(message):
            sent.append(message)

        task = asyncio.create_task(
            Logged(forever, service)({"type": "http", "headers": [], "method": "GET"}, None, send)
        )
        await asyncio.sleep(0)
        task.cancel()
        await task

    monkeypatch.setattr(service, "closing", True)
    asyncio.run(main())
    assert sent[0]["status"] == 503 and b"the server is stopping" in sent[1]["body"]
    assert (b"retry-after", b"1") in sent[0]["headers"]
