"""Estimators: texts and labels in, probabilities out, and all that scikit-learn does with them."""

import io
import pickle
import warnings

import datasets
import numpy as np
import pandas
import pytest
from helpers import BAD, GOOD
from models import tiny_base, tiny_model, tiny_tokenizer
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import softprompt as sp
from softprompt import PromptClassifier, PromptExtractor, PromptGenerator, PromptTagger
from softprompt.artifact import load
from softprompt.base import Base
from softprompt.data import Row
from softprompt.errors import ArtifactError, InputError, SoftpromptError
from softprompt.estimators import release, shared, shown
from softprompt.estimators.dividing import divide
from softprompt.runtime import Runtime

TEXTS = [f"{word} and {word} {place}" for place in range(6) for word in (GOOD[place % 4], BAD[place % 4])]
LABELS = ["good", "bad"] * 6
TABLE = [{"head line": text, "stars": place % 3} for place, text in enumerate(TEXTS)]
QUICK = {"epochs": 1, "lr": 0.05}
PROBE = {"name": "probe", "strengths": [1.0]}  # without dev rows the strongest penalty would be taken
OTHER = {"name": "probe", "strengths": [0.5]}


@pytest.fixture(scope="module")
def base():
    return tiny_base("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_model("llama").save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def probe(base):
    return PromptClassifier(base, PROBE).fit(TEXTS, LABELS)


def test_from_two_lists_to_probabilities(probe):
    found = probe.predict_proba(TEXTS[:3])
    assert found.shape == (3, 2) and found.dtype == float and np.allclose(found.sum(1), 1)
    assert probe.classes_.tolist() == ["bad", "good"]
    assert probe.predict(TEXTS).tolist() == LABELS and probe.score(TEXTS, LABELS) == 1
    assert np.allclose(np.exp(probe.predict_log_proba(TEXTS)), probe.predict_proba(TEXTS))


@pytest.mark.parametrize("method", ["infix", "soft", {"name": "lora", "r": 2}, "hard"])
def test_methods(base, method):
    classifier = PromptClassifier(base, method, **QUICK).fit(TEXTS, LABELS)
    assert classifier.predict_proba(TEXTS[:2]).shape == (2, 2)
    again = PromptClassifier(base, method, **QUICK).fit(TEXTS, LABELS)
    assert np.allclose(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-6)


def test_what_x_may_be(base, probe):
    want = probe.predict_proba(TEXTS)
    same = [
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, object),
        pandas.Series(TEXTS, index=range(50, 62)),
        pandas.DataFrame({"any": TEXTS}),
        datasets.Dataset.from_dict({"text": TEXTS}),
        [{"text": text} for text in TEXTS],
        [[text] for text in TEXTS],
        {"text": TEXTS},
    ]
    for X in same:
        assert np.allclose(probe.predict_proba(X), want, atol=1e-6)
        assert PromptClassifier(base, PROBE).fit(X, LABELS).predict(X).tolist() == LABELS


def test_columns_are_fields(base, tmp_path):
    frame = pandas.DataFrame(TABLE)
    classifier = PromptClassifier(base, PROBE).fit(frame, LABELS)
    assert classifier.feature_names_in_.tolist() == ["head line", "stars"] and classifier.n_features_in_ == 2
    want = classifier.predict_proba(frame)
    others = [
        frame[["stars", "head line"]],
        TABLE,
        datasets.Dataset.from_list(TABLE),
        frame.assign(more="x"),
        frame.to_numpy(),
    ]
    for X in others:
        assert np.allclose(classifier.predict_proba(X), want, atol=1e-6)
    template = classifier._fitted.task.spec.template.input
    assert template == "Head line: {{ head_line }}\nStars: {{ stars }}"
    classifier.save(tmp_path / "a")
    assert np.allclose(PromptClassifier.load(tmp_path / "a", base).predict_proba(frame), want, atol=1e-6)
    for X, told in (
        (
            frame[["stars"]].assign(headline="x"),
            "X has columns 'stars', 'headline'; .* was fitted on column 'head line'",
        ),
        (TEXTS, "X is a list of texts, PromptClassifier was fitted on columns 'head line', 'stars'"),
        (frame.to_numpy()[:, :1], "X has 1 features, but PromptClassifier is expecting 2 features as input"),
    ):
        with pytest.raises(InputError, match=told):
            classifier.predict(X)
    with pytest.raises(InputError, match="column 'kind' of X is y itself"):
        PromptClassifier(base, PROBE).fit(frame.assign(kind=LABELS), LABELS)


def test_columns_keep_their_order_in_an_artifact(base, tmp_path):
    """Also where the name of one stands within that of another."""
    table = [{"username": text, "name": f"no. {place % 3}"} for place, text in enumerate(TEXTS)]
    classifier = PromptClassifier(base, PROBE).fit(table, LABELS)
    classifier.save(tmp_path / "a")
    loaded = PromptClassifier.load(tmp_path / "a", base)
    assert loaded.feature_names_in_.tolist() == ["username", "name"]
    without_names = [list(row.values()) for row in table]
    assert np.allclose(loaded.predict_proba(without_names), classifier.predict_proba(table), atol=1e-6)


@pytest.mark.parametrize(
    "y",
    [
        [1, 0] * 6,
        [2.0, 1.0] * 6,
        [True, False] * 6,
        np.array(LABELS),
        pandas.Series(LABELS, dtype="category"),
        pandas.Categorical([7, 3] * 6),
        np.array(LABELS, object),
        datasets.Dataset.from_dict({"y": [1, 0] * 6})["y"],
    ],
)
def test_what_y_may_be(base, y, tmp_path):
    classifier = PromptClassifier(base, PROBE).fit(TEXTS, y)
    values = np.asarray(y)
    assert classifier.predict(TEXTS).tolist() == values.tolist() and classifier.score(TEXTS, y) == 1
    classifier.save(tmp_path / "a")
    loaded = PromptClassifier.load(tmp_path / "a", base)
    assert loaded.classes_.tolist() == classifier.classes_.tolist()
    assert {type(label) for label in loaded.predict(TEXTS).tolist()} == {type(label) for label in values.tolist()}


def test_an_artifact_as_everywhere(base, probe, tmp_path):
    infix = PromptClassifier(base, "infix", **QUICK, label_words={"good": "nice"}).fit(TEXTS, LABELS)
    infix.save(tmp_path / "a")
    assert load(tmp_path / "a").manifest.task["verbalizer"] == {"bad": ["bad"], "good": ["nice"]}
    runtime = Runtime(base)
    runtime.add("a", tmp_path / "a")
    found = [[one.probabilities[label] for label in ("bad", "good")] for one in runtime.predict(TEXTS)]
    want = infix.predict_proba(TEXTS)
    assert np.allclose(found, want, atol=1e-5)
    loaded = PromptClassifier.load(tmp_path / "a")
    assert np.allclose(loaded.predict_proba(TEXTS), want, atol=1e-6)
    loaded.save(tmp_path / "b")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()
    }
    with pytest.raises(ArtifactError, match=r"of type 'classification', PromptGenerator is for 'generation'"):
        PromptGenerator.load(tmp_path / "a", base)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"holds 'mine.txt'"):
        probe.save(tmp_path / "c")


def test_pickles_hold_no_weights_of_the_base(folder, base):
    named = PromptClassifier(str(folder), "infix", **QUICK).fit(TEXTS, LABELS)
    want = named.predict_proba(TEXTS)
    data = pickle.dumps(named)
    weights = sum(weight.numel() for weight in tiny_model("llama").parameters()) * 4
    assert len(data) < weights / 4
    assert np.allclose(pickle.loads(data).predict_proba(TEXTS), want, atol=1e-6)
    release()
    assert np.allclose(pickle.loads(data).predict_proba(TEXTS), want, atol=1e-6)
    held = PromptClassifier(base, PROBE).fit(TEXTS, LABELS)
    again = pickle.loads(pickle.dumps(held))
    assert again.base == "tiny-llama" and np.allclose(again.predict_proba(TEXTS), held.predict_proba(TEXTS), atol=1e-6)


def test_folds_and_trials_share_a_base_and_its_rows(folder, monkeypatch):
    release()
    loads, runs = [], []
    load_base, forward = Base.load, Base.forward
    monkeypatch.setattr(Base, "load", classmethod(lambda cls, *args, **kw: loads.append(1) or load_base(*args, **kw)))
    monkeypatch.setattr(Base, "forward", lambda self, *args, **kw: runs.append(1) or forward(self, *args, **kw))
    pipeline = make_pipeline(FunctionTransformer(), PromptClassifier(folder, PROBE))
    folds = StratifiedKFold(3)
    scores = cross_val_score(pipeline, TEXTS, LABELS, cv=folds)
    assert scores.shape == (3,) and len(loads) == 1
    before = len(runs)
    search = GridSearchCV(PromptClassifier(folder), {"method": [PROBE, OTHER]}, cv=folds)
    search.fit(TEXTS, LABELS)
    assert len(loads) == 1 and len(runs) == before  # no text ran again
    assert search.best_estimator_.predict(TEXTS).tolist() == LABELS


def test_encoded_texts_are_used_again(base, monkeypatch):
    release()
    encoded = []
    for epochs in (1, 2):
        classifier = PromptClassifier(base, "infix", epochs=epochs, lr=0.05).fit(TEXTS, LABELS)
        encoded.append(len(shared.kept_rows(base)[0].engine.cache._rows))
    assert encoded == [12, 12] and len(shared.kept_rows(base)) == 1
    assert classifier.predict(TEXTS).shape == (12,)


def test_clone_and_calibration(base):
    classifier = PromptClassifier(base, PROBE, label_words={"good": "nice"}, seed=3)
    copy = clone(classifier)
    assert copy.base is base and copy.get_params() == classifier.get_params() and copy is not classifier
    calibrated = CalibratedClassifierCV(PromptClassifier(base, PROBE), cv=2).fit(TEXTS, LABELS)
    assert np.allclose(calibrated.predict_proba(TEXTS).sum(1), 1)


def test_weights(base):
    heavy = np.where(np.array(LABELS) == "good", 50.0, 1.0)
    plain = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, LABELS)
    ones = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, LABELS, np.ones(12))
    assert np.array_equal(plain.predict_proba(TEXTS), ones.predict_proba(TEXTS))
    weighed = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, LABELS, heavy)
    by_class = PromptClassifier(base, "infix", **QUICK, class_weight={"good": 50.0}).fit(TEXTS, LABELS)
    assert np.allclose(weighed.predict_proba(TEXTS), by_class.predict_proba(TEXTS), atol=1e-6)
    assert weighed.predict_proba(TEXTS)[:, 1].mean() > plain.predict_proba(TEXTS)[:, 1].mean()
    balanced = PromptClassifier(base, PROBE, class_weight="balanced").fit(TEXTS[:9], LABELS[:9])
    assert balanced.predict(TEXTS[:2]).shape == (2,)
    none = [0.0] * 4 + [1.0] * 8
    left = PromptClassifier(base, PROBE).fit(TEXTS, LABELS, none)
    want = PromptClassifier(base, PROBE).fit(TEXTS[4:], LABELS[4:])
    assert np.allclose(left.predict_proba(TEXTS), want.predict_proba(TEXTS), atol=1e-6)


BAD_INPUT = {
    "lengths": ((TEXTS, LABELS[:-1]), {}, r"inconsistent numbers of samples: \[12, 11\]"),
    "one class": ((TEXTS, ["good"] * 12), {}, "y has one class only, 'good'"),
    "None": (([*TEXTS[:-1], None], LABELS), {}, r"^X\[11\] is null; expected text"),
    "NaN": (([*TEXTS[:-1], float("nan")], LABELS), {}, r"^X\[11\] is NaN; expected text"),
    "missing": ((pandas.Series([*TEXTS[:-1], None], dtype="string"), LABELS), {}, r"^X\[11\] is null"),
    "bytes": (([b"x", *TEXTS[1:]], LABELS), {}, r"^X\[0\] is bytes"),
    "numbers": ((range(12), LABELS), {}, r"^X\[0\] is a number; expected text.*11 more of 12 rows"),
    "numbers in columns": ((np.ones((12, 2)), LABELS), {}, "X holds numbers and no text"),
    "blank": (([" ", *TEXTS[1:]], LABELS), {}, r"^X\[0\] is an empty text"),
    "empty": (([], []), {}, r"^X is empty \(0 samples\)"),
    "one text": (("joy", LABELS), {}, "X is a text; expected a list of texts"),
    "no X": ((None, LABELS), {}, "X is null; expected a list of texts"),
    "no y": ((TEXTS, None), {}, "requires y to be passed"),
    "a label that is missing": ((TEXTS, [None, *LABELS[1:]]), {}, r"^y\[0\] is null; every row needs a label"),
    "a blank label": ((TEXTS, ["", *LABELS[1:]]), {}, r"^y\[0\] is an empty text"),
    "regression": ((TEXTS, np.linspace(0, 1.7, 12)), {}, "Unknown label type: continuous"),
    "mixed labels": ((TEXTS, [1, *LABELS[1:]]), {}, "mixes texts and numbers"),
    "weights": ((TEXTS, LABELS, [1.0] * 11), {}, r"sample_weight.shape == \(11,\)"),
    "negative weights": ((TEXTS, LABELS, [-1.0] * 12), {}, "negative or not finite"),
    "zero weights": ((TEXTS, LABELS, [0.0] * 12), {}, "all zero"),
    "class weight": ((TEXTS, LABELS), {"class_weight": {"goood": 2}}, "class_weight names 'goood'.*did you mean"),
    "label word": ((TEXTS, LABELS), {"label_words": {"nice": "x"}}, "label words are given for 'nice'"),
    "same words": ((TEXTS, LABELS), {"label_words": {"good": "x", "bad": "x"}}, "have the same label words"),
    "method": ((TEXTS, LABELS), {"method": "infx"}, "did you mean 'infix'"),
    "dev": ((TEXTS, LABELS), {"dev": "some"}, "dev is 'some'; expected 'auto'"),
    "dev rows": ((TEXTS, LABELS), {"dev": 12}, "dev asks for 12 of 12 rows"),
    "dev label": (
        (TEXTS, LABELS),
        {"dev": (["x"], ["ugly"])},
        r"y_dev holds labels that .* has not seen in fit \('ugly'\)",
    ),
    "epochs": ((TEXTS, LABELS), {"epochs": -1}, "epochs"),
    "seed": ((TEXTS, LABELS), {"seed": "x"}, "seed"),
    "base": ((TEXTS, LABELS), {"base": "no/such-base"}, "base 'no/such-base' is (not on this machine|neither)"),
    "base of another kind": ((TEXTS, LABELS), {"base": 5}, "base is a number; expected a name"),
}


def refused_fit(estimator, given: tuple, told: str) -> None:
    """Its `fit` says so in one line: an error of ours that is a ValueError as well."""
    with pytest.raises(ValueError, match=told) as caught:
        estimator.fit(*given)
    assert isinstance(caught.value, SoftpromptError) and isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(base, case):
    given, settings, told = BAD_INPUT[case]
    refused_fit(PromptClassifier(**{"base": base, "method": PROBE, **settings}), given, told)


def test_bad_questions(probe, base):
    with pytest.raises(InputError, match=r"labels that PromptClassifier has not seen in fit \('ugly'\)"):
        probe.score(TEXTS, [*LABELS[:-1], "ugly"])
    with pytest.raises(InputError, match=r"X\[1\] is null"):
        probe.predict(["x", None])
    for call in (lambda one: one.predict(TEXTS), lambda one: one.score(TEXTS, LABELS), lambda one: one.save("x")):
        with pytest.raises(NotFittedError, match="not fitted yet; call fit") as caught:
            call(PromptClassifier(base))
        assert isinstance(caught.value, InputError)


def test_right_answers_are_compared_by_value(base):
    classifier = PromptClassifier(base, PROBE).fit(TEXTS, [1, 0] * 6)
    for equal in ([1.0, 0.0], [True, False], np.array([1, 0], np.uint8)):
        assert classifier.score(TEXTS[:2], equal) == 1 and classifier.score(TEXTS[:2], equal[::-1]) == 0
        own = PromptClassifier(base, PROBE, dev=(TEXTS[:2], equal)).fit(TEXTS, [1, 0] * 6)
        assert "1.000" in own.summary_["dev"]
    assert PromptClassifier(base, PROBE).fit(TEXTS, [True, False] * 6).score(TEXTS[:2], [1, 0]) == 1
    with pytest.raises(InputError, match=r"y holds labels that .* has not seen in fit \('1', '0'\)"):
        classifier.score(TEXTS[:2], ["1", "0"])


def test_a_fit_that_fails_changes_nothing(base):
    classifier = PromptClassifier(base, PROBE).fit(TEXTS, LABELS)
    want = classifier.predict_proba(TEXTS)
    with pytest.raises(InputError):
        classifier.fit(TEXTS, ["x"] * 12)
    assert np.array_equal(classifier.predict_proba(TEXTS), want)


def rows_of(labels):
    return [Row({"text": f"t{place}", "label": label}, f"X[{place}]") for place, label in enumerate(labels)]


def label_of(row):
    return row.values["label"]


def test_dev_rows():
    train, dev = divide(rows_of("ab" * 30), label_of, "auto", 0)
    assert len(dev) == 9 and len(train) == 51 and abs(sum(label_of(row) == "a" for row in dev) - 4.5) <= 0.5
    assert divide(rows_of("ab" * 30), label_of, "auto", 1)[1] != dev
    assert divide(rows_of("ab" * 19), label_of, "auto", 0)[1] == []
    for dev in (0, None, False, 0.0):
        assert divide(rows_of("ab" * 30), label_of, dev, 0)[1] == []
    assert (
        len(divide(rows_of("ab" * 30), label_of, 10, 0)[1])
        == len(divide(rows_of("ab" * 30), label_of, 1 / 6, 0)[1])
        == 10
    )
    with pytest.warns(UserWarning, match=r"labels with a single row .* \('c'\)"):
        train, dev = divide(rows_of("ab" * 30 + "c"), label_of, 0.5, 0)
    assert "c" in map(label_of, train) and len(dev) == 30
    train, dev = divide(rows_of("aabbbbbbbb"), label_of, 0.9, 0)
    assert {*map(label_of, train)} == {"a", "b"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert divide(rows_of("abc" * 1), label_of, 0.5, 0)[1] == []


def content_of(row):
    return row.values["text"]


def test_copies_of_a_text_are_no_dev_rows_beside_each_other():
    texts = [f"t{place % 15}" for place in range(60)]
    rows = [Row({"text": text, "label": "ab"[int(text[1:]) % 2]}, "X") for text in texts]
    for dev, least in (("auto", 9), (0.5, 30), (2, 2)):
        train, held = divide(rows, label_of, dev, 0, content_of)
        assert least <= len(held) < least + 4 and len(train) + len(held) == 60
        assert not {*map(content_of, train)} & {*map(content_of, held)}
    # a label of one text is learned from, and so is a text with more copies than dev rows
    few = [Row({"text": text, "label": label}, "X") for text, label in (("one", "c"), ("one", "c"), ("t0", "c"))]
    many = [Row({"text": "often", "label": "a"}, "X") for _ in range(30)]
    for seed in range(5):
        with pytest.warns(UserWarning, match=r"single row \(copies count as one\) .* \('d'\)"):
            train, held = divide(
                [*rows, *few, *many, *(Row({"text": "two", "label": "d"}, "X") for _ in "xx")],
                label_of,
                10,
                seed,
                content_of,
            )
        assert 5 <= len(held) < 15 and {*map(label_of, train)} == {*"abcd"} and "often" not in map(content_of, held)
        assert not {*map(content_of, train)} & {*map(content_of, held)}


def test_copies_share_no_split_where_an_estimator_divides(base, monkeypatch):
    divided = []
    monkeypatch.setattr(
        "softprompt.estimators.base.divide", lambda *given: divided.append(divide(*given)) or divided[-1]
    )
    for method in (PROBE, "auto"):
        PromptClassifier(base, method, **QUICK, dev=0.25).fit(TEXTS * 4, LABELS * 4)
    PromptGenerator(base, "hard", dev=0.5).fit(TEXTS[:4] * 2, LABELS[:4] * 2)
    for train, held in divided:
        assert held and not {str(row.values) for row in train} & {str(row.values) for row in held}
    assert len(divided) == 3


def test_rows_of_weight_0_are_no_dev_rows(base):
    texts, labels = TEXTS * 4, LABELS * 4
    turned = ["bad" if label == "good" else "good" for label in labels]
    weights = np.repeat([1.0, 0.0], len(texts))
    for method in (PROBE, "auto"):  # `auto` divides by itself
        one, other = (PromptClassifier(base, method, **QUICK, dev=0.25) for _ in range(2))
        left, want = one.fit(texts * 2, labels + turned, weights), other.fit(texts, labels)
        assert {**left.summary_, "in": ""} == {**want.summary_, "in": ""}
        assert np.allclose(left.predict_proba(TEXTS), want.predict_proba(TEXTS), atol=1e-6)
    written = PromptGenerator(base, "hard", dev=0.25).fit(TEXTS[:8], LABELS[:8], [0.0] * 4 + [1.0] * 4)
    assert "on 1 row" in written.summary_["dev"]


def test_dev_that_is_an_array_is_refused(base):
    for method in (PROBE, "auto"):
        with pytest.raises(InputError, match="dev is 'a list'; expected 'auto'"):
            PromptClassifier(base, method, dev=np.array([1, 2])).fit(TEXTS, LABELS)


def test_dev_rows_of_ones_own(base):
    classifier = PromptClassifier(base, "infix", **QUICK, dev=(TEXTS[8:], LABELS[8:])).fit(TEXTS[:8], LABELS[:8])
    assert classifier.summary_["learned from"] == "8 rows" and "on 4 rows" in classifier.summary_["dev"]


def test_what_is_shown(base, capsys):
    classifier = PromptClassifier(base, PROBE, instruction="<b>", verbose=True).fit(TEXTS, LABELS)
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith(
        "PromptClassifier: method probe, base tiny-llama, learned from 12 rows"
    )
    shown = classifier._repr_html_()
    assert "<table>" in shown and "12 rows" in shown and "PromptClassifier" in shown
    PromptClassifier(base, PROBE).fit(TEXTS, LABELS)
    assert capsys.readouterr().err == ""
    result = sp.train(base, sp.Task.load("movie-reviews"), "hard", rows={"dev": rows_of([])} | {"train": []})
    assert "<b>movie" not in result._repr_html_() and "movie-reviews" in result._repr_html_()


def test_an_ensemble_is_loaded_as_an_artifact_is(base, folder, tmp_path):
    other = tiny_base("bert")
    members = [PromptClassifier(one, PROBE).fit(TEXTS, [1, 0] * 6) for one in (base, other)]
    for name, member in zip("ab", members, strict=True):
        member.save(tmp_path / name)
    sp.save_ensemble(tmp_path / "both", [(tmp_path / "a", 0.25), (tmp_path / "b", 0.75)])
    both = PromptClassifier.load(tmp_path / "both", [other, base])
    logs = [member.predict_log_proba(TEXTS) for member in members]
    want = np.exp(0.25 * logs[0] + 0.75 * logs[1])
    assert np.allclose(both.predict_proba(TEXTS), want / want.sum(1, keepdims=True), atol=1e-6)
    assert both.predict(TEXTS).tolist() == [1, 0] * 6
    again = pickle.loads(pickle.dumps(both))
    assert np.allclose(again.predict_proba(TEXTS), both.predict_proba(TEXTS), atol=1e-6)
    both.save(tmp_path / "copy")
    assert PromptClassifier.load(tmp_path / "copy").predict(TEXTS).tolist() == [1, 0] * 6
    with pytest.raises(ArtifactError, match="base"):
        PromptClassifier.load(tmp_path / "a", other)
    shared._known.clear()
    with pytest.raises(InputError, match="made on base 'tiny-llama'; name the base when you load it"):
        PromptClassifier.load(tmp_path / "a")


class Shell:
    kernel = None


def test_a_notebook_has_one_line_that_changes(base, monkeypatch):
    displayed = []
    monkeypatch.setattr(shown, "_EVERY", 0.0)
    monkeypatch.setattr("IPython.get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", lambda one, **how: displayed.append((one.data, how)))
    classifier = PromptClassifier(base, "infix", **QUICK, instruction="<script>").fit(TEXTS, LABELS)
    texts, hows = [text for text, _ in displayed], [how for _, how in displayed]
    assert len({how["display_id"] for how in hows}) == 1 and [how.get("update") for how in hows[1:]] == [True] * (
        len(hows) - 1
    )
    assert any("training" in text for text in texts) and "PromptClassifier: method infix" in texts[-1]
    displayed.clear()
    classifier.predict(TEXTS)
    assert displayed[-1][0] == "<pre></pre>"  # nothing is left of it
    displayed.clear()
    PromptClassifier(base, PROBE, verbose=False).fit(TEXTS, LABELS)
    assert not displayed


def test_a_terminal_has_a_bar(base, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    PromptClassifier(base, "infix", **QUICK).fit(TEXTS, LABELS)
    assert "PromptClassifier: method infix" in stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    "family, method", [("llama", PROBE), ("bert", PROBE), ("bert", {"name": "hard", "head": True})]
)
def test_a_text_runs_once_where_nothing_is_learned_in_it(family, method, monkeypatch):
    release()
    runs, forward = [], Base.forward
    monkeypatch.setattr(Base, "forward", lambda self, *args, **kw: runs.append(1) or forward(self, *args, **kw))
    base = tiny_base(family)
    first = PromptClassifier(base, method, epochs=1).fit(TEXTS, LABELS)
    want = first.predict_proba(TEXTS)
    runs.clear()
    assert np.array_equal(first.predict_proba(TEXTS), want) and not runs
    if method is PROBE:
        second = PromptClassifier(base, OTHER).fit(TEXTS[::-1], LABELS[::-1])
        assert second.predict(TEXTS).tolist() == LABELS and not runs


def test_settings_may_be_of_numpy(base):
    settings = {"lr": np.float64(0.05), "epochs": np.int64(1), "seed": np.int64(3), "dev": np.float64(0.25)}
    classifier = PromptClassifier(base, "infix", **settings).fit(TEXTS, LABELS)
    assert classifier.summary_["learned from"] == "9 rows"


def test_a_generator(base, tmp_path):
    answers = ["Lima", "Bamako", ["Rome", "Roma"], "Kyiv"]
    places = ["Peru", "Mali", "Italy", "Ukraine"]
    writer = PromptGenerator(base, **QUICK, instruction="Name the capital.").fit(places, answers)
    found = writer.predict(places)
    assert found.shape == (4,) and all(isinstance(text, str) for text in found)
    assert 0 <= writer.score(places, answers) <= 1
    writer.save(tmp_path / "a")
    assert PromptGenerator.load(tmp_path / "a", base).predict(places).tolist() == found.tolist()
    lines = PromptGenerator(base, **QUICK).fit(places, ["a\nb", "c", "d", "e"])
    assert lines._fitted.task.spec.generation.stop == []
    with pytest.raises(InputError, match=r"y\[1\] is null; expected the text of the answer"):
        writer.fit(places[:2], ["Lima", None])
    with pytest.raises(NotFittedError):
        clone(writer).predict(places)


def test_an_extractor(base, tmp_path):
    frame = pandas.DataFrame({"passage": ["it was Ann", "Bo came"], "question": ["who was it", "who came"]})
    finder = PromptExtractor(base, "soft", context="passage", **QUICK).fit(frame, ["Ann", "Bo"])
    found = finder.predict(frame)
    assert found.shape == (2,) and 0 <= finder.score(frame, ["Ann", "Bo"]) <= 1
    head = PromptExtractor(tiny_base("bert"), {"name": "soft", "head": True}, **QUICK).fit(
        ["it was Ann", "Bo came"], ["Ann", ["Bo"]]
    )
    assert all(text in "it was Ann" for text in head.predict(["it was Ann"]))
    head.save(tmp_path / "a")
    again = PromptExtractor.load(tmp_path / "a", head.base)
    assert again.predict(["it was Ann"]).tolist() == head.predict(["it was Ann"]).tolist()
    with pytest.raises(InputError, match=r"X\[1\]: answer 'Bob' is not in the context"):
        finder.fit(frame, ["Ann", "Bob"])
    with pytest.raises(InputError, match="context is 'text', X has columns"):
        PromptExtractor(base, context="text").fit(frame, ["Ann", "Bo"])


def test_a_tagger(tmp_path):
    base = tiny_base("bert")
    words, tags = [["it", "was", "Ann"], ["Bo", "came"]], [["O", "O", "B-name"], ["B-name", "O"]]
    tagger = PromptTagger(base, **QUICK).fit(words, tags)
    assert tagger.classes_.tolist() == ["O", "B-name"] and [len(one) for one in tagger.predict(words)] == [3, 2]
    assert 0 <= tagger.score(words, tags) <= 1
    texts, entities = ["it was Ann", "Bo came"], [[{"start": 7, "end": 10, "label": "name"}], []]
    reader = PromptTagger(base, **QUICK).fit(texts, entities)
    assert reader.classes_.tolist() == ["O", "B-name", "I-name"]
    for text, spans in zip(texts, reader.predict(texts), strict=True):
        assert all(text[span["start"] : span["end"]] == span["text"] for span in spans)
    reader.save(tmp_path / "a")
    assert PromptTagger.load(tmp_path / "a", base).predict(texts) == reader.predict(texts)
    for X, y, told in (
        (words, [["O"], ["O", "B-x"]], r"X\[0\]: there are 3 tokens and 1 tags"),
        (words, ["O", "O"], r"y\[0\] is a text; expected a list of tags"),
        ([5], [["O"]], r"X\[0\] is a number; expected a text, or a list of words"),
        (words, [["O"] * 3, ["O"] * 2], "y has one class of tags only"),
    ):
        with pytest.raises(InputError, match=told):
            PromptTagger(base, **QUICK).fit(X, y)
