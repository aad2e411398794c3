"""Results of a comparison as a suite's run leaves them, made up: rows of known difficulty, contenders of known skill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.stats import norm

from softprompt.benchmarks.compare.record import DevEvaluation, Measured, Place, Record, Seconds, Tokens, write
from softprompt.metrics import metric_of, row_scores

# name: (skill at the first and the last size, learned numbers, seconds to learn, best rate, tokens a request, family, factors)
LEARNED = {
    "probe": (0.74, 0.84, 2_306, 1.5, None, 70, "probe", {}),
    "soft": (0.70, 0.90, 15_360, 60, 3e-2, 90, "soft", {}),
    "prefix-length=5": (0.76, 0.915, 122_880, 42, 1e-2, 75, "prefix", {"length": 5, "init": "text"}),
    "prefix-length=20": (0.78, 0.93, 491_520, 55, 1e-2, 90, "prefix", {"length": 20, "init": "text"}),
    "prefix-length=80": (0.75, 0.92, 1_966_080, 95, 1e-2, 150, "prefix", {"length": 80, "init": "text"}),
    "prefix-length=20-init=random": (0.66, 0.88, 491_520, 56, 1e-2, 90, "prefix", {"length": 20, "init": "random"}),
    "infix": (0.80, 0.925, 92_160, 9, 1e-2, 76, "infix", {}),
    "lora": (0.82, 0.935, 1_351_680, 160, 1e-3, 70, "lora", {}),
    "full": (0.83, 0.94, 134_515_008, 310, 2e-5, 70, "full", {}),
}
UNLEARNED = {"majority": (0.0, 0), "zero-shot": (0.55, 70), "8-shot": (0.66, 420)}
MACHINE = {
    "processor": "Some CPU @ 2.0 GHz",
    "system": "Linux",
    "cores": 2,
    "threads": 2,
    "memory": 2**34,
    "gpu": None,
}
LABELS = ("negative", "neutral", "positive")


def make_results(
    folder: Path,
    *,
    sizes: tuple[int, ...] = (32, 256),
    seeds: tuple[int, ...] = (0, 1, 2),
    rows: int = 120,
    bases: tuple[str, ...] = ("SmolLM2-135M",),
    tests: tuple[str, ...] = ("reviews",),
    labels: tuple[str, ...] = LABELS,
    metric: str = "accuracy",
    contenders: tuple[str, ...] | None = None,
    rename: dict[str, str] | None = None,
    measured: bool = False,
    failures: bool = True,
    suite: dict | None = None,
) -> Path:
    """Write a results folder; of `tests` the first is the task. Metrics of texts get texts of words."""
    rng = np.random.default_rng(7)
    makers = {test: _rows(test, rows, labels, metric, rng) for test in tests}
    for test, (where, gold, _) in makers.items():
        (folder / "rows").mkdir(parents=True, exist_ok=True)
        (folder / "rows" / f"{test}-digest.json").write_text(json.dumps({"where": where, "gold": gold}))
    names = (*UNLEARNED, *LEARNED) if contenders is None else contenders
    for base in bases:
        for name in names:
            for size in sizes if name in LEARNED else (None,):
                for seed in seeds if name != "majority" and name != "zero-shot" else seeds[:1]:
                    _final(folder, base, tests[0], name, size, sizes, seed, makers, metric, rng, rename or {}, measured)
                if name in LEARNED and LEARNED[name][4] is not None:
                    _trials(folder, base, tests[0], name, size, sizes, metric, rng, rename or {})
    if failures:
        for seed in seeds[:2]:
            place = Place(base=bases[0], task=tests[0], contender="adapters-broken", size=sizes[-1])
            reason = "TrainingError: the loss is NaN at step 12; lower train.lr (it was 0.1)"
            write(folder, Record(id=f"failed-{seed}", suite="made", stage="final", status="failed", reason=reason,
                                 place=place, seed=seed, lr=0.1))  # fmt: skip
    command = "softprompt bench compare methods --out results/methods --set 'seeds=[0,1,2]' --set sizes='[32,256]'"
    told = {
        "name": "made",
        "title": "Methods on reviews",
        "command": command,
        "reference": (rename or {}).get("full", "full"),
        "margin": 0.02,
        "cut": ["3 seeds rather than 5: the time of this machine", "sizes above 256"],
        **(suite or {}),
    }
    (folder / "suite.json").write_text(json.dumps(told))
    return folder


def _rows(test, rows, labels, metric, rng):
    hardness = rng.normal(size=rows)
    where = [f"{test}.jsonl:{i + 1}" for i in range(rows)]
    if metric_of(metric).takes == "labels":
        return where, [labels[min(int(rng.exponential(0.3 * len(labels))), len(labels) - 1)] for _ in where], hardness
    return where, [[" ".join(rng.choice(["the", "cat", "sat", "on", "a", "red", "mat"], 6))] for _ in where], hardness


def _answers(name, skill, gold, hardness, labels, rng):
    if name == "majority":
        return [max(sorted(set(map(str, gold))), key=list(map(str, gold)).count)] * len(gold)
    luck = rng.normal(0, 0.08) + norm.ppf(skill) * 1.17
    right = rng.normal(size=len(gold)) * 0.6 + luck - hardness > 0
    if isinstance(gold[0], str):
        return [g if ok else str(rng.choice([x for x in labels if x != g])) for g, ok in zip(gold, right, strict=True)]
    return [
        g[0] if ok else " ".join([*g[0].split()[: rng.integers(1, 5)], "dog"])
        for g, ok in zip(gold, right, strict=True)
    ]


def _skill(name, size, sizes):
    if size is None:
        return UNLEARNED[name][0]
    low, high = LEARNED[name][:2]
    part = 1.0 if len(sizes) == 1 else np.log(size / sizes[0]) / np.log(sizes[-1] / sizes[0])
    return low + (high - low) * part


def _place(base, task, name, size, rename):
    family, factors = (LEARNED[name][6], LEARNED[name][7]) if name in LEARNED else (name, {})
    shown = rename.get(name, name)
    return Place(base=base, task=task, contender=shown, size=size, family=rename.get(family, family), factors=factors)


def _measured(metric, test, gold, answers, hold):
    scores = row_scores(metric, gold, answers)
    value, error = float(scores.mean()), float(scores.std() / len(scores) ** 0.5)
    digest, kept = f"{test}-digest", answers if hold else None
    bounds = (value - 2 * error, value + 2 * error)
    return Measured(metric=metric, value=value, interval=bounds, rows=len(gold), nll=0.4, digest=digest, predicted=kept)


def _final(folder, base, task, name, size, sizes, seed, makers, metric, rng, rename, measured):
    skill, found = _skill(name, size, sizes), {}
    for number, (test, (_, gold, hardness)) in enumerate(makers.items()):
        labels = sorted({str(label) for label in gold}) if isinstance(gold[0], str) else []
        answers = _answers(name, max(skill - 0.12 * number, 0.4), gold, hardness, labels, rng)
        found[test] = _measured(metric, test, gold, answers, True)
    numbers, spent, rate, request = LEARNED[name][2:6] if name in LEARNED else (0, 0, None, UNLEARNED[name][1])
    top = metric_of(metric).top
    reached = {step: top * (skill - 0.3 * 2 ** (-step / 40) + rng.normal(0, 0.01)) for step in range(0, 201, 25)}
    curve = [DevEvaluation(step=step, value=value, nll=0.4) for step, value in reached.items()] if rate else []
    spent *= rng.uniform(0.9, 1.1)
    record = Record(
        id=f"{base}_{task}_{name}_n{size}_final_s{seed}",
        suite="made",
        stage="final",
        place=_place(base, task, name, size, rename),
        seed=seed,
        lr=rate,
        tests=found,
        dev=_dev(metric, curve[-1].value) if curve else None,
        curve=curve,
        trained=numbers,
        stored=numbers,
        artifact_bytes=numbers * 4 + 2000 if numbers else None,
        best_step=175 if curve else None,
        steps=200 if curve else None,
        seconds=Seconds(encode=3 if name == "infix" else 0, train=spent, look=spent / 8, test=4.2),
        seconds_in_all=spent * 1.3 + 6,
        tokens=Tokens(
            trained=int(spent * 900),
            per_second=rng.uniform(800, 1000) if rate else None,
            request=request,
            request_kept=min(request, 60),
        ),
        peak_rss=int(1.2e9 + numbers * 12) if measured else None,
        versions={"python": "3.11.7", "torch": "2.13.0"},
        machine=MACHINE,
        commit="0123456789abcdef",
        dirty=True,
        when="2026-01-02T03:04:05",
    )
    write(folder, record)


def _trials(folder, base, task, name, size, sizes, metric, rng, rename):
    best, skill, top = LEARNED[name][4], _skill(name, size, sizes), metric_of(metric).top
    for number, (share, powers) in enumerate(((0.25, (-2, -1, 0, 1, 2)), (1.0, (-1, 0, 1)))):
        for power in powers:
            value = top * (skill - 0.05 * power**2 - 0.1 * (1 - share) + rng.normal(0, 0.01))
            lr = float(f"{best * 3.0**power:.3g}")
            record = Record(
                id=f"{base}_{task}_{name}_n{size}_trial{number}_lr{lr}",
                suite="made",
                stage="trial",
                dev=_dev(metric, value),
                place=_place(base, task, name, size, rename),
                seed=1000,
                lr=lr,
                share=share,
                round=number,
                seconds_in_all=30.0,
            )
            write(folder, record)


def _dev(metric, value):
    room = 0.05 * metric_of(metric).top
    return Measured(metric=metric, value=value, interval=(value - room, value + room), rows=64, digest="dev")
