"""Whatever a client sends, or fails inside: one sentence comes back, and the next request is answered."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from softprompt import Runtime
from softprompt.documents import DocumentCache
from softprompt.errors import ConfigError
from softprompt.serve.http import create_app
from softprompt.serve.request import Request
from softprompt.serve.service import Service, artifacts_in, artifacts_of
from softprompt.serve.watching import follow
from softprompt.serve.writing import Writer, _Row
from softprompt.tasks import Task
from softprompt.training import train

ADMIN = {"authorization": "Bearer admin"}
LABELS, WRITES = {"model": "labels", "text": "joy"}, {"model": "writes", "prompt": "joy"}


def writing_task() -> Task:
    return Task.load(
        {
            "name": "writes",
            "type": "generation",
            "metric": "exact_match",
            "template": {"input": "Say: {{ text }}", "cue": "\nIt is:"},
            "generation": {"max_new_tokens": 12, "stop": ["~"]},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "labels"
    train(tiny_base(), tiny_task(), "soft", folder, train={"max_steps": 1}, rows=tiny_rows(), check=False)
    return folder


@pytest.fixture
def service(run):
    runtime = Runtime(tiny_base())
    runtime.add("labels", run)
    runtime.add("writes", writing_task())
    service = Service(runtime, [run])
    yield service
    assert service.close(10)


@pytest.fixture
def client(service) -> TestClient:
    return TestClient(create_app(service, admin_token="admin"), raise_server_exceptions=False)


def raises(*_, **__):
    raise KeyError("a fault")


FAULTS = {
    "reading": (DocumentCache, "behind_texts"),
    "putting answers together": (Request, "together"),
    "beginning a text": (_Row, "__init__"),
    "what a text has read": (_Row, "past"),
    "adding": (Writer, "add"),
    "stepping": (Writer, "step"),
}


@pytest.mark.parametrize("owner, name", FAULTS.values(), ids=FAULTS)
def test_a_fault_fails_its_requests_and_no_later_ones(service, client, monkeypatch, owner, name):
    path, body = ("/v1/classify", LABELS) if owner in (DocumentCache, Request) else ("/v1/completions", WRITES)
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, raises)
        failed = client.post(path, json=body)
        assert failed.status_code == 500 and "its log says why" in failed.json()["error"]
        if body is WRITES:
            streamed = client.post(path, json={**body, "stream": True})
            error = json.loads(streamed.text.split("\n\n")[-2].removeprefix("data: "))["error"]
            assert "its log says why" in error["message"] and "[DONE]" not in streamed.text
    assert client.post(path, json=body).status_code == 200
    end = time.monotonic() + 5
    while service.scheduler.writing and time.monotonic() < end:  # an outcome is told before its step has ended
        time.sleep(0.01)
    assert service.scheduler.writing == 0


BODIES = {
    "lists in lists": (b'{"model":"labels","text":{"text":' + b"[" * 500 + b"]" * 500 + b"}}", "hundreds of others"),
    "objects in objects": (b'{"model":"labels","text":' + b'{"a":' * 500 + b"1" + b"}" * 501, "hundreds of others"),
    "wrong texts": (b'{"model":"labels","texts":[' + b",".join([b"0"] * 900_000) + b"]}", "texts.0: "),
    "wrong models": (b'{"text":"a","models":[' + b",".join([b"0"] * 900_000) + b"]}", "models.0: "),
    "fields": (json.dumps(dict.fromkeys(map(str, range(90_000)))).encode(), "more than 100 fields"),
}


@pytest.mark.parametrize("body, message", BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_refused_at_once(client, body, message):
    began = time.process_time()
    refused = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 422 and message in refused.json()["error"]
    assert time.process_time() - began < 3  # all problems of such a list took a minute


def test_wrong_turns_are_refused_at_once(client):
    began = time.process_time()
    body = {"model": "writes", "messages": [0] * 500_000}
    assert client.post("/v1/chat/completions", json=body).json()["error"].startswith("messages.0: ")
    assert time.process_time() - began < 3


def test_folders_that_are_none_and_names_with_slashes(client, run):
    (run / "loop").symlink_to("loop")
    for folder in ("a\0", str(run / "loop")):
        refused = client.post("/v1/artifacts", json={"name": "x", "folder": folder}, headers=ADMIN)
        assert refused.status_code == 422 and "cannot be a folder" in refused.json()["error"]
    (run / "loop").unlink()
    made = client.post("/v1/artifacts", json={"name": "team/x", "folder": str(run)}, headers=ADMIN)
    assert made.status_code == 201
    assert client.delete("/v1/artifacts/team/x", headers=ADMIN).status_code == 204


@pytest.mark.parametrize("tokens", [{"token": ""}, {"admin_token": ""}, {"admin_token": "né"}, {"token": "a b\n"}])
def test_a_token_that_guards_nothing_is_refused(service, tokens):
    with pytest.raises(ConfigError, match="a token is empty"):
        create_app(service, **tokens)


def test_two_of_one_name_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "labels")
    with pytest.raises(ConfigError, match="two artifacts are called 'labels'"):
        artifacts_of([run, tmp_path])
    assert list(artifacts_of([run, run.parent])) == ["labels"]


def test_links_have_names_of_their_own(run, tmp_path):
    (tmp_path / "one").symlink_to(run)
    (tmp_path / "two").symlink_to(run)
    assert sorted(artifacts_in(tmp_path)) == ["one", "two"]


def test_following_goes_on_behind_any_fault(service, run, tmp_path, monkeypatch):
    monkeypatch.setattr("softprompt.serve.watching.EVERY", 0.02)
    notes: list[str] = []
    plain, faulty = service.add, threading.Event()
    monkeypatch.setattr(service, "add", lambda *given: plain(*given) if faulty.is_set() else raises())
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        root.mkdir()
    follow(service, {}, roots, notes.append)

    def wait(text: str) -> None:
        end = time.monotonic() + 10
        while not any(text in note for note in notes):
            assert time.monotonic() < end, notes
            time.sleep(0.01)

    (roots[0] / "new").symlink_to(run)
    wait("a fault")
    faulty.set()
    (roots[0] / "next").symlink_to(run)
    wait("loaded next")
    shutil.copytree(run, roots[1] / "next")
    wait("is not loaded")
    assert sum("is not loaded" in note for note in notes) == 1


def test_answers_under_way_are_counted_while_groups_come(service, monkeypatch):
    """Any thread may ask how many are written, while the writer's adds a group."""
    writer = service.scheduler._writer

    class Group:
        @property
        def rows(self) -> list:
            writer._groups[len(writer._groups), 0] = Group()
            return []

    writer._groups[0, 0] = Group()
    assert writer.active == 0
    writer._groups.clear()
