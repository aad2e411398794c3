"""Generation: the answer is free text (translation, summaries, questions without options), written token by token."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..config import Strict, suggest
from ..data import Row
from ..errors import ConfigError
from ..metrics import metrics_for
from ..template import answer_frame
from ..template.reading import NO_BREAK_ADVICE, no_break
from ..types import Example
from ..values import is_blank, not_text, plain, text_of
from .base import Task
from .spec import TaskSpec


class GenerationSpec(Strict):
    """How answers are written (transformers' `generate`).

    Attributes:
        max_new_tokens: longest answer, in tokens.
        num_beams: beams of the search; 1 is greedy (or sampling).
        do_sample: draw each token. `temperature`, `top_p`, `top_k` and `seed` need it. A row's draws depend on the seed
            and its own text, so equal rows get equal answers in any batch.
        temperature: below 1, likely tokens become likelier.
        top_p: draw from the likeliest tokens that together have this probability.
        top_k: draw from this many of the likeliest tokens (null: from all).
        seed: for the draws.
        repetition_penalty: above 1, tokens that the answer already has become less likely.
        stop: an answer ends before the first of these strings; the base's own end tokens always end it.
        eval_metric: what dev evaluations in training compare. `likelihood` is that of the right answers, in one
            forward. `metric` generates the answers, one forward for each token.
    """

    renamed: ClassVar[dict[str, str]] = {"looks": "eval_metric"}

    max_new_tokens: PositiveInt = 64
    num_beams: PositiveInt = Field(default=1, le=100)
    do_sample: bool = False
    temperature: PositiveFloat = Field(default=1.0, ge=1e-4, allow_inf_nan=False)
    top_p: PositiveFloat = Field(default=1.0, le=1)
    top_k: PositiveInt | None = None
    repetition_penalty: PositiveFloat = Field(default=1.0, le=100)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=lambda: ["\n"], max_length=100)
    eval_metric: Literal["likelihood", "metric"] = "likelihood"
    seed: int = Field(default=0, ge=0)

    @property
    def idle(self) -> list[str]:
        """Settings that say something, but have no effect beside the others."""
        sampled = ("temperature", "top_p", "top_k", "seed")
        fields = type(self).model_fields
        return [name for name in sampled if not self.do_sample and getattr(self, name) != fields[name].default]

    def settings(self) -> dict[str, Any]:
        """As transformers' `GenerationConfig` takes them."""
        found: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams}
        if self.do_sample:
            found |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k or 0}
        if self.repetition_penalty != 1.0:
            found["repetition_penalty"] = self.repetition_penalty
        return {**found, **({"stop_strings": self.stop} if self.stop else {})}


class FreeSpec(TaskSpec):
    """A task of type `generation`.

    Attributes:
        generation: how answers are written.
    """

    metric: str = "chrf"
    generation: GenerationSpec = Field(default_factory=GenerationSpec)


class Generation(Task):
    """Rows with an `answer`: a text, or a list of texts that are all right (the first one is learned)."""

    Spec = FreeSpec
    form = "generated"
    metrics: ClassVar[tuple[str, ...]] = tuple(metrics_for("texts"))
    answer_fields: tuple[str, ...] = ("answer",)
    several: ClassVar[bool] = True
    spec: FreeSpec

    def check(self) -> None:
        """Settings must have an effect, and no answer may end before it begins.

        An artifact of format version 1 may hold settings without an effect: it goes on as it was, with a warning.
        """
        spec = self.spec.generation
        if spec.idle:
            problem = f"generation.{spec.idle[0]} has no effect without generation.do_sample: true"
            if self.rules > 1:
                raise ConfigError(f"{problem}; set that, or remove generation.{', generation.'.join(spec.idle)}")
            warnings.warn(f"task {self.name!r}: {problem}", stacklevel=2)
        if self.rules < 2:
            return
        lead, _ = answer_frame(self.spec.template)
        if (early := next((stop for stop in spec.stop if stop in lead), None)) is not None:
            raise ConfigError(
                f"template.answer begins with {early!r}, which ends an answer before it has begun; remove it there, or "
                "out of generation.stop"
            )

    def remarks(self, splits: Mapping[str, Sequence[Row | Example]]) -> list[tuple[str, str]]:
        """Texts to stop at that are probably meant otherwise."""
        found = [what for stop in self.spec.generation.stop if (what := no_break(stop))]
        return [(f"generation.stop holds a backslash and {found[0][1]!r}", NO_BREAK_ADVICE)] if found else []

    @property
    def evaluates_metric(self) -> bool:
        """As `generation.eval_metric` says."""
        return self.spec.generation.eval_metric == "metric"

    @property
    def longest_answer(self) -> int:
        """As `generation.max_new_tokens` says."""
        return self.spec.generation.max_new_tokens

    def check_row(self, values: dict[str, Any]) -> str | None:
        """An answer must be there, and say something."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if values.get("answer") is None:
            return f"missing field 'answer'{suggest('answer', values)}"
        if (problem := _no_texts(values["answer"])) is not None:
            return problem
        answers = self.gold(values)
        if not answers or any(map(is_blank, answers)):
            return "answer is empty"
        ends = [stop for stop in self.spec.generation.stop if stop in answers[0].strip()]
        if ends:
            return f"answer holds {ends[0]!r}, which ends an answer; remove it, or remove it from generation.stop"
        return None

    def label(self, row: Row) -> Hashable:
        """All alike: there is nothing to stratify by."""
        return ""

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """The one answer that is learned, where the row has one."""
        answers = self.gold(values)
        return ([answers[0].strip()], 0) if answers else ([], None)

    def gold(self, values: dict[str, Any]) -> list[str] | None:
        """All answers that are right; None where the row has none."""
        answer = plain(values.get("answer"))
        answers = answer if isinstance(answer, (list, tuple)) else [answer]
        return [text_of(one) for one in answers if one is not None] or None


def _no_texts(answer: Any) -> str | None:
    """Why this is no text, and no list of them, or None."""
    answer = plain(answer)
    if not isinstance(answer, (list, tuple)):
        found = not_text(answer)
        return f"answer is {found}; expected text, or a list of texts that are all right" if found else None
    bad = [(place, found) for place, one in enumerate(answer) if (found := not_text(one)) is not None]
    return f"answer[{bad[0][0]}] is {bad[0][1]}; expected text" if bad else None
