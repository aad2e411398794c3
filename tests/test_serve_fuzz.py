"""Requests of all kinds against the server's own schema: none fails inside, and each answer is one that the schema tells.

Most are good ones with odd values: names that are loaded, texts of any Unicode. The others are what schemathesis makes of the
schema, wrong ones among them.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from helpers import tiny_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import tiny_base
from test_serve_openai import writes

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("schemathesis")
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.python import asgi

from softprompt import Runtime
from softprompt.serve.http import create_app
from softprompt.serve.limits import Limits
from softprompt.serve.service import Service
from softprompt.tasks import Task

load_all_checks()
CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "allow_header_conformance",
    )
]
SIGNS = st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf", "Cs", "Co", "Cn"])
SPECIAL = ["</s>", "<|im_end|>", "[MASK]", "\x00", "\ud800", "\udfff\ud800", "\ufeff", "\r\n", "{{ text }}"]
LONG = ["joy " * 2500, "中" * 10**4]
TEXTS = st.one_of(
    st.sampled_from(["joy", "mud and rain", *SPECIAL, *LONG]),
    st.text(min_size=1),
    st.text(SIGNS, min_size=1, max_size=40),
    st.lists(st.sampled_from(["joy", " ", *SPECIAL]), min_size=1, max_size=9).map("".join),
)
VALUES = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(TEXTS, max_size=2))
ROWS = st.one_of(
    TEXTS,
    TEXTS,
    st.fixed_dictionaries({"text": VALUES}, optional={"title": VALUES}),
    st.dictionaries(TEXTS, VALUES, max_size=3),
)
NAMES = ["labels", "two", "spans", "writes", "team/ä", "tiny-llama", "labls", "\ud800", "x\x00\n"]


def some(names: list[str]) -> st.SearchStrategy:
    """Mostly names that fit, one or several."""
    return st.sampled_from([*names * 5, *NAMES])


CONTEXTS = st.fixed_dictionaries({"question": TEXTS, "context": TEXTS})


def asked(names: list[str], texts: st.SearchStrategy) -> st.SearchStrategy:
    """Bodies of `/v1/classify` and `/v1/extract`."""
    one = {"model": some(names)}
    many = {"models": st.lists(some(names), min_size=1, max_size=4)}
    rows = [{"text": texts}, {"texts": st.lists(texts, min_size=1, max_size=4)}]
    cut = {"truncate": st.sampled_from([True, True, False])}
    return st.one_of(*(st.fixed_dictionaries({**who, **what}, optional=cut) for who in (one, many) for what in rows))


HOW = {
    "max_tokens": st.integers(1, 6),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "seed": st.integers(0, 2**70),
    "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=3)),
    "n": st.just(1),
    "user": TEXTS,
}
WRITERS = ["writes", "tiny-llama", "labels", "spans"]
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "user", "assistant", "system"]), "content": TEXTS | st.just("")}
    ),
    min_size=1,
    max_size=3,
)
# what is answered: any Unicode that is whole, settings that mean something
WHOLE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.lists(
        st.sampled_from(["joy", " ", *(sign for sign in SPECIAL if "\ud800" not in sign)]), min_size=1, max_size=5
    ).map("joy".join),
)
FIELDS = st.fixed_dictionaries({"text": WHOLE | st.integers() | st.sampled_from(LONG)})
DRAWN = {"top_p": st.floats(0.1, 1), "seed": st.integers(0, 2**63 - 1)}
WRITTEN = st.one_of(
    st.fixed_dictionaries({"temperature": st.floats(0.1, 2)}, optional=DRAWN),
    st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 6), "stop": WHOLE, "temperature": st.just(0)}),
)


def answered(names: list[str], texts: st.SearchStrategy) -> st.SearchStrategy:
    """Bodies of `/v1/classify` and `/v1/extract` that fit."""
    models = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    texts = st.lists(texts, min_size=1, max_size=3)
    return st.fixed_dictionaries({"models": models, "texts": texts, "truncate": st.just(True)})


def told(**text: st.SearchStrategy) -> st.SearchStrategy:
    """Bodies of OpenAI's routes that fit: how a text is written, or nothing of it for a label."""
    whole = {**text, "stream": st.booleans()}
    written = st.fixed_dictionaries({"model": st.sampled_from(["writes", "tiny-llama"]), **whole})
    label = st.fixed_dictionaries({"model": st.sampled_from(["labels", "team/ä"]), **whole})
    return st.one_of(label, st.builds(lambda body, how: {**body, **how}, written, WRITTEN))


FITTING = {
    "/v1/classify": answered(["labels", "team/ä"], WHOLE | FIELDS)
    | answered(["two"], st.fixed_dictionaries({"text": WHOLE, "title": WHOLE})),
    "/v1/extract": answered(["spans"], st.fixed_dictionaries({"question": WHOLE, "context": WHOLE})),
    "/v1/completions": told(prompt=WHOLE),
    "/v1/chat/completions": told(
        messages=st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": WHOLE}), min_size=1, max_size=1)
    ),
}
ODD = {
    "/v1/classify": asked(["labels", "team/ä", "two"], ROWS),
    "/v1/extract": asked(["spans"], st.one_of(CONTEXTS, CONTEXTS, ROWS)),
    "/v1/completions": st.fixed_dictionaries(
        {"model": some(WRITERS), "prompt": TEXTS, "stream": st.booleans()}, optional=HOW
    ),
    "/v1/chat/completions": st.fixed_dictionaries(
        {"model": some(WRITERS), "messages": TURNS, "stream": st.booleans()}, optional=HOW
    ),
    "/v1/artifacts": st.fixed_dictionaries({"name": TEXTS, "folder": TEXTS}),
}


pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


@pytest.fixture(scope="module")
def operations():
    """All operations of the schema, a client that needs no network, and the answers by operation and status."""
    runtime = Runtime(tiny_base())
    two = tiny_task(template={"input": "{{ title }}: {{ text }}", "cue": "\nIt is:"})
    template = {"input": "{{ question }} {{ context }}", "cue": "\nIt is:"}
    spans = Task.load({"name": "spans", "type": "span", "template": template})
    named = {
        "labels": tiny_task(),
        "team/ä": tiny_task(),
        "two": two,
        "spans": spans,
        "writes": writes(max_new_tokens=4),
    }
    for name, task in named.items():
        runtime.add(name, task)
    service = Service(runtime, limits=Limits(seconds=30.0))
    app = create_app(service, admin_token="admin")
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    counts: Counter[tuple[str, int]] = Counter()
    with asgi.get_client(app, max_stream_events=1000) as client:
        client.headers["authorization"] = "Bearer admin"
        yield [found.ok() for found in schema.get_all_operations()], client, counts
    assert service.close(20)
    assert sum(counts.values()) > 100


def as_bytes(operation, body):
    """As Python's own writer has it: half pairs as escapes, NaN as it is, which no client of schemathesis sends."""
    return operation.Case(body=json.dumps(body).encode(), media_type="application/json")


def check(case, client, counts) -> None:
    response = case.call(session=client)
    case.validate_response(response, checks=CHECKED)
    counts[case.operation.label, response.status_code] += 1
    if response.status_code >= 400:
        told = response.json()
        assert list(told) == ["error"] and told["error"].isprintable() and 0 < len(told["error"]) < 1100
    elif case.operation.path == "/v1/classify":
        sure = [one["probabilities"] for one in response.json()["results"] if one.get("probabilities")]
        assert all(sum(one.values()) == pytest.approx(1, abs=1e-4) for one in sure)


def run(operations, examples: int) -> None:
    every, client, counts = operations

    def ask(operation) -> None:
        odd, fitting = ODD.get(operation.path), FITTING.get(operation.path)
        made = operation.as_strategy()
        wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        good = made if odd is None else odd.map(lambda body: as_bytes(operation, body))
        best = good if fitting is None else fitting.map(lambda body: as_bytes(operation, body))

        @settings(
            max_examples=examples if odd is not None else max(3, examples // 10),
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(best, best, best, best, good, made, wrong))
        def one(case) -> None:
            check(case, client, counts)

        one()

    for operation in every:
        ask(operation)


def test_each_answer_is_one_that_the_schema_tells(operations):
    run(operations, 40)


@pytest.mark.full
def test_each_answer_is_one_that_the_schema_tells_thousands_of_times(operations, capsys):
    run(operations, 1000)
    with capsys.disabled():
        for (label, status), count in sorted(operations[2].items()):
            print(f"{label:32} {status} {count:6}")
