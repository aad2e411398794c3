"""The task that is proposed where nobody wrote one."""

import pytest

from softprompt.errors import ConfigError
from softprompt.tasks import Task
from softprompt.tasks.proposed import plain_words, propose, shown_fields, task_name, words_of


def test_a_proposed_classification_is_a_task():
    task = Task.load(propose("classification", ["message"], ["card_arrival", "Refund"], name="my tickets"))
    assert (task.name, task.words) == ("my-tickets", ["card arrival", "refund"])
    template = task.spec.template
    assert "card arrival or refund" in template.instruction and template.input == "Message: {{ message }}"


@pytest.mark.parametrize("kind", ["span", "generation", "tagging"])
def test_other_kinds_are_tasks(kind):
    fields = ["text"] if kind == "tagging" else ["question", "context"] if kind == "span" else ["question"]
    assert Task.load(propose(kind, fields, ["B-x", "I-x", "O"] if kind == "tagging" else ())).spec.type == kind


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
    assert shown_fields(["subject_line", "body"]) == "Subject line: {{ subject_line }}\nBody: {{ body }}"
    assert task_name("  ~/My data (1).csv") == "My-data-1-.csv" and task_name("…") == "task"
