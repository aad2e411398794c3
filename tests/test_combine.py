"""How members of an ensemble answer together: each way against numbers made by hand, its file, its refusals, its gain."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base
from scipy import stats

from softprompt import PromptClassifier
from softprompt.answers import Evaluation, Outcome, gain_over_best, summarize
from softprompt.ensemble import combined, fit_weights, save_ensemble
from softprompt.errors import ArtifactError
from softprompt.metrics import METRICS, Metric, difference, row_scores
from softprompt.runtime import Runtime
from softprompt.storage import digest_of
from softprompt.training import train

WEIGHTS = (0.2, 0.5, 0.3)
TEXTS = [
    f"{word} {place}" for place, word in enumerate(["joy sun gift", "rain", "hope", "pain mud", "sun rain", "x"] * 4)
]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def members(base, tmp_path_factory):
    """Three prompts of one task, from three seeds."""
    folder = tmp_path_factory.mktemp("members")
    settings = {"max_steps": 3, "lr": 0.5, "batch_size": 8}
    for seed in range(3):
        method = {"name": "soft", "length": 2, "init": "random"}
        train(base, tiny_task(), method, folder / str(seed), train=settings, rows=tiny_rows(24), seed=seed)
    return [folder / str(seed) for seed in range(3)]


@pytest.fixture
def runtime(base, members, tmp_path):
    """The members one by one, and the three ensembles of them."""
    runtime = Runtime(base)
    for place, folder in enumerate(members):
        runtime.add(str(place), folder)
    for how in ("log_probs", "probs", "vote"):
        save_ensemble(tmp_path / how, list(zip(members, WEIGHTS, strict=True)), combine=how)
        runtime.add(how, tmp_path / how)
    return runtime


def asked(runtime, name):
    """Labels, and probabilities [B, 2] of good and bad."""
    found = runtime.predict(TEXTS, name)
    return [one.label for one in found], np.array([[one.probabilities[k] for k in ("good", "bad")] for one in found])


def test_each_way_is_what_numpy_computes(runtime):
    each = [asked(runtime, str(place)) for place in range(3)]
    probs = np.stack([own for _, own in each])  # [3, B, 2]
    weights = np.array(WEIGHTS)[:, None, None]
    product = np.exp((np.log(probs.astype(float)) * weights).sum(0))
    expected = {
        "log_probs": product / product.sum(1, keepdims=True),
        "probs": (probs * weights).sum(0),
        "vote": (probs * weights).sum(0),
    }
    best = [np.array([label == "bad" for label in labels], dtype=int) for labels, _ in each]
    votes = np.stack(
        [
            [sum(w for w, b in zip(WEIGHTS, best, strict=True) if b[row] == k) for k in (0, 1)]
            for row in range(len(TEXTS))
        ]
    )
    for how, wanted in expected.items():
        labels, found = asked(runtime, how)
        assert found == pytest.approx(wanted, abs=1e-6)
        right = votes.argmax(1) if how == "vote" else wanted.argmax(1)
        assert labels == [("good", "bad")[k] for k in right]
        told = [one.agreement for one in runtime.predict(TEXTS, how)]
        assert told == pytest.approx([votes[row, k] for row, k in enumerate(right)])
    assert len({tuple(one) for one in best}) > 1, "members that always agree prove nothing"
    assert (
        runtime.predict(TEXTS[:1], "0")[0].agreement is None
        and "agreement" not in runtime.predict(TEXTS[:1], "0")[0].as_dict()
    )


def said(predicted, **probabilities):
    scores = {label: math.log(p) for label, p in probabilities.items()}
    return Outcome("row:1", "a", predicted, scores, -scores["a"])


def test_a_vote_may_be_against_the_likeliest_label():
    row = [said("a", a=0.51, b=0.49), said("a", a=0.51, b=0.49), said("b", a=0.01, b=0.99)]
    third = [1 / 3] * 3
    vote, mean = combined(row, third, "vote"), combined(row, third, "probs")
    assert (vote.predicted, mean.predicted) == ("a", "b")
    assert vote.scores == mean.scores and vote.nll == pytest.approx(-math.log((0.51 + 0.51 + 0.01) / 3))
    assert vote.agreement == pytest.approx(2 / 3) and mean.agreement == pytest.approx(1 / 3)
    heavy = combined(row, [0.25, 0.25, 0.5], "vote")  # equal votes
    assert heavy.predicted == "b" and heavy.agreement == pytest.approx(0.5)
    assert combined(row, [0.26, 0.26, 0.48], "vote").predicted == "a"
    assert combined(row, [0.0, 0.0, 1.0], "vote").agreement == 1.0


def test_votes_that_differ_by_rounding_alone_are_equal():
    row = [said("a", a=0.6, b=0.4)] * 3 + [said("b", a=0.1, b=0.9)] * 2
    assert sum([0.1] * 3) != 0.3
    assert combined(row, [0.1, 0.1, 0.1, 0.15, 0.15], "vote").predicted == "b"


def test_weights_for_mean_probabilities_have_their_least_loss():
    rng = np.random.default_rng(0)
    gold, rows = np.arange(4000) % 3, np.arange(4000)
    members = []
    for skill in (2.0, 1.0):
        logits = rng.normal(size=(4000, 3))
        logits[rows, gold] += skill
        members.append(np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)))

    def loss(weight):
        mixed = weight * np.exp(members[0]) + (1 - weight) * np.exp(members[1])
        return -np.log(mixed[rows, gold]).mean()

    best = min(np.linspace(0, 1, 101), key=loss)
    assert fit_weights(members, gold, combine="probs")[0] == pytest.approx(best, abs=0.03)
    assert fit_weights(members, gold)[0] != pytest.approx(best, abs=0.03)


def text_by_hand(folder, members, combine=None):
    """`ensemble.json`, written from the definition of the format."""
    records = []
    for place, (member, weight) in enumerate(zip(members, WEIGHTS, strict=True), 1):
        manifest = (member / "artifact" / "manifest.json").read_bytes()
        held = json.loads(manifest)["base"]
        name = "soft" if place == 1 else f"soft-{place}"
        records.append(
            {"name": name, "weight": weight, "base": {"id": held["id"], "digest": held["digest"]}}
            | {"manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        )
    version = json.loads((folder / "ensemble.json").read_text())["softprompt"]
    data = {"format_version": 2 if combine else 1, "softprompt": version, "members": records}
    data |= {"combine": combine} if combine else {}
    data |= {"metrics": {}, "dev_rows": None}
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return data | {"ensemble_sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def test_the_default_is_written_and_read_as_before(base, members, tmp_path):
    """Format 1, byte for byte: earlier versions read it, and their files are read here."""
    saved = save_ensemble(tmp_path / "it", list(zip(members, WEIGHTS, strict=True)))
    text = (tmp_path / "it" / "ensemble.json").read_text()
    by_hand = text_by_hand(tmp_path / "it", members)
    assert json.loads(text) == by_hand and list(json.loads(text)) == list(by_hand)
    lines = [f"  {json.dumps(key)}: {json.dumps(value) if value != {} else '{}'}" for key, value in by_hand.items()]
    assert text == "{\n" + ",\n".join(lines) + "\n}\n"
    assert saved.manifest.combine == "log_probs" and "combine" not in text
    vote = save_ensemble(tmp_path / "vote", list(zip(members, WEIGHTS, strict=True)), combine="vote")
    assert json.loads((tmp_path / "vote" / "ensemble.json").read_text()) == text_by_hand(
        tmp_path / "vote", members, "vote"
    )
    assert vote.digest != saved.digest and "of equal ones" in (tmp_path / "vote" / "README.md").read_text()


HOSTILE = {
    "a vote in format 1": {"format_version": 1, "combine": "vote"},
    "the default in format 2": {"format_version": 2, "combine": "log_probs"},
    "no way in format 2": {"format_version": 2, "combine": None},
    "another way": {"format_version": 2, "combine": "mean\nof all"},
    "a list": {"format_version": 2, "combine": ["vote"] * 1000},
    "code": {"format_version": 2, "combine": {"__reduce__": "os.system"}},
    "a newer format": {"format_version": 3, "combine": "vote"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_name_another_way_are_refused_in_one_line(base, members, tmp_path, name):
    save_ensemble(tmp_path / "it", list(zip(members, WEIGHTS, strict=True)), combine="vote")
    file = tmp_path / "it" / "ensemble.json"
    data = json.loads(file.read_text()) | HOSTILE[name]
    del data["ensemble_sha256"]
    file.write_text(json.dumps({**data, "ensemble_sha256": digest_of(data)}))
    with pytest.raises(ArtifactError, match=r"combine|format version 3.* update") as error:
        Runtime(base).add("it", tmp_path / "it")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("how", ["mean", None, ["vote"]])
def test_no_other_way_is_saved(members, tmp_path, how):
    with pytest.raises(ArtifactError, match=r"combine is .* use log_probs, probs or vote"):
        save_ensemble(tmp_path / "other", list(zip(members, WEIGHTS, strict=True)), combine=how)
    assert not (tmp_path / "other").exists()


def test_an_estimator_answers_by_votes(base, members, tmp_path, monkeypatch):
    save_ensemble(tmp_path / "vote", list(zip(members, WEIGHTS, strict=True)), combine="vote")
    loaded = PromptClassifier.load(tmp_path / "vote", base=base)
    outcomes = [
        Outcome(f"row:{place}", None, label, {"good": -0.1, "bad": -3.0}) for place, label in enumerate(["bad", "good"])
    ]
    monkeypatch.setattr(type(loaded._known()), "outcomes", lambda *_: outcomes)
    assert list(loaded.predict(["x", "y"])) == ["bad", "good"]


def test_evaluation_holds_its_members(runtime):
    rows = tiny_rows(test=30)["test"]
    found = runtime.evaluate("vote", rows)
    for place, own in enumerate(found.members):
        alone = runtime.evaluate(str(place), rows)
        assert own.estimate == alone.estimate and own.nll == pytest.approx(alone.nll, abs=1e-5) and alone.members == ()
    gain = gain_over_best(found, found.members)
    values = [own.estimate.value for own in found.members]
    assert values[gain.best] == max(values)
    assert gain.difference.value == pytest.approx(found.estimate.value - max(values))
    told = found.outcomes[0].as_dict()
    assert told["agreement"] == found.outcomes[0].agreement and 0 < told["agreement"] <= 1


def evaluation(labels, nll=0.5):
    gold = ["a", "b"] * 5
    outcomes = [
        Outcome(f"row:{p}", right, own, {}, nll) for p, (right, own) in enumerate(zip(gold, labels, strict=True))
    ]
    return summarize("accuracy", outcomes)


def test_the_best_member_is_the_best_on_these_rows_and_of_equals_the_surer():
    good, bad = ["a", "b"] * 5, ["b"] * 10
    members = [evaluation(bad), evaluation(good, 0.4), evaluation(good, 0.3)]
    found = gain_over_best(evaluation(bad), members)
    assert found.best == 2 and found.difference.value == -0.5
    assert isinstance(members[0], Evaluation)


def test_the_interval_of_a_difference_is_that_of_the_formula():
    gold = ["a", "b"] * 20
    one, other = list(gold), list(gold)
    other[0], other[3], one[5] = "b", "a", "a"
    by_row = np.array([a == g for a, g in zip(one, gold, strict=True)], float) - [
        b == g for b, g in zip(other, gold, strict=True)
    ]
    half = stats.t.ppf(0.975, 39) * math.sqrt(by_row.var(ddof=1) / 40 + 1 / 40**2)
    found = difference("accuracy", gold, one, other)
    assert found.value == pytest.approx(0.025) and found.rows == 40
    assert found.interval == pytest.approx((0.025 - half, 0.025 + half))
    assert str(found) == f"+0.025 [{0.025 - half:+.3f}, {0.025 + half:+.3f}]"
    same = difference("accuracy", gold, gold, gold)
    assert same.value == 0 and same.interval[0] < 0 < same.interval[1], "equal answers to 40 rows are no proof"
    assert difference("accuracy", ["a"], ["a"], ["b"]).interval == (0.0, 1.0)


def test_a_metric_without_scores_of_rows_has_no_gain(monkeypatch):
    monkeypatch.setitem(METRICS, "own", Metric("own", "own", "labels", METRICS["accuracy"].measure))
    gold = ["a", "b"] * 5
    found = summarize("own", [Outcome("row", label, label, {}, 0.1) for label in gold])
    assert gain_over_best(found, [found, found]) is None
    with pytest.raises(Exception, match="rows"):
        row_scores("own", gold, gold)
