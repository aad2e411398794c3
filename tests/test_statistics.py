"""Row scores against brute force; the comparison against formulas, other packages, and simulations with a known truth."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from softprompt.benchmarks.compare import calibration, results
from softprompt.benchmarks.compare.calibration import SIZES, World
from softprompt.benchmarks.compare.record import Measured, Place, Record
from softprompt.benchmarks.compare.statistics import compare, compare_all, mcnemar, mean_over, scores_of
from softprompt.errors import ConfigError, DataError, MissingExtraError
from softprompt.metrics import METRICS, estimate, measures, metrics_for, row_scores
from softprompt.metrics.variance import Variance, variance_of, variance_of_difference

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "looked", "at", "dogs", "in", "big", "red", "near", "small"]


def tags(rows=40):
    """Rows of tagged words, gold and predicted."""
    rng, kinds = random.Random(0), ["O", "B-x", "I-x", "B-y", "I-y"]
    gold = [[rng.choice(kinds) for _ in range(rng.randint(1, 9))] for _ in range(rows)]
    return gold, [[tag if rng.random() < 0.7 else rng.choice(kinds) for tag in row] for row in gold]


def labels(rows: int = 40) -> tuple[list[str], list[str]]:
    """Right and predicted labels; "z" is predicted once and never right, "r" is right once."""
    rng = random.Random(3)
    gold = [*rng.choices("abc", k=rows - 1), "r"]
    return gold, [label if rng.random() < 0.7 else rng.choice("abc") for label in gold[:-1]] + ["z"]


def sets(rows: int = 40) -> tuple[list[list[str]], list[list[str]]]:
    """Right and predicted sets of labels, some of them empty; "z" is predicted once and never right."""
    rng = random.Random(4)
    gold = [[label for label in "abcd" if rng.random() < 0.3] for _ in range(rows)]
    return gold, [[label for label in "abcd" if rng.random() < (0.7 if label in row else 0.1)] for row in gold[1:]] + [
        ["z"]
    ]


def texts(rows: int = 12) -> tuple[list[list[str]], list[str]]:
    """References, one or two a row, and worse copies."""
    rng = random.Random(0)
    gold = [[" ".join(rng.choices(WORDS, k=rng.randint(5, 20))) for _ in range(rng.randint(1, 2))] for _ in range(rows)]
    return gold, [" ".join(w if rng.random() < 0.7 else rng.choice(WORDS) for w in own[0].split()) for own in gold]


def binary(seeds: int, rows: int, share: float = 0.8, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, rows)) < share).astype(float)


# Row scores


@pytest.mark.parametrize("metric", [*METRICS, "agreement", "agreement (macro_f1)", "agreement (chrf)"])
def test_the_mean_of_row_scores_is_the_metric(metric, monkeypatch):
    monkeypatch.setattr(measures, "RESAMPLES", 9)  # its interval plays no part
    name = metric.removeprefix("agreement (").rstrip(")")
    of_labels = name in [*metrics_for("labels"), "agreement"]
    made = tags if name in metrics_for("tags") else sets if name in metrics_for("sets") else texts
    gold, predicted = labels() if of_labels else made()
    scores = row_scores(metric, gold, predicted)
    assert scores.shape == (len(gold),)
    assert scores.mean() == pytest.approx(estimate(metric, gold, predicted).value, abs=1e-9)


def left_out(value, gold: list, predicted: list) -> np.ndarray:
    """Shifted pseudo-values, each leave-one-out computed from its rows."""
    n, whole = len(gold), value(gold, predicted)
    without = [value(gold[:i] + gold[i + 1 :], predicted[:i] + predicted[i + 1 :]) for i in range(n)]
    pseudo = n * whole - (n - 1) * np.array(without)
    return pseudo - pseudo.mean() + whole


def test_pseudo_values_against_brute_force():
    gold, predicted = labels()
    of = {"macro_f1": lambda a, b: f1_score(a, b, average="macro"), "mcc": matthews_corrcoef}
    for metric, value in of.items():
        np.testing.assert_allclose(row_scores(metric, gold, predicted), left_out(value, gold, predicted), atol=1e-9)
    references, written = texts()
    packages = {
        "chrf": sacrebleu.CHRF(),
        "bleu": sacrebleu.BLEU(tokenize="13a", force=True),
    }
    for metric, package in packages.items():

        def value(gold, predicted, package=package):
            streams = [[own[k] if k < len(own) else None for own in gold] for k in range(2)]
            return package.corpus_score(predicted, streams).score

        np.testing.assert_allclose(
            row_scores(metric, references, written), left_out(value, references, written), atol=1e-6
        )


def test_pseudo_values_vary_as_resamples_do():
    gold, predicted = texts(150)
    for metric in ("chrf", "bleu"):
        error = row_scores(metric, gold, predicted).std(ddof=1) / math.sqrt(150)
        assert error == pytest.approx(estimate(metric, gold, predicted).error, rel=0.12)


def test_row_scores_at_the_edges(monkeypatch):
    assert row_scores("macro_f1", ["a"], ["a"]).tolist() == [1.0]
    assert row_scores("chrf", [["x y"]], ["x y"]).tolist() == [100.0]
    assert row_scores("mcc", list("aab"), list("aab")).mean() == pytest.approx(1)  # one label is left when "b" is out
    with pytest.raises(ValueError, match="2 rows are right, 1 predicted"):
        row_scores("accuracy", ["a", "b"], ["a"])
    with pytest.raises(DataError, match="reference texts"):
        row_scores("chrf", ["a"], ["a"])
    monkeypatch.setitem(METRICS, "theirs", replace(METRICS["accuracy"], name="theirs", rows=None))
    with pytest.raises(ConfigError, match="'theirs' does not say what a row adds"):
        row_scores("theirs", ["a"], ["a"])


def test_scores_of_the_seeds_of_a_place():
    def record(seed: int, predicted: list[str] | None) -> Record:
        found = Measured(metric="accuracy", value=0.5, interval=(0, 1), rows=3, digest="d", predicted=predicted)
        place = Place(base="b", task="t", contender="c")
        return Record(id=f"run{seed}", suite="s", stage="final", place=place, seed=seed, tests={"t": found})

    records = [record(0, list("aab")), record(1, list("abb"))]
    tested = results.Tested(records[0].place, "t", records, ["f:1", "f:2", "f:3"], list("abb"))
    assert scores_of(tested).tolist() == [[1, 0, 1], [1, 1, 1]]
    with pytest.raises(DataError, match="run2: holds no answers of t"):
        scores_of(replace(tested, records=[*records, record(2, None)]))


# Variance


def test_variance_is_what_seeds_and_rows_give_alone():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 50)) + rng.normal(size=50) + rng.normal(0, 0.3, size=(3, 1))
    seeds, rows = stats.sem(scores.mean(axis=1)), stats.sem(scores.mean(axis=0))
    found = variance_of(scores, span=0)
    assert found.error == pytest.approx(math.hypot(seeds, rows))
    want = math.hypot(stats.t.ppf(0.975, 2) * seeds, stats.t.ppf(0.975, 49) * rows)
    assert found.quantile(0.975) == pytest.approx(want)
    # never below the unbiased (MS_seeds + MS_rows − MS_rest) / kn of two-way analysis of variance
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    unbiased = seeds**2 + rows**2 - (rest**2).sum() / (2 * 49) / 150
    assert 0 < unbiased < found.error**2
    for size in (1e-6, 0.01, 0.3, 1.0):
        assert found.quantile(1 - found.p(size) / 2) == pytest.approx(size, rel=1e-6)
    assert found.p(0) == 1 and found.p(-0.3) == found.p(0.3)


def test_the_smallest_detectable_difference_has_a_power_of_80_percent():
    """Normal means of three seeds, many rows: the typical figure, planted, is found in 4 of 5 cases."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=(20_000, 3))
    found = Variance(((seeds.var(axis=1, ddof=1) / 3, 2),))
    for alpha in (0.05, 0.05 / 8):  # of one comparison, and of the first that Holm's method looks at of eight
        typical = np.median(found.detectable(alpha))
        assert np.mean(np.abs(seeds.mean(axis=1) + typical) > found.quantile(1 - alpha / 2)) == pytest.approx(
            0.8, abs=0.03
        )


def test_one_seed_is_a_t_test_over_rows():
    row = np.random.default_rng(2).normal(0.2, 1, size=60)
    found, theirs = variance_of(row[None], span=0), stats.ttest_1samp(row, 0)
    assert found.p(row.mean()) == pytest.approx(theirs.pvalue) and found.df == pytest.approx(59)
    low, high = theirs.confidence_interval()
    assert found.quantile(0.975) == pytest.approx((high - low) / 2)
    assert variance_of(1e-3 * row[None] + 1, span=0).p(1) < 1e-60  # digits of a tiny p


@pytest.mark.parametrize("seeds", range(2, 15))
def test_seeds_without_any_spread(seeds):
    """A prompt that answers alike whatever its seed is has a p value, too."""
    rows = binary(1, 80)[0]
    found = compare("probe", np.tile(rows, (seeds, 1)), "zero-shot", binary(1, 80, seed=1), 0.02, 100, resamples=9)
    assert found.p == pytest.approx(compare("a", rows[None], "b", binary(1, 80, seed=1), 0.02, 100, resamples=9).p)


def test_other_numbers_of_seeds():
    a, b = binary(4, 80), binary(2, 80, seed=1)
    found = variance_of_difference(a, b, span=0)
    rows = stats.sem(a.mean(axis=0) - b.mean(axis=0))
    parts = [(rows, 79), (stats.sem(a.mean(axis=1)), 3), (stats.sem(b.mean(axis=1)), 1)]
    assert found.quantile(0.975) ** 2 == pytest.approx(sum((stats.t.ppf(0.975, df) * own) ** 2 for own, df in parts))
    single = variance_of_difference(a, b[:1], span=0)  # against every seed of the other
    assert single.error == variance_of(a - b[:1], span=0).error


# Means


def test_one_seed_has_the_interval_of_the_estimate():
    gold, predicted = labels()
    found = mean_over(row_scores("accuracy", gold, predicted)[None])
    assert found.interval == pytest.approx(estimate("accuracy", gold, predicted).interval)
    assert (found.seeds, found.rows) == (1, 40)


def test_mean_over_seeds():
    scores = binary(5, 300)
    found = mean_over(scores)
    assert found.value == scores.mean() and found.interval[0] < found.value < found.interval[1]
    alone = [stats.t.ppf(0.975, n - 1) * stats.sem(scores.mean(axis=axis)) for axis, n in ((0, 300), (1, 5))]
    assert found.interval[1] - found.interval[0] > 1.96 * max(alone)  # twice the half-width of either, or nearly
    hundred = mean_over(100 * scores, limits=(0, 100))
    assert np.array(hundred.interval) == pytest.approx(100 * np.array(found.interval))


def test_no_interval_is_a_point():
    low, high = mean_over(np.ones((3, 100))).interval
    assert (low, high) == pytest.approx(estimate("accuracy", ["a"] * 100, ["a"] * 100).interval) and low < 0.97
    assert mean_over(np.zeros((2, 100))).interval[1] > 0.03
    low, high = mean_over(np.full((3, 100), 40.0), limits=(0, 100)).interval
    assert low < 39 and high > 41
    same = compare("a", np.ones((3, 100)), "b", np.ones((3, 100)), margin=0.02, scale=100)
    assert same.interval[0] < -0.01 and same.interval[1] > 0.01 and same.p == 1
    assert mean_over(np.array([[90.0, 99, 100, 100]]), limits=(0, 100)).interval[1] == 100  # cut
    assert mean_over(np.array([[90.0, 99, 100, 100]])).interval[1] > 100


# Comparisons


def test_compare_is_the_same_on_any_scale_and_turned_round():
    a, b = binary(3, 200, 0.9), binary(3, 200, 0.8, seed=1)
    share, hundred = compare("a", a, "b", b, 0.02, 100), compare("a", 100 * a, "b", 100 * b, 0.02, 1)
    assert np.array(hundred.interval) == pytest.approx(100 * np.array(share.interval))
    assert (share.words, share.verdict, share.p) == (hundred.words, hundred.verdict, pytest.approx(hundred.p))
    back = compare("b", b, "a", a, 0.02, 100)
    assert (back.difference, back.p) == (-share.difference, share.p)
    assert share.seeds == (3, 3) and share.rows == 200
    half = (share.interval[1] - share.interval[0]) / 2
    assert half < share.smallest


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (3, 1), (2, 4)])
def test_the_interval_and_p_agree(seeds):
    seen = set()
    for seed in range(12):
        a, b = binary(seeds[0], 60, 0.85, seed), binary(seeds[1], 60, 0.55, seed + 100)
        found = compare("a", a, "b", b, 0.02, 100, resamples=9)
        assert (found.p < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)
        seen.add(found.p < 0.05)
    assert True in seen


def test_rows_only_tests_against_their_definitions():
    a, b = binary(1, 10, 0.9), binary(1, 10, 0.3, seed=1)
    d = (a - b)[0]
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-9)
    found = compare("a", a, "b", b, 0.02, 100)
    assert found.p_permutation == pytest.approx(exact)
    up, down = int((d > 0).sum()), int((d < 0).sum())
    assert found.p_mcnemar == pytest.approx(stats.binomtest(up, up + down).pvalue)
    x, y = binary(1, 400, 0.8)[0], binary(1, 400, 0.7, seed=1)[0]
    up, down = int((x > y).sum()), int((x < y).sum())
    assert mcnemar(x, y) == pytest.approx(stats.chi2.sf((up - down) ** 2 / (up + down), 1))
    assert mcnemar(x, x) == 1
    many = compare("a", x[None], "b", y[None], 0.02, 100)
    error = stats.sem(x - y)
    assert many.rows_interval == pytest.approx(
        (many.difference - 1.96 * error, many.difference + 1.96 * error), abs=0.006
    )
    assert compare("a", x[None] / 2, "b", y[None], 0.02, 100).p_mcnemar is None


def test_holm_over_all_comparisons():
    shares = {"a": 0.8, "b": 0.9, "c": 0.81, "d": 0.6}
    scores = {name: binary(3, 300, share, seed) for seed, (name, share) in enumerate(shares.items())}
    found = compare_all(scores, "a", 0.02, 100)
    assert [(one.one, one.other, one.of) for one in found] == [(name, "a", 3) for name in "bcd"]
    ordered, least = sorted(found, key=lambda one: one.p), 0.0
    for place, one in enumerate(ordered):
        least = max(least, min(1.0, (3 - place) * one.p))
        assert one.p_holm == pytest.approx(least)
        assert one.p == compare(one.one, scores[one.one], "a", scores["a"], 0.02, 100, resamples=9).p
        alone = compare(one.one, scores[one.one], "a", scores["a"], 0.02, 100, resamples=9)
        assert one.smallest > alone.smallest and alone.of == 1  # no more is promised than Holm's first step finds
    assert compare_all({"a": scores["a"]}, "a", 0.02, 100) == []
    with pytest.raises(ConfigError, match=r"'fulll' is no contender.*'full'"):
        compare_all({"full": scores["a"]}, "fulll", 0.02, 100)


def planted(difference: float, spread: float, seeds: int = 3, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose mean difference is exact, with rows that differ by ± spread."""
    base = np.full((seeds, rows), 0.5)
    return base + difference + spread * np.where(np.arange(rows) % 2, 1, -1), base


@pytest.mark.parametrize(
    "difference, spread, verdict, words",
    [
        (0.05, 0.1, "better", r"better than full \(5\.0 \[3\.9, 6\.1\]\)"),
        (0.01, 0.01, "better", r"better than full, but by less than 2 points \(1\.0 \[0\.\d, 1\.\d\]\)"),
        (-0.05, 0.1, "worse", r"worse than full \(−5\.0 \[−6\.1, −3\.9\]\)"),
        (-0.01, 0.01, "worse", r"worse than full, but by less than 2 points \(−1\.0 \[−1\.\d, −0\.\d\]\)"),
        (-0.006, 0.1, "no worse", r"no worse than full by more than 2 points \(−0\.6 \[−1\.7, 0\.5\]\)"),
        (0.0, 0.1, "no worse", r"no worse than full by more than 2 points \(0\.0 \[−1\.1, 1\.1\]\)"),
        (
            -0.015,
            0.3,
            "unclear",
            r"cannot tell: −1\.5 \[−4\.5, 1\.5\]; with these rows and seeds only differences from 4\.\d points on "
            r"would be found in 4 of 5 cases",
        ),
    ],
)
def test_verdicts_and_words(difference, spread, verdict, words):
    a, b = planted(difference, spread)
    found = compare("soft", a, "full", b, 0.02, 100, resamples=9)
    assert found.verdict == verdict
    assert re.fullmatch(words, found.words), found.words


def test_where_seeds_differ_by_chance_alone_no_difference_could_be_found():
    rng = np.random.default_rng(3)
    a, b = (rng.random((2, 60)) < np.array([[0.9], [0.3]]) for _ in range(2))
    found = compare("soft", a.astype(float), "full", b[::-1].astype(float), 0.02, 100, resamples=9)
    assert found.smallest > 1 and "no difference, however large, would be found in 4 of 5 cases" in found.words


def test_words_of_one_run_and_of_many_comparisons():
    a, b = planted(-0.006, 0.1, seeds=1)
    assert compare("soft", a, "full", b, 0.02, 100, resamples=9).words.endswith("; over rows only, as each ran once")
    assert "no worse than full by more than 1 point (" in compare("s", a, "full", a - 0.001, 0.01, 100).words
    worse, full = planted(-0.032, 0.3)
    others = {f"other{k}": planted(0.001 * k, 0.3)[0] for k in range(5)}
    [one, *_] = compare_all({"soft": worse, "full": full, **others}, "full", 0.02, 100)
    assert one.p < 0.05 < one.p_holm and one.verdict == "unclear"
    assert one.words.endswith(f"; p = {one.p:.2g} by itself, {one.p_holm:.2g} as one of 6 comparisons")


def test_what_cannot_be_compared(monkeypatch):
    with pytest.raises(DataError, match="soft and full were tested on 30 and 31 rows"):
        compare("soft", binary(2, 30), "full", binary(2, 31), 0.02, 100)
    with pytest.raises(DataError, match=r"soft: scores of shape \(2, 1\)"):
        compare("soft", np.ones((2, 1)), "full", np.ones((2, 1)), 0.02, 100)
    with pytest.raises(DataError, match="scores: 1 of its scores are no numbers"):
        mean_over(np.array([[0.0, np.nan]]))
    monkeypatch.setitem(sys.modules, "statsmodels.stats.multitest", None)
    with pytest.raises(MissingExtraError, match=r"softprompt\[bench\]"):
        compare_all({"a": binary(2, 30), "b": binary(2, 30)}, "a", 0.02, 100)


# Calibration: a truth is planted, and the comparison is asked


def test_the_simulated_world_is_as_described():
    found = calibration.facts(World(), np.random.default_rng(5))
    assert found["accuracy"] == pytest.approx(88, abs=0.5)
    assert found["seeds' deviation"] == pytest.approx(1, abs=0.1)
    assert found["two seeds disagree"] == pytest.approx(6, abs=0.3)
    assert found["two methods disagree"] == pytest.approx(10, abs=0.4)


@pytest.mark.parametrize("rows, seeds", SIZES)
def test_the_same_method_twice_is_not_declared_different(rows, seeds):
    found = calibration.rates(World(), rows, seeds, 200, same=True)
    assert found["ours"] <= 5
    assert (
        found["rows only"] > 10
    )  # what a test over rows alone would have said, so the 5 % above are not for the asking


def test_a_difference_of_four_points_is_found_and_no_false_claim_made():
    assert calibration.rates(World(), 1000, 5, 200, gap=0.04)["ours"] >= 80
    at_the_margin = calibration.rates(World(), 1000, 5, 400, gap=calibration.MARGIN)
    assert at_the_margin["no worse"] <= 2.5 + 3 * 0.78  # three standard errors of a rate of 2.5 % in 400
    assert calibration.rates(World(), 1000, 5, 200)["no worse"] > 10  # it does make true claims


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_a_mean_holds_the_truth(seeds):
    assert calibration.coverage(World(), 300, seeds, 400)["held"] >= 95 - 3 * 1.09
    rows_alone = calibration.coverage(World(), 1000, 1, 400)["held"]
    assert rows_alone < 90  # one seed: the interval covers rows, and says so


def test_simulations_ask_what_users_ask():
    """The vectorised shares are those of `compare`, comparison by comparison."""
    [(a, b)] = calibration._draws(World(), (40, 3, 300), [0.84, 0.88], False, 0)
    each = [compare("a", x, "b", y, 0.02, 100, resamples=9) for x, y in zip(a, b, strict=True)]
    found = calibration.rates(World(), 300, 3, 40, gap=0.04)
    assert found["ours"] == 100 * np.mean([one.p < 0.05 for one in each]) > 0
    assert found["mcnemar"] == 100 * np.mean([one.p_mcnemar < 0.05 for one in each])
    assert found["smallest"] == pytest.approx(100 * np.median([one.smallest for one in each]), rel=1e-4)


def test_the_command_writes_its_figures(tmp_path, capsys):
    data, picture = tmp_path / "figures.json", tmp_path / "power.png"
    calibration.main(["--simulations", "3", "--json", str(data), "--plot", str(picture)])
    found = json.loads(data.read_text())
    assert found["simulations"] == 3 and len(found["tables"]) == 5
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(title in printed for title in found["tables"])
