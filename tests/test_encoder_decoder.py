"""Encoder–decoder bases: prompts on either side, equal to the plain model; what the encoder makes of a text is kept."""

from __future__ import annotations

import copy
import math

import peft
import pytest
import torch
import torch.nn.functional as F
from helpers import close, examples, scores, scores_of, tiny_rows, tiny_task
from models import SEQ2SEQ, tiny_base, tiny_model, tiny_tokenizer
from transformers.modeling_outputs import BaseModelOutput

from softprompt import artifact as artifacts
from softprompt.answers.generated import likelihoods
from softprompt.base import Base, Block
from softprompt.base.attention import ALWAYS
from softprompt.data import Row
from softprompt.engine import NOTHING, make_engine, plan
from softprompt.errors import BaseModelError, ConfigError, DataError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train
from softprompt.training.distil import distil
from softprompt.training.prune import prune

SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.02}
LORA = {"name": "lora", "r": 2, "target_modules": ["q", "v", "q_proj", "v_proj"]}
FRONT = [
    {"name": "soft", "length": 3},
    {"name": "soft", "length": 3, "instruction": True},
    {"name": "p_tuning", "length": 3, "hidden": 16},
    {"name": "prefix", "length": 3},
    LORA,
    "full",
]
KEPT = [
    {"name": "infix", "length": 3},
    {"name": "infix", "length": 3, "form": "embeddings"},
    {**LORA, "activate": "cue"},
]
BOTH = [
    {"name": "joint", "parts": [{"name": "prefix", "length": 2}, {"name": "infix", "length": 2}]},
    {"name": "joint", "parts": [{"name": "soft", "length": 2}, {"name": "infix", "length": 2, "form": "embeddings"}]},
    {"name": "joint", "parts": [{"name": "infix", "length": 2}, {**LORA, "activate": "cue"}]},
]
LEARNING = [*FRONT, *KEPT, *BOTH]


def name_of(method):
    if isinstance(method, str):
        return method
    if method["name"] == "joint":
        return "+".join(name_of(part) for part in method["parts"])
    return "-".join(str(value) for key, value in method.items() if key not in ("r", "target_modules"))


def moved(base, method, task=None, rows=None):
    """A method on a base with its rows, every parameter off its start."""
    ready = prepare(base, task or tiny_task(), make_method(method), rows=rows or tiny_rows(), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in ready.method.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return ready


def naive_logits(ready, example, learned):
    """Logits of an answer's tokens from one row alone, side by side with what the method says stands where.

    By the plain model of transformers, called with embeddings, unless keys and values are learned.
    """
    base, bound = learned.base or ready.base, ready.bound
    ids = {"prefix_ids": bound.prefix_ids, "text": example.text, "cue": bound.cue, "tail": bound.tail}
    ids |= {"start": base.start_ids, "answer": example.answer[:-1]}
    sides, blocks = {False: [], True: []}, {False: [], True: []}
    for slot in ready.method.segments(bound.slots, len(bound.cue)):
        value = learned.segments.get(slot.name)
        if slot.learned == "kv":
            kv = [layer[:, None] for layer in value]
            blocks[slot.decoder].append(Block(kv, torch.full((1, value.shape[3]), ALWAYS)))
        elif slot.learned:
            sides[slot.decoder].append(value)
        elif part := ids[slot.name][slot.start : slot.stop]:
            sides[slot.decoder].append(base.embed(torch.tensor(part)))
    read, write = (torch.cat(sides[side]) for side in (False, True))
    reads = ready.base if all(not slot.adapted or slot.decoder for slot in ready.engine.plan.row_live) else base
    if not blocks[True] and not blocks[False]:
        encoder_states = reads.model.get_encoder()(inputs_embeds=read[None]).last_hidden_state
        out = base.model(
            encoder_outputs=BaseModelOutput(encoder_states), decoder_inputs_embeds=write[None], use_cache=False
        ).logits[0]
    else:
        zero = torch.zeros(1, dtype=torch.long)
        encoder_states = reads.encoder.forward(read, [len(read)], zero, blocks[False]).states
        out = base.logits(
            base.forward(write, [len(write)], zero, blocks[True], encoder_hidden_states=[encoder_states]).states
        )
    return out[-len(example.answer) :]


def loss_and_gradients(logits_of, method, rows):
    for parameter in method.parameters():
        parameter.grad = None
    total, targets = logits_of(rows)
    F.cross_entropy(total, targets, reduction="mean").backward()
    return [total.detach(), *(p.grad.clone() for p in method.parameters() if p.grad is not None)]


@pytest.mark.parametrize("method", LEARNING, ids=name_of)
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_every_method_equals_the_plain_model(family, method):
    """Logits and gradients, over ragged texts and answers, from kept texts and from texts that are read now."""
    ready = moved(tiny_base(family), method)
    how = plan(ready.method.segments(ready.bound.slots, len(ready.bound.cue)))
    engine = make_engine(ready.base, how, ready.bound.prefix_ids, ready.bound.cue, tail=ready.bound.tail)
    rows = examples()
    targets = torch.tensor([token for row in rows for token in row.answer])

    def naive(some):
        learned = ready.method.learned()
        return torch.cat([naive_logits(ready, row, learned) for row in some]), targets

    theirs = loss_and_gradients(naive, ready.method, rows)
    for kept in (False, True):
        if kept:
            engine.encode(rows)
            assert (len(engine.cache) == len({row.text for row in rows})) is (method in [*KEPT, BOTH[2]])
        ours = loss_and_gradients(lambda some: engine.answers(some, ready.method.learned()), ready.method, rows)
        assert len(ours) == len(theirs) > 1
        for a, b in zip(ours, theirs, strict=True):
            close(a, b)


@pytest.mark.parametrize("method", KEPT, ids=name_of)
def test_behind_a_decoder_side_prompt_the_encoder_runs_once_a_row(method, monkeypatch):
    base = tiny_base("t5")
    ready = moved(base, method)
    rows = ready.splits["train"]
    ready.engine.encode(rows)
    calls = []
    plain = Base.forward

    def counted(self, embeddings, *args, **kwargs):
        calls.append(self.kind)
        return plain(self, embeddings, *args, **kwargs)

    monkeypatch.setattr(Base, "forward", counted)
    for _ in range(2):
        ready.engine.loss(rows[:6], ready.method.learned())
    assert calls == ["seq2seq"] * 2
    assert "run once per row, kept" in ready.engine.plan.explain()


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_scores_are_those_of_the_plain_model(family):
    """Σ log p of words of one and of several tokens; the head of a T5 scales its states, that of a BART has a bias."""
    base, model = tiny_base(family), tiny_model(family).eval()
    task = tiny_task(verbalizer={"good": ["e", "fine"], "bad": "bad"}, scoring={"over": "vocabulary"})
    ready = prepare(base, task, make_method("hard"), rows=tiny_rows())
    found = scores_of(ready.form.predict(ready, ready.splits["dev"]))
    for row, mine in zip(ready.splits["dev"], found, strict=True):
        source = torch.tensor([[*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *ready.bound.tail]])
        assert source[0, -1] == base.tokenizer.eos_token_id
        values = []
        for ids in row.candidates:
            out = model(input_ids=source, decoder_input_ids=torch.tensor([[*base.start_ids, *ids[:-1]]])).logits[0]
            values.append(out.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
        close(mine, ready.task.label_scores(torch.stack(values), [len(ids) for ids in row.candidates]))


GENERATION = {
    "name": "copy",
    "type": "generation",
    "template": {"instruction": "Say it. ", "input": "{{ text }}", "cue": "\n:"},
    "metric": "exact_match",
}


def writing_task(**settings):
    return Task.load({**GENERATION, "generation": {"max_new_tokens": 9, "stop": [], **settings}})


def writing_rows(count=7):
    rows = tiny_rows(count, 4, 4)
    return {
        name: [Row({"text": row.values["text"], "answer": row.values["label"]}, row.where) for row in part]
        for name, part in rows.items()
    }


@pytest.mark.parametrize("method", ["hard", {"name": "soft", "length": 3}, *KEPT[1:]], ids=name_of)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_what_is_written_is_what_the_plain_model_writes(family, beams, method):
    """Greedy and by beams, in ragged batches, each row against the plain model on that row alone."""
    base = tiny_base(family)
    ready = moved(base, method, writing_task(num_beams=beams), writing_rows())
    learned, rows = ready.method.learned(), ready.splits["train"]
    with torch.no_grad():
        segments = {name: value.detach() for name, value in learned.segments.items()}
        found = ready.form._written(ready.engine, rows, learned)
        for row, mine in zip(rows, found, strict=True):
            model = copy.deepcopy((learned.base or base).model)
            model.generation_config.forced_eos_token_id = None
            ids = (*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *ready.bound.tail)
            read = base.embed(torch.tensor(ids))
            start = base.embed(torch.tensor(base.start_ids))
            front = segments.get("prompt")
            decoder = front is not None and method != {"name": "soft", "length": 3}
            if front is not None and not decoder:
                read = torch.cat([front, read])
            reads = base if ready.engine.plan.row_frozen else learned.base or base
            encoder_states = reads.model.get_encoder()(inputs_embeds=read[None]).last_hidden_state
            write = torch.cat([front, start]) if decoder else start
            out = naive_beams(model, encoder_states, write, beams, base.tokenizer.eos_token_id, 9)
            assert mine.ids == out


def naive_beams(model, encoder_states, front, beams, end, longest):
    """Beam search as transformers has it (length penalty 1), written out; each step runs all that was written so far."""
    embed = model.get_input_embeddings()

    def log_p(ids):
        some = torch.cat([front, embed(torch.tensor(ids, dtype=torch.long))]) if ids else front
        out = model(encoder_outputs=BaseModelOutput(encoder_states), decoder_inputs_embeds=some[None], use_cache=False)
        return out.logits[0, -1].float().log_softmax(-1)

    running, finished = [((), 0.0)], []
    for _ in range(longest):
        grown = []
        for ids, total in running:
            values, tokens = log_p(list(ids)).topk(2 * beams)
            grown += [((*ids, int(token)), total + float(value)) for value, token in zip(values, tokens, strict=True)]
        grown.sort(key=lambda pair: -pair[1])
        running = []
        for place, (ids, total) in enumerate(grown[: 2 * beams]):
            if ids[-1] == end:
                if place < beams:
                    finished.append((ids[:-1], total / len(ids)))
            elif len(running) < beams:
                running.append((ids, total))
        if beams == 1 and finished:
            return finished[0][0]
    ended = [*finished, *((ids, total / len(ids)) for ids, total in running)]
    return max(ended, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize("method", [*FRONT[:2], FRONT[3], *KEPT, BOTH[0]], ids=name_of)
def test_trains_saves_and_serves(method, tmp_path):
    """A run ends in an artifact that answers, alone and beside others, as the run itself did; the base stays as it is."""
    base = tiny_base("t5")
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    run = train(base, tiny_task(), method, tmp_path / "one", train={**SETTINGS, "epochs": 6}, rows=tiny_rows(), seed=1)
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    runtime = Runtime(base)
    runtime.add("one", tmp_path / "one")
    runtime.add("bare", tiny_task())
    rows = [{"text": row.values["text"]} for row in tiny_rows()["dev"]]
    mixed = [{**row, "artifact": ("one", "bare")[place % 2]} for place, row in enumerate(rows)]
    alone = [item.probabilities["good"] for item in runtime.predict(rows, "one")]
    close(torch.tensor(alone), scores(run.prepared).exp()[:, 0])
    for place, (one, item) in enumerate(zip(alone, runtime.predict(mixed), strict=True)):
        assert item.artifact == mixed[place]["artifact"]
        if place % 2 == 0:
            assert abs(item.probabilities["good"] - one) < 1e-5


def test_answers_are_written_and_streamed(tmp_path):
    base, rows = tiny_base("bart"), writing_rows(12)
    run = train(base, writing_task(), "full", tmp_path / "w", train={"epochs": 12, "lr": 3e-3}, rows=rows, test=True)
    before = prepare(base, writing_task(), make_method("hard"), rows=rows)
    ready = run.prepared
    learned = ready.method.learned()
    some = ready.splits["train"]
    assert sum(likelihoods(ready.engine, some, learned)) < 0.5 * sum(likelihoods(before.engine, some, NOTHING))
    runtime = Runtime(base)
    runtime.add("w", tmp_path / "w")
    row, told = {"text": "joy sun"}, []
    answer = runtime.stream(row, "w", told.append)
    assert answer.label == runtime.predict([row], "w")[0].label == "".join(told).strip()


def test_a_head_reads_the_decoder_as_it_begins():
    base = tiny_base("bart")
    run = train(base, tiny_task(), {"name": "prefix", "length": 2, "head": True}, train=SETTINGS, rows=tiny_rows())
    ready = run.prepared
    learned, row = ready.method.learned(), ready.splits["dev"][0]
    (state,) = ready.engine.pooled([row], learned)
    ids = (*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *ready.bound.tail)
    kv = [layer[:, None] for layer in learned.segments["prompt"]]
    block = Block(kv, torch.full((1, 2), ALWAYS))
    zero = torch.zeros(1, dtype=torch.long)
    encoder_states = base.encoder.forward(base.embed(torch.tensor(ids)), [len(ids)], zero, [block]).states
    want = base.forward(
        base.embed(torch.tensor(base.start_ids)), [len(base.start_ids)], zero, encoder_hidden_states=[encoder_states]
    ).states
    close(state, want[-1])
    close(scores(ready)[0], ready.method.head(want[-1:]).log_softmax(-1)[0])


def test_options_of_a_row_are_read_behind_one_encoding(monkeypatch):
    """Also where the prompt stands in front of the encoder, so that it runs in every step."""
    task = Task.load({"name": "pick", "type": "choice", "template": {"input": "{{ question }}", "cue": "\n:"}})
    values = [{"question": "pain or joy?", "choices": ["the sun", "mud"], "answer": "mud"}]
    rows = {"train": [Row(values[0], "train:1")], "dev": [Row(values[0], "dev:1")]}
    base = tiny_base("t5")
    ready = prepare(base, task, make_method({"name": "soft", "length": 2}), rows=rows, seed=0)
    sizes = []
    plain = Base.forward

    def counted(self, embeddings, lengths, *args, **kwargs):
        sizes.append((self.kind, len(lengths)))
        return plain(self, embeddings, lengths, *args, **kwargs)

    monkeypatch.setattr(Base, "forward", counted)
    loss, count = ready.form.loss(ready.engine, ready.splits["train"], ready.method.learned())
    assert loss.requires_grad and count == 1
    assert sizes == [("encoder", 1), ("seq2seq", 2)]


@pytest.mark.parametrize("form", ["soft", "infix"])
def test_soft_slots_stand_in_what_the_encoder_reads(form):
    task = tiny_task(template={"input": '{{ soft(2, "a") }}{{ text }}{{ soft(2, "b") }}', "cue": "\nIs:"})
    ready = moved(tiny_base("t5"), {"name": form}, task)
    learned = ready.method.learned()
    rows = ready.splits["train"][:5]
    logits, _ = ready.engine.answers(rows, learned)
    if form == "infix":  # which reads them as texts, and keeps them
        assert ready.engine.plan.row_frozen
        return
    assert logits.requires_grad
    for row, mine in zip(rows, logits.split([len(row.answer) for row in rows]), strict=True):
        parts = {"prefix_ids": ready.bound.prefix_ids, "cue": ready.bound.cue, "tail": ready.bound.tail}
        pieces = []
        for slot in ready.bound.slots:
            if slot.learned:
                pieces.append(learned.segments[slot.name])
            elif not slot.decoder:
                ids = row.part(slot.part) if slot.name == "text" else parts[slot.name][slot.start : slot.stop]
                pieces.append(ready.base.embed(torch.tensor(ids, dtype=torch.long)))
        out = ready.base.model(
            inputs_embeds=torch.cat(pieces)[None],
            decoder_input_ids=torch.tensor([[*ready.base.start_ids, *row.answer[:-1]]]),
        ).logits[0]
        close(mine, out)


def test_weights_of_the_decoder_alone_are_a_plain_lora_for_peft(tmp_path):
    base, method = tiny_base("t5"), {**LORA, "activate": "cue"}
    run = train(base, tiny_task(), method, tmp_path / "l", train=SETTINGS, rows=tiny_rows())
    names = [name for name, _ in run.prepared.method.branch.model.named_parameters() if "lora" in name]
    assert names and not any(".encoder." in f".{name}" for name in names)
    theirs = peft.PeftModel.from_pretrained(tiny_model("t5").eval(), tmp_path / "l" / "artifact")
    row, bound = run.prepared.splits["dev"][0], run.prepared.bound
    source = torch.tensor([[*bound.prefix_ids, *row.text, *bound.cue, *bound.tail]])
    target = torch.tensor([[*base.start_ids, *row.answer[:-1]]])
    ours, _ = run.prepared.engine.answers([row], run.prepared.method.learned())
    close(ours, theirs(input_ids=source, decoder_input_ids=target).logits[0])
    close(ours, run.prepared.method.merged(base)(input_ids=source, decoder_input_ids=target).logits[0])


def test_weights_that_the_encoder_shares_are_no_decoder_alone():
    base = tiny_base("t5")
    for settings in (
        {"target_modules": ["shared", "q"]},
        {"options": {"modules_to_save": ["shared"]}},
        {"options": {"exclude_modules": ["wi"]}},
    ):
        with pytest.raises(ConfigError, match="not the decoder's alone"):
            prepare(base, tiny_task(), make_method({**LORA, "activate": "cue", **settings}), rows=tiny_rows(), seed=0)


def test_an_answer_takes_no_room_from_what_the_encoder_reads():
    """A text is cut alike with and without its answer; an answer too long for the decoder is refused."""
    base = tiny_base("bart")
    row = {"text": "long text " * 60}
    form = prepare(base, writing_task(max_new_tokens=200), make_method("hard"), rows=writing_rows()).form
    asked, known = form.encode(row), form.encode({**row, "answer": "it"})
    assert asked.text == known.text and asked.truncated
    bound = form.bound
    whole = (*bound.prefix_ids, *asked.text, *bound.cue, *bound.tail)
    assert len(whole) == base.encoder.max_positions == 256
    with pytest.raises(DataError, match="row: an answer may have 300 tokens, this base's decoder has room for 255"):
        prepare(base, writing_task(max_new_tokens=300), make_method("hard"), rows={"dev": []}).form.encode(row)


def test_what_it_cannot_do_is_refused_in_one_line():
    base, rows = tiny_base("t5"), tiny_rows()

    def refused(match, method="hard", **changes):
        with pytest.raises(ConfigError, match=match) as error:
            prepare(base, tiny_task(**changes), make_method(method), rows=rows, seed=0)
        assert "\n" not in str(error.value)

    refused("decoder writes the answer", template={"input": "{{ text }} {{ mask }}", "cue": "\n:"})
    refused("needs a causal base", {"name": "prefix", "layers": "1-"})
    refused("leave out method.layers", {**LORA, "layers": "0-"})
    runtime = Runtime(tiny_base("bart"))
    runtime.add("beams", writing_task(num_beams=2))
    with pytest.raises(DataError, match="known only at the end"):
        runtime.stream({"text": "a"}, "beams")
    with pytest.raises(ConfigError, match="writes its answers, which"):
        Runtime(tiny_base("bert")).add("w", writing_task())
    with pytest.raises(ConfigError, match="reads both ways"):
        prepare(tiny_base("bert"), tiny_task(), make_method({**LORA, "activate": "cue"}), rows=rows, seed=0)
    model = tiny_model("t5")
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    model.config.bos_token_id = model.generation_config.bos_token_id = None
    with pytest.raises(BaseModelError, match="names no decoder_start_token_id"):
        Base(model, tiny_tokenizer(frame="seq2seq"))


def test_a_forced_first_token_is_part_of_the_start():
    model = tiny_model("bart")
    model.generation_config.forced_bos_token_id = 0
    assert Base(model, tiny_tokenizer(frame="seq2seq")).start_ids == (1, 0)


def test_prompts_are_distilled_and_pruned_here_too(tmp_path):
    base, rows = tiny_base("t5"), tiny_rows()
    short = tiny_task(template={"input": "T: {{ text }}", "cue": "\nIs:"})
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.02}
    found = distil(base, short, {"name": "infix", "length": 3}, demonstrations=2, train=settings, rows=rows)
    assert found.result.parameters == 3 * 2 * 2 * 64
    train(base, tiny_task(), {"name": "prefix", "length": 4}, tmp_path / "p", train=settings, rows=rows)
    held = artifacts.load(tmp_path / "p" / "artifact")
    report = prune(base, tiny_task(), held, [2], tmp_path / "q", rows=rows, train=settings, importance_rows=3)
    assert len(report.lengths) == 2 and all(math.isfinite(x) for x in report.importance)
