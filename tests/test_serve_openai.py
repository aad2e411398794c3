"""OpenAI-shaped routes: what is written equals the runtime's and the plain model's; pieces make the whole."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from softprompt import Runtime
from softprompt.data import Row
from softprompt.serve.http import create_app
from softprompt.serve.limits import Limits
from softprompt.serve.service import Service
from softprompt.tasks import Task
from softprompt.training import train

TEXT = "joy and sun"


def writes(**generation) -> Task:
    return Task.load(
        {
            "name": "writes",
            "type": "generation",
            "metric": "exact_match",
            "template": {"input": "Say: {{ text }}", "cue": "\nIt is:"},
            "generation": {"max_new_tokens": 12, "stop": ["~"], **generation},
        }
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Artifacts that write, one that chooses, and a bare base."""
    folder = tmp_path_factory.mktemp("openai")
    runtime = Runtime(tiny_base())
    rows = [Row({"text": row.values["text"], "answer": row.values["label"]}, row.where) for row in tiny_rows()["train"]]
    for name, method in (("soft", "soft"), ("infix", "infix")):
        train(tiny_base(), writes(), method, folder / name, train={"max_steps": 2}, rows={"train": rows}, check=False)
        runtime.add(name, folder / name)
    runtime.add("labels", tiny_task())
    runtime.add("two", tiny_task(template={"input": "{{ title }}: {{ text }}", "cue": "\nIt is:"}))
    service = Service(runtime)
    yield service
    assert service.close(10)


@pytest.fixture
def client(service) -> TestClient:
    return TestClient(create_app(service), raise_server_exceptions=False)


def pieces(response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("name", ["soft", "infix"])
def test_an_artifact_writes_what_the_runtime_writes(service, client, name):
    found = client.post("/v1/completions", json={"model": name, "prompt": TEXT}).json()
    expected = service.runtime.predict([TEXT], name)[0]
    assert found["object"] == "text_completion" and found["model"] == name
    choice = found["choices"][0]
    assert choice["text"] == expected.label
    assert choice["finish_reason"] == ("length" if expected.cut else "stop")
    assert found["usage"]["completion_tokens"] <= 12 < found["usage"]["prompt_tokens"]


def test_pieces_make_the_whole(service, client):
    whole = client.post("/v1/completions", json={"model": "soft", "prompt": TEXT}).json()["choices"][0]
    streamed = client.post("/v1/completions", json={"model": "soft", "prompt": TEXT, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = pieces(streamed)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["text"]
    assert len(chunks) > 3 and chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]


def test_a_base_goes_on_as_the_plain_model_does(client):
    base = tiny_base()
    found = client.post(
        "/v1/completions", json={"model": base.name, "prompt": "Say joy", "max_tokens": 8, "temperature": 0}
    )
    ids = torch.tensor([base.tokenizer("Say joy")["input_ids"]])
    plain = tiny_model("llama").eval()
    written = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=2)[0, ids.shape[1] :]
    assert found.json()["choices"][0]["text"] == base.tokenizer.decode(written, skip_special_tokens=True).strip()


def test_a_conversation(client):
    body = {"model": tiny_base().name, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 6}
    found = client.post("/v1/chat/completions", json=body).json()
    message = found["choices"][0]["message"]
    assert found["object"] == "chat.completion" and message["role"] == "assistant"
    chunks = pieces(client.post("/v1/chat/completions", json={**body, "stream": True}))
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == message["content"]


def test_an_artifact_that_chooses_says_its_label(service, client):
    expected = service.runtime.predict([TEXT], "labels")[0].label
    asked = {"model": "labels", "messages": [{"role": "user", "content": TEXT}]}
    assert client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"] == expected
    streamed = pieces(client.post("/v1/chat/completions", json={**asked, "stream": True}))
    assert streamed[0]["choices"][0]["delta"] == {"content": expected}
    wrong = client.post("/v1/chat/completions", json={**asked, "temperature": 0.5})
    assert (
        wrong.status_code == 422 and "writes nothing that do_sample, temperature could change" in wrong.json()["error"]
    )


def test_draws_with_a_seed_are_repeated(client):
    asked = {"model": "soft", "prompt": TEXT, "temperature": 1.5, "seed": 3}
    first, again, other = (
        client.post("/v1/completions", json={**asked, "seed": seed}).json()["choices"][0]["text"] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_many_are_written_together_and_each_as_alone(service, client):
    texts = [f"{TEXT} {place}" for place in range(6)]
    alone = [service.runtime.predict([text], name)[0].label for text in texts for name in ("soft", "infix")]
    asked = [{"model": name, "prompt": text} for text in texts for name in ("soft", "infix")]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda body: client.post("/v1/completions", json=body).json(), asked))
    assert [one["choices"][0]["text"] for one in found] == alone
    end = time.monotonic() + 5
    while service.scheduler.writing and time.monotonic() < end:  # an outcome is told before its step has ended
        time.sleep(0.01)
    assert service.scheduler.writing == 0


REFUSED = {
    "a field we do not know": ({"model": "soft", "prompt": "a", "best_of": 2}, 422, "best_of: extra inputs"),
    "two answers": ({"model": "soft", "prompt": "a", "n": 2}, 422, "n: "),
    "no such model": ({"model": "sof", "prompt": "a"}, 404, "did you mean 'soft'"),
    "two fields": ({"model": "two", "prompt": "a"}, 422, "which one text cannot give"),
    "too many tokens": ({"model": "soft", "prompt": "a", "max_tokens": 9999}, 422, "leave no room for the text"),
    "too long": ({"model": "soft", "prompt": "joy " * 400}, 413, "tokens, 'soft' reads"),
    "hot": ({"model": "soft", "prompt": "a", "temperature": 3}, 422, "temperature"),
    "seed alone": ({"model": "soft", "prompt": "a", "seed": 3}, 422, "seed has no effect"),
}


@pytest.mark.parametrize("body, status, message", REFUSED.values(), ids=REFUSED)
def test_refusals(client, body, status, message):
    for stream in (False, True):
        found = client.post("/v1/completions", json={**body, "stream": stream})
        assert found.status_code == status
        assert message in found.json()["error"]


def test_one_turn_for_an_artifact_that_reads_one_text(client):
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    found = client.post("/v1/chat/completions", json={"model": "soft", "messages": turns})
    assert found.status_code == 422 and "send one message of the user" in found.json()["error"]


def test_streams_are_bounded_and_a_text_nobody_waits_for_is_not_written(service):
    from softprompt.serve.openai import _begin
    from softprompt.serve.openai_bodies import Completion

    small = Service(service.runtime, limits=Limits(streams=1))
    client = TestClient(create_app(small), raise_server_exceptions=False)
    long = Completion(model=tiny_base().name, prompt="a", max_tokens=150, temperature=0)
    writing = _begin(small, long, None)
    assert client.post("/v1/completions", json={"model": "soft", "prompt": TEXT}).status_code == 429
    small.scheduler.cancel(writing)
    end = time.monotonic() + 10
    while small.scheduler.writing and time.monotonic() < end:
        time.sleep(0.01)
    assert len(writing.answer.ids) < 150
    assert client.post("/v1/completions", json={"model": "soft", "prompt": TEXT}).status_code == 200
    assert small.close(5)
