"""Texts behind contexts, with and without something learned: as plain transformers has them, each context run once."""

from __future__ import annotations

import random
import sys

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import FAMILIES, VOCABULARY, tiny_base, tiny_model, tiny_tokenizer

from softprompt.answers.generated import likelihoods
from softprompt.ensemble import save_ensemble
from softprompt.errors import ConfigError, MissingExtraError
from softprompt.lm_eval import texts as module
from softprompt.lm_eval.learned import learned_of
from softprompt.lm_eval.settings import writing
from softprompt.lm_eval.texts import SHARED, Texts
from softprompt.methods import make_method
from softprompt.prepared import ends_of
from softprompt.training import train

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 0.05}
LEARNED = {
    "soft": {"name": "soft", "length": 5},
    "p_tuning": {"name": "p_tuning", "length": 4, "hidden": 16},
    "prefix": {"name": "prefix", "length": 5},
    "prefix of upper layers": {"name": "prefix", "length": 5, "layers": "1-"},
    "infix": {"name": "infix", "length": 4},
    "infix of embeddings": {"name": "infix", "form": "embeddings", "length": 3, "cue": 4},
    "lora": {"name": "lora", "r": 2},
    "lora from the cue on": {"name": "lora", "r": 2, "activate": "cue"},
    "full": {"name": "full"},
    "joint": {"name": "joint", "parts": [{"name": "prefix", "length": 3}, {"name": "infix", "length": 3}]},
}


def ids(size, seed=0):
    return tuple(random.Random(seed).choices(range(3, VOCABULARY), k=size))


def values_of(found):
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def plain(model, context, continuation):
    """The sum of a continuation's log-probabilities by plain transformers, and whether greedy decoding writes it."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
    targets = torch.tensor(continuation)
    logp = logits.log_softmax(-1).gather(1, targets[:, None])
    return float(logp.sum()), bool((logits.argmax(-1) == targets).all())


def requests():
    """Contexts of one token and of many, alone and with several continuations, and some that begin alike."""
    shared = ids(SHARED + 5, 1)
    pairs = [(ids(1, 2), ids(9, 3)), (ids(1, 2), ids(4, 4)), (ids(20, 5), ids(6, 6)), (ids(30, 7), ids(1, 8))]
    pairs += [(ids(25, 9), ids(size, size)) for size in (1, 1, 2, 7)] + [(ids(25, 9), ids(2, 2))]
    return pairs + [((*shared, *ids(3 + place, place)), ids(2 + place % 2, 90)) for place in range(9)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("most", [None, 2])
def test_likelihoods_are_those_of_plain_transformers(family, most):
    model = tiny_model(family).eval()
    pairs = requests()
    context = ids(12, 50)
    with torch.no_grad():  # what greedy decoding writes behind it
        best = (int(model(input_ids=torch.tensor([context])).logits[0, -1].argmax()),)
    pairs += [(context, best), (context, (best[0], 5)), (context, (9,))]
    found = values_of(Texts(tiny_base(family), make_method("hard"), most=most).likelihoods(pairs))
    for (before, behind), one in zip(pairs, found, strict=True):
        value, greedy = plain(model, before, behind)
        assert one.value == pytest.approx(value, rel=1e-5, abs=1e-5) and one.greedy == greedy
    assert found[-3].greedy and not found[-1].greedy


def test_what_is_shared_runs_once(monkeypatch):
    ran = []
    forward = module.run
    monkeypatch.setattr(
        module,
        "run",
        lambda base, rows, *rest: ran.append([row.live_tokens for row in rows]) or forward(base, rows, *rest),
    )
    reader = Texts(tiny_base(), make_method("hard"))
    list(reader.likelihoods([(ids(30), ids(5, seed)) for seed in range(4)]))
    assert ran == [[30]]  # the continuations follow behind its keys
    ran.clear()
    shared = ids(50, 1)
    list(reader.likelihoods([((*shared, seed + 3), ids(3, seed)) for seed in range(10)]))
    assert ran == [[3] * 10]  # of each its last token, and its continuation but for the last


@pytest.mark.parametrize("name", LEARNED)
def test_what_was_learned_acts_where_it_was_trained(name, tmp_path):
    """Behind the words of its own template a context gives what the artifact's own engine gives."""
    how = {"train": SETTINGS, "rows": tiny_rows(16, 4, 4), "check": False}
    ready = train(tiny_base(), tiny_task(), LEARNED[name], tmp_path, **how).prepared
    method, cue = learned_of(tiny_base(), tmp_path)
    assert cue == len(ready.bound.cue)
    some = ready.splits["dev"]
    pairs = [((*ready.bound.prefix_ids, *one.text, *ready.bound.cue), one.answer) for one in some]
    ours = [-one.value for one in values_of(Texts(tiny_base(), method, cue).likelihoods(pairs))]
    bare = [-one.value for one in values_of(Texts(tiny_base(), make_method("hard")).likelihoods(pairs))]
    theirs = likelihoods(ready.engine, some, ready.method.learned())
    assert ours == pytest.approx(theirs, rel=2e-5, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(ours, bare, strict=True)) > 1e-3


def test_an_infix_stands_before_the_last_tokens_of_any_context(tmp_path):
    """Learned embeddings in the middle, by plain transformers; also of contexts that begin alike or are short."""
    train(
        tiny_base(),
        tiny_task(),
        LEARNED["infix of embeddings"],
        tmp_path,
        train=SETTINGS,
        rows=tiny_rows(),
        check=False,
    )
    method, cue = learned_of(tiny_base(), tmp_path)
    model, learned = tiny_model("llama").eval(), method.learned().segments["prompt"].detach()
    pairs = requests()
    found = values_of(Texts(tiny_base(), method, cue).likelihoods(pairs))
    for (context, continuation), one in zip(pairs, found, strict=True):
        at = max(0, len(context) - 4)
        embed = model.get_input_embeddings()
        before, behind = torch.tensor(context[:at], dtype=torch.long), torch.tensor([*context[at:], *continuation])
        with torch.no_grad():
            rows = torch.cat([embed(before), learned, embed(behind)])[None]
            logits = model(inputs_embeds=rows).logits[0, -len(continuation) - 1 : -1]
        logp = logits.log_softmax(-1).gather(1, torch.tensor(continuation)[:, None])
        assert one.value == pytest.approx(float(logp.sum()), rel=1e-5, abs=1e-5)


def test_what_is_written_is_what_plain_transformers_writes():
    model, tokenizer = tiny_model("llama").eval(), tiny_tokenizer()
    contexts = [ids(size, size) for size in (1, 7, 30)]
    how = writing({"max_gen_toks": 8}, 256, tokenizer, ends_of(tiny_base()))
    found = dict(Texts(tiny_base(), make_method("hard")).written(contexts, how.settings, how.ends, how.stops, [0] * 3))
    for place, context in enumerate(contexts):
        row = torch.tensor([context])
        theirs = model.generate(input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=8, do_sample=False)
        written = theirs[0, len(context) :].tolist()
        assert found[place].ids == tuple(written[:-1] if written[-1] in how.ends else written)


def test_settings_of_tasks():
    tokenizer = tiny_tokenizer()
    how = writing({"until": ["\n\n", "</s>", ""], "max_new_tokens": 9, "temperature": 0.0}, 256, tokenizer, (1, 7))
    assert (how.stops, how.ends, how.settings["max_new_tokens"]) == (("\n\n", "</s>"), (1, 7), 9)
    assert "do_sample" not in how.settings and how.cut("one\n\ntwo") == "one"
    drawn = writing({"until": "x", "temperature": 0.7, "top_p": 0.9}, 256, tokenizer, ())
    assert drawn.stops == ("x",) and drawn.settings["max_new_tokens"] == 256
    assert (drawn.settings["do_sample"], drawn.settings["temperature"], drawn.settings["top_p"]) == (True, 0.7, 0.9)
    assert "temperature" not in writing({"do_sample": False, "temperature": 0.7}, 256, tokenizer, ()).settings
    assert 2 in writing({"until": ["<pad>"]}, 256, tokenizer, ()).ends  # a special token is no text of an answer
    with pytest.raises(ConfigError, match="unknown key 'beams'"):
        writing({"beams": 2}, 256, tokenizer, ())


@pytest.mark.parametrize(
    ("method", "task", "why"),
    [
        ("hard", {}, "learned nothing"),
        ("probe", {}, "a classifier of its own"),
        ({"name": "prefix", "length": 2, "head": True}, {}, "a classifier of its own"),
        (
            {"name": "soft"},
            {"template": {"input": "{{ soft(2) }}{{ text }}{{ soft(2) }}", "cue": "\nIt is:"}},
            "no place",
        ),
    ],
)
def test_what_has_no_likelihood_is_refused(method, task, why, tmp_path):
    train(tiny_base(), tiny_task(**task), method, tmp_path, train=SETTINGS, rows=tiny_rows(), check=False)
    with pytest.raises(ConfigError, match=why):
        Texts(tiny_base(), *learned_of(tiny_base(), tmp_path))


def test_ensembles_and_other_kinds_of_bases_are_refused(tmp_path):
    for seed in range(2):
        rows = tiny_rows()
        train(tiny_base(), tiny_task(), "soft", tmp_path / f"{seed}", train=SETTINGS, rows=rows, seed=seed, check=False)
    save_ensemble(tmp_path / "both", [(tmp_path / "0", 0.5), (tmp_path / "1", 0.5)])
    with pytest.raises(ConfigError, match=r"is an ensemble.*Name one member"):
        learned_of(tiny_base(), tmp_path / "both")
    with pytest.raises(ConfigError, match="use a causal base"):
        learned_of(tiny_base("bert"), None)


def test_without_the_harness_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "softprompt.lm_eval", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'softprompt\[lm-eval\]'"):
        from softprompt.lm_eval import SoftpromptLM  # noqa: F401
    from softprompt.lm_eval.__main__ import main

    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2 and "pip install" in capsys.readouterr().err
