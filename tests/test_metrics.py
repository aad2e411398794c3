"""Metrics against their definitions and other packages; intervals hold what they should."""

from __future__ import annotations

import random
import re
import string
import time
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score, matthews_corrcoef

from softprompt.artifact.card import model_card
from softprompt.artifact.manifest import Manifest
from softprompt.errors import ConfigError, DataError
from softprompt.metrics import METRICS, Estimate, estimate, majority, measures, metrics_for
from softprompt.metrics.answers import mixed_segmentation

LABELS, TEXTS = metrics_for("labels"), metrics_for("texts")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "looked", "at", "dogs", "in", "big", "red", "near", "small"]


def value_of(metric: str, reference: str | list[str], answer: str) -> float:
    """The metric of one row."""
    return estimate(metric, [[reference] if isinstance(reference, str) else reference], [answer]).value


def corpus(rows: int, references: int = 1, seed: int = 0) -> tuple[list[list[str]], list[str]]:
    """References and worse copies of the first of each row."""
    rng = random.Random(seed)
    gold = [[" ".join(rng.choices(WORDS, k=rng.randint(4, 20))) for _ in range(references)] for _ in range(rows)]
    guess = [" ".join(w if rng.random() < 0.7 else rng.choice(WORDS) for w in texts[0].split()) for texts in gold]
    return gold, guess


def test_the_table():
    assert LABELS == ["accuracy", "macro_f1", "mcc"]
    assert metrics_for("tags") == ["span_f1"]
    assert metrics_for("sets") == ["micro_f1", "macro_f1_sets", "subset_accuracy"]
    assert sorted([*LABELS, *TEXTS, *metrics_for("tags"), *metrics_for("sets")]) == sorted(METRICS)
    assert {name for name in METRICS if METRICS[name].top == 100} == {"chrf", "bleu", "bleu_zh"}
    assert all(metric.title and metric.name == name for name, metric in METRICS.items())
    with pytest.raises(ConfigError, match=r"no metric 'blue' .*'bleu'"):
        estimate("blue", [["x"]], ["x"])


def test_labels_agree_with_their_definitions():
    gold, guess = list("aabbb") * 40, list("abbba") * 40
    accuracy = estimate("accuracy", gold, guess)
    assert accuracy.value == 0.6 and accuracy.rows == 200
    # Wilson by hand: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    z, n, p = 1.959963984540054, 200, 0.6
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    want = [(p + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert accuracy.interval == pytest.approx(want)
    assert estimate("macro_f1", list("ab") * 9, list("ab") * 9).interval == (1.0, 1.0)


def test_labels_agree_with_scikit_learn():
    rng = random.Random(3)
    gold = rng.choices("abcd", k=60)
    guess = [label if rng.random() < 0.6 else rng.choice("abcde") for label in gold]
    assert estimate("macro_f1", gold, guess).value == pytest.approx(f1_score(gold, guess, average="macro"))
    assert estimate("mcc", gold, guess).value == pytest.approx(matthews_corrcoef(gold, guess))


def test_intervals_of_labels_stay_what_they_were():
    """Numbers of the code before there were other metrics: manifests must not change."""
    gold, guess = list("aabbb") * 10, list("abbba") * 10
    found = estimate("macro_f1", gold, guess)
    low, high = found.interval
    assert low < found.value < high
    assert (low, high) == pytest.approx((0.4363929146537842, 0.7126847290640393), abs=1e-12)
    found = estimate("mcc", gold, guess)
    low, high = found.interval
    assert low < found.value < high
    assert (low, high) == pytest.approx((-0.11781691451397511, 0.43495924231337246), abs=1e-12)


def official_squad(reference: str, answer: str) -> tuple[float, float]:
    """Exact match and F1 written down from the formulas of SQuAD 1.1's script, step by step."""

    def normal(text: str) -> str:
        text = "".join(char for char in text.lower() if char not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    left, right = normal(answer).split(), normal(reference).split()
    same = sum((Counter(left) & Counter(right)).values())
    if same == 0:
        return float(normal(answer) == normal(reference)), 0.0
    precision, recall = same / len(left), same / len(right)
    return float(normal(answer) == normal(reference)), 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    "reference, answer",
    [
        ("The Eiffel Tower", "eiffel tower."),
        ("an apple a day", "Apple day"),
        ("U.S.A.", "USA"),
        ("the-rapist", "therapist"),  # the hyphen goes first, so no article is left to take out
        ("a-b", "ab"),
        ("theory of the state", "the theory of state"),
        ("cat cat dog", "cat dog dog"),
        ("cat cat dog", "bird cat cat"),
        ("in 1999 , in May", "In May, 1999"),
        ("Zürich “Nord”", "zürich nord"),  # only ASCII punctuation goes
        ("\tNew\n York ", "new york"),
        ("yes", ""),
        ("", "no"),
        ("Beyoncé's", "beyonces"),
    ],
)
def test_squad_as_in_the_official_script(reference, answer):
    match, f1 = official_squad(reference, answer)
    assert value_of("exact_match", reference, answer) == match
    assert value_of("f1", reference, answer) == pytest.approx(f1)


def test_squad_worked_by_hand():
    assert value_of("f1", "cat cat dog", "cat dog dog") == pytest.approx(2 / 3)
    assert value_of("f1", ["nothing", "the red cat"], "a cat") == pytest.approx(2 / 3)  # 1 of 1 and 1 of 2 words
    assert value_of("exact_match", ["x", "The cat!"], "cat") == 1
    assert value_of("exact_text", ["8", "-7"], " -7\n") == 1 and value_of("exact_text", "-7", "7") == 0
    for metric in ("exact_match", "exact_text", "f1", "exact_match_zh", "f1_zh"):
        assert value_of(metric, "", "") == 1 and value_of(metric, "x", "") == 0, metric
    assert value_of("f1", "the", "A.") == 1  # nothing is left of either


MARTHA = "She sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips in all.\n#### 72"


@pytest.mark.parametrize(
    "reference, answer, right",
    [
        (MARTHA, "She sold 24 in May, so 48 + 24 = 72 in all. The answer is: 72", 1),
        (MARTHA, "The answer is: 72.", 1),
        (MARTHA, "The answer is: 72.00", 1),
        (MARTHA, "The answer is: $72!", 1),
        (MARTHA, "It is 144/2. The answer is: 144/2", 1),
        (MARTHA, "The answer is: 70. No. The answer is: 72", 1),  # the last one counts
        (MARTHA, "The answer is: 72\n\nQuestion: What is 3 + 4?", 1),  # what is written on is no part of it
        (MARTHA, "72", 0),  # it does not say that this is its answer
        (MARTHA, "", 0),
        (MARTHA, "The answer is: 72 clips", 0),  # as in PEFT's script
        (MARTHA, "The answer is: -72", 0),
        (MARTHA, "The answer is: 7.2", 0),
        (MARTHA, "The answer is: 72/0", 0),
        ("He loses 5 dollars.\n#### -5", "So he has 5 less. The final answer is: -5", 1),
        ("#### 2,125", "The answer is: 2125", 1),
        ("#### 1234567", "The answer is $1,234,567.", 1),
        ("#### 12", "The answer is: 1,2", 0),  # no thousands
        ("#### 50", "The answer is: 50%", 1),
        ("#### .5", "The answer is: 1/2", 1),
        ("The answer is: 20/35", "#### 0.5714285714285714", 1),
        (r"It is $\sqrt{2}$. The answer is: \sqrt{2}", r"The answer is: $\sqrt{2}$.", 1),
        (r"The answer is: \sqrt{2}", r"The answer is: \sqrt{3}", 0),
        (["#### 3", "#### 4"], "The answer is: 4", 1),
        ("72", "I think so. The answer is: 72", 1),  # references of numbers alone
        ("72", "72.0", 1),
        ("NaN", "NaN", 1),
        ("#### sNaN", "#### 1", 0),
        ("#### 1e999999", "#### 2e999999", 0),  # beyond what a float holds, hence as text
    ],
)
def test_final_numbers(reference, answer, right):
    assert value_of("final_number", reference, answer) == right


def test_chinese_answers_worked_by_hand():
    # the answer is one run of the reference: 7 of its 7 characters, 7 of the 12
    assert len("中国科学院计算技术研究所") == 12 and len("计算技术研究所") == 7
    assert value_of("f1_zh", "中国科学院计算技术研究所", "计算技术研究所") == pytest.approx(2 * 7 / (12 + 7))
    assert value_of("exact_match_zh", "中国科学院计算技术研究所", "计算技术研究所") == 0
    assert value_of("exact_match_zh", "北京，中国。", "北京中国") == 1 == value_of("f1_zh", "北京，中国。", "北京中国")
    # a run, neither a subsequence (4 common: 北京中国) nor a bag: 北京 is the longest, 2 of 4 and 2 of 5
    assert value_of("f1_zh", "北京中国", "北京在中国") == pytest.approx(2 * 2 / (4 + 5))
    assert value_of("f1_zh", "中国北京", "北京中国") == pytest.approx(2 * 2 / (4 + 4))
    assert value_of("f1_zh", ["上海", "北京市"], "北京") == pytest.approx(2 * 2 / (3 + 2))
    assert value_of("f1_zh", "上海", "北京") == 0
    assert value_of("exact_match_zh", "「iPhone」手机", "iphone手机") == 1
    assert value_of("exact_match_zh", "好的", "好的!") == 0  # ASCII ! is not in the script's list


def test_mixed_segmentation():
    assert mixed_segmentation("2018年，iPhone X发布。") == ["2018", "年", "iphone", "x", "发", "布"]
    assert mixed_segmentation("增长3.5%") == ["增", "长", "3.5", "%"]
    assert mixed_segmentation(" 《红楼梦》 ") == ["红", "楼", "梦"]
    assert mixed_segmentation("，。") == []
    # one word, one character: 2 of the reference's 4 tokens, 2 of 2
    assert value_of("f1_zh", "windows系统软", "Windows系") == pytest.approx(2 * 2 / (4 + 2))


SCORERS = {"chrf": sacrebleu.CHRF(), "bleu": sacrebleu.BLEU(), "bleu_zh": sacrebleu.BLEU(tokenize="zh")}
CHINESE = [
    (["今天天气很好，我们去公园吧。", "今天天气不错，去公园吧。"], "今天天气很好，去公园。"),
    (["他在北京大学学习计算机科学。", "他在北大读计算机。"], "他在北京大学读计算机科学。"),
    (["我喜欢读书。", "我爱看书。"], "我喜欢看书。"),
]


@pytest.mark.parametrize("metric", SCORERS)
@pytest.mark.parametrize("kind", ["one", "two", "some", "chinese"])
def test_corpus_metrics_are_those_of_sacrebleu(metric, kind):
    gold, guess = corpus(50, 1 if kind == "one" else 2)
    if kind == "chinese":
        gold, guess = [texts for texts, _ in CHINESE], [text for _, text in CHINESE]
    if kind == "some":
        gold = [texts[: 1 + place % 2] for place, texts in enumerate(gold)]
    most = max(map(len, gold))
    padded = [[texts[k] if k < len(texts) else None for texts in gold] for k in range(most)]
    found = estimate(metric, gold, guess)
    assert found.value == pytest.approx(SCORERS[metric].corpus_score(guess, padded).score, abs=1e-12)
    assert found.signature == str(SCORERS[metric].get_signature())
    assert f"nrefs:{'var' if kind == 'some' else most}" in found.signature
    assert 0 <= found.interval[0] <= found.value <= found.interval[1] <= 100


@pytest.mark.parametrize("metric", SCORERS)
def test_corpus_intervals_are_near_sacrebleus_own_and_not_of_the_environment(metric, monkeypatch):
    gold, guess = corpus(200)
    found = estimate(metric, gold, guess)
    theirs = type(SCORERS[metric])(**({"tokenize": "zh"} if metric == "bleu_zh" else {}))
    score = theirs.corpus_score(guess, [[texts[0] for texts in gold]], n_bootstrap=1000)
    low, high = float(score._mean - score._ci), float(score._mean + score._ci)
    assert found.interval == pytest.approx((low, high), abs=0.15 * (high - low))
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    assert estimate(metric, gold, guess) == found


def test_chinese_bleu_sees_characters():
    gold, guess = [texts for texts, _ in CHINESE], [text for _, text in CHINESE]
    assert estimate("bleu_zh", gold, guess).value > 40 > estimate("bleu", gold, guess).value


def test_rouge_is_the_packages_and_drops_other_scripts():
    gold, guess = corpus(30, 3)
    theirs = RougeScorer(["rougeL"])
    want = [
        max(theirs.score(one, text)["rougeL"].fmeasure for one in row) for row, text in zip(gold, guess, strict=True)
    ]
    assert estimate("rouge_l", gold, guess).value == pytest.approx(np.mean(want))
    assert estimate("rouge_l_zh", gold, guess).value == pytest.approx(np.mean(want))  # Latin words stay words
    assert value_of("rouge_l", "今天天气很好", "今天天气很好") == 0
    assert value_of("rouge_l_zh", "今天天气很好。", "今天天气很好") == 1
    # 今天很好 is a subsequence: 4 of 4 and 4 of 6
    assert value_of("rouge_l_zh", "今天天气很好", "今天很好") == pytest.approx(2 * 4 / (6 + 4))
    assert value_of("rouge_l_zh", "Ärger über 𠮷野家", "ärger über 𠮷野家!") == 1
    assert value_of("rouge_l", "a cat", "") == 0 == value_of("rouge_l_zh", "猫", "")


def test_empty_answers_and_references():
    for metric in TEXTS:
        found = estimate(metric, [["a small red cat sat"], ["一只小红猫"]], ["", ""])
        assert found.value == 0, metric
        assert estimate(metric, [[""], ["dog 狗"]], ["dog 狗", ""]).value == 0, metric


def test_one_row_says_little():
    for metric in TEXTS:
        found = estimate(metric, [["a small red cat sat here"]], ["a small red cat sat here"])
        assert found.value == METRICS[metric].top, metric  # not 100.00000000000004
        if not metric.startswith(("exact", "final")):
            assert found.interval == (0.0, METRICS[metric].top), metric
    assert estimate("exact_match", [["x"]], ["x"]).interval == pytest.approx((0.2065, 1.0), abs=1e-3)  # Wilson, 1 of 1
    assert estimate("mcc", ["a"], ["a"]).interval == (-1.0, 1.0)
    assert estimate("macro_f1", ["a"], ["a"]).interval == (0.0, 1.0)


def test_intervals_hold_values_that_no_resample_reaches():
    """Of 40 different numbers a resample has about 25 different ones, never 40."""
    values = (np.arange(40),)
    low, high = measures.percentile(40.0, values, lambda x: float(len(set(x))), vectorized=False)
    assert 20 < low < 30 and high == 40


def test_bad_input_is_told():
    with pytest.raises(DataError, match="at least one row"):
        estimate("f1", [], [])
    with pytest.raises(DataError, match=r"2 of 3 rows have none, the first is row 2: \[\]"):
        estimate("chrf", [["x"], [], []], ["x", "y", "z"])
    with pytest.raises(DataError, match="row 1: 'one text'"):
        estimate("f1", ["one text"], ["one text"])
    for metric, gold in [("accuracy", ["a", "b"]), ("f1", [["a"], ["b"]]), ("f1_zh", [["a"], ["b"]])]:
        with pytest.raises(ValueError):
            estimate(metric, gold, ["a"])


def test_majority_of_labels_and_texts():
    gold = ["a"] * 6 + ["b"] * 3 + ["c"]
    assert majority("accuracy", gold) == 0.6 and majority("mcc", gold) == 0
    assert majority("macro_f1", gold) == pytest.approx(f1_score(gold, ["a"] * 10, average="macro", zero_division=0))
    assert majority("agreement", gold) == 0.6 and majority("agreement (mcc)", gold) == 0
    # "red cat" is a reference of two rows, "pet" of one, though thrice
    rows = [["pet", "pet", "pet"], ["red cat"], ["red cat"]]
    assert majority("exact_match", rows) == pytest.approx(2 / 3)
    for metric in TEXTS:
        assert majority(metric, rows) == estimate(metric, rows, ["red cat"] * 3).value, metric
    assert majority("f1", [["b"], ["a"]]) == 0.5


def test_as_text_and_as_json():
    found = Estimate("chrf", 41.26, (38.96, 43.64), 200, "nrefs:1")
    assert str(found) == "41.3 [39.0, 43.6]" and str(Estimate("agreement (chrf)", 7, (6, 8), 9)) == "7.0 [6.0, 8.0]"
    assert str(Estimate("f1", 0.5, (0.4, 0.61), 9)) == "0.500 [0.400, 0.610]"
    assert str(Estimate("agreement", 0.5, (0.4, 0.6), 9)) == str(Estimate("someone's", 0.5, (0.4, 0.6), 9))
    assert found.as_dict()["signature"] == "nrefs:1" and Estimate.from_dict(found.as_dict()) == found
    plain = Estimate("f1", 0.5, (0.4, 0.6), 9)
    assert list(plain.as_dict()) == ["metric", "value", "interval", "rows"]
    assert Estimate.from_dict(plain.as_dict()) == plain and plain.error == pytest.approx(0.05)


def test_manifests_hold_a_signature_only_where_there_is_one():
    from test_artifact import manifest_data

    old = Manifest(**manifest_data())
    assert '"dev": {"metric": "accuracy", "value": 0.9, "interval": [0.8, 0.95], "rows": 100}\n' in old.to_json()
    assert Manifest.from_json(old.to_json(), "m") == old and old.metrics["dev"].signature == ""
    assert "sacrebleu" not in model_card(old)
    found = estimate("chrf", *corpus(20))
    new = Manifest(**{**manifest_data(), "metrics": {"dev": found.as_dict()}})
    again = Manifest.from_json(new.to_json(), "m")
    assert Estimate.from_dict(again.metrics["dev"].model_dump()) == found
    assert f"- chrf: `{found.signature}`" in model_card(again)


words = st.lists(st.sampled_from([*WORDS, "中国", "北京，", "x1"]), min_size=5, max_size=9).map(" ".join)
texts = st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), words), min_size=1, max_size=6)


@mock.patch.object(measures, "RESAMPLES", 100)
@pytest.mark.parametrize("metric", TEXTS)
@settings(max_examples=10, deadline=None)
@given(rows=texts, data=st.data())
def test_texts_hold_these_properties(metric, rows, data):
    """Perfect answers reach the top; intervals hold values, and both stay on the scale; the order of rows does not matter."""
    gold, guess = [row for row, _ in rows], [text for _, text in rows]
    top = METRICS[metric].top
    perfect = estimate(metric, [[*row, "the cat x1 and dogs"] for row in gold], ["the cat x1 and dogs"] * len(gold))
    assert perfect.value == pytest.approx(top)
    assert perfect.interval[0] <= perfect.value <= perfect.interval[1]
    found = estimate(metric, gold, guess)
    assert 0 <= found.interval[0] <= found.value <= found.interval[1] <= top + 1e-9
    order = data.draw(st.permutations(range(len(rows))))
    assert estimate(metric, [gold[k] for k in order], [guess[k] for k in order]).value == found.value
    assert estimate(metric, gold, guess) == found


@mock.patch.object(measures, "RESAMPLES", 100)
@pytest.mark.parametrize("metric", LABELS)
@settings(max_examples=4, deadline=None)  # the intervals of two of them take a second each
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=8), data=st.data()
)
def test_labels_hold_these_properties(metric, rows, data):
    gold, guess = [row[0] for row in rows], [row[1] for row in rows]
    if metric != "mcc" or len(set(gold)) > 1:  # of one label alone MCC is 0 by convention
        perfect = estimate(metric, gold, gold)
        assert perfect.value == 1 and perfect.interval[1] == 1
    found = estimate(metric, gold, guess)
    assert METRICS[metric].bottom <= found.interval[0] <= found.value <= found.interval[1] <= 1
    order = data.draw(st.permutations(range(len(rows))))
    again = estimate(metric, [gold[k] for k in order], [guess[k] for k in order])
    assert again.value == pytest.approx(found.value)


@pytest.mark.parametrize("metric, rows", [("f1", 25), ("exact_match", 25)])
def test_intervals_cover_the_truth(metric, rows):
    """Of 200 samples about 190 intervals hold the truth: the mean of scores k/3 of k right words of three, k ~ B(3, 0.6)."""
    rng = random.Random(5)
    truth = 0.6 if metric == "f1" else 0.6**3
    hits = 0
    for _ in range(200):
        guess = [" ".join(w if rng.random() < 0.6 else "wrong" for w in ("red", "cat", "sat")) for _ in range(rows)]
        found = estimate(metric, [["red cat sat"]] * rows, guess)
        hits += found.interval[0] <= truth <= found.interval[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_a_thousand_rows_take_no_time():
    gold, guess = corpus(1000, 2)
    for metric in TEXTS:
        began = time.perf_counter()
        estimate(metric, gold, guess)
        assert time.perf_counter() - began < 5, metric
