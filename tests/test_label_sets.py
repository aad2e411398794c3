"""`PromptClassifier` where rows have several labels: sets and matrices in, the same out, and scikit-learn's ways with them."""

from __future__ import annotations

import ast
import io
import pickle
import re
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
from models import tiny_base
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer
from test_estimators import refused_fit
from test_multilabel import LABELS, TASK, several_rows

import softprompt as sp
from softprompt import PromptClassifier
from softprompt.answers.thresholds import best_thresholds
from softprompt.artifact import load
from softprompt.data import Row
from softprompt.errors import ArtifactError, InputError
from softprompt.estimators.choose import resolve_auto
from softprompt.estimators.dividing import divide
from softprompt.estimators.sets import has_sets
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import train

PROBE = {"name": "probe", "strengths": [1.0]}
QUICK = {"epochs": 1, "lr": 0.05}
ROWS = several_rows(48)["train"]
TEXTS = [row.values["text"] for row in ROWS]
SETS = [row.values["labels"] for row in ROWS]
BINARIZER = MultiLabelBinarizer().fit(SETS)
MARKS = BINARIZER.transform(SETS)
NAMES = sorted(LABELS)
FRAME = pandas.DataFrame(MARKS, columns=NAMES)


@pytest.fixture(scope="module")
def base():
    return tiny_base("llama")


@pytest.fixture(scope="module")
def fitted(base):
    return PromptClassifier(base, PROBE, dev=0).fit(TEXTS, SETS)


def test_from_sets_to_sets(fitted):
    found = fitted.predict_proba(TEXTS)
    assert fitted.classes_.tolist() == NAMES and fitted.thresholds_.tolist() == [0.5] * 4
    assert found.shape == (24, 4) and found.dtype == float and not np.allclose(found.sum(1), 1)
    assert np.allclose(np.exp(fitted.predict_log_proba(TEXTS)), found)
    told = fitted.predict(TEXTS)
    assert told.shape == (24,) and told.tolist() == BINARIZER.inverse_transform(found >= 0.5)
    marks = BINARIZER.transform(told)
    assert fitted.score(TEXTS, SETS) == accuracy_score(MARKS, marks) > 0.5  # the texts name their labels
    weights = np.arange(24.0)
    assert fitted.score(TEXTS, SETS, weights) == pytest.approx(accuracy_score(MARKS, marks, sample_weight=weights))


SAME_SETS = {
    "sets": [set(row) for row in SETS],
    "frozen sets": [frozenset(row) for row in SETS],
    "tuples": tuple(map(tuple, SETS)),
    "Series": pandas.Series([np.array(row, object) for row in SETS]),
    "column of a Dataset": datasets.Dataset.from_dict({"y": SETS})["y"],
    "iterator": iter(SETS),
    "numbers": [[NAMES.index(label) for label in row] for row in SETS],
}


@pytest.mark.parametrize("form", SAME_SETS)
def test_what_sets_may_be(base, fitted, form):
    classifier = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, SAME_SETS[form])
    assert np.allclose(classifier.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6)
    assert all(isinstance(labels, tuple) for labels in classifier.predict(TEXTS))
    if form == "numbers":
        assert {type(label) for labels in classifier.predict(TEXTS) for label in labels} == {int}


MATRICES = {
    "int": (MARKS, np.int64),
    "bool": (MARKS.astype(bool), np.bool_),
    "float": (MARKS.astype(np.float32), np.float32),
    "lists": (MARKS.tolist(), np.int64),
    "list of arrays": (list(MARKS), np.int64),
    "objects": (MARKS.astype(object), np.int64),
    "DataFrame": (FRAME, np.int64),
    "Dataset": (datasets.Dataset.from_pandas(FRAME), np.int64),
    "dicts": (FRAME.to_dict("records"), np.int64),
}


@pytest.mark.parametrize("form", MATRICES)
def test_what_a_matrix_may_be(base, fitted, form, tmp_path):
    y, dtype = MATRICES[form]
    classifier = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, y)
    assert classifier.classes_.tolist() == (NAMES if form in ("DataFrame", "Dataset", "dicts") else [0, 1, 2, 3])
    want = classifier.predict(TEXTS)
    assert type(want) is np.ndarray and want.dtype == dtype
    assert np.array_equal(want, BINARIZER.transform(fitted.predict(TEXTS)))
    assert np.allclose(classifier.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6)
    assert classifier.score(TEXTS, y) == classifier.score(TEXTS, MARKS) == fitted.score(TEXTS, SETS)
    classifier.save(tmp_path / "a")
    again = PromptClassifier.load(tmp_path / "a", base)
    assert again.classes_.tolist() == classifier.classes_.tolist() and again.predict(TEXTS).dtype == dtype
    assert np.array_equal(again.predict(TEXTS), want)


def test_a_sparse_matrix_gives_one(base, fitted):
    y = sparse.csr_matrix(MARKS)
    classifier = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, y)
    found = classifier.predict(TEXTS)
    assert sparse.issparse(found) and classifier.score(TEXTS, y) == fitted.score(TEXTS, SETS)
    assert np.array_equal(found.toarray(), BINARIZER.transform(fitted.predict(TEXTS)))


def test_columns_are_read_by_their_names(base, fitted):
    turned = FRAME[NAMES[::-1]]
    classifier = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, turned)
    assert classifier.classes_.tolist() == NAMES[::-1]
    assert np.allclose(classifier.predict_proba(TEXTS)[:, ::-1], fitted.predict_proba(TEXTS), atol=1e-6)
    assert classifier.score(TEXTS, FRAME) == classifier.score(TEXTS, turned) == classifier.score(TEXTS, SETS)


def test_one_label_or_several_is_read_off_y():
    assert has_sets([["a"], ["b"]]) and has_sets(np.eye(2)) and has_sets([[], {"a"}])
    assert not any(
        map(has_sets, ([1, 0], ["a", "b"], np.array([[1], [0]]), pandas.DataFrame({"y": ["a"]}), None, "ab"))
    )


def test_lists_of_0_and_1_are_sets_where_fit_had_sets(base, tmp_path):
    sets = [[0], [1], [0, 1], []] * 6
    texts = [
        ("zero " if 0 in row else "") + ("one" if 1 in row else "") + f" no. {place}" for place, row in enumerate(sets)
    ]
    pairs, asked = [[1, 0], [0, 1]], texts[2:4]  # of sets that are alike, and of a matrix that are not
    same, other = [{1, 0}, {0, 1}], np.array(pairs)
    classifier = PromptClassifier(base, PROBE, dev=(asked, pairs)).fit(texts, sets)
    assert (
        classifier.summary_["dev"] == PromptClassifier(base, PROBE, dev=(asked, same)).fit(texts, sets).summary_["dev"]
    )
    classifier.save(tmp_path / "a")
    for one in (classifier, PromptClassifier.load(tmp_path / "a", base)):
        given = [[*labels] for labels in one.predict(asked)]
        assert one.score(asked, given) == 1
        assert one.score(asked, pairs) == one.score(asked, same)
        assert one.score(asked, other) == accuracy_score(other, [[0 in row, 1 in row] for row in given])
        with pytest.raises(InputError, match=r"y\[0\] names 1 twice; name it once \(give a matrix as an array\)"):
            one.score(asked, [[1, 1], [0, 0]])


def test_a_fit_again_with_one_label_a_row(base):
    classifier = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, SETS)
    one = ["sun" if "sun" in row else "none" for row in SETS]
    classifier.fit(TEXTS, one)
    assert classifier.classes_.tolist() == ["none", "sun"] and not hasattr(classifier, "thresholds_")
    assert np.allclose(classifier.predict_proba(TEXTS).sum(1), 1) and classifier.predict(TEXTS).shape == (24,)
    assert classifier.fit(TEXTS, MARKS).predict(TEXTS).shape == (24, 4)


@pytest.mark.parametrize("method", ["infix", {"name": "lora", "r": 2}])
def test_thresholds_are_chosen_on_dev_rows(base, method):
    dev = several_rows(48)["dev"]
    asked, labels = [row.values["text"] for row in dev], [row.values["labels"] for row in dev]
    classifier = PromptClassifier(base, method, dev=(asked, labels), **QUICK).fit(TEXTS, SETS)
    found = classifier.predict_proba(asked)
    assert classifier.thresholds_ == pytest.approx(best_thresholds(found, BINARIZER.transform(labels) == 1), abs=2e-4)
    assert np.array_equal(BINARIZER.transform(classifier.predict(asked)), found >= classifier.thresholds_)
    assert classifier.summary_["learned from"] == "24 rows" and "micro_f1" in classifier.summary_["dev"]


def test_dev_rows_have_every_label_that_can_be_spared():
    """Rows are divided by their rarest label, as a whole set mostly stands there once."""
    sets = [["often", f"label{place % 5}", f"once{place}"][: 2 + (place == 7)] for place in range(40)]
    rows = [Row({"text": f"text {place}", "labels": own}, f"X[{place}]") for place, own in enumerate(sets)]
    task = Task.load({**TASK, "labels": sorted({label for own in sets for label in own})})
    with pytest.warns(UserWarning, match=r"labels with a single row .* \('once7'\)"):
        kept, dev = divide(rows, task.strata(rows), 0.25, 0)
    assert rows[7] in kept and len(dev) == 10
    counts = Counter(label for row in dev for label in row.values["labels"])
    assert counts == {"often": 10} | {f"label{place}": 2 for place in range(5)}


def test_weights(base):
    heavy = np.where(["sun" in row for row in SETS], 20.0, 1.0)
    plain = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, SETS)
    ones = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, SETS, np.ones(24))
    assert np.array_equal(plain.predict_proba(TEXTS), ones.predict_proba(TEXTS))
    weighed = PromptClassifier(base, "infix", **QUICK).fit(TEXTS, SETS, heavy)
    sun = NAMES.index("sun")
    assert weighed.predict_proba(TEXTS)[:, sun].mean() > plain.predict_proba(TEXTS)[:, sun].mean()
    left = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, MARKS, [0.0] * 4 + [1.0] * 20)
    want = PromptClassifier(base, PROBE, dev=0).fit(TEXTS[4:], MARKS[4:])
    assert np.allclose(left.predict_proba(TEXTS), want.predict_proba(TEXTS), atol=1e-6)


def test_rows_of_weight_0_choose_no_threshold(base):
    rows = several_rows(160)["train"]
    texts = [row.values["text"] for row in rows]
    marks = BINARIZER.transform([row.values["labels"] for row in rows])
    given = (texts * 2, np.concatenate([1 - marks, marks]), np.repeat([0.0, 1.0], len(texts)))
    left, want = PromptClassifier(base, PROBE).fit(*given), PromptClassifier(base, PROBE).fit(texts, marks)
    assert len(texts) == 80
    assert left.thresholds_.tolist() == want.thresholds_.tolist()
    assert np.array_equal(left.predict(texts), want.predict(texts)) and left.summary_["dev"] == want.summary_["dev"]


def test_an_artifact_as_everywhere(base, fitted, tmp_path):
    fitted.save(tmp_path / "a")
    assert load(tmp_path / "a").manifest.task["labels"] == NAMES
    runtime = Runtime(base)
    runtime.add("a", tmp_path / "a")
    answers = runtime.predict(TEXTS)
    assert [tuple(one.label) for one in answers] == fitted.predict(TEXTS).tolist()
    assert np.allclose([list(one.probabilities.values()) for one in answers], fitted.predict_proba(TEXTS), atol=1e-5)
    loaded = PromptClassifier.load(tmp_path / "a", base)
    assert loaded.predict(TEXTS).tolist() == fitted.predict(TEXTS).tolist()
    again = pickle.loads(pickle.dumps(fitted))
    assert again.predict(TEXTS).tolist() == fitted.predict(TEXTS).tolist() and again.score(TEXTS, SETS) > 0.5
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "classes_")
    with pytest.raises(ArtifactError, match="of type 'multilabel', PromptGenerator is for 'generation'"):
        sp.PromptGenerator.load(tmp_path / "a", base)


def test_an_artifact_of_a_run_is_loaded(base, tmp_path):
    """Its labels keep their order in the task, and its thresholds decide."""
    task = {**TASK, "thresholds": dict.fromkeys(LABELS, 0.3)}
    result = train(base, Task.load(task), make_method(PROBE), tmp_path, rows=several_rows())
    loaded = PromptClassifier.load(tmp_path / "artifact", base)
    assert loaded.classes_.tolist() == LABELS and loaded.thresholds_.tolist() == [0.3] * 4
    asked = [row.values["text"] for row in several_rows()["dev"]]
    assert loaded.predict(asked).tolist() == [tuple(one.predicted) for one in result.metrics["dev"].outcomes]
    assert loaded.score(asked, [row.values["labels"] for row in several_rows()["dev"]]) <= 1


def test_what_scikit_learn_does_with_a_matrix(base):
    classifier = PromptClassifier(base, PROBE, dev=0)
    assert cross_val_score(make_pipeline(FunctionTransformer(), classifier), TEXTS, MARKS, cv=3).shape == (3,)
    assert cross_val_score(classifier, TEXTS, FRAME, cv=2, scoring="f1_macro").shape == (2,)
    assert cross_val_predict(classifier, TEXTS, MARKS, cv=2).shape == (24, 4)
    likely = cross_val_predict(classifier, TEXTS, MARKS, cv=2, method="predict_proba")
    assert likely.shape == (24, 4)
    search = GridSearchCV(PromptClassifier(base, dev=0), {"method": [PROBE, {**PROBE, "strengths": [0.1]}]}, cv=2)
    assert search.fit(TEXTS, MARKS).best_estimator_.predict(TEXTS).shape == (24, 4)


def test_auto_is_a_probe_on_an_encoder(base):
    assert resolve_auto("multilabel", "auto", "auto") == ("minilm", "probe")
    assert resolve_auto("multilabel", {"name": "auto", "dtype": "bf16"}, {"name": "auto"}) == (
        {"name": "minilm", "dtype": "bf16"},
        {"name": "probe"},
    )
    classifier = PromptClassifier(base).fit(TEXTS, SETS)
    assert classifier.summary_["method"] == "probe"
    task = template_of(classifier)
    assert (task["instruction"], task["input"], task["cue"]) == ("", "Text: {{ text }}", "\nLabels:")
    told = PromptClassifier(base, PROBE, instruction="Which?").fit(TEXTS, SETS)
    assert template_of(told)["instruction"] == "Which?\n\n"


def template_of(classifier):
    return classifier._fitted.manifests[0].task["template"]


def matrix(value, dtype=None):
    changed = np.array(MARKS.tolist(), dtype=dtype)
    changed[3, 1] = value
    return changed


BAD_INPUT = {
    "no label at all": ((TEXTS, [[]] * 24), {}, "^y has no label in any row"),
    "zeros": ((TEXTS, np.zeros((24, 3), int)), {}, r"^y has the same labels in all rows \(none\)"),
    "the same sets": ((TEXTS, [{"b", "a"}] * 24), {}, r"^y has the same labels in all rows \('a', 'b'\)"),
    "the same where it counts": ((TEXTS, [["a"], *[["b"]] * 23], [0.0] + [1.0] * 23), {}, r"in all rows \('b'\)"),
    "null in a set": ((TEXTS, [*SETS[:-1], ["sun", None]]), {}, r"^y\[23\] holds null; expected labels"),
    "NaN in a set": ((TEXTS, [*SETS[:-1], [float("nan")]]), {}, r"^y\[23\] holds NaN; expected labels"),
    "a list in a set": ((TEXTS, [*SETS[:-1], [["sun"]]]), {}, r"^y\[23\] holds a list; expected labels"),
    "blank in a set": ((TEXTS, [*SETS[:-1], [" "]]), {}, r"^y\[23\] holds an empty text; give the label a name"),
    "half in a set": ((TEXTS, [*SETS[:-1], [0.5]]), {}, r"^y\[23\] holds 0.5, which is no label"),
    "twice in a set": ((TEXTS, [*SETS[:-1], ["sun", "sun"]]), {}, r"^y\[23\] names 'sun' twice; name it once$"),
    "mixed": ((TEXTS, [*SETS[:-1], [1]]), {}, "^y mixes texts, numbers or booleans"),
    "numbers and booleans": ((TEXTS, [*[[1], [2]] * 11, [True], [2]]), {}, "^y mixes texts, numbers or booleans"),
    "one label beside sets": ((TEXTS, [*SETS[:-1], "sun"]), {}, r"^y\[23\] is a text; expected a set of labels"),
    "null beside sets": ((TEXTS, [*SETS[:-1], None]), {}, r"^y\[23\] is null; expected a set of labels, .* empty"),
    "alike": ((TEXTS, [*SETS[:-1], ["caf\u00e9"], ["cafe\u0301"]][1:]), {}, "are written alike; rename one"),
    "lengths": ((TEXTS, SETS[:-1]), {}, r"inconsistent numbers of samples: \[24, 23\]"),
    "lengths of a matrix": ((TEXTS, sparse.csr_matrix(MARKS[:-1])), {}, r"inconsistent numbers of samples: \[24, 23\]"),
    "rows of different length": (
        (TEXTS, [*MARKS.tolist()[:-1], [1, 1, 0]]),
        {},
        r"^y\[0\] names . twice; .*\(rows of a matrix of 0 and 1 must have equal lengths\); \d+ more of 24 rows",
    ),
    "two": ((TEXTS, matrix(2)), {}, r"^y is multiclass-multioutput, .* \(y\[3, 1\] is 2\); give each label a column"),
    "texts": (
        (TEXTS, np.array([["a", "b"], ["b", "c"]] * 12)),
        {},
        r"^y is multiclass-multioutput, .* \(y\[0, 0\] is 'a'\)",
    ),
    "columns of texts": (
        (TEXTS, pandas.DataFrame({"x": ["a", "b"] * 12, "y": [1, 0] * 12})),
        {},
        r"^y is multiclass-multioutput, .* \(y\[0, 'x'\] is 'a'\)",
    ),
    "half": ((TEXTS, matrix(0.5, float)), {}, r"^y\[3, 1\] is 0.5; expected 1 where the row has the label, else 0"),
    "NaN": ((TEXTS, matrix(np.nan, float)), {}, r"^y\[3, 1\] is NaN; expected 1"),
    "null": ((TEXTS, matrix(None, object)), {}, r"^y\[3, 1\] is null; expected 1"),
    "missing": (
        (TEXTS, FRAME.astype("Int64").reindex([*range(3), 99, *range(4, 24)])),
        {},
        r"^y\[3, 'hope'\] is null; expected 1 where the row has the label",
    ),
    "no columns": ((TEXTS, np.zeros((24, 0))), {}, "^y has no columns"),
    "a column": ((TEXTS, sparse.csr_matrix(MARKS[:, :1])), {}, "^y is a matrix of one column"),
    "names": ((TEXTS, pandas.DataFrame(MARKS[:, :2], columns=["a", "a"])), {}, "^y has two columns of one name"),
    "class weight": ((TEXTS, SETS), {"class_weight": "balanced"}, "^class_weight is for rows with one label each"),
    "label words": ((TEXTS, SETS), {"label_words": {"sun": "x"}}, "^label_words is for rows with one label each"),
    "weights": ((TEXTS, SETS, [1.0] * 23), {}, r"sample_weight.shape == \(23,\)"),
    "dev label": ((TEXTS, SETS), {"dev": (["x"], [["snow"]])}, r"^y_dev holds labels .* \('snow'\)"),
    "dev rows": ((TEXTS, SETS), {"dev": (["x", "y"], [["sun"]])}, r"inconsistent numbers of samples: \[2, 1\]"),
    "dev matrix": ((TEXTS, MARKS), {"dev": (["x"], [[1, 0]])}, "^y_dev has 2 columns, and there are 4 labels"),
    "its own column": (
        (FRAME.assign(text=TEXTS), FRAME),
        {},
        "^column 'hope' of X is that of y, the right answer; leave it out of X",
    ),
    "method": ((TEXTS, SETS), {"method": {"name": "soft", "head": False}}, "head cannot be false"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(base, case):
    given, settings, told = BAD_INPUT[case]
    refused_fit(PromptClassifier(**{"base": base, "method": PROBE, **settings}), given, told)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([*SETS[:-1], ["snow"]], r"y holds labels that were not there in fit \('snow'\)"),
        (FRAME.rename(columns={"sun": "snow"}), r"y holds labels that were not there in fit \('snow'\)"),
        (MARKS[:, :3], "y has 3 columns, and there are 4 labels"),
        (SETS[:-1], r"inconsistent numbers of samples: \[24, 23\]"),
        (["sun"] * 24, r"y\[0\] is a text; expected a set of labels"),
        (None, "requires y to be passed"),
    ],
)
def test_bad_right_answers(fitted, y, told):
    with pytest.raises(InputError, match=told):
        fitted.score(TEXTS, y)


def test_sets_are_refused_where_rows_had_one_label(base):
    one = PromptClassifier(base, PROBE, dev=0).fit(TEXTS, ["sun" if "sun" in row else "none" for row in SETS])
    with pytest.raises(InputError, match=r"y\[0\] is a list; every row needs a label"):
        one.score(TEXTS, SETS)


def test_what_is_shown_in_the_end(base, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    PromptClassifier(base, PROBE, verbose=True).fit(TEXTS, SETS)
    assert "PromptClassifier: method probe, base tiny-llama, learned from 24 rows" in stream.getvalue()


def test_the_example_of_the_documentation_runs(monkeypatch, base):
    """On a tiny base, whose answers are others."""
    text = (Path(__file__).parents[1] / "docs/python.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        r"```python\n(.*?)```", text.partition("## Several labels a row")[2].partition("\n## ")[0], re.DOTALL
    )
    assert code.count("PromptClassifier()") == 1
    held = {"PromptClassifier": PromptClassifier, "base": base}
    exec(code.replace("PromptClassifier()", "PromptClassifier(base)"), held)
    classifier, shown = held["classifier"], re.findall(r"^classifier\.(\w+).*  # (\[.*\])", code, re.MULTILINE)
    assert [name for name, _ in shown] == ["classes_", "predict", "predict_proba"]
    assert classifier.classes_.tolist() == ast.literal_eval(shown[0][1])
    assert {*ast.literal_eval(shown[1][1])[0]} <= {*classifier.classes_.tolist()}
    assert np.shape(ast.literal_eval(shown[2][1])) == classifier.predict_proba(["it"]).shape
