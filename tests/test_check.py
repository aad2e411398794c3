"""The check at load is not a comparison of the engine with itself: what the engine gets wrong is refused, by any cause.

The references are copies taken before a base is made, in transformers' own eager attention.
"""

from __future__ import annotations

import copy
import functools
import threading

import pytest
import torch
from helpers import close, scores, tiny_rows, tiny_task
from models import tiny_model, tiny_tokenizer
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from zoo_models import build
from zoo_truth import Truth

from softprompt.base import Base, interface
from softprompt.base import scores as engine_scores
from softprompt.base.copies import in_fp32, untouched
from softprompt.base.prepacked import Prepacked, prepacked
from softprompt.base.supported import check_tokens
from softprompt.errors import BaseModelError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.training import prepare, train

SIZES = [19, 3, 11, 7, 30, 5, 2, 13]  # enough rows to attend in groups; windows are 12 wide


def taken(kind: str, family: str, dtype: torch.dtype = torch.float32):
    """A base, and the same model as it was before."""
    model = build(kind, family).to(dtype)
    plain = copy.deepcopy(model).requires_grad_(False)
    plain.set_attn_implementation("eager")
    return Base(model, tiny_tokenizer(frame="" if kind == "causal" else kind), family), plain


def rows_of(base: Base) -> torch.Tensor:
    ids = torch.randint(6, 300, (sum(SIZES),), generator=torch.Generator().manual_seed(0))
    return base.embed(ids).detach()


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.long)


def refusal(model, name: str = "some", frame: str = "") -> str:
    with pytest.raises(BaseModelError) as told:
        Base(model, tiny_tokenizer(frame=frame), name)
    assert "\n" not in str(told.value) and f"{name!r}" in str(told.value)
    return str(told.value)


def served_as_trained(base: Base, result, rows, folder) -> None:
    """Loaded from its folder, what was trained answers as it does in memory."""
    runtime = Runtime(base)
    runtime.add("mine", folder)
    found = torch.tensor(
        [list(one.probabilities.values()) for one in runtime.predict([row.values for row in rows], "mine")]
    )
    close(found, scores(result.prepared).softmax(-1))


# -- what is taken is exact ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize(
    "family", ["gpt_oss", "gemma2", "stablelm", "nemotron", "afmoe", "mimo_v2_flash", "deepseek_v2"]
)
def test_values_and_gradients_are_the_plain_models(family, gradient_checkpointing):
    """Sinks, capped scores, layers that drop keywords, views without a copy, keys and values of other sizes."""
    base, plain = taken("causal", family)
    ours, theirs = (rows_of(base).requires_grad_() for _ in range(2))
    base = base.view(gradient_checkpointing=gradient_checkpointing) if base.gated else base
    logits = base.logits(base.forward(ours, SIZES, zeros(len(SIZES))).states)
    want = torch.cat([plain(inputs_embeds=row[None], use_cache=False).logits[0] for row in theirs.split(SIZES)])
    close(logits, want, 2e-5)
    found, real = (torch.autograd.grad(out.tanh().sum(), rows)[0] for out, rows in ((logits, ours), (want, theirs)))
    close(found, real, 2e-5 * max(1.0, 1 / real.abs().max().item()))


@pytest.mark.parametrize(
    ("family", "name"), [("hyperclovax", "logits_scaling"), ("granite", "logits_scaling"), ("cohere", "logit_scale")]
)
def test_logits_are_multiplied_or_divided_as_the_family_does(family, name):
    model = build("causal", family)
    setattr(model.config, name, 0.37)
    model = type(model)(model.config).eval()  # which may hold the number itself
    ids = torch.arange(9, 20)
    with torch.no_grad():
        want = copy.deepcopy(model)(ids[None], use_cache=False).logits[0]
    base = Base(model, tiny_tokenizer(), family)
    close(base.logits(base.forward(base.embed(ids), [11], zeros(1)).states), want)


def test_sinks_learn_as_the_plain_models():
    base, plain = taken("causal", "gpt_oss")
    branch = base.branch(own=lambda name: name.endswith("sinks"))
    rows = rows_of(base)
    mine, theirs = (
        [weight.requires_grad_() for name, weight in model.named_parameters() if name.endswith("sinks")]
        for model in (branch.model, plain)
    )
    found = torch.autograd.grad(branch.forward(rows, SIZES, zeros(len(SIZES))).states.tanh().sum(), mine)
    states = [plain.model(inputs_embeds=row[None], use_cache=False).last_hidden_state for row in rows.split(SIZES)]
    want = torch.autograd.grad(sum(row.tanh().sum() for row in states), theirs)
    for one, other in zip(found, want, strict=True):
        assert other.abs().max() > 0
        close(one, other, 1e-4)


@pytest.mark.parametrize("family", ["marian", "pegasus"])
def test_embeddings_that_are_scaled_outside_of_their_layer(family):
    model = build("seq2seq", family)
    model.config.scale_embedding = True
    model = type(model)(model.config).eval()
    ids, out = torch.arange(9, 20), torch.arange(30, 36)
    with torch.no_grad():
        want = copy.deepcopy(model)(input_ids=ids[None], decoder_input_ids=out[None], use_cache=False).logits[0]
    base = Base(model, tiny_tokenizer(frame="seq2seq"), family)
    read = base.encoder.forward(base.encoder.embed(ids), [11], zeros(1)).states
    close(base.logits(base.forward(base.embed(out), [6], zeros(1), encoder_hidden_states=[read]).states), want)


@pytest.mark.parametrize("family", ["ctrl", "longcat_flash", "opt"])
def test_upper_layers_are_learned_where_layers_do_not_run_one_by_one(family):
    """Their list is not found, one of them attends twice, or their states have another size than embeddings."""
    model = build("causal", family)
    truth, base = Truth(model, "causal"), Base(model, tiny_tokenizer(), family)
    assert not base.gated
    method = make_method({"name": "prefix", "length": 3, "layers": "2-"})
    ready = prepare(base, tiny_task(), method, rows=tiny_rows(train=3, dev=0, test=0), seed=0)
    for weight in method.parameters():
        weight.data.normal_(generator=torch.Generator().manual_seed(0))
    learned, want = method.learned(), torch.zeros(())
    (kv,) = learned.segments.values()
    ready.engine.encode(ready.splits["train"])
    for row in ready.splits["train"]:
        ids = (*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *row.answer[:-1])
        logits = truth.logits(truth.embed(ids), kv, start=3)[-len(row.answer) :]
        want = want + torch.nn.functional.cross_entropy(logits, torch.tensor(row.answer), reduction="sum")
    close(ready.engine.loss(ready.splits["train"], learned)[0], want)


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2"])
def test_a_model_that_runs_outside_of_the_engine_is_what_it_was(family):
    base, plain = taken("causal", family)
    ids = torch.arange(9, 39)[None]
    with torch.no_grad():
        close(base.model(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("family", ["stablelm", "gpt_oss"])
def test_threads_that_run_at_once_do_not_meet(family):
    base, _ = taken("causal", family)
    inputs = [row for row in rows_of(base).split(SIZES) if len(row) > 4]
    alone = [base.forward(row, [len(row)], zeros(1)).states for row in inputs]
    found: list[torch.Tensor | None] = [None] * len(inputs)

    def run(place: int) -> None:
        for _ in range(5):
            found[place] = base.forward(inputs[place], [len(inputs[place])], zeros(1)).states

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, alone, strict=True):
        assert one is not None and torch.equal(one, other)


def test_a_models_code_may_change_a_products_result_in_place():
    """As RoCBert's does; also where the product is made of prepacked weights."""
    layer = torch.nn.Linear(8, 5).requires_grad_(False)
    x = torch.randn(2, 3, 8, requires_grad=True)
    with prepacked(True):
        out = Prepacked(layer).forward(x)
    out += 1
    assert out.shape == (2, 3, 5)
    close(torch.autograd.grad(out.sum(), x)[0], layer.weight.sum(0).expand_as(x))


@pytest.fixture(scope="module")
def uneven() -> Base:
    """DeepSeek's proportions: keys are wider than values."""
    config = DeepseekV3Config(
        vocab_size=320, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        kv_lora_rank=16, q_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, first_k_dense_replace=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return Base(DeepseekV3ForCausalLM(config), tiny_tokenizer(), "uneven")


@pytest.mark.parametrize("method", ["soft", "prefix", "infix", "lora"])
def test_keys_wider_than_values_train_save_and_serve(uneven, method, tmp_path):
    assert (uneven.shape.head_size, uneven.shape.even) == (24, False) and "even" not in uneven.shape.as_dict()
    rows = tiny_rows(train=8, dev=4)
    result = train(uneven, tiny_task(), method, tmp_path, train={"epochs": 1, "batch_size": 8, "lr": 0.01}, rows=rows)
    served_as_trained(uneven, result, rows["dev"], tmp_path)


# -- what is not exact is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinks_that_were_left_out_would_be_seen(monkeypatch, dtype):
    taken("causal", "gpt_oss", dtype)  # as it is
    monkeypatch.setattr(engine_scores, "_with_sinks", lambda keys, values, mask, sinks: (keys, values, mask))
    assert "logits differ from the plain model's" in refusal(build("causal", "gpt_oss").to(dtype))


def test_a_keyword_that_nobody_knows_is_refused_by_name():
    model = tiny_model("llama")
    layer = model.model.layers[1].self_attn
    layer.forward = functools.partial(layer.forward, block_indices=torch.zeros(1), seq_idx=None)
    said = refusal(model)
    assert "asks for block_indices, which the engine does not know; use another base" in said


@pytest.mark.parametrize("window", [9, 5, None])
@pytest.mark.parametrize("wide", [8, 4096])
def test_layers_whose_window_is_not_the_masks_are_refused(window, wide):
    """The mask is made by the config, attention is called with the layer's own: one more, one less, or none at all."""
    model = tiny_model("gemma3")
    model.config.sliding_window = wide
    for layer in model.model.layers[::2]:
        assert layer.self_attn.sliding_window == 8
        layer.self_attn.sliding_window = wide
    if window is not None:
        Base(copy.deepcopy(model), tiny_tokenizer())  # as it is
    off = {9: wide + 1, 5: wide // 2 + 1, None: None}[window]
    model.model.layers[2].self_attn.sliding_window = off
    assert "logits differ" in refusal(model)


def test_windows_are_as_before_once_a_base_is_loaded():
    model = tiny_model("gemma3-wide")
    base = Base(model, tiny_tokenizer())
    assert (base.config.sliding_window, model.model.layers[0].self_attn.sliding_window) == (128, 128)


def test_rounding_worse_than_the_models_own_is_refused(monkeypatch):
    real, noise = engine_scores.attend, torch.Generator().manual_seed(0)

    def rough(query, *args):
        out = real(query, *args)
        return out if out.dtype == torch.float32 else out + 0.1 * torch.randn(out.shape, generator=noise).to(out)

    Base(tiny_model("llama").to(torch.bfloat16), tiny_tokenizer())
    monkeypatch.setattr(interface, "attend", rough)
    Base(tiny_model("llama"), tiny_tokenizer())  # nothing is wrong in fp32
    assert "in bf16 the engine is " in refusal(tiny_model("llama").to(torch.bfloat16))


@pytest.mark.parametrize(("kind", "family"), [("causal", "gemma3_text"), ("seq2seq", "t5"), ("masked", "modernbert")])
def test_half_precision_held_as_fp32_is_the_fp32_model(kind, family):
    """And nothing is left of it afterwards."""
    half = untouched(build(kind, family).to(torch.bfloat16))
    whole = untouched(build(kind, family).to(torch.bfloat16).float())
    if kind == "causal":  # it scales its embeddings, which are looked up in half precision
        half.model.embed_tokens.embed_scale = whole.model.embed_tokens.embed_scale = torch.tensor(1.0)
    given = {"input_ids": torch.arange(9, 30)[None]} | (
        {"decoder_input_ids": torch.tensor([[9]])} if kind == "seq2seq" else {}
    )
    with torch.no_grad():
        before = half(**given).logits
        with in_fp32(half):
            close(half(**given).logits, whole(**given).logits)
        assert torch.equal(half(**given).logits, before) and before.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bloom", "its layers do not call transformers' attention interface"),
        ("bart", "it numbers positions by itself"),
        ("roberta", "it does not count positions from 0"),
        ("gemma3n_text", "its layers read each token's id beside its embedding"),
        ("dory", "its layers attend more than once in a forward"),
        ("mamba", "keep a state of the row instead of its keys and values"),
        ("big_bird", "attends sparsely in long rows and fully in short ones"),
    ],
)
def test_reasons_are_in_the_users_words(family, reason):
    said = refusal(build("causal", family), family)
    assert reason in said and said.endswith("use another base")


@pytest.mark.parametrize(
    "error", ["CUDA error: device-side assert triggered", "CUDA out of memory. Tried to allocate 2 GiB"]
)
def test_errors_of_a_device_come_first_and_are_no_misfit(monkeypatch, error):
    def broken(self, *args, **kwargs):
        raise RuntimeError(f"{error}\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(Base, "forward", broken)
    assert refusal(tiny_model("llama")).startswith(error)
    assert refusal(tiny_model("bert"), frame="masked").startswith(error)


def test_a_device_error_behind_the_proof_is_told_too(monkeypatch):
    """Layers that cannot be skipped are no reason to refuse a base, a device that fails is."""
    real = Base.forward

    def broken(self, *args, **kwargs):
        if kwargs.get("stop") is not None:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Base, "forward", broken)
    assert refusal(tiny_model("llama")).startswith("Expected all tensors to be on the same device")


# -- bases without keys and values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_a_bidirectional_base_that_attends_by_itself(family):
    base, plain = taken("masked", family)
    assert base.own_mask and (base.shape.kv_heads, base.shape.head_size, base.shape.layers) == (0, 0, 4)
    rows = rows_of(base)
    logits = base.logits(base.forward(rows, SIZES, zeros(len(SIZES))).states)
    with torch.no_grad():
        want = [plain(inputs_embeds=row[None]).logits[0] for row in rows.split(SIZES)]
    close(logits, torch.cat(want))


def test_prefixes_are_refused_on_it_and_all_else_trains(tmp_path):
    base, _ = taken("masked", "mpnet")
    rows, settings = tiny_rows(train=8, dev=4), {"epochs": 1, "batch_size": 8, "lr": 0.01}
    task = tiny_task(template={"input": "Text: {{ text }}", "cue": " is"})
    with pytest.raises(BaseModelError, match="no learned keys and values can stand in front of a text; use soft"):
        train(base, task, "prefix", train=settings, rows=rows)
    result = train(base, task, "soft", tmp_path, train=settings, rows=rows)
    served_as_trained(base, result, rows["dev"], tmp_path)


# -- tokens without an embedding --------------------------------------------------------------------------------------------


def test_tokens_of_texts_need_an_embedding():
    tokenizer = tiny_tokenizer()
    own = len(tokenizer)
    check_tokens(tokenizer, own, "some")
    with pytest.raises(BaseModelError, match=f"embeddings of {own - 1} tokens, and 1 tokens of its tokenizer"):
        check_tokens(tokenizer, own - 1, "some")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    check_tokens(tokenizer, own, "some")  # no text becomes it
    tokenizer.add_tokens(["<extra\n>"])
    with pytest.raises(BaseModelError, match=rf"the first is '<extra\\n>', {own + 1}\)"):
        check_tokens(tokenizer, own, "some")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    with pytest.raises(BaseModelError, match="'<end>'"):
        check_tokens(tokenizer, own, "some")


def test_a_token_that_is_written_out_is_refused_by_its_number():
    base = Base(tiny_model("llama"), tiny_tokenizer(), "some")
    with pytest.raises(BaseModelError, match="base 'some' has no embedding for token 320 "):
        base.embed(torch.tensor([3, 320]))
