"""Span: the answer is a stretch of the row's context (extractive question answering, as in SQuAD)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeInt

from ..config import suggest
from .generation import FreeSpec, Generation


class SpanSpec(FreeSpec):
    """A task of type `span`.

    Attributes:
        metric: `f1` of words, `f1_zh` of characters.
        window_overlap: tokens that neighbouring windows of a long context share, where a head points (see `windows.py`).
    """

    metric: str = "f1"
    window_overlap: NonNegativeInt = 64


class Span(Generation):
    """Rows with `question`, `context` and `answers`: SQuAD's {"text": […], "answer_start": […]}, or a list of texts.

    A causal model writes the answer, a head on other bases points at it; the metric compares texts.
    """

    Spec = SpanSpec
    metrics: ClassVar[tuple[str, ...]] = ("f1", "exact_match", "f1_zh", "exact_match_zh")
    answer_fields = ("answers",)
    spec: SpanSpec

    def check_input(self, values: dict[str, Any]) -> str | None:
        """A context to look in must be there."""
        if (problem := super().check_input(values)) is not None:
            return problem
        context = values.get("context")
        if context is None:
            return f"missing field 'context'{suggest('context', values)}"
        return None if str(context).strip() else "context is empty"

    def check_row(self, values: dict[str, Any]) -> str | None:
        """And answers that stand in it, where they are said to stand."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if values.get("answers") is None:
            return f"missing field 'answers'{suggest('answers', values)}"
        spans = self.spans(values)
        if not spans:
            return "answers is empty; every row needs one that stands in its context"
        context = str(values["context"])
        for text, start in spans:
            if not text.strip():
                return "an answer is empty"
            if start is None or text not in context:
                return f"answer {text!r} is not in the context"
            if context[start : start + len(text)] != text:
                return f"answer {text!r} is not at answer_start {start} of the context (found at {context.find(text)})"
        return None

    def spans(self, values: dict[str, Any]) -> list[tuple[str, int | None]]:
        """Texts of the right answers and where each begins in the context, in characters (None: nowhere)."""
        answers, context = values.get("answers"), str(values.get("context"))
        if isinstance(answers, dict):  # SQuAD
            texts, starts = list(answers.get("text") or ()), list(answers.get("answer_start") or ())
        else:
            texts = [answers] if isinstance(answers, str) else list(answers or ())
            starts = list(values.get("starts") or ())
        found: list[tuple[str, int | None]] = []
        for place, text in enumerate(map(str, texts)):
            at = int(starts[place]) if place < len(starts) else context.find(text)
            found.append((text, at if at >= 0 else None))
        return found

    def gold(self, values: dict[str, Any]) -> list[str] | None:
        """Texts of all right answers."""
        return [text for text, _ in self.spans(values)] or None
