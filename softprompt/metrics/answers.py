"""Answers against reference answers: exact match and F1, in English (SQuAD) and Chinese (CMRC 2018); final numbers.

All scores are of one row: the best over its references.
"""

from __future__ import annotations

import difflib
import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What stands in front of a final answer: MetaMathQA's words and their like, then GSM8K's mark. The first that it has counts.
_FINAL = ("The answer is: ", "The answer is ", "The final answer is: ", "The final answer is ", "#### ")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# What CMRC 2018's script takes out. ASCII , . ! ? ( ) and "…" are not in its list and count as tokens.
_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_PIECE = re.compile(r"([\u4e00-\u9fa5])")  # the range of CMRC 2018's script: unified ideographs of Unicode 1.1


def exact_match(references: Sequence[str], predicted: str) -> float:
    """1 if the normalised answer is one of the normalised references, else 0 (Rajpurkar et al. 2016, §6.1)."""
    answer = squad_normalised(predicted)
    return float(any(squad_normalised(text) == answer for text in references))


def exact_text(references: Sequence[str], predicted: str) -> float:
    """1 if the answer is one of the references to the letter, white space aside: -7 is not 7, as it is in `exact_match`."""
    answer = " ".join(predicted.split())
    return float(any(" ".join(text.split()) == answer for text in references))


def final_number(references: Sequence[str], predicted: str) -> float:
    """1 if the final answer of the text is that of a reference, else 0; two numbers are compared as numbers.

    As in PEFT's comparison of methods (method_comparison/MetaMathQA, `get_accuracy`), the answer is what stands behind
    the last "The answer is: ", "#### " or the like. It ends with its line, and " .!?$%" around it is removed. `20/35`
    is a number; an answer that is no number is compared as text. A text without such words is wrong, unless the
    reference has none either: then both are compared whole. Two differences from PEFT: commas between thousands are
    removed, as in GSM8K's own grader (Cobbe et al. 2021), and a leading full stop stays (.5 is not 5).
    """
    said = _final_answer(predicted)
    for text in references:
        right, mine = _final_answer(text), said
        if right is None:
            right, mine = text.strip(), predicted.strip() if said is None else said
        if mine is not None and _as_number(mine) == _as_number(right):
            return 1.0
    return 0.0


def _final_answer(text: str) -> str | None:
    """What a text says that its answer is; None if it does not say."""
    text = text.strip().rstrip(".!?")
    mark = next((mark for mark in _FINAL if mark in text), None)
    if mark is None:
        return None
    return text.rpartition(mark)[2].strip().split("\n", 1)[0].lstrip(" !?$%").rstrip(" .!?$%")


def _as_number(text: str) -> float | str:
    """The number that a text is, or the text."""
    top, slash, bottom = _THOUSANDS.sub("", text).partition("/")
    try:
        value = float(Decimal(top.strip()) / Decimal(bottom.strip()) if slash else Decimal(top.strip()))
    except (ArithmeticError, ValueError):  # no number, or one over zero
        return text
    return value if math.isfinite(value) else text


def f1(references: Sequence[str], predicted: str) -> float:
    """F1 of the bags of words of the normalised texts (Rajpurkar et al. 2016, §6.1).

    Two texts without a word score 1, as in the script of SQuAD 2.0 (Rajpurkar et al. 2018). The script of SQuAD 1.1
    gives them 0 in F1, but 1 in exact match.
    """
    answer = Counter(squad_normalised(predicted).split())
    return max(_bag_f1(Counter(squad_normalised(text).split()), answer) for text in references)


def squad_normalised(text: str) -> str:
    """As SQuAD's script has it: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match_zh(references: Sequence[str], predicted: str) -> float:
    """1 if the answer is one of the references, case and punctuation aside, else 0 (Cui et al. 2019)."""
    answer = _without_punctuation(predicted)
    return float(any(_without_punctuation(text) == answer for text in references))


def f1_zh(references: Sequence[str], predicted: str) -> float:
    """F1 of the longest run of tokens that both texts hold, as CMRC 2018's script has it (Cui et al. 2019).

    Precision is its length over the answer's, recall its length over the reference's. Two texts without a token score
    1, so that a perfect answer always does. CMRC's script gives them 0 in F1, but 1 in exact match.
    """
    answer = mixed_segmentation(predicted)
    return max(_run_f1(mixed_segmentation(text), answer) for text in references)


def mixed_segmentation(text: str) -> list[str]:
    """Tokens of mixed text: each Chinese character by itself, all else by NLTK's word tokenizer; punctuation dropped.

    CMRC 2018's script has NLTK also split the text between two Chinese characters into sentences. We do not: it needs a
    download, and it only matters for a full stop between two English sentences.
    """
    from nltk import word_tokenize  # takes a second to import

    tokens: list[str] = []
    for piece in _CMRC_PIECE.split(_without_punctuation(text)):
        if _CMRC_PIECE.fullmatch(piece):
            tokens.append(piece)
        elif piece:
            tokens += word_tokenize(piece, preserve_line=True)
    return tokens


def _without_punctuation(text: str) -> str:
    return text.lower().strip().translate(_CMRC_PUNCTUATION)


def _bag_f1(reference: Counter[str], answer: Counter[str]) -> float:
    if not reference or not answer:
        return float(reference == answer)
    return _f1((reference & answer).total(), reference.total(), answer.total())


def _run_f1(reference: list[str], answer: list[str]) -> float:
    if not reference or not answer:
        return float(reference == answer)
    run = difflib.SequenceMatcher(None, reference, answer, autojunk=False).find_longest_match()
    return _f1(run.size, len(reference), len(answer))


def _f1(common: int, reference: int, answer: int) -> float:
    """Harmonic mean of common / answer and common / reference."""
    return 2 * common / (reference + answer)
