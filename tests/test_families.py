"""Masked, encoder and sequence-to-sequence bases against plain models: rows, learned K/V, heads, branches, and what is refused.

The references share nothing with our attention: transformers' eager one, and one written here that puts keys in front.
"""

from __future__ import annotations

import functools
import threading

import pytest
import torch
from helpers import close
from models import FAMILIES, MASKED, SEQ2SEQ, VOCABULARY, tiny_base, tiny_model, tiny_tokenizer
from transformers import AttentionInterface, DynamicCache

from softprompt.base import Base, Block
from softprompt.base.attention import ALWAYS, current
from softprompt.errors import BaseModelError

SIZES, OUTS = [11, 3, 23], [2, 6, 3]
NAIVE = "naive-with-keys-in-front"


class Front:
    """Learned keys and values of one row for the reference: `kv` [L, 2, G, P, D], seen from live token `since` on."""

    def __init__(self, kv: torch.Tensor, since: int = 0) -> None:
        self.kv, self.since, self.layer, self.own = kv, since, 0, []


def naive(module, query, key, value, attention_mask, scaling=None, sliding_window=None, position_bias=None, **kwargs):
    """Softmax over [learned keys | own keys], one row, by hand; layers are counted in the order in which they come."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if position_bias is None else scores + position_bias
    front = kwargs.get("front")
    if front is not None and not getattr(module, "crosses", False):
        size = query.shape[2]
        far = torch.arange(size)[:, None] - torch.arange(size)
        hidden = far < 0 if module.is_causal else torch.zeros_like(far, dtype=torch.bool)
        if sliding_window is not None:  # ModernBERT's: half a window on each side, and the token itself
            hidden = hidden | (far.abs() > module.config.local_attention // 2)
        front.own.append(torch.cat([key, value]))
        keys, values = front.kv[front.layer, :, None]
        front.layer += 1
        before = (query @ keys.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        before = before.masked_fill((torch.arange(size) < front.since)[:, None], float("-inf"))
        scores = torch.cat([before, scores.masked_fill(hidden, float("-inf"))], dim=-1)
        value = torch.cat([values, value], dim=2)
    return (scores.softmax(-1) @ value).transpose(1, 2), None


AttentionInterface.register(NAIVE, naive)


@functools.cache
def plain(family: str, attention: str = "eager"):
    """The same weights as the base's, in a model of its own that knows nothing of us."""
    model = tiny_model(family).eval().requires_grad_(False)
    model.set_attn_implementation(attention)
    for name, module in model.named_modules():
        module.crosses = name.endswith(("encoder_attn", "EncDecAttention"))
    return model


def embeddings(base: Base, sizes: list[int], seed: int = 0) -> torch.Tensor:
    ids = torch.randint(6, VOCABULARY, (sum(sizes),), generator=torch.Generator().manual_seed(seed))
    return base.embed(ids)


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.long)


def random(*sizes: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().clone().requires_grad_()


def front_of(base: Base, length: int = 5, rows: int = 1, seed: int = 2) -> torch.Tensor:
    """[rows, L, 2, G, P, D]."""
    s = base.shape
    return random(rows, s.layers, 2, s.kv_heads, length, s.head_size, seed=seed)


def block_of(kv: torch.Tensor, **changes) -> Block:
    rows, length = kv.shape[0], kv.shape[4]
    layers = kv.permute(1, 2, 0, 3, 4, 5)  # [L, 2, b, G, P, D]
    return Block(list(layers), torch.full((rows, length), ALWAYS), **changes)


def compare(ours, theirs, leaves, references, tolerance=1e-5):
    """Equal values, and equal gradients of the same random projection."""
    close(ours, theirs, tolerance)
    weights = random(*theirs.shape, seed=7)
    found = torch.autograd.grad((ours * weights).sum(), leaves)
    for grad, want in zip(found, torch.autograd.grad((theirs * weights).sum(), references), strict=True):
        assert want.abs().max() > 0
        close(grad, want, tolerance * max(1.0, 1 / want.abs().max().item()))


# -- rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [SIZES, [7, 7], [1]])
@pytest.mark.parametrize("family", MASKED)
def test_ragged_rows_and_the_whole_head_equal_the_plain_model(family, sizes):
    base, model = tiny_base(family), plain(family)
    ours, theirs = (leaf(embeddings(base, sizes)) for _ in range(2))
    logits = base.logits(base.forward(ours, sizes, zeros(len(sizes))).states)
    want = [model(inputs_embeds=row[None]).logits[0] for row in theirs.split(sizes)]
    compare(logits, torch.cat(want), [ours], [theirs])


@pytest.mark.parametrize("family", MASKED)
def test_the_head_runs_at_the_states_that_are_asked_for(family):
    base = tiny_base(family)
    states = base.forward(embeddings(base, SIZES), SIZES, zeros(3)).states
    close(base.logits(states[[2, 30]]), base.logits(states)[[2, 30]])
    assert base.logits(states[:0]).shape == (0, VOCABULARY)


@pytest.mark.parametrize("family", MASKED)
def test_an_encoder_gives_the_same_states_and_has_no_head(family):
    masked, model = tiny_base(family), plain(family)
    base = Base(tiny_model(family).base_model, tiny_tokenizer(frame="masked"), "some")
    assert (base.kind, base.bidirectional, base.mask_id, base.start_ids) == ("encoder", True, None, ())
    assert base.shape == masked.shape and base.digest != masked.digest
    inputs = embeddings(base, SIZES)
    want = [model.base_model(inputs_embeds=row[None]).last_hidden_state[0] for row in inputs.split(SIZES)]
    states = base.forward(inputs, SIZES, zeros(3)).states
    close(states, torch.cat(want))
    with pytest.raises(BaseModelError, match="base 'some' has no language-model head; ") as told:
        base.logits(states)
    assert "\n" not in str(told.value)
    with pytest.raises(BaseModelError, match="kind encoder: it has no encoder"):
        _ = base.encoder


@pytest.mark.parametrize("outs", [OUTS, [4, 4, 4], [1, 1, 1]])
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_a_decoder_with_ragged_memory_equals_the_plain_model(family, outs):
    base, model = tiny_base(family), plain(family)
    ours, theirs = ((leaf(embeddings(base, SIZES)), leaf(embeddings(base, outs, 1))) for _ in range(2))
    assert base.encoder.kind == "encoder" and base.encoder.bidirectional and not base.bidirectional
    encoder_states = base.encoder.forward(ours[0], SIZES, zeros(3)).states.split(SIZES)
    logits = base.logits(base.forward(ours[1], outs, zeros(3), encoder_hidden_states=encoder_states).states)
    rows = zip(theirs[0].split(SIZES), theirs[1].split(outs), strict=True)
    want = [model(inputs_embeds=row[None], decoder_inputs_embeds=out[None]).logits[0] for row, out in rows]
    compare(logits, torch.cat(want), ours, theirs)


@pytest.mark.parametrize("family", [*MASKED, *SEQ2SEQ])
def test_rows_do_not_depend_on_their_company(family):
    base = tiny_base(family)
    side = base.encoder if family in SEQ2SEQ else base
    inputs = embeddings(base, SIZES)
    together = side.forward(inputs, SIZES, zeros(3)).states.split(SIZES)
    for row, states in zip(inputs.split(SIZES), together, strict=True):
        close(side.forward(row, [len(row)], zeros(1)).states, states)


# -- learned keys and values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [None, (0, 2, 9)])
@pytest.mark.parametrize("family", MASKED)
def test_learned_kv_in_front_equal_keys_put_in_by_hand(family, since):
    """Rows longer than ModernBERT's window of 4 on each side, which hides no learned key."""
    base, model = tiny_base(family), plain(family, NAIVE)
    kv, inputs = front_of(base), embeddings(base, SIZES)
    ours, theirs = (leaf(kv), leaf(inputs)), (leaf(kv), leaf(inputs))
    block = block_of(ours[0], visible_from=None if since is None else torch.tensor(since))
    got = base.forward(ours[1], SIZES, zeros(3), [block], record=True)
    fronts = [Front(theirs[0][0], 0 if since is None else since[row]) for row in range(3)]
    want = [
        model.base_model(inputs_embeds=row[None], front=front).last_hidden_state[0]
        for row, front in zip(theirs[1].split(SIZES), fronts, strict=True)
    ]
    compare(got.states, torch.cat(want), ours, theirs)
    assert len(got.kv) == base.shape.layers
    for layer, mine in enumerate(got.kv):  # what is recorded are the rows' own keys, without those in front
        for row, size in enumerate(SIZES):
            close(mine[:, row, :, :size], fronts[row].own[layer])


@pytest.mark.parametrize("family", MASKED)
def test_padded_blocks_and_blocks_of_each_row(family):
    base, inputs = tiny_base(family), embeddings(tiny_base(family), SIZES)
    kv, sizes = front_of(base, rows=3), [5, 1, 3]
    valid = torch.arange(5) < torch.tensor(sizes)[:, None]
    states = base.forward(inputs, SIZES, zeros(3), [block_of(kv, valid=valid)]).states.split(SIZES)
    for row, (alone, size) in enumerate(zip(inputs.split(SIZES), sizes, strict=True)):
        block = block_of(kv[row : row + 1, ..., :size, :])
        close(base.forward(alone, [len(alone)], zeros(1), [block]).states, states[row])


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_learned_kv_on_both_sides_of_a_seq2seq_model(family):
    base, model = tiny_base(family), plain(family, NAIVE)
    values = front_of(base.encoder), front_of(base, 4), embeddings(base, SIZES), embeddings(base, OUTS, 1)
    ours, theirs = [leaf(x) for x in values], [leaf(x) for x in values]
    read = base.encoder.forward(ours[2], SIZES, zeros(3), [block_of(ours[0])], record=True)
    encoder_states = read.states.split(SIZES)
    got = base.forward(ours[3], OUTS, zeros(3), [block_of(ours[1])], record=True, encoder_hidden_states=encoder_states)
    want, fronts = [], []
    for row, out in zip(theirs[2].split(SIZES), theirs[3].split(OUTS), strict=True):
        one, other = Front(theirs[0][0]), Front(theirs[1][0])
        states = model.get_encoder()(inputs_embeds=row[None], front=one).last_hidden_state
        decoder = model.get_decoder()
        made = decoder(inputs_embeds=out[None], encoder_hidden_states=states, use_cache=False, front=other)
        want.append(made.last_hidden_state[0])
        fronts.append((one, other))
    compare(got.states, torch.cat(want), ours, theirs)
    for kv, side, sizes in ((read.kv, 0, SIZES), (got.kv, 1, OUTS)):  # no keys of the cross-attention among them
        assert len(kv) == len(fronts[0][side].own) == (base.encoder, base)[side].shape.layers
        for layer, mine in enumerate(kv):
            for row, size in enumerate(sizes):
                close(mine[:, row, :, :size], fronts[row][side].own[layer])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen", "gemma3-wide"])
def test_learned_kv_through_the_hook_equal_transformers_own_cache(family):
    base = tiny_base(family)
    kv, inputs = front_of(base), embeddings(base, SIZES)
    ours, theirs = (leaf(kv), leaf(inputs)), (leaf(kv), leaf(inputs))
    block = Block(list(ours[0].permute(1, 2, 0, 3, 4, 5)), torch.arange(5)[None])
    logits = base.logits(base.forward(ours[1], SIZES, zeros(3) + 5, [block]).states)
    model, want = plain(family), []
    for row in theirs[1].split(SIZES):
        cache = DynamicCache([(layer[0][None], layer[1][None]) for layer in theirs[0][0]])
        want.append(model(inputs_embeds=row[None], past_key_values=cache, use_cache=True).logits[0])
    compare(logits, torch.cat(want), ours, theirs)


# -- branches, views, threads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", *MASKED, *SEQ2SEQ])
def test_a_branch_is_independent_in_body_head_and_encoder(family):
    base, inputs = tiny_base(family), embeddings(tiny_base(family), [6])
    branch = base.branch(own=lambda name: True)

    def run(some):
        encoder_states = None
        if family in SEQ2SEQ:
            encoder_states = [some.encoder.forward(inputs, [6], zeros(1)).states]
        states = some.forward(inputs, [6], zeros(1), encoder_hidden_states=encoder_states).states
        return [*(encoder_states or []), states, some.logits(states)]

    before = run(base)
    for one, other in zip(run(branch), before, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for weight in branch.model.parameters():
            weight.add_(0.05 * random(*weight.shape))
    for one, mine, other in zip(run(branch), run(base), before, strict=True):
        assert torch.equal(mine, other) and not torch.allclose(one, other, atol=1e-3)
    # each part of a branch is what its own plain model computes
    ids = torch.arange(10, 16)[None]
    more = {"decoder_input_ids": ids[:, :4]} if family in SEQ2SEQ else {}
    want, size = branch.model(input_ids=ids, **more).logits[0], 4 if more else 6
    encoder_states = [branch.encoder.forward(branch.embed(ids[0]), [6], zeros(1)).states] if more else None
    close(
        branch.logits(
            branch.forward(branch.embed(ids[0, :size]), [size], zeros(1), encoder_hidden_states=encoder_states).states
        ),
        want,
    )


@pytest.mark.parametrize("family", [*MASKED, *SEQ2SEQ])
def test_modules_put_into_a_branch_are_run_after_rewire(family):
    """Also a head's layer that is the model's own child, as DistilBERT's."""
    base, inputs = tiny_base(family), embeddings(tiny_base(family), [6])
    branch = base.branch()
    head = branch.model.get_output_embeddings()
    name = next(name for name, module in branch.model.named_modules() if module is head)
    parent, _, last = name.rpartition(".")
    setattr(branch.model.get_submodule(parent), last, torch.nn.Linear(64, 9))
    branch.rewire()
    states = random(4, 64)
    if family != "bart":  # its bias has the vocabulary's size
        assert branch.logits(states).shape == (4, 9)
    assert base.logits(states).shape == (4, VOCABULARY)
    assert not {id(module) for module in branch.model.modules()} & {id(module) for module in base.model.modules()}
    side, mine = (base.encoder, branch.encoder) if family in SEQ2SEQ else (base, branch)
    mine.layer(1).register_forward_hook(
        lambda module, args, out: torch.zeros_like(out) if torch.is_tensor(out) else None
    )
    same = torch.equal(mine.forward(inputs, [6], zeros(1)).states, side.forward(inputs, [6], zeros(1)).states)
    assert same is (family == "t5")  # whose layers give a tuple, which the hook leaves as it is


@pytest.mark.parametrize("family", [*MASKED, "bart"])
def test_layers_computed_again_and_layers_skipped(family):
    base = tiny_base(family)
    sides = [base] if family in MASKED else [base, base.encoder]
    encoder_states = None if family in MASKED else list(random(30, 64).split([20, 3, 7]))
    for side in sides:
        given = {"encoder_hidden_states": encoder_states} if side is base else {}
        kv, inputs = front_of(side), embeddings(base, SIZES)
        results = []
        for some in (side, side.view(gradient_checkpointing=True)):
            leaves = [leaf(kv), leaf(inputs)]
            states = some.forward(leaves[1], SIZES, zeros(3), [block_of(leaves[0])], **given).states
            results.append((states, *torch.autograd.grad((states * random(*states.shape)).sum(), leaves)))
        for one, other in zip(*results, strict=True):
            close(one, other)
        below = side.forward(inputs, SIZES, zeros(3), [block_of(kv)], stop=1, **given).states
        assert below.shape == inputs.shape
        close(side.forward(below, SIZES, zeros(3), [block_of(kv)], first=1, **given).states, results[0][0])


def test_layers_of_t5_are_not_run_one_by_one():
    with pytest.raises(BaseModelError, match="gradient checkpointing does not reach") as told:
        tiny_base("t5").view(gradient_checkpointing=True)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_the_encoder_side_follows_views(family):
    base = tiny_base(family).view(prepacked=True, autocast=torch.bfloat16)
    side = base.encoder if family in SEQ2SEQ else base
    assert side.prepacked and side.autocast == torch.bfloat16 and not (family in SEQ2SEQ and side.same(base))
    inputs = embeddings(base, SIZES)
    half, whole = (some.forward(inputs, SIZES, zeros(3)).states.float() for some in (side, side.view()))
    exact = (tiny_base(family).encoder if family in SEQ2SEQ else tiny_base(family)).forward(inputs, SIZES, zeros(3))
    assert torch.equal(half, whole) and not torch.equal(half, exact.states)
    assert (half - exact.states).abs().mean() < 0.1 * exact.states.std()


def test_heads_of_many_threads_do_not_meet():
    base = tiny_base("bert")
    inputs = [random(5, 64, seed=seed) for seed in range(8)]
    want = [base.logits(states) for states in inputs]
    wrong: list[int] = []

    def work(place: int) -> None:
        for _ in range(20):
            rows = base.forward(inputs[place], [5], zeros(1)).states
            if not torch.equal(base.logits(inputs[place]), want[place]) or rows.shape != (5, 64):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", [*MASKED, *SEQ2SEQ])
def test_bf16_bases_agree_with_fp32_ones(family):
    base = tiny_base(family)
    half = Base(tiny_model(family).to(torch.bfloat16), base.tokenizer, base.name)
    assert half.digest == base.digest and half.dtype == torch.bfloat16
    states = random(6, 64)
    assert (half.logits(states.bfloat16()) - base.logits(states)).abs().mean() < 0.1 * base.logits(states).std()


# -- what is told and refused --------------------------------------------------------------------------------------------


def test_ids_and_positions():
    assert tiny_base("bert").mask_id == tiny_base("bert").tokenizer.mask_token_id == 5
    assert [tiny_base(family).start_ids for family in SEQ2SEQ] == [(2,), (1,)]
    assert tiny_base("roberta").max_positions == 256  # 259 less the padding's id and those before it
    assert tiny_base("t5").max_positions >= 1 << 20
    base = tiny_base("roberta")
    assert base.forward(embeddings(base, [256]), [256], zeros(1)).states.shape == (256, 64)
    assert [tiny_base(family).kind for family in (*FAMILIES, *MASKED, *SEQ2SEQ)] == ["causal"] * 4 + ["masked"] * 4 + [
        "seq2seq"
    ] * 2


def test_positions_and_memory_that_a_kind_has_not():
    bert, t5, llama = tiny_base("bert"), tiny_base("t5"), tiny_base("llama")
    row = embeddings(bert, [4])
    with pytest.raises(ValueError, match="start at position 0"):
        bert.forward(row, [4], zeros(1) + 3)
    for base, encoder_states in ((bert, [row]), (t5, None), (t5, [row, row]), (t5, [row[:0]]), (llama, [row])):
        with pytest.raises(ValueError, match="encoder's states"):
            base.forward(row, [4], zeros(1), encoder_hidden_states=encoder_states)


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_a_base_whose_numbers_differ_is_refused(family, monkeypatch):
    """The check is real: a head that is applied twice, an encoder that adds to its states."""
    model = tiny_model(family)
    body = model.base_model if family == "bert" else model.get_encoder()
    run = body.forward

    def more(*args, **kwargs):
        out = run(*args, **kwargs)
        if current() is None:  # outside of the engine
            out.last_hidden_state = out.last_hidden_state * 1.5
        return out

    monkeypatch.setattr(body, "forward", more)
    with pytest.raises(BaseModelError, match=r"is not supported.*logits differ from the plain model's") as told:
        Base(model, tiny_tokenizer(frame="masked"))
    assert "\n" not in str(told.value)


def test_windows_too_long_to_be_proved_and_other_attention_are_refused():
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    sizes = {
        "vocab_size": 320,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
    }
    far = ModernBertConfig(**sizes, local_attention=4096, pad_token_id=2, bos_token_id=0, eos_token_id=1)
    with pytest.raises(BaseModelError, match="sliding window of 2048 tokens"):
        Base(ModernBertForMaskedLM(far), tiny_tokenizer(frame="masked"))
    with pytest.raises(BaseModelError, match="BertForPreTraining; use a class with a language-model head and no other"):
        from transformers import BertConfig, BertForPreTraining

        Base(BertForPreTraining(BertConfig(**sizes)), tiny_tokenizer(frame="masked"))
    with pytest.raises(BaseModelError, match="is a T5Model; use one with a language-model head"):
        from transformers import T5Model

        Base(T5Model(tiny_model("t5").config), tiny_tokenizer(frame="seq2seq"))
