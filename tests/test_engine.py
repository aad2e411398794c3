"""What is computed once equals what is computed every time: losses and gradients, against the plain model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from covering import covering
from helpers import close, examples
from models import FAMILIES, tiny_base
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from softprompt.base import Base, LivePrefix, model
from softprompt.base.groups import order
from softprompt.engine import NOTHING, SLOTS, CacheConfig, Engine, Learned, Slot, plan, score
from softprompt.engine.rows import run_prefix

PREFIX_IDS, CUE = (5, 6, 7), (8, 9, 10)
FRONT_SOFT = (Slot("prompt", learned="embeddings"), *SLOTS)
FRONT_KV = (Slot("prompt", learned="kv"), *SLOTS)


def infix(form, cue=1):
    before, text, _, answer = SLOTS
    cut = len(CUE) - cue
    prompt = Slot("prompt", learned=form, takes_positions=form == "embeddings")
    return (before, text, Slot("cue", True, stop=cut), prompt, Slot("cue", True, start=cut), answer)


def naive_embeddings(base, example, learned, where):
    """One row, whole sequence, plain model: the embeddings stand where they belong."""
    embed = base.model.get_input_embeddings()
    before = (*PREFIX_IDS, *example.text, *CUE[:-1]) if where == "infix" else ()
    after = (CUE[-1],) if where == "infix" else (*PREFIX_IDS, *example.text, *CUE)
    ids = lambda tokens: embed(torch.tensor(tokens, dtype=torch.long))  # noqa: E731
    rows = torch.cat([ids(before), learned, ids((*after, *example.answer[:-1]))])
    return base.model(inputs_embeds=rows[None]).logits[0]


def naive_loss(base, rows, learned, where):
    total, count = 0.0, 0
    for example in rows:
        logits = naive_embeddings(base, example, learned, where)
        size = len(example.answer)
        total = total + F.cross_entropy(logits[-size:], torch.tensor(example.answer), reduction="sum")
        count += size
    return total / count


def turned(base, kv, place):
    """Keys of [L, 2, G, P, D] turned to a position by the model's own code."""
    if not hasattr(base.model.base_model, "rotary_emb"):
        return kv  # GPT-2's keys hold no position
    types = getattr(base.config, "layer_types", None) if base.config.model_type.startswith("gemma3") else None
    layers = []
    for number, layer in enumerate(kv):
        kind = [types[number]] if types else []
        cos, sin = base.model.base_model.rotary_emb(kv, torch.tensor([[place]]), *kind)
        keys, _ = apply_rotary_pos_emb(layer[None, 0], layer[None, 0], cos, sin)
        layers.append(torch.stack([keys[0], layer[1]]))
    return torch.stack(layers)


def prompt(value):
    return Learned({"prompt": value})


def scores_of(engine, rows):
    """Log-likelihood of every candidate of every row."""
    found = {}
    for part, batch in engine.contexts(rows, NOTHING):
        found |= zip(part, score(batch, [rows[index].candidates for index in part]), strict=True)
    return [found[index] for index in range(len(rows))]


@pytest.mark.parametrize("length", [1, 5, 20])
@pytest.mark.parametrize("where", ["front", "infix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_equal_the_plain_forward(family, where, length):
    base, rows = tiny_base(family), examples()
    start = torch.randn(length, 64, generator=torch.Generator().manual_seed(length))
    slots = FRONT_SOFT if where == "front" else infix("embeddings")
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    engine = Engine(base, plan(slots), PREFIX_IDS, CUE)
    engine.encode(rows)
    assert (len(engine.cache) > 0) == (where == "infix")
    total, count = engine.loss(rows, prompt(ours))
    (total / count).backward()
    expected = naive_loss(base, rows, theirs, where)
    expected.backward()
    close(total / count, expected)
    close(ours.grad, theirs.grad)


@pytest.mark.parametrize("length", [1, 5, 20])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen", "gemma3-wide"])
def test_prefix_equals_the_models_own_cache(family, length):
    base, rows = tiny_base(family), examples()
    s = base.shape
    start = torch.randn(s.layers, 2, s.kv_heads, length, s.head_size, generator=torch.Generator().manual_seed(1))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    total, count = Engine(base, plan(FRONT_KV), PREFIX_IDS, CUE).loss(rows, prompt(ours))
    (total / count).backward()
    expected = 0.0
    for example in rows:
        cache = DynamicCache([(layer[0][None], layer[1][None]) for layer in theirs])
        ids = torch.tensor([[*PREFIX_IDS, *example.text, *CUE, *example.answer[:-1]]])
        logits = base.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0]
        size = len(example.answer)
        expected = expected + F.cross_entropy(logits[-size:], torch.tensor(example.answer), reduction="sum")
    expected = expected / count
    expected.backward()
    close(total / count, expected)
    close(ours.grad, theirs.grad)


@pytest.mark.parametrize("cue", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_encoded_texts_equal_texts_that_run_every_step(family, cue):
    """The infix K/V: with the row cache and without it, loss and gradient are the same."""
    base, rows = tiny_base(family), examples()
    s = base.shape
    start = torch.randn(s.layers, 2, s.kv_heads, 4, s.head_size, generator=torch.Generator().manual_seed(2))
    results = []
    for encode in (True, False):
        learned = start.clone().requires_grad_()
        engine = Engine(base, plan(infix("kv", cue)), PREFIX_IDS, CUE)
        if encode:
            engine.encode(rows)
        assert (len(engine.cache) == len({row.text for row in rows})) is encode
        total, count = engine.loss(rows, prompt(learned))
        (total / count).backward()
        results.append((total / count, learned.grad))
    close(results[0][0], results[1][0])
    close(results[0][1], results[1][1])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen", "gemma3-wide"])
def test_infix_kv_equals_a_model_that_is_given_the_keys(family):
    """Independent of our attention: cue and answer run by the plain model behind a cache [prefix_ids text | learned].

    The learned keys stand where the cue does, in rows of all lengths.
    """
    base, rows = tiny_base(family), examples(3)
    s = base.shape
    learned = torch.randn(s.layers, 2, s.kv_heads, 4, s.head_size, generator=torch.Generator().manual_seed(3))
    engine = Engine(base, plan(infix("kv", 1)), PREFIX_IDS, CUE)
    engine.encode(rows)
    ours, theirs = learned.clone().requires_grad_(), learned.clone().requires_grad_()
    total, _ = engine.loss(rows, prompt(ours))
    total.backward()
    expected = 0.0
    for example in rows:
        before = torch.tensor([[*PREFIX_IDS, *example.text, *CUE[:-1]]])
        cache = base.model(input_ids=before, use_cache=True).past_key_values
        pairs = [
            (torch.cat([layer.keys, new[0][None]], 2), torch.cat([layer.values, new[1][None]], 2))
            for layer, new in zip(cache.layers, turned(base, theirs, before.shape[1]), strict=True)
        ]
        after = torch.tensor([[CUE[-1], *example.answer[:-1]]])
        places = torch.arange(after.shape[1])[None] + before.shape[1]  # the learned keys take no position
        logits = base.model(input_ids=after, past_key_values=DynamicCache(pairs), position_ids=places).logits[0]
        size = len(example.answer)
        expected = expected + F.cross_entropy(logits[-size:], torch.tensor(example.answer), reduction="sum")
    expected.backward()
    close(total, expected)
    close(ours.grad, theirs.grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_learned_scores_like_the_plain_model(family):
    """Every candidate of several tokens, in ragged buckets."""
    base, rows = tiny_base(family), examples(9)
    engine = Engine(base, plan(SLOTS), PREFIX_IDS, CUE)
    for example, ours in zip(rows, scores_of(engine, rows), strict=True):
        for place, answer in enumerate(example.candidates):
            ids = torch.tensor([[*PREFIX_IDS, *example.text, *CUE, *answer]])
            with torch.no_grad():
                logp = base.model(ids).logits[0].log_softmax(-1)
            want = sum(logp[len(ids[0]) - len(answer) - 1 + i, token] for i, token in enumerate(answer))
            close(ours[place], want)


def test_a_row_that_was_not_encoded_may_stand_beside_those_that_were():
    base, rows = tiny_base(), examples(9)
    s = base.shape
    learned = torch.randn(s.layers, 2, s.kv_heads, 4, s.head_size, generator=torch.Generator().manual_seed(8))
    engine = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE)
    engine.encode(rows[:4])
    close(
        engine.loss(rows, prompt(learned))[0],
        Engine(base, plan(infix("kv")), PREFIX_IDS, CUE).loss(rows, prompt(learned))[0],
    )


def test_text_longer_than_the_window_slides():
    """Gemma-3's window of 8 must hide old text, and only text: rows far longer than the window, front and infix."""
    base, rows = tiny_base("gemma3"), examples(5, longest=60)
    for where, slots in (("front", FRONT_SOFT), ("infix", infix("embeddings"))):
        learned = torch.randn(3, 64, generator=torch.Generator().manual_seed(4))
        engine = Engine(base, plan(slots), PREFIX_IDS, CUE)
        engine.encode(rows)
        total, count = engine.loss(rows, prompt(learned))
        close(total / count, naive_loss(base, rows, learned, where))


def test_accumulated_gradients_equal_one_batch():
    base, rows = tiny_base(), examples(8)
    start = torch.randn(5, 64, generator=torch.Generator().manual_seed(5))
    grads = []
    for size in (8, 2):
        learned = start.clone().requires_grad_()
        engine = Engine(base, plan(FRONT_SOFT), PREFIX_IDS, CUE)
        tokens = sum(len(row.answer) for row in rows)
        for begin in range(0, 8, size):
            total, _ = engine.loss(rows[begin : begin + size], prompt(learned))
            (total / tokens).backward()
        grads.append(learned.grad)
    close(grads[0], grads[1])


def test_rows_do_not_depend_on_their_company():
    base, rows = tiny_base(), examples(9)
    engine = Engine(base, plan(SLOTS), PREFIX_IDS, CUE)
    together = scores_of(engine, rows)
    alone = [scores_of(engine, [row])[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    ("place", "gradient_checkpointing"),
    covering(list(product(FAMILIES, ["embeddings", "kv", "upper"])), [False, True], group=lambda place: place[1]),
)
def test_rows_that_attend_in_groups_equal_rows_alone(place, gradient_checkpointing, monkeypatch):
    family, form = place
    base, rows = tiny_base(family).view(gradient_checkpointing=gradient_checkpointing), examples(13)
    rows = [replace(row, text=row.text * (1 + place % 4)) for place, row in enumerate(rows)]
    taken = []
    monkeypatch.setattr(model, "order", lambda *given: taken.append(order(*given)) or taken[-1])
    s = base.shape
    sizes = (5, s.hidden_size) if form == "embeddings" else (s.layers, 2, s.kv_heads, 5, s.head_size)
    start = torch.randn(*sizes, generator=torch.Generator().manual_seed(6))
    plan_of = plan(FRONT_SOFT if form == "embeddings" else FRONT_KV, first_layer=1 if form == "upper" else 0)
    found = []
    for parts in ([rows], [[row] for row in rows]):
        learned = start.clone().requires_grad_()
        engine = Engine(base, plan_of, PREFIX_IDS, CUE, start=prompt(start))
        engine.encode(rows)
        taken.clear()
        totals = [engine.loss(part, prompt(learned))[0] for part in parts]
        sum(totals).backward()
        found.append((sum(totals), learned.grad))
        in_groups = any(len(one.cuts) > 1 + (one.prefix_tokens > 0) for one in taken)
        assert in_groups is (len(parts) == 1), "in groups, then alone"
    close(found[0][0] / len(rows), found[1][0] / len(rows))
    close(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("place", "gradient_checkpointing"),
    covering(
        list(product(FAMILIES, ["embeddings", "kv", "upper", "behind"])), [True, False], group=lambda place: place[1]
    ),
)
def test_a_prefix_that_runs_with_its_rows_equals_one_that_ran_before(place, gradient_checkpointing, monkeypatch):
    """`behind`: what is learned stands behind a part of the `prefix_ids` that is frozen."""
    family, form = place
    base, rows = tiny_base(family).view(gradient_checkpointing=gradient_checkpointing), examples(13)
    s = base.shape
    sizes = (5, s.hidden_size) if form in ("embeddings", "behind") else (s.layers, 2, s.kv_heads, 5, s.head_size)
    start = torch.randn(*sizes, generator=torch.Generator().manual_seed(6))
    learned_slot, rest = Slot("prompt", learned="embeddings"), SLOTS[1:]
    slots = FRONT_SOFT if form == "embeddings" else FRONT_KV
    if form == "behind":
        slots = (Slot("prefix_ids", same=True, stop=2), learned_slot, Slot("prefix_ids", same=True, start=2), *rest)
    found, prefixes = [], []
    forward = Base.forward
    monkeypatch.setattr(Base, "forward", lambda *given: prefixes.append(given[-1]) or forward(*given))
    for before in (False, True):
        if before:
            monkeypatch.setattr(Engine, "live_prefix", ran_before(Engine.live_prefix))
        learned = start.clone().requires_grad_()
        engine = Engine(
            base, plan(slots, first_layer=1 if form == "upper" else 0), PREFIX_IDS, CUE, start=prompt(start)
        )
        engine.encode(rows)
        prefixes.clear()
        total, count = engine.loss(rows, prompt(learned))
        assert any(isinstance(one, LivePrefix) for one in prefixes) is not before
        total.backward()
        found.append((total / count, learned.grad))
    close(found[0][0], found[1][0])
    close(found[0][1], found[1][1])


def ran_before(live_prefix):
    """`Engine.live_prefix` with its tokens run."""
    return lambda self, learned, low=False: run_prefix(
        self._live(learned), live_prefix(self, learned, low), self.plan.first_layer if low else 0
    )


def test_base_is_untouched_by_training():
    base, rows = tiny_base(), examples(4)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    learned = torch.randn(4, 64).requires_grad_()
    Engine(base, plan(FRONT_SOFT), PREFIX_IDS, CUE).loss(rows, prompt(learned))[0].backward()
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert all(weight.grad is None for weight in base.model.parameters())


@pytest.mark.parametrize("form", ["embeddings", "kv"])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_are_computed_again_give_the_same_gradients(family, form):
    """Gradient checkpointing, prefixes included: the call travels along, so a layer run again finds the same blocks."""
    base, rows = tiny_base(family), examples(4)
    s = base.shape
    sizes = (5, s.hidden_size) if form == "embeddings" else (s.layers, 2, s.kv_heads, 5, s.head_size)
    start = torch.randn(*sizes, generator=torch.Generator().manual_seed(6))
    for slots in ((Slot("prompt", learned=form), *SLOTS), infix(form)):
        grads = []
        for some in (base, base.view(gradient_checkpointing=True)):
            learned = start.clone().requires_grad_()
            Engine(some, plan(slots), PREFIX_IDS, CUE).loss(rows, prompt(learned))[0].backward()
            grads.append(learned.grad)
        close(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cache_in_ram_in_a_file_and_in_half_precision(tmp_path, monkeypatch, dtype):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    base, rows = tiny_base(), examples(9)
    s = base.shape
    learned = torch.randn(s.layers, 2, s.kv_heads, 4, s.head_size, generator=torch.Generator().manual_seed(7))
    losses = []
    for ram in (1 << 30, 20_000, 0):
        engine = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE, CacheConfig(dtype=dtype, ram=ram))
        engine.encode(rows)
        assert bool(engine.cache.on_disk) == (ram < 1 << 30)
        losses.append(engine.loss(rows, prompt(learned))[0].item())
        engine.cache.close()
        assert not list(tmp_path.rglob("*.bin"))  # the files go with the process, however it ends
    assert losses[0] == losses[1] == losses[2]
    plain = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE).loss(rows, prompt(learned))[0].item()
    assert losses[0] == pytest.approx(plain, rel=1e-5 if dtype == torch.float32 else 2e-2)


def test_kept_cache_serves_the_next_run_and_a_full_one_is_refused(tmp_path, monkeypatch):
    from softprompt.errors import TrainingError

    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path))
    base, rows = tiny_base(), examples(6)
    first = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE, CacheConfig(keep=True))
    first.encode(rows)
    first.cache.close()
    again = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE, CacheConfig(keep=True))
    assert len(again.cache) == len({row.text for row in rows})
    other = Engine(base, plan(infix("kv")), (5, 6), CUE, CacheConfig(keep=True))
    assert len(other.cache) == 0  # another prefix is another context
    small = Engine(base, plan(infix("kv")), PREFIX_IDS, CUE, CacheConfig(ram=1000, disk=1000))
    with pytest.raises(TrainingError, match=r"cache\.ram_gb"):
        small.encode(rows)
