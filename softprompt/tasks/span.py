"""Span: the answer is a stretch of the row's context (extractive question answering, as in SQuAD)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeInt

from ..config import suggest
from ..values import not_text, plain, shown
from .generation import FreeSpec, Generation

_EXPECTED = '; expected {"text": [texts], "answer_start": [characters before them]}, or a list of texts'


class SpanSpec(FreeSpec):
    """A task of type `span`.

    Attributes:
        metric: `f1` of words, `f1_zh` of characters.
        window_overlap: tokens that neighbouring windows of a long context share, if a head points at the answer. Null:
            64, or half a window if that is less. It is `stride` in transformers' tokenizers; BERT's own `doc_stride` is
            the step from one window to the next.
    """

    metric: str = "f1"
    window_overlap: NonNegativeInt | None = None


class Span(Generation):
    """Rows with `question`, `context` and `answers`: SQuAD's {"text": […], "answer_start": […]}, or a list of texts.

    A causal model writes the answer, a head on other bases points at it; the metric compares texts.
    """

    Spec = SpanSpec
    head_form = "extracted"
    metrics: ClassVar[tuple[str, ...]] = ("f1", "exact_match", "f1_zh", "exact_match_zh")
    answer_fields = ("answers",)
    needs: ClassVar[dict[str, Any]] = {"context": "…"}
    also_read: ClassVar[tuple[str, ...]] = ("starts",)
    spec: SpanSpec

    def check_input(self, values: dict[str, Any]) -> str | None:
        """A context to look in must be there."""
        if (problem := super().check_input(values)) is not None:
            return problem
        context = values.get("context")
        if context is None:
            return f"missing field 'context'{suggest('context', values)}"
        if (found := not_text(context)) is not None:
            return f"field 'context' is {found}; expected text"
        return None if str(context).strip() else "context is empty"

    def check_row(self, values: dict[str, Any]) -> str | None:
        """And answers that stand in it, where they are said to stand."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if values.get("answers") is None:
            return f"missing field 'answers'{suggest('answers', values)}"
        if (problem := _no_answers(values["answers"], values.get("starts"))) is not None:
            return problem
        spans = self.spans(values)
        if not spans:
            return "answers is empty: questions without an answer (as in SQuAD 2.0) cannot be learned; leave these rows out"
        context = str(values["context"])
        for text, start in spans:
            if not text.strip():
                return "an answer is empty"
            if text not in context:
                return f"answer {text!r} is not in the context, which must hold it to the letter"
            if start is None:
                return (
                    f"answer {text!r} has a negative answer_start; it is found at {context.find(text)} of the context"
                )
            if context[start : start + len(text)] != text:
                return f"answer {text!r} is not at answer_start {start} of the context (found at {context.find(text)})"
        return None

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has no answer at all (as SQuAD 2.0's questions without one)."""
        answers = values.get("answers")
        return answers in (None, "") or (_no_answers(answers, values.get("starts")) is None and not self.spans(values))

    def spans(self, values: dict[str, Any]) -> list[tuple[str, int | None]]:
        """Texts of the right answers and where each begins in the context, in characters (None: nowhere)."""
        answers, context = values.get("answers"), str(values.get("context"))
        if answers is None or _no_answers(answers, values.get("starts")) is not None:
            return []
        texts, starts = _parts(answers, values.get("starts"))
        found: list[tuple[str, int | None]] = []
        for place, text in enumerate(map(str, texts)):
            at = int(starts[place]) if place < len(starts) else context.find(text)
            found.append((text, at if at >= 0 else None))
        return found

    def gold(self, values: dict[str, Any]) -> list[str] | None:
        """Texts of all right answers."""
        return [text for text, _ in self.spans(values)] or None


def _no_answers(answers: Any, starts: Any) -> str | None:
    """Why these are neither SQuAD's answers nor texts, with or without their places; or None."""
    if isinstance(answers, dict) and "text" not in answers:
        return f'answers has no "text" ({", ".join(map(shown, answers)) or "it is empty"}){_EXPECTED}'
    answers, starts = _parts(answers, starts)
    if not isinstance(answers, (list, tuple)):
        return f"answers is {shown(answers)}{_EXPECTED}"
    if bad := [found for one in answers if (found := not_text(one)) is not None]:
        return f"answers holds {bad[0]}{_EXPECTED}"
    if isinstance(starts, (list, tuple)) and not starts:  # they are looked for
        return None
    if not isinstance(starts, (list, tuple)) or any(isinstance(at, bool) or not isinstance(at, int) for at in starts):
        return f"answer_start is {_starts_shown(starts)}{_EXPECTED}"
    if len(starts) != len(answers):
        return f"there are {len(answers)} answers and {len(starts)} values of answer_start; give each answer its own"
    return None


def _parts(answers: Any, starts: Any) -> tuple[Any, Any]:
    """Texts and their places, of SQuAD's answers or of a text or list beside its places; empty where there are none."""
    if isinstance(answers, dict):
        answers, starts = answers["text"], answers.get("answer_start")
        answers = [] if answers is None else answers
    elif isinstance(answers, str):
        answers = [answers]
    return plain(answers), [] if starts is None else plain(starts)


def _starts_shown(starts: Any) -> str:
    if not isinstance(starts, (list, tuple)):
        return shown(starts)
    return "a list with " + next(shown(at) for at in starts if isinstance(at, bool) or not isinstance(at, int))
