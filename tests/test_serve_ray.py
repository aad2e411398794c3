"""The server on Ray: the application is that of `softprompt serve`, on every replica."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_model, tiny_tokenizer

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from softprompt import Runtime
from softprompt.base import Base
from softprompt.errors import ConfigError
from softprompt.serve.ray import REPLICA_HEADER, Settings, application, deployment
from softprompt.serve.service import Stopping
from softprompt.training import train

SHORT = {"max_steps": 2, "batch_size": 8, "lr": 0.05}
NAMES = ("soft", "infix")
TEXTS = ["joy and sun", "mud", "rain and joy and rain"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A base, and runs on it: what the nodes of a cluster have on their disks."""
    base, runs = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("runs")
    tiny_model("llama").save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    for place, name in enumerate(NAMES):
        train(Base.load(base), tiny_task(), name, runs / name, train=SHORT, rows=tiny_rows(), seed=place)
    return base, runs


@pytest.fixture(scope="module")
def expected(folders) -> dict[tuple[str, str], dict[str, float]]:
    """Probabilities of each artifact for each text, one text at a time."""
    base, runs = folders
    runtime = Runtime(Base.load(base))
    for name in NAMES:
        runtime.add(name, runs / name)
    return {(name, text): runtime.predict([text], name)[0].probabilities for name in NAMES for text in TEXTS}


def test_a_replica_answers_as_the_runtime_does(folders, expected):
    base, runs = folders
    app = application(Settings(artifacts=[str(runs)], base=[str(base)], queue=7), token="secret")
    client = TestClient(app, headers={"authorization": "Bearer secret"})
    found = client.post("/v1/classify", json={"models": list(NAMES), "texts": TEXTS}).json()["results"]
    assert len(found) == len(expected)
    for one in found:
        assert one["probabilities"] == pytest.approx(expected[one["artifact"], TEXTS[one["index"]]], abs=1e-5)
    assert TestClient(app).get("/v1/models").status_code == 401
    refused = client.post("/v1/artifacts", json={"name": "new", "folder": str(runs / "soft")})
    assert refused.status_code == 403  # it would change one replica of several
    service = app.state.service
    assert service.limits.queue == 7 and service.close(5)
    with pytest.raises(Stopping):  # so Ray takes another replica
        service.check_open()


def test_an_empty_token_is_none(folders):
    base, runs = folders
    client = TestClient(application(Settings(artifacts=[str(runs)], base=[str(base)]), token=""))
    assert client.get("/v1/models").status_code == 200


def test_words_of_the_command_line_are_settings(monkeypatch, tmp_path):
    """As `serve run softprompt.serve.ray:deployment artifacts=a,/b replicas=2 …` gives them."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'softprompt[ray]'")
    monkeypatch.chdir(tmp_path)
    asked = {"artifacts": "a,/b", "replicas": "2", "cpus": "0.5", "gpus": "0.25", "queue": "10", "grace": "3"}
    placed = deployment(asked)._bound_deployment
    assert placed.num_replicas == 2 and placed.max_ongoing_requests > 10
    assert placed.ray_actor_options == {"num_cpus": 0.5, "num_gpus": 0.25}
    assert placed._deployment_config.graceful_shutdown_timeout_s == 3


def test_what_lies_on_the_hub_is_fetched_by_each_replica(folders, monkeypatch):
    base, runs = folders
    asked = []
    monkeypatch.setattr("softprompt.serve.ray.folder_of", lambda name: asked.append(name) or runs)
    monkeypatch.setattr("ray.serve.deployment", lambda placed, **_: SimpleNamespace(bind=lambda: placed))
    monkeypatch.setattr("ray.serve.ingress", lambda build: lambda kind: build)
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="a1"))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    build = deployment({"artifacts": "hub:owner/name", "base": str(base)})
    assert not asked  # nothing is loaded before it runs
    app = build()
    answered = TestClient(app).get("/readyz")
    assert asked == ["hub:owner/name"] and answered.headers[REPLICA_HEADER] == "a1"
    assert app.state.service.close(5)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "artifacts"),
        ({"artifacts": "a", "replica": 2}, "did you mean 'replicas'"),
        ({"artifacts": "a", "replicas": 0}, "replicas"),
        ({"artifacts": [], "gpus": -1}, "gpus"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(asked, message):
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'softprompt[ray]'")
    with pytest.raises(ConfigError, match=r"^args: ") as refused:
        deployment(asked)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.full  # the application of a replica is asked above; this starts a cluster
def test_two_replicas_answer_as_the_runtime_does(folders, expected):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'softprompt[ray]'")
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'softprompt[ray]'")
    base, runs = folders
    address = f"http://127.0.0.1:{(port := free_port())}"

    def told(answer) -> tuple[int, str, dict[str, str]]:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, answer.read().decode(), headers

    def ask(path: str, **body) -> tuple[int, str, dict[str, str]]:
        asked = urllib.request.Request(address + path, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return told(answer)
        except urllib.error.HTTPError as error:
            return told(error)

    # workers are nice by default, and would wait for the tests beside them
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config={"worker_niceness": 0})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deployment({"artifacts": str(runs), "base": str(base), "replicas": 2}))
        seen: dict[str, int] = {}
        for turn in range(60):
            if len(seen) == 2 and turn >= len(expected):
                break
            name, text = list(expected)[turn % len(expected)]
            status, body, headers = ask("/v1/classify", model=name, text=text)
            (found,) = json.loads(body)["results"]
            assert status == 200 and found["probabilities"] == pytest.approx(expected[name, text], abs=1e-5)
            seen[headers[REPLICA_HEADER]] = seen.get(headers[REPLICA_HEADER], 0) + 1
        assert len(seen) == 2, f"one replica has answered all: {seen}"

        status, body, _ = ask("/v1/classify", model="sofd", text="joy")
        assert status == 404 and json.loads(body) == {"error": "no artifact 'sofd' is loaded; did you mean 'soft'?"}
        written = {"model": Base.load(base).name, "prompt": "sun and", "max_tokens": 24, "temperature": 0}
        whole = json.loads(ask("/v1/completions", **written)[1])["choices"][0]["text"]
        status, stream, headers = ask("/v1/completions", **written, stream=True)
        events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
        assert status == 200 and headers["content-type"].startswith("text/event-stream") and events[-1] == "[DONE]"
        assert len(events) > 3 and "".join(json.loads(one)["choices"][0]["text"] for one in events[:-1]) == whole
    finally:
        serve.shutdown()
        ray.shutdown()
