"""The bundled base, for real: fetched once, converted once, exact on the engine, offline afterwards."""

from __future__ import annotations

import pytest
import torch

from softprompt.base import Base, bundled
from softprompt.errors import BaseModelError

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def base():
    return Base.load("smollm2")


def test_loads_with_its_tokenizer(base):
    assert (base.shape.layers, base.shape.kv_heads, base.shape.head_size, base.shape.hidden_size) == (30, 3, 64, 576)
    ids = base.tokenizer("Review: a fine film .\nSentiment:")["input_ids"]
    assert base.tokenizer.decode(ids) == "Review: a fine film .\nSentiment:"
    chat = base.tokenizer.apply_chat_template([{"role": "user", "content": "好"}], tokenize=False)
    assert len(base.tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"]) == 1 and "好" in chat
    with torch.no_grad():
        said = base.model.generate(
            **base.tokenizer("The capital of France is", return_tensors="pt"), max_new_tokens=4, do_sample=False
        )
    assert "Paris" in base.tokenizer.decode(said[0])  # plain transformers runs on it as before


def test_second_load_asks_no_network(base, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    again = Base.load("smollm2")
    assert (again.digest, again.tokenizer_digest) == (base.digest, base.tokenizer_digest)
    assert {item.name: there for item, there in bundled.list_bases()}["smollm2"]


def test_bf16_is_the_same_base_and_agrees(base):
    half = Base.load("smollm2", dtype="bf16")
    assert half.digest == base.digest
    ids = base.tokenizer("Review: a dull and lifeless film .\nSentiment:")["input_ids"]
    zero = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        both = [b.logits(b.forward(b.embed(torch.tensor(ids)), [len(ids)], zero).states[-1:])[0] for b in (base, half)]
    assert both[0].argmax() == both[1].argmax()


def test_packed_weights_give_the_same(base):
    ids = torch.tensor(base.tokenizer("Sentiment: positive")["input_ids"])
    zero = torch.zeros(1, dtype=torch.long)
    results = []
    for some in (base, base.view(prepacked=True)):
        embeddings = some.embed(ids).clone().requires_grad_()
        logits = some.logits(some.forward(embeddings, [len(ids)], zero).states)
        logits.logsumexp(-1).sum().backward()
        results.append((logits, embeddings.grad))
    (logits, grad), (packed_logits, packed_grad) = results
    assert torch.allclose(logits, packed_logits, atol=1e-3)
    assert torch.allclose(grad, packed_grad, atol=1e-3 * grad.abs().max().item())


def test_unknown_names():
    with pytest.raises(BaseModelError, match="did you mean 'smollm2'"):
        bundled.get("smolm2")
