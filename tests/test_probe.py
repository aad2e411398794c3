"""The probe: what it reads of a row, how its penalty is chosen, what earlier artifacts of it give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import close, scores, tiny_rows, tiny_task
from models import tiny_base
from test_bidirectional import encoder

from softprompt import artifact as artifacts
from softprompt.answers.form import frozen_learned
from softprompt.errors import ConfigError
from softprompt.methods.regression import ENOUGH, Rows, choose_strength
from softprompt.runtime import Runtime
from softprompt.training import train
from softprompt.training.saving import save

STRENGTHS = (1e-4, 1e-2, 1.0)


def by_hand(ready, states):
    """Log-probabilities of these states by the artifact's tensors."""
    tensors = ready.method.export()
    return (states @ tensors["weight"].T + tensors["bias"]).log_softmax(-1)


@pytest.mark.parametrize("pool", [None, "mean", "last"])
def test_an_encoders_probe_answers_by_the_states_that_it_was_fitted_on(pool):
    """By default by the mean of a row's states, as a head reads them, without the instruction among them."""
    ready = train(encoder(), tiny_task(), {"name": "probe", "pool": pool}, rows=tiny_rows(40)).prepared
    assert ready.method.spec.pool == pool or (pool is None and ready.method.spec.pool == "mean")
    rows, bare = ready.splits["dev"], frozen_learned(ready.method)
    if pool == "last":
        (batch,) = [batch for _, batch in ready.engine.contexts(rows[:1], bare)]
        close(scores(ready)[:1], by_hand(ready, batch.last))
    else:
        close(scores(ready), by_hand(ready, ready.engine.pooled(rows, bare).detach()))
    assert ("Good or bad?" in ready.base.tokenizer.decode(ready.bound.prefix_ids)) == (pool == "last")


def test_a_causal_bases_probe_reads_the_cues_state_behind_the_instruction():
    ready = train(tiny_base(), tiny_task(), "probe", rows=tiny_rows(40)).prepared
    assert ready.method.spec.pool == "last"
    assert "Good or bad?" in ready.base.tokenizer.decode(ready.bound.prefix_ids)
    with torch.no_grad():
        close(scores(ready), by_hand(ready, ready.engine.pooled(ready.splits["dev"], frozen_learned(ready.method))))


def test_a_mean_needs_a_base_that_reads_both_ways():
    with pytest.raises(ConfigError, match=r"method\.pool is mean, but base .* is causal"):
        train(tiny_base(), tiny_task(), {"name": "probe", "pool": "mean"}, rows=tiny_rows())


@pytest.mark.parametrize("make", [encoder, tiny_base])
def test_artifacts_without_the_setting_read_what_they_were_fitted_on(tmp_path, make):
    """Earlier ones had no `pool`: they were fitted on the mean where a base reads both ways, and kept the instruction."""
    base, pool = make(), "mean" if make is encoder else "last"
    result = train(base, tiny_task(), {"name": "probe", "instruction": True, "pool": pool}, rows=tiny_rows(40))
    saved = save(result, tmp_path / "new")
    method = {"name": "probe", "strengths": [1e-4, 1.0], "instruction": True}
    manifest = saved.manifest.model_copy(update={"method": method, "manifest_sha256": None})
    artifacts.save(tmp_path / "old", manifest, saved.tensors, "")
    runtime = Runtime(base)
    runtime.add("old", tmp_path / "old")
    runtime.add("new", tmp_path / "new")
    asked = [{"text": "joy sun"}, {"text": "rain"}]
    old, new = (runtime.predict(asked, name) for name in ("old", "new"))
    assert [one.probabilities for one in old] == [one.probabilities for one in new]
    assert runtime.get("old").method.spec.pool == pool


def noise(rows, seed=0):
    """Features that say nothing, [rows, 30], and classes of two kinds."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 30)), np.arange(rows) % 2


def chosen(*parts, strengths=STRENGTHS):
    """The strength for training rows, and dev rows behind them."""
    features, gold = (np.concatenate(column) for column in zip(*parts, strict=True))
    return choose_strength(strengths, Rows(features, gold, np.ones(len(gold))), len(parts[0][1]), seed=0)


def test_without_dev_rows_cross_validation_chooses_the_penalty():
    """Strong where the features say nothing, weak where they say all."""
    features, gold = noise(40)
    assert chosen((features, gold)) == STRENGTHS[0]
    assert chosen((features + 3 * gold[:, None], gold)) == STRENGTHS[-1]


def test_dev_rows_alone_choose_where_there_are_enough():
    """These training rows ask for a weak penalty; on the dev rows the features say nothing."""
    features, gold = noise(40)
    clear = (features + 3 * gold[:, None], gold)
    assert chosen(clear, noise(20, seed=1)) > STRENGTHS[0]
    assert chosen(clear, noise(ENOUGH, seed=1)) == STRENGTHS[0]


def test_rare_classes_do_not_stop_the_choice():
    """A class of one row is never fitted and judged; where all are, the strength in the middle is taken."""
    features, gold = noise(12)
    gold[0], gold[1:3] = 2, 3
    with np.errstate(all="raise"):
        assert chosen((features, gold)) in STRENGTHS
    assert chosen((features[:3], np.arange(3))) == STRENGTHS[1]
    assert chosen((features, gold), strengths=(0.5,)) == 0.5
