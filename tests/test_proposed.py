"""The task that is proposed where nobody wrote one."""

import pytest

from softprompt.errors import ConfigError
from softprompt.tasks import Task
from softprompt.tasks.phrases import CHINESE, ENGLISH, is_chinese, phrases_for
from softprompt.tasks.proposed import plain_words, propose, task_name, words_of


def test_a_proposed_classification_is_a_task():
    task = Task.load(propose("classification", ["message"], ["card_arrival", "Refund"], name="my tickets"))
    assert (task.name, task.words) == ("my-tickets", ["card arrival", "refund"])
    template = task.spec.template
    assert "card arrival or refund" in template.instruction and template.input == "Message: {{ message }}"


@pytest.mark.parametrize("kind", ["span", "generation", "tagging"])
def test_other_kinds_are_tasks(kind):
    fields = ["text"] if kind == "tagging" else ["question", "context"] if kind == "span" else ["question"]
    assert Task.load(propose(kind, fields, ["B-x", "I-x", "O"] if kind == "tagging" else ())).spec.type == kind


def test_a_task_in_chinese_names_the_labels_as_they_are():
    made = propose("classification", ["text"], ["世界", "体育", "tech"], phrases=CHINESE)
    assert made["template"] == {
        "instruction": "请选择符合文本的标签：世界、体育或tech。\n\n",
        "input": "文本：{{ text }}",
        "cue": "\n标签：",
        "answer": " {{ answer }}",
    }
    assert Task.load(made).words == ["世界", "体育", "tech"]
    assert propose("span", ["question", "context"], phrases=CHINESE)["template"] == {
        "instruction": "请用文本中的词语回答问题。\n\n",
        "input": "问题：{{ question }}\n文本：{{ context }}",
        "cue": "\n答案：",
        "answer": " {{ answer }}",
    }
    assert CHINESE.shown(["标题"]) == "标题：{{ 标题 }}" and CHINESE.shown(["title", "内容"]).startswith(
        "Title：{{ title }}\n内"
    )


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("为什么英美签完大单就翻脸？", True),
        ("新款iPhone的价格公布了", True),
        ("5G手机 and many English words", False),
        ("東京で新しい店を開く", False),
        ("그는 漢字 漢字를 쓴다", False),
        ("plain", False),
        ("123 !", False),
        ("", False),
    ],
)
def test_what_is_chinese(text, chinese):
    assert is_chinese(text) is chinese


def test_most_texts_decide_on_the_language():
    assert phrases_for(["你好", "天气很好", "hello"]) is CHINESE
    assert phrases_for(["你好", "hello"]) is ENGLISH and phrases_for(["", " "]) is ENGLISH
    assert phrases_for(["你好", "", ""]) is CHINESE  # an empty cell is of no language


def test_an_instruction_of_ones_own():
    assert (
        propose("classification", ["text"], ["a", "b"], instruction="Say a or b.")["template"]["instruction"]
        == "Say a or b.\n\n"
    )
    assert "instruction" not in propose("classification", ["text"], ["a", "b"], instruction="")["template"]


def test_words():
    assert [plain_words(one) for one in ("very_positive", "CardArrival", "ABBR", "正面", "_")] == [
        "very positive",
        "card arrival",
        "abbr",
        "正面",
        "_",
    ]
    assert words_of(["A", "a", "b"], {}) == {"A": "A", "a": "a", "b": "b"}
    assert words_of(["x", "y"], {"x": "spam"}) == {"x": "spam", "y": "y"}


@pytest.mark.parametrize(
    ("labels", "given", "told"),
    [
        (["a"], {}, "one label only"),
        (["a", "b"], {"c": "x"}, "'c', which no row has"),
        (["a", "b"], {"a": "x", "b": "X "[:1].lower()}, "same label words"),
    ],
)
def test_words_that_cannot_be(labels, given, told):
    with pytest.raises(ConfigError, match=told):
        words_of(labels, given)


def test_shown_fields_and_names():
    assert ENGLISH.shown(["subject_line", "body"]) == "Subject line: {{ subject_line }}\nBody: {{ body }}"
    assert task_name("  ~/My data (1).csv") == "My-data-1-.csv" and task_name("…") == "task"
