"""scikit-learn's own checks of an estimator. They bring numbers in columns, so numbers are read as texts here."""

import pytest
from models import tiny_model, tiny_tokenizer
from sklearn.utils.estimator_checks import parametrize_with_checks

from softprompt.estimators import PromptClassifier, inputs

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "equal up to 1e-4: sums are fp32, and a probe's solver stops near its end",
}


class OnTinyBase(PromptClassifier):
    """A random model reads numbers no better than chance; what else the checks ask of it they still ask."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base by its name, as estimators are cloned with it."""
    place = tmp_path_factory.mktemp("bases")
    tiny_model("llama").save_pretrained(place / "tiny")
    tiny_tokenizer().save_pretrained(place / "tiny")
    return place


@pytest.fixture(autouse=True)
def numbers_are_texts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(inputs, "no_text", lambda table: False)


@parametrize_with_checks([OnTinyBase("tiny", "probe", dev=0)], expected_failed_checks=lambda estimator: EXPECTED)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.full
@parametrize_with_checks(
    [OnTinyBase("tiny", "infix", epochs=1, dev=0)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_scikit_learns_checks_of_what_is_trained_by_steps(estimator, check):
    check(estimator)
