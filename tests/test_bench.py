"""The benchmark's two sides on a tiny base: equal losses where they compute the same, counted FLOPs, the verb from outside."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import forked
import pytest
import torch
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode

from softprompt.base import Base
from softprompt.benchmarks.speed import grid, ours, peft_side, sides, sweep, without_peer
from softprompt.benchmarks.speed import main as speed
from softprompt.benchmarks.speed.cases import CASES, EXTRA, NAMES, rows_for
from softprompt.benchmarks.speed.flops import Peak, step_flops
from softprompt.benchmarks.speed.plot import plot
from softprompt.benchmarks.speed.scaling import encoding_slopes, slope, slopes
from softprompt.benchmarks.speed.sweep import measure
from softprompt.data import Row
from softprompt.errors import ConfigError
from softprompt.methods import make_method
from softprompt.training import prepare

CASE = {case.name: case for case in (*CASES, *EXTRA)}


def rows(count: int) -> list[dict[str, str]]:
    """Rows of the benchmark's form; nothing is fetched."""
    found = [row.values for row in tiny_rows(count)["train"]]
    return [{"text": row["text"], "label": {"good": "positive", "bad": "negative"}[row["label"]]} for row in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("bench") / "base"
    tiny_model("llama").save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return str(where)


@pytest.mark.parametrize("name", CASE)
def test_both_sides_take_steps(name, folder):
    case = replace(CASE[name], batch=6)
    request = {"base": folder, "rows": rows(3 * case.batch), **case.as_dict()}
    step, facts, peak = ours.set_up(request)
    side = ours if case.peer_method == "ours" else peft_side
    peer_step, peer_facts, _ = side.set_up({**request, "upper": False})
    losses = [(step(), peer_step()) for _ in range(3)]
    assert all(0 < loss < 20 for pair in losses for loss in pair)
    assert len({pair[0] for pair in losses}) == 3  # other rows, moved parameters
    assert facts["text_tokens"] > 0 and len(facts["flops"]) == 3 and min(peak()) > 1e6
    if case.same_loss:
        assert torch.allclose(*torch.tensor(losses).T, rtol=0, atol=sides.LOSS_TOLERANCE["cpu"]), losses
        assert facts["parameters"] == peer_facts["parameters"]
    if case.upper:
        assert facts["parameters"] * 3 == peer_facts["parameters"]


LORA = {"name": "lora", "r": 4, "target_modules": ["down_proj", "o_proj"]}
COUNTED = [
    ("llama", {"name": "soft", "length": 5, "text": "It is."}),
    ("llama", {"name": "prefix", "length": 5, "text": "It is."}),
    ("llama", {"name": "prefix", "length": 5, "text": "It is.", "layers": "1-"}),
    ("gpt2", {"name": "infix", "length": 4, "cue": 3, "text": "It is."}),
    ("llama", {"name": "infix", "length": 4, "form": "embeddings", "text": "It is."}),
    ("llama", LORA),
    ("llama", {**LORA, "activate": "cue"}),
    ("llama", {"name": "full"}),
    ("llama", {"name": "hard"}),
    ("gpt2", {"name": "hard"}),
]


@pytest.mark.parametrize(("family", "settings"), COUNTED, ids=lambda one: one if isinstance(one, str) else one["name"])
def test_flops_are_those_that_torch_counts(family, settings):
    """All products with weights that torch runs, but for those that nothing needs: the last layer's of shared tokens, …"""
    base = Base(tiny_model(family), tiny_tokenizer())
    some = [Row(row, f"row {place}") for place, row in enumerate(rows(6))]
    method = make_method(settings)
    ready = prepare(base, ours.task_for(), method, rows={"train": some}, seed=0)
    engine, examples, trains = ready.engine, ready.splits["train"], bool(method.parameters())
    if trains:
        engine.encode(examples)
    learned = method.learned()
    engine.shared_prefix(learned)  # what is run once per task
    found = step_flops(engine, examples, learned, training=trains)

    def packed(x, weight, *rest, out_shape=None, **named):
        return 2 * math.prod(x) * out_shape[-1]

    own = {torch.ops.mkldnn._linear_pointwise: packed}
    with FlopCounterMode(display=False, custom_mapping=own) as counter, torch.set_grad_enabled(trains):
        total, _ = engine.loss(examples, learned)
        if trains:
            total.backward()
    shared = len(engine.prefix_ids) * bool(engine.plan.shared_live) + settings.get("length", 0) * (
        settings["name"] == "soft"
    )
    layer, shape = (learned.base or base).layer(base.shape.layers - 1), base.shape
    weights = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
    # they run with the rows, so there are gradients (of zeros) as well: of states, and of weights that learn
    passes = 1 if not trains else 3 if settings["name"] == "full" else 2
    unneeded = passes * 2 * shared * (weights - 2 * shape.hidden_size * shape.kv_heads * shape.head_size)
    if settings["name"] == "soft":  # learned embeddings stand beside the rows' own, whose gradients come along
        tokens = sum(len(one.text) + len(engine.cue) + len(one.answer) - 1 for one in examples)
        unneeded += 2 * tokens * shape.hidden_size * (shape.hidden_size + 2 * shape.kv_heads * shape.head_size)
    # of a LoRA in the first layer's output, the gradient of that layer's input is counted and not needed
    near = 0.03 if settings["name"] == "lora" else 0
    assert found.linear + found.head == pytest.approx(counter.get_total_flops() - unneeded, rel=near, abs=0)
    assert found.attention > 0


def test_attention_is_counted_pair_by_pair():
    """A token sees the prefix, what is shared, its own row up to itself; shared ones need none in the last layer."""
    base = Base(tiny_model("llama"), tiny_tokenizer())
    method = make_method({"name": "prefix", "length": 2, "text": "x"})
    ready = prepare(base, ours.task_for(), method, seed=0, rows={"train": [Row(rows(1)[0], "row")]})
    found = step_flops(ready.engine, ready.splits["train"], method.learned())
    (example,) = ready.splits["train"]
    before = len(ready.engine.prefix_ids)
    tokens = len(example.text) + len(ready.bound.cue) + len(example.answer) - 1
    shared = sum(2 + place + 1 for place in range(before))
    own = sum(2 + before + place + 1 for place in range(tokens))
    width, layers = base.config.num_attention_heads * base.shape.head_size, base.shape.layers
    assert before and found.attention == 3 * 4 * width * (layers * own + (layers - 1) * shared)


def test_peak_is_a_rate_of_products():
    peak = Peak(Base(tiny_model("llama"), tiny_tokenizer()), 40)
    assert {(len(a), *b.shape) for a, b in peak.pairs[3:]} == {(40, 64, 64), (40, 64, 32), (40, 64, 128), (40, 128, 64)}
    assert all(1e8 < rate < 1e14 for rate in peak.measure())


def test_many_steps_take_the_rows_in_turn_again():
    found = rows_for(30, 20_000)
    assert len(found) == 20_000 and found[0] in found[1:]


def test_slopes_find_the_power():
    """Two groups with constants of their own; the interval is that of a regression with a dummy for each."""
    measured = [(size, scale * size**1.5, scale) for scale in (1.0, 7.0) for size in (30, 120, 300)]
    found = slope("soft", "ours", "T", measured)
    assert found.exponent == pytest.approx(1.5) and found.interval == pytest.approx((1.5, 1.5))
    assert (found.points, found.groups) == (6, 2)
    noisy = [
        (size, seconds * (1.2 if place % 2 else 1), group) for place, (size, seconds, group) in enumerate(measured)
    ]
    import statsmodels.api as sm

    x = torch.tensor([[size, group == 1.0, group == 7.0] for size, _, group in noisy], dtype=torch.float64).numpy()
    x[:, 0] = torch.tensor(x[:, 0]).log()
    fit = sm.OLS(torch.tensor([seconds for _, seconds, _ in noisy], dtype=torch.float64).log().numpy(), x).fit()
    found = slope("soft", "ours", "T", noisy)
    assert found.exponent == pytest.approx(fit.params[0]) and found.interval == pytest.approx(tuple(fit.conf_int()[0]))
    assert slope("soft", "ours", "T", [(30, 1.0, 1), (30, 2.0, 1)]) is None
    assert slope("soft", "ours", "T", [(30, 1.0, 1), (60, 2.0, 1)]).interval is None
    rows_first, tokens = encoding_slopes([(30, 28.0, n, n * 0.1) for n in (8, 32)] + [(120, 112.0, 8, 3.2)])
    assert rows_first["exponent"] == pytest.approx(1) and tokens["exponent"] == pytest.approx(1)


def test_the_grid_and_its_forecast():
    assert grid.sizes("all") == grid.SIZES
    assert grid.sizes("P=20,5 T=30") == {"P": (5, 20), "B": (8, 32), "T": (30,)}
    for wrong in ("Q=3", "P=", "P=x", "T=0"):
        with pytest.raises(ConfigError, match="expected all, or sizes"):
            grid.sizes(wrong)
    with pytest.raises(ConfigError, match="did you mean 'soft'"):
        list(grid.points("sft", grid.SIZES))
    cases = list(grid.points("soft", grid.sizes("P=5,100 B=8 T=30,300")))
    assert [case.name for case in cases] == [
        f"soft P={p} B=8 T={t}" for t, p in ((30, 5), (30, 100), (300, 5), (300, 100))
    ]
    assert all(case.method["length"] == case.peer_length for case in cases)
    assert [case.name for case in grid.points("lora", grid.sizes("B=8 T=30"))] == ["lora B=8 T=30"]
    forecast = grid.Forecast(free=10.0)
    assert not forecast.excuse("peer", 1e9)  # nothing is known yet
    forecast.learn(
        100,
        {
            "our_seconds": 1.0,
            "our_peak_gb": 1.5,
            "our_loaded_gb": 1.0,
            "peer_seconds": 10.0,
            "peer_peak_gb": 3.0,
            "peer_loaded_gb": 1.0,
        },
    )
    assert forecast.gigabytes("peer", 200) == 5.0
    assert forecast.excuse("peer", 2000) == "a step would take about 200 s"
    assert forecast.excuse("peer", 500) == "it would take about 11 GB of 10"
    assert not forecast.excuse("our", 500)
    assert forecast.excuse("our", 500, beside=6.0)


def test_the_verb(folder, tmp_path, forks):
    """Real processes: one case against PEFT, one against ourselves."""
    from test_cli import cli, refused

    done = cli(
        *("bench", "speed", "--base", folder, "--steps", 1, "--only", "lora", "--only", "prefix-upper"),
        *("--json", "speed.json", "--plot", "speed.svg"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads((tmp_path / "speed.json").read_text())["rows"]}
    assert list(found) == ["prefix-upper", "lora"]  # in the order of the cases
    assert found["lora"]["losses_equal"] is True and found["lora"]["prompt_length"] is None
    assert found["lora"]["our_parameters"] == found["lora"]["peer_parameters"]
    assert found["prefix-upper"]["losses_equal"] is None and found["prefix-upper"]["peer"] == "ours, all layers, P=20"
    for row in found.values():
        assert row["speedup"] > 0 and row["memory_ratio"] > 0
        assert 0 < row["utilisation"] < 1 and row["model_gflops"] > 0 and row["utilisation_of_cpu_time"] > 0
        assert row["name"] in done.stdout
    assert "<svg" in (tmp_path / "speed.svg").read_text() and "left out: joint" in done.stdout
    refused(cli("bench", "speed", "--only", "lra", cwd=tmp_path), "did you mean 'lora'")
    another = ("--base", "nosuch", "--out", "another")
    refused(cli("bench", "speed", "--only", "lora", *another, cwd=tmp_path), "nosuch")  # from the worker
    refused(
        cli("bench", "speed", "--json", "speed.svg/speed.json", cwd=tmp_path), "cannot be written"
    )  # before it works
    refused(cli("bench", "speed", "--plot", ".", cwd=tmp_path), "it is a folder")
    with pytest.raises(ConfigError, match="no peer"):
        speed.main(folder, only=["joint"])
    assert len(set(NAMES)) == len(NAMES)


def test_a_grid_of_real_processes(folder, tmp_path, monkeypatch, forks):
    """Two sizes, the peer left out of the second for its memory; exponents and the figure follow."""
    monkeypatch.setattr(sides, "rows_for", lambda tokens, count: rows(count))
    told = iter(["", "it would take about 31 GB of 14"])
    real = grid.Forecast.excuse
    monkeypatch.setattr(
        grid.Forecast, "excuse", lambda self, side, *a: next(told) if side == "peer" else real(self, side, *a)
    )
    found = speed.main(folder, steps=1, only=["soft"], grid="P=2,8 B=4 T=30")
    assert [row["name"] for row in found["rows"]] == [f"soft P={length} B=4 T=30" for length in (2, 8)]
    assert found["left_out"] == ["soft P=8 B=4 T=30, PEFT prompt tuning, P=8: it would take about 31 GB of 14"]
    assert found["rows"][1]["peer_seconds"] is None and found["rows"][1]["our_seconds"] > 0
    over = {(one["side"], one["over"], one["unit"]): one["points"] for one in found["scaling"]}
    assert over == {("ours", "P", "seconds"): 2, ("ours", "P", "cpu_seconds"): 2}
    assert slopes(found["rows"]) == found["scaling"]
    plot(found, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match="--plot"):
        plot(found, tmp_path / "grid.xyz")


def test_a_sweep_and_encoding(folder, tmp_path, monkeypatch, forks):
    """The real verb in processes of its own; later trials encode nothing."""
    task = {
        "name": "speed",
        "template": {"input": "Review: {{ text }}", "cue": "\nSentiment:", "answer": " {{ answer }}"},
        "verbalizer": {"positive": "positive", "negative": "negative"},
        "data": {"source": "movie-reviews", "split": {"train": 12, "dev": 6, "test": 6}},
    }
    monkeypatch.setattr(sweep, "_cpu_of_children", forked.cpu_seconds)  # forked ones are the server's children
    found = measure(folder, task, {"max_steps": 2}, rates=(0.01, 0.05), seeds=(0, 1), inside=tmp_path)
    assert not list(tmp_path.iterdir())
    assert found["trials"] == 4 and len(found["trial_seconds"]) == 4
    assert found["our_seconds"] == pytest.approx(sum(found["trial_seconds"]))
    assert min(found["cpu_seconds"]) > 0
    assert found["ratio"] == pytest.approx(found["our_seconds"] / found["peer_seconds"])
    monkeypatch.setattr(without_peer, "CHUNKS", ((30, 2), (30, 6), (120, 2)))
    monkeypatch.setattr(without_peer, "rows_for", lambda tokens, count: rows(count))
    row = without_peer.encoding(folder, lambda *told: None)
    assert row["batch"] == 6 and row["our_seconds"] > 0
    assert without_peer.encoding_scaling(row)[0]["over"] == "rows"
