"""Answers that are written: what processors see, where an answer ends, whose random numbers a row draws."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from helpers import bound_form
from models import tiny_base, tiny_model, tiny_tokenizer
from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from softprompt import doctor
from softprompt.answers.streaming import AnswerStreamer
from softprompt.base import Base
from softprompt.data import Row
from softprompt.engine.draws import Draws, processors
from softprompt.errors import ConfigError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.template.turns import answer_ends
from softprompt.training import prepare

PLAIN = {"input": "Text: {{ text }}", "cue": "\nIt is:"}
ROWS = [{"text": text} for text in ("hi", "a longer one", "of the sea", "x", "中文", "no 7")]


def task(template=PLAIN, rules=2, **generation):
    """A task that writes; without stop strings unless they are asked for."""
    spec = {"name": "w", "type": "generation", "metric": "exact_text", "template": template}
    return Task.load({**spec, "generation": {"max_new_tokens": 12, "stop": [], **generation}}, rules)


def runtime_of(base, **tasks):
    runtime = Runtime(base)
    for name, one in tasks.items():
        runtime.add(name, one)
    return runtime


def ids_of(form, row):
    return [*form.bound.prefix_ids, *form.encode(row).text, *form.bound.cue]


def noticed(runtime, name, found):
    texts, cut = [one.predicted for one in found.outcomes], [one.cut for one in found.outcomes]
    return runtime.get(name).form.notices(texts, cut, [one.tokens for one in found.outcomes])


class BehindPrompt(LogitsProcessor):
    """A processor that sees what is written behind a prompt of so many tokens."""

    def __init__(self, inner, length):
        self.inner, self.length = inner, length

    def __call__(self, input_ids, scores):
        return self.inner(input_ids[:, self.length :], scores)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "bart"])
def test_a_penalty_sees_what_is_written_and_nothing_else(family, beams):
    """Where padding and end are one token, an answer that begins with the end is empty, as in plain transformers."""
    runtime = runtime_of(tiny_base(family), w=task(repetition_penalty=1.8, num_beams=beams))
    form, empty = runtime.get("w").form, 0
    for row in ROWS[:4]:
        ids = torch.tensor([[*ids_of(form, row), *form.bound.tail]])
        model, tokenizer = tiny_model(family), tiny_tokenizer(frame="seq2seq" if family == "bart" else "")
        start = 1 if family == "bart" else ids.shape[1]
        own = {"pad_token_id": 2, "max_new_tokens": 12, "num_beams": beams, "forced_eos_token_id": None}
        own["attention_mask"] = torch.ones_like(ids)
        first = int(model.generate(ids, eos_token_id=319, **own)[0, start])
        tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(first)
        if family == "llama":
            model.generation_config.eos_token_id = first
        seen = BehindPrompt(RepetitionPenaltyLogitsProcessor(1.8), start)
        base = Base(model, tokenizer, "its-own")
        mine = runtime_of(base, w=task(repetition_penalty=1.8, num_beams=beams))
        ends = list(mine.get("w").form.ends)
        plain = model.generate(ids, eos_token_id=ends, logits_processor=LogitsProcessorList([seen]), **own)
        written = [token for token in plain[0, start:].tolist() if token not in (*ends, 2)]
        assert mine.predict([row])[0].label == mine.get("w").form.read(tuple(written), len(written) < 12)
        empty += not written
    assert empty or beams > 1


@pytest.mark.parametrize("named", [297, [1, 297]])
def test_every_end_that_the_base_names_ends_an_answer(named):
    model = tiny_model("llama")
    model.generation_config.eos_token_id = named
    runtime = runtime_of(Base(model, tiny_tokenizer(), "t"), w=task(), old=task(rules=1))
    assert runtime.get("w").form.ends == (1, 297) and runtime.get("old").form.ends == (1,)
    ids = torch.tensor([ids_of(runtime.get("w").form, ROWS[0])])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, eos_token_id=[1, 297])
    plain = plain[0, ids.shape[1] :].tolist()
    assert plain[-1] == 297
    assert runtime.predict(ROWS[:1], "w")[0].label == tiny_tokenizer().decode(plain[:-1]).strip()


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
LAST = (  # the last answer is closed by a token of its own
    "{% for m in messages %}<|start|>{{ m['role'] }}: {{ m['content'] }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
)
ALONE = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0]['content'] }}"
WORDS = (
    "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant: {% endif %}"
)


@pytest.mark.parametrize(
    "template, new, first, others, texts",
    [
        (CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", ("</s>", "<|im_start|>"), ()),
        (CHATML, (), "</s>", (), ("<|im_end|>",)),
        (LLAMA2, (), "</s>", (), ()),
        (LAST, ("<|start|>", "<|end|>", "<|return|>"), "<|return|>", ("</s>", "<|end|>", "<|start|>"), ()),
        (ALONE, (), "</s>", (), ()),
        (WORDS, (), "</s>", (), ("### user:",)),
        (None, (), "</s>", (), ()),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_the_end_of_a_turn_ends_an_answer(template, new, first, others, texts, special):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_tokens(list(new), special_tokens=special)
    found = answer_ends(tokenizer, True)
    assert tokenizer.convert_ids_to_tokens(found.tokens[0]) == first
    assert set(tokenizer.convert_ids_to_tokens(found.tokens)) == {first, *others} and found.texts == texts
    elsewhere = answer_ends(tokenizer, False, [5])
    assert elsewhere.tokens[0] == tokenizer.eos_token_id and 5 in elsewhere.tokens and not elsewhere.texts


def test_a_chat_answer_is_learned_with_the_end_of_its_turn():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "é").replace("<|im_start|>", "")
    tokenizer.add_tokens(["é"])
    (turn,) = tokenizer.convert_tokens_to_ids(["é"])
    chat = task({"input": "{{ text }}", "chat": True})
    assert bound_form(chat, tokenizer, 200).answer("joy")[-1] == turn
    assert bound_form(task(), tokenizer, 200).answer("joy")[-1] == tokenizer.eos_token_id
    old = bound_form(task({"input": "{{ text }}", "chat": True}, rules=1), tokenizer, 200)
    assert old.ends == (tokenizer.eos_token_id,) and old.answer("joy")[-1] == tokenizer.eos_token_id


def test_padding_ends_nothing():
    """A base that writes the token by which its tokenizer pads goes on behind it."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.generation_config.eos_token_id = None
    form = runtime_of(Base(model, tokenizer, "t"), w=task()).get("w").form
    ids = torch.tensor([ids_of(form, ROWS[0])])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, eos_token_id=1)
    said = plain[0, ids.shape[1] :].tolist()
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(said[2])
    found = runtime_of(Base(model, tokenizer, "t"), w=task()).predict([*ROWS, ROWS[0]])
    assert found[0].label == found[-1].label == form.read(tuple(said))
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.chat_template = None  # nothing ends an answer but its length
    for beams in (1, 2):
        endless = runtime_of(Base(model, tokenizer, "t"), w=task(num_beams=beams))
        assert endless.get("w").form.ends == () and all(one.cut for one in endless.predict(ROWS))


def test_a_stop_string_ends_an_answer_wherever_its_tokens_begin():
    runtime = runtime_of(tiny_base(), w=task())
    whole = runtime.predict(ROWS[3:4])[0].label
    for begin in range(1, len(whole) - 2):
        stop = whole[begin : begin + 2]
        told: list[str] = []
        one = runtime_of(tiny_base(), w=task(stop=[stop, "never"]))
        found = one.predict([*ROWS])[3]
        assert found.label == whole[: whole.find(stop)].strip() and not found.cut
        assert one.stream(ROWS[3], tell=told.append) == found and "".join(told) == found.label


def test_an_answer_that_is_cut_says_so():
    model = tiny_model("llama")
    model.generation_config.eos_token_id = 297
    found = runtime_of(Base(model, tiny_tokenizer(), "t"), w=task(max_new_tokens=2), more=task(max_new_tokens=1))
    assert [found.predict(ROWS[:1], name)[0].cut for name in ("w", "more")] == [False, True]
    outcome = found.evaluate("more", [Row({**ROWS[0], "answer": "x"}, "r:1")]).outcomes[0]
    assert outcome.cut


def test_draws_have_the_probabilities_of_softmax():
    """Counts of 4,000 draws against the probabilities, and of pairs against drawing twice without putting back."""
    scores = torch.tensor([[2.0, 0.0, -torch.inf, 1.0]]).repeat(4000, 1)
    want = scores[0].softmax(-1)
    pairs = Draws(list(range(4000)))(scores, 2)
    first = torch.bincount(pairs[:, 0], minlength=4) / 4000
    assert (first - want).abs().max() < 4 * (0.25 / 4000) ** 0.5 and first[2] == 0
    second = torch.bincount(pairs[:, 1], minlength=4) / 4000
    other = sum(want[k] * (want * (torch.arange(4) != k) / (1 - want[k])) for k in (0, 1, 3))
    assert (second - other).abs().max() < 4 * (0.25 / 4000) ** 0.5 and not (pairs[:, 0] == pairs[:, 1]).any()


def test_what_is_not_drawn_from_is_left_out():
    """Temperature, top-k and top-p come before the draw: with a single token left it is the best one."""
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    for settings in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        chain = processors(settings, 1, Draws(range(5)))
        assert chain(torch.zeros(5, 0, dtype=torch.long), scores.clone()).argmax(-1).equal(scores.argmax(-1))


@pytest.mark.parametrize("settings", [{}, {"top_k": 20, "top_p": 0.9}, {"num_beams": 3}, {"repetition_penalty": 1.3}])
def test_a_row_draws_its_own_numbers(settings):
    """Alone, in a batch, in another order, from threads: the same; other seeds and other rows: others."""
    runtime = runtime_of(
        tiny_base(),
        w=task(do_sample=True, temperature=1.5, **settings),
        greedy=task(),
        other=task(do_sample=True, temperature=1.5, seed=1, **settings),
    )
    alone = [runtime.predict([row], "w")[0].label for row in ROWS]
    assert [one.label for one in runtime.predict(ROWS, "w")] == alone
    assert [one.label for one in runtime.predict(ROWS[::-1], "w")] == alone[::-1]
    mixed = [{**row, "artifact": name} for row in ROWS for name in ("other", "w", "greedy")]
    found = runtime.predict(mixed)
    assert [one.label for one in found[1::3]] == alone
    assert [one.label for one in found[2::3]] == [one.label for one in runtime.predict(ROWS, "greedy")] != alone
    assert [one.label for one in found[::3]] != alone and len(set(alone)) == len(alone)


@pytest.mark.parametrize("calls", [5, pytest.param(50, marks=pytest.mark.full)])
def test_calls_at_once_are_those_of_one_after_the_other(calls):
    """From eight threads: drawn, greedy, with stop strings, streamed."""
    settings = {"drawn": {"do_sample": True}, "greedy": {"stop": ["a"]}, "short": {"max_new_tokens": 2}}
    names = {name: task(**{"max_new_tokens": 4, **own}) for name, own in settings.items()}
    runtime = runtime_of(tiny_base(), **names)
    asked = [(row, name) for row in ROWS for name in names]
    truth = {(row["text"], name): runtime.predict([row], name)[0] for row, name in asked}
    wrong: list[object] = []

    def client(seed):
        order = random.Random(seed)
        for turn in range(calls):
            row, name = order.choice(asked)
            call = runtime.stream if turn % 5 == 0 else None
            found = call(row, name, lambda piece: None) if call else runtime.predict([row], name)[0]
            if found != truth[row["text"], name]:
                wrong.append((found, truth[row["text"], name]))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def random_state():
    return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))


def test_writing_leaves_the_processs_random_numbers_alone():
    runtime = runtime_of(
        tiny_base(), greedy=task(), drawn=task(do_sample=True), beams=task(do_sample=True, num_beams=2)
    )
    before = random_state()
    for name in runtime.names:
        runtime.predict(ROWS, name)
    runtime.stream(ROWS[0], "drawn", lambda piece: None)
    assert random_state() == before


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.7}, "generation.temperature has no effect without generation.do_sample: true"),
        ({"top_p": 0.9, "top_k": 5}, "remove generation.top_p, generation.top_k"),
        ({"seed": 3}, "generation.seed has no effect"),
        ({"num_beams": 4, "seed": 3}, "generation.seed has no effect"),
        ({"do_sample": True, "temperature": 0}, "generation.temperature"),
        ({"do_sample": True, "temperature": float("inf")}, "generation.temperature"),
        ({"do_sample": True, "temperature": 1e-30}, "generation.temperature"),
        ({"num_beams": 10**9}, "generation.num_beams"),
        ({"stop": [""]}, "generation.stop.0"),
    ],
)
def test_settings_without_an_effect_are_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        task(**settings)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_without_an_effect_of_an_old_artifact_are_told():
    with pytest.warns(UserWarning, match=r"generation.temperature has no effect"):
        task(rules=1, temperature=0.7)
    assert task(do_sample=True, temperature=0.7, seed=2).spec.generation.idle == []


def test_an_answer_does_not_end_before_it_begins():
    with pytest.raises(ConfigError, match=r"template.answer begins with '\\n'"):
        task({**PLAIN, "answer": "\n{{ answer }}"}, stop=["\n"])
    assert task({**PLAIN, "answer": " {{ answer }}\n"}, stop=["\n"]).spec.generation.stop == ["\n"]


def test_answers_that_never_fit_are_counted_before_and_after():
    rows = [Row({"text": f"row {k}", "answer": "x" * (5 + k)}, f"r:{k}") for k in range(4)]
    ready = prepare(tiny_base(), task(max_new_tokens=7), make_method("hard"), rows={"train": rows})
    said = [str(one) for one in doctor.examine(doctor.Case(ready, ready.splits["train"]), doctor.checks(["rows"]))]
    longer = "2 of 4 right answers are longer than generation.max_new_tokens 7 (longest 9 tokens)"
    assert any(longer in line for line in said)
    runtime = runtime_of(tiny_base(), w=task(max_new_tokens=7), enough=task(max_new_tokens=9))
    found = runtime.evaluate("w", rows)
    assert noticed(runtime, "w", found)[0] == longer and sum(one.cut for one in found.outcomes) == len(rows)
    assert noticed(runtime, "w", found)[1] == "4 of 4 written answers were cut at generation.max_new_tokens 7"
    assert not [line for line in noticed(runtime, "enough", runtime.evaluate("enough", rows)) if "longer" in line]


def test_answers_that_say_nothing_are_counted():
    rows = [Row({**ROWS[0], "answer": "x"}, "r:1")]
    written = runtime_of(tiny_base(), w=task()).predict([ROWS[0]])[0].label
    for stop, told in ((written[0], 1), ("never", 0)):
        runtime = runtime_of(tiny_base(), w=task(stop=[stop]))
        found = noticed(runtime, "w", runtime.evaluate("w", rows))
        assert sum(line.startswith("1 of 1 written answers are empty") for line in found) == told


@pytest.mark.parametrize(
    "frame, written, answer",
    [
        (' "{{ answer }}"', ' "Paris"', "Paris"),
        (' "{{ answer }}"', ' "the "best" one"', 'the "best" one'),
        (" Answer: {{ answer }}.", " Answer: 3.5.", "3.5"),
        (" Answer: {{ answer }}.", " Answers", "Answers"),
        (" {{ answer }}", ' "Paris".', '"Paris".'),
        (" ({{ answer }})", " (", ""),
    ],
)
def test_what_the_template_puts_round_an_answer_is_taken_off(frame, written, answer):
    """At once and as it comes, where nothing is told that is no part of the answer."""
    form = bound_form(task({**PLAIN, "answer": frame}), tiny_tokenizer(), 200)
    ids = tiny_tokenizer()(written, add_special_tokens=False)["input_ids"]
    assert form.read(tuple(ids)) == answer
    told: list[str] = []
    streamer = AnswerStreamer(form, told.append)
    for token in ids:
        streamer.put(torch.tensor([token]))
        assert answer.startswith("".join(told))
    streamer.end()
    assert "".join(told) == answer
    old = bound_form(task({**PLAIN, "answer": frame}, rules=1), tiny_tokenizer(), 200)
    assert old.read(tuple(ids)) == written.strip()
