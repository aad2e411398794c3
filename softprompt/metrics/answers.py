"""Short answers against reference answers: exact match and F1, in English (SQuAD) and Chinese (CMRC 2018).

All scores are of one row: the best over its references.
"""

from __future__ import annotations

import difflib
import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
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


def f1(references: Sequence[str], predicted: str) -> float:
    """F1 of the bags of words of the normalised texts (Rajpurkar et al. 2016, §6.1).

    Two texts without a word score 1, as in the script of SQuAD 2.0 (Rajpurkar et al. 2018); that of 1.1 gives them 0 in F1,
    though 1 in exact match.
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

    Precision is its length over the answer's, recall its length over the reference's. Two texts without a token score 1, so
    that a perfect answer always does; that script gives them 0 in F1, though 1 in exact match.
    """
    answer = mixed_segmentation(predicted)
    return max(_run_f1(mixed_segmentation(text), answer) for text in references)


def mixed_segmentation(text: str) -> list[str]:
    """Tokens of mixed text: each Chinese character by itself, all else by NLTK's word tokenizer; punctuation dropped.

    CMRC 2018's script has NLTK also split the text between two Chinese characters into sentences; we do not, as that takes a
    download and matters only to a full stop between two English sentences.
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
