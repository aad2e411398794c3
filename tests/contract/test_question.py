"""A template's question: text behind the row's in which nothing is learned, with every method and on every kind of base."""

from __future__ import annotations

import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base, tiny_model

from softprompt.artifact import load
from softprompt.methods import make_method
from softprompt.readings import reading_digest
from softprompt.runtime import Runtime
from softprompt.training import prepare, train

from .cases import METHODS, name_of

SOFT, PREFIX, LORA = {"name": "soft", "length": 3}, {"name": "prefix", "length": 3}, {"name": "lora", "r": 2}
# the others are compared with PEFT's in `test_reference.py` and `test_export.py`, behind a question
FIRST = ("infix-cue=4", "infix-form=embeddings", "prefix-layers=2-", "probe", "full-layers=2-")
CASES = [
    *(
        pytest.param("llama", one, id=f"llama-{name_of(one)}", marks=() if name_of(one) in FIRST else pytest.mark.full)
        for one in METHODS
    ),
    *(pytest.param("bert", one, id=f"bert-{name_of(one)}") for one in (SOFT, PREFIX, LORA, "probe")),
    *(pytest.param("t5", one, id=f"t5-{name_of(one)}") for one in (SOFT, PREFIX, "infix")),
]
FRONT = {"instruction": "Good or bad? ", "input": "Text: {{ text }}"}
ASKED = {**FRONT, "question": "\nWhich?", "cue": "\nIt is:"}
IN_CUE = {**FRONT, "cue": "\nWhich?\nIt is:"}


def ready_for(family, method, template):
    return prepare(
        tiny_base(family), tiny_task(template=template), make_method(method), rows=tiny_rows(4, 4, 0), seed=3
    )


@pytest.mark.parametrize(("family", "method"), CASES)
def test_it_reads_as_words_in_front_of_the_cue(family, method):
    """Losses and gradients are those of a template whose cue holds it, which the plain models prove.

    An activated LoRA acts from the cue on, so it has its own proof: with PEFT, in `test_reference.py` and `test_ask.py`.
    """
    activated = "activate" in str(method)
    found = []
    for template in (ASKED, ASKED if activated else IN_CUE):
        ready = ready_for(family, method, template)
        rows, learned = ready.splits["train"], ready.method.learned()
        assert ready.bound.behind == ready_for(family, "hard", IN_CUE).bound.behind
        if template is IN_CUE or (activated and found):
            ready.engine.encode(rows)  # whether it is kept or not
        logits, _ = ready.form.logits(ready.engine, rows, learned)
        loss, _ = ready.form.loss(ready.engine, rows, learned)
        if loss.requires_grad:
            loss.backward()
        grads = [one.grad for one in ready.method.parameters() if one.grad is not None]
        found.append((logits.detach(), loss.detach(), grads))
    (logits, loss, grads), (other, same, theirs) = found
    close(logits, other)
    close(loss, same)
    assert len(grads) == len(theirs)
    for mine, its in zip(grads, theirs, strict=True):
        close(mine, its, 1e-4)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_the_plain_model_reads_its_text(family):
    """The tokens are those of the whole text, and the scores those of the plain model behind them."""
    base, model = tiny_base(family), tiny_model(family).eval()
    task = tiny_task(template={**ASKED, "end": "!"}, scoring={"over": "vocabulary"})
    ready = prepare(base, task, make_method("hard"), rows=tiny_rows(4, 4, 0))
    row, values = ready.splits["dev"][0], tiny_rows(4, 4, 0)["dev"][0].values
    text = f"Good or bad? Text: {values['text']}\nWhich?\nIt is:"
    masks = [base.mask_id] * len(row.candidates[0]) if family == "bert" else []
    ids = [*base.tokenizer(text, add_special_tokens=False)["input_ids"], *masks]
    whole = [*base.tokenizer("")["input_ids"][: int(family == "bert")], *ids, *ready.bound.tail]
    assert whole == [*ready.bound.prefix_ids, *row.text, *ready.bound.behind, *masks, *ready.bound.tail]
    with torch.no_grad():
        if family == "bert":
            logp = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            first = len(whole) - len(ready.bound.tail) - len(masks)
        else:
            decoder = torch.tensor([[*base.start_ids, *row.candidates[0][:-1]]])
            logp = model(input_ids=torch.tensor([whole]), decoder_input_ids=decoder).logits[0].log_softmax(-1)
            first = 0
        theirs = sum(logp[first + place, token] for place, token in enumerate(row.candidates[0]))
        batch = next(iter(ready.engine.contexts([row], ready.method.learned())))[1]
        close(batch.score([row.candidates])[0][0], theirs)


@pytest.mark.parametrize(("family", "method"), [("bert", {"name": "prefix", "length": 3}), ("t5", "infix")])
def test_where_nothing_is_shared_it_is_asked_all_the_same(family, method, tmp_path):
    """Bases that read both ways, or with an encoder, read a document for each artifact."""
    runtime = Runtime(tiny_base(family))
    for place, question in enumerate(("\nWhich?", "\nIs it?")):
        template = {**ASKED, "question": question}
        folder = tmp_path / str(place)
        rows = tiny_rows(4, 2, 0)
        train(
            runtime.base, tiny_task(template=template), method, folder, train={"max_steps": 1}, rows=rows, check=False
        )
        runtime.add(question, folder)
        assert reading_digest(load(folder / "artifact").manifest) is None
    text = "joy and sun " * 8
    alone = [runtime.predict([text], name)[0].probabilities for name in runtime.names]
    assert [one.probabilities for one in runtime.ask(text)] == [pytest.approx(one, abs=1e-6) for one in alone]
    assert alone[0] != alone[1] and runtime.readings(text) == [[None], [None]]
    assert runtime.documents.state.texts == 0
