"""The words of a proposed task in each language that rows may be in, and which of them fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")


@dataclass(frozen=True)
class Phrases:
    """What stands around a row.

    Attributes:
        cues: by type of task.
        choose: the instruction of a classification, around the labels.
        commas, last: between labels, and in front of the last one.
        answer: the instruction of questions on a text.
        colon: between the name of a field and its value.
        fields: names of fields that are shown by another one.
        alone: the name of a field that stands alone, where it is none of this language; None: its own.
    """

    cues: Mapping[str, str]
    choose: str
    commas: str
    last: str
    answer: str
    colon: str
    fields: Mapping[str, str]
    alone: str | None

    def choice(self, words: Sequence[str]) -> str:
        """The instruction of a classification."""
        return self.choose.format(f"{self.commas.join(words[:-1])}{self.last}{words[-1]}")

    def shown(self, fields: Sequence[str]) -> str:
        """Jinja2 text that shows each field on a line of its own behind its name: `Message: {{ message }}`."""
        return "\n".join(f"{self._title(field, len(fields))}{self.colon}{{{{ {field} }}}}" for field in fields)

    def _title(self, field: str, of: int) -> str:
        if field in self.fields:
            return self.fields[field]
        if of == 1 and self.alone is not None and not _HAN.search(field):
            return self.alone
        title = re.sub(r"[_\s]+", " ", field).strip()
        return f"{title[:1].upper()}{title[1:]}"


ENGLISH = Phrases(
    {"classification": "\nLabel:", "multilabel": "\nLabels:", "span": "\nAnswer:", "generation": "\nAnswer:"},
    "Choose the label that fits the text: {}.",
    ", ",
    " or ",
    "Answer the question with words of the text.",
    ": ",
    {},
    None,
)
CHINESE = Phrases(
    {"classification": "\n标签：", "multilabel": "\n标签：", "span": "\n答案：", "generation": "\n答案："},
    "请选择符合文本的标签：{}。",
    "、",
    "或",
    "请用文本中的词语回答问题。",
    "：",
    {"question": "问题", "context": "文本"},
    "文本",
)


def phrases_for(texts: Iterable[str]) -> Phrases:
    """Chinese where most of the texts are, else English."""
    texts = [text for text in texts if text.strip()]
    return CHINESE if 2 * sum(map(is_chinese, texts)) > len(texts) else ENGLISH


def is_chinese(text: str) -> bool:
    """Whether most letters of a text are Chinese characters, and none is of Japanese or Korean writing."""
    return 2 * len(_HAN.findall(text)) > sum(map(str.isalpha, text)) and not _KANA_OR_HANGUL.search(text)
