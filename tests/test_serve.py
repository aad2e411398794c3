"""The server: answers are those of the runtime, refusals are one sentence, nothing under way is lost."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from softprompt import Runtime
from softprompt.base import Base
from softprompt.ensemble import save_ensemble
from softprompt.errors import ArtifactError
from softprompt.serve import request as requests
from softprompt.serve.http import create_app
from softprompt.serve.limits import Limits
from softprompt.serve.middleware import access
from softprompt.serve.scheduler import Scheduler
from softprompt.serve.service import Service, artifacts_in
from softprompt.serve.watching import follow
from softprompt.training import train

SETTINGS = {"max_steps": 2, "batch_size": 8, "lr": 0.05}
METHODS = {"soft": "soft", "infix": "infix", "hard": "hard", "cue": {"name": "lora", "r": 2, "activate": "cue"}}
TEXT = "joy and sun and rain"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folders of runs, one a method."""
    folder = tmp_path_factory.mktemp("served")
    for place, (name, method) in enumerate(METHODS.items()):
        task = tiny_task(template={"input": "Text: {{ text }}", "question": f"\n{name}?", "cue": "\nIt is:"})
        train(tiny_base(), task, method, folder / "runs" / name, train=SETTINGS, rows=tiny_rows(), seed=place)
    return folder / "runs"


def service_of(runs: Path, **limits) -> Service:
    runtime = Runtime(tiny_base())
    for name, folder in artifacts_in(runs).items():
        runtime.add(name, folder)
    return Service(runtime, [runs], Limits(**limits))


@pytest.fixture(scope="module")
def service(runs):
    service = service_of(runs)
    yield service
    assert service.close(10)


@pytest.fixture
def client(service) -> TestClient:
    return TestClient(create_app(service), raise_server_exceptions=False)


def test_answers_are_those_of_the_runtime(service, client):
    texts = [TEXT, "mud", TEXT * 7]
    found = client.post("/v1/classify", json={"models": list(METHODS), "texts": texts}).json()
    assert [(one["index"], one["artifact"]) for one in found["results"]] == [(k, m) for k in range(3) for m in METHODS]
    for answer in found["results"]:
        alone = service.runtime.predict([texts[answer["index"]]], answer["artifact"])[0]
        assert answer["label"] == alone.label and not answer["truncated"]
        assert answer["probabilities"] == pytest.approx(alone.probabilities, abs=1e-5)
    assert set(found["timing_ms"]) == {"queued", "read", "answered"}


def test_an_ensemble_says_how_far_its_members_agree(runs, service, client, tmp_path):
    members = [(runs / name, 1 / 3) for name in ("soft", "infix", "hard")]
    save_ensemble(tmp_path / "votes", members, combine="vote")
    service.runtime.add("votes", tmp_path / "votes")
    try:
        found = client.post("/v1/classify", json={"models": ["votes", "soft"], "texts": [TEXT, "mud"]}).json()[
            "results"
        ]
        alone = [service.runtime.predict([TEXT, "mud"], name) for name in ("soft", "infix", "hard")]
        for text, answer in zip(range(2), found[::2], strict=True):
            share = sum(own[text].label == answer["label"] for own in alone) / 3
            assert answer["agreement"] == pytest.approx(share) and answer["artifact"] == "votes"
        assert all("agreement" not in answer for answer in found[1::2])
        schema = client.get("/openapi.json").json()["components"]["schemas"]["Answered"]
        assert "agreement" in schema["properties"] and "agreement" not in schema["required"]
    finally:
        service.runtime.remove("votes")


def test_one_text_for_one_artifact(client):
    found = client.post("/v1/classify", json={"model": "infix", "text": {"text": TEXT}}).json()["results"]
    assert [one["artifact"] for one in found] == ["infix"] and sum(found[0]["probabilities"].values()) == pytest.approx(
        1
    )


def test_what_waits_runs_together(service, monkeypatch):
    """A batch is held back, six more requests arrive, and one batch answers them."""
    sizes, entered, let_go = [], threading.Event(), threading.Event()
    plain = Scheduler._answer

    def slow(self, batch):
        sizes.append(len(batch))
        if len(sizes) == 1:
            entered.set()
            assert let_go.wait(10)
        plain(self, batch)

    monkeypatch.setattr(Scheduler, "_answer", slow)
    names = list(METHODS)
    first = service.submit(names[:1], [TEXT], False)
    assert entered.wait(10)
    others = [service.submit([names[place % 4]], [f"{TEXT} {place}"], False) for place in range(6)]
    let_go.set()
    for request in [first, *others]:
        request.outcome.result(10)
    assert sizes == [1, 6]
    for place, request in enumerate(others):
        alone = service.runtime.predict([f"{TEXT} {place}"], names[place % 4])[0]
        assert request.predictions()[0].probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_one_bad_row_does_not_fail_its_company(service, monkeypatch):
    from softprompt.serve import scheduler

    plain = scheduler.answer

    def fails(rows, prompts):
        if any("poison" in row.values["text"] for row in rows):
            raise ArtifactError("a state is NaN")
        return plain(rows, prompts)

    monkeypatch.setattr(scheduler, "answer", fails)
    with service.scheduler._change:  # both are in the queue before the scheduler looks
        good, bad = (service.submit(["soft"], [text], False) for text in (TEXT, "poison"))
    assert good.outcome.result(10)[0].predicted in ("good", "bad")
    with pytest.raises(ArtifactError):
        bad.outcome.result(10)


def test_a_request_finishes_with_the_version_it_began_with(runs):
    service = service_of(runs)
    before = service.runtime.predict([TEXT], "infix")[0]
    held = service.loaded(["infix"])
    service.add("infix", runs / "soft")  # another artifact under its name
    request = requests.prepared(held, [TEXT], time.monotonic() + 9)
    service.scheduler.submit(request)
    request.outcome.result(10)
    assert request.predictions()[0].probabilities == pytest.approx(before.probabilities, abs=1e-6)
    after = service.submit(["infix"], [TEXT], False)
    after.outcome.result(10)
    expected = service.runtime.predict([TEXT], "soft")[0].probabilities
    assert after.predictions()[0].probabilities == pytest.approx(expected, abs=1e-6)
    service.close(5)


REFUSED = {
    "no artifact": ({"model": "infx", "text": "a"}, 404, "no artifact 'infx' is loaded (did you mean 'infix'?)"),
    "both": ({"model": "soft", "models": ["soft"], "text": "a"}, 422, "give either model or models"),
    "no text": ({"model": "soft"}, 422, "give either text or texts"),
    "empty": ({"model": "soft", "text": ""}, 422, "text"),
    "unknown field": ({"model": "soft", "text": "a", "prompt": 1}, 422, "prompt: extra inputs are not permitted"),
    "twice": ({"models": ["soft", "soft"], "text": "a"}, 422, "names an artifact twice"),
    "other fields": ({"model": "soft", "text": {"title": "a"}}, 422, "texts[0] for 'soft'"),
    "not text": ({"model": "soft", "text": {"text": ["a"]}}, 422, "expected text"),
    "too long": ({"model": "soft", "text": "joy " * 400}, 413, 'send "truncate": true'),
    "too many": ({"model": "soft", "texts": ["a"] * 600}, 413, "are more than 512 answers"),
    "a number": ({"model": 3, "text": "a"}, 422, "model"),
}


@pytest.mark.parametrize("body, status, message", REFUSED.values(), ids=REFUSED)
def test_each_refusal_is_one_sentence(client, body, status, message):
    response = client.post("/v1/classify", json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"] and message in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_other_refusals(client, service):
    assert "no such path" in client.get("/v1/nothing").json()["error"]
    assert client.get("/v1/classify").status_code == 405
    assert client.post("/v1/classify", content=b"{").status_code == 422
    wrong = client.post("/v1/extract", json={"model": "soft", "text": "a"})
    assert wrong.status_code == 422 and "use /v1/classify" in wrong.json()["error"]
    large = client.post("/v1/classify", content=b"x" * (service.limits.body + 1))
    assert large.status_code == 413 and "the body has more than" in large.json()["error"]


def test_a_long_text_is_cut_where_the_request_says_so(client):
    both = {"model": "soft", "text": "joy " * 400}
    refused = client.post("/v1/classify", json=both).json()["error"]
    whole, reads = map(int, re.findall(r"has (\d+) tokens, 'soft' reads (\d+)", refused)[0])
    assert whole > 400 > reads > 100
    answered = client.post("/v1/classify", json={**both, "truncate": True}).json()["results"][0]
    assert answered["truncated"] and answered["label"] in ("good", "bad")


def test_special_tokens_in_a_text_are_text(client, service):
    text = "joy </s> <|im_end|> [MASK]"
    found = client.post("/v1/classify", json={"model": "soft", "text": text}).json()["results"][0]
    prompt = service.runtime.get("soft")
    ids = prompt.form.encode({"text": text}).text
    assert not set(ids) & set(prompt.base.tokenizer.all_special_ids)
    assert found["probabilities"] == pytest.approx(service.runtime.predict([text], "soft")[0].probabilities, abs=1e-5)


def test_a_full_queue_says_when_to_come_back(runs, monkeypatch):
    entered, let_go = threading.Event(), threading.Event()
    plain = Scheduler._answer

    def slow(self, batch):
        entered.set()
        assert let_go.wait(20)
        plain(self, batch)

    monkeypatch.setattr(Scheduler, "_answer", slow)
    service = service_of(runs, queue=2, seconds=5.0)
    client = TestClient(create_app(service))
    with ThreadPoolExecutor(4) as pool:
        ask = {"model": "soft", "text": TEXT}
        under_way = [pool.submit(client.post, "/v1/classify", json=ask)]
        assert entered.wait(10)
        under_way += [pool.submit(client.post, "/v1/classify", json=ask) for _ in range(2)]
        while service.scheduler.waiting < 2:
            time.sleep(0.01)
        refused = client.post("/v1/classify", json=ask)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        let_go.set()
        assert [one.result(20).status_code for one in under_way] == [200] * 3
    assert service.close(5)


def test_a_late_answer_is_a_timeout(runs, monkeypatch):
    let_go = threading.Event()
    plain = Scheduler._answer
    monkeypatch.setattr(Scheduler, "_answer", lambda self, batch: let_go.wait(20) and plain(self, batch))
    service = service_of(runs, seconds=0.2)
    late = TestClient(create_app(service)).post("/v1/classify", json={"model": "soft", "text": TEXT})
    assert late.status_code == 504 and "took too long" in late.json()["error"]
    let_go.set()
    assert service.close(5)


def test_tokens(service, runs):
    client = TestClient(create_app(service, token="secret", admin_token="admin"))
    ask = {"model": "soft", "text": TEXT}
    bearer = {"authorization": "Bearer secret"}
    assert client.post("/v1/classify", json=ask).status_code == 401
    assert client.post("/v1/classify", json=ask, headers={"authorization": "Bearer secrett"}).status_code == 401
    assert client.post("/v1/classify", json=ask, headers=bearer).status_code == 200
    assert client.get("/v1/models").status_code == client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == client.get("/").status_code == 200
    new = {"name": "again", "folder": str(runs / "soft")}
    assert client.post("/v1/artifacts", json=new, headers=bearer).status_code == 401
    assert "access-control-allow-origin" not in client.get("/healthz", headers={"origin": "http://a.example"}).headers
    open_ = TestClient(create_app(service))
    assert "--admin-token" in open_.post("/v1/artifacts", json=new).json()["error"]


def test_artifacts_come_and_go(service, runs, tmp_path):
    client = TestClient(create_app(service, admin_token="admin"))
    admin = {"authorization": "Bearer admin"}
    made = client.post("/v1/artifacts", json={"name": "again", "folder": str(runs / "soft")}, headers=admin)
    assert made.status_code == 201 and made.json()["id"] == "again"
    names = [one["id"] for one in client.get("/v1/models").json()["data"]]
    assert names == [tiny_base().name, *sorted(METHODS), "again"]
    assert client.post("/v1/classify", json={"model": "again", "text": TEXT}).status_code == 200
    assert client.delete("/v1/artifacts/again", headers=admin).status_code == 204
    assert client.delete("/v1/artifacts/again", headers=admin).status_code == 404
    assert client.post("/v1/classify", json={"model": "again", "text": TEXT}).status_code == 404
    outside = client.post("/v1/artifacts", json={"name": "x", "folder": str(tmp_path)}, headers=admin)
    assert outside.status_code == 422 and "lies outside" in outside.json()["error"]
    nothing = client.post("/v1/artifacts", json={"name": "x", "folder": str(runs / "none")}, headers=admin)
    assert nothing.status_code == 422


def test_figures_and_the_access_log_hold_no_text(service, caplog):
    client = TestClient(create_app(service))
    access.propagate = True
    with caplog.at_level(logging.INFO, logger=access.name):
        headers = {"x-request-id": "my-id-1"}
        answered = client.post("/v1/classify", json={"models": ["soft", "infix"], "text": TEXT}, headers=headers)
        client.get(f"/{TEXT}")
    assert answered.headers["x-request-id"] == "my-id-1"
    lines = [json.loads(record.message) for record in caplog.records if record.name == access.name]
    assert lines[0]["id"] == "my-id-1" and lines[0]["route"] == "/v1/classify" and lines[0]["status"] == 200
    assert lines[-1]["route"] == "unknown" and TEXT not in str(lines)
    figures = client.get("/metrics").text
    assert 'softprompt_requests_total{route="/v1/classify",status="200"}' in figures
    for name in ("queue_answers", "artifacts", "document_cache_hits", "batch_answers_bucket"):
        assert f"softprompt_{name}" in figures


def test_the_schema_says_what_may_come_back(client):
    schema = client.get("/openapi.json").json()
    assert {"/v1/classify", "/v1/extract", "/v1/models", "/v1/artifacts"} <= set(schema["paths"])
    assert {"413", "422", "429"} <= set(schema["paths"]["/v1/classify"]["post"]["responses"])


def test_folders_are_followed(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("softprompt.serve.watching.EVERY", 0.05)
    here = tmp_path / "runs"
    shutil.copytree(runs / "soft", here / "one")
    service = service_of(here)
    notes: list[str] = []
    follow(service, artifacts_in(here), [here], notes.append)

    def wait(text: str) -> None:
        end = time.monotonic() + 10
        while not any(text in note for note in notes):
            assert time.monotonic() < end, notes
            time.sleep(0.02)

    shutil.copytree(runs / "infix", tmp_path / "new")
    (tmp_path / "new").rename(here / "two")  # whole at once
    wait("loaded two")
    expected = service.runtime.predict([TEXT], "two")[0].probabilities
    shutil.copytree(runs / "hard", tmp_path / "other")
    (here / "two").rename(tmp_path / "old")
    (tmp_path / "other").rename(here / "two")
    end = time.monotonic() + 10
    while time.monotonic() < end and (
        "two" not in service.runtime.names or service.runtime.predict([TEXT], "two")[0].probabilities == expected
    ):
        time.sleep(0.02)
    assert service.runtime.predict([TEXT], "two")[0].probabilities != expected
    shutil.rmtree(here / "one")
    wait("removed one")
    assert service.runtime.names == ["two"]
    service.close(5)


def test_wrong_answers_under_change_are_none(runs):
    """Threads ask while artifacts are replaced under their names and removed: each answer is its artifact's own."""
    service = service_of(runs)
    texts = [f"{word} {place}" for place, word in enumerate(["joy", "mud", "sun", "rain"] * 3)]
    own = {name: {text: service.runtime.predict([text], name)[0].probabilities for text in texts} for name in METHODS}
    wrong, stop = [], threading.Event()

    def ask(start: int) -> None:
        for step in range(6):
            name, text = list(METHODS)[(start + step) % 4], texts[(start * 5 + step) % len(texts)]
            request = service.submit([name], [text], False)
            request.outcome.result(30)
            if request.predictions()[0].probabilities != pytest.approx(own[name][text], abs=1e-5):
                wrong.append((name, text))

    def change() -> None:
        while not stop.is_set():
            for name in METHODS:
                service.add(name, runs / name)
                service.add("passing", runs / name)
                service.remove("passing")

    changing = threading.Thread(target=change)
    changing.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    stop.set()
    changing.join()
    assert not wrong
    assert service.close(5)


@pytest.fixture(scope="module")
def folder_of_base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_sigterm_finishes_what_is_under_way(folder_of_base, tmp_path):
    train(Base.load(folder_of_base), tiny_task(), "soft", tmp_path / "run", train=SETTINGS, rows=tiny_rows())
    command = [sys.executable, "-m", "softprompt", "serve", str(tmp_path / "run"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        assert process.stderr is not None
        while not (address := re.search(r"http://\S+", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines

        def ask(place: int) -> int:
            body = json.dumps({"model": "run", "texts": [f"joy {place} {k}" for k in range(40)]}).encode()
            asked = urllib.request.Request(f"{address[0]}/v1/classify", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=30) as response:
                return len(json.load(response)["results"])

        with ThreadPoolExecutor(8) as pool:
            assert ask(0) == 40
            under_way = [pool.submit(ask, place) for place in range(8)]
            time.sleep(0.15)
            process.send_signal(signal.SIGTERM)
            answered = [one.result() for one in under_way if one.exception() is None]
        assert set(answered) == {40} and answered
        assert process.wait(20) == 0
    finally:
        process.kill()
