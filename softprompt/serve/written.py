"""One answer that is written token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..answers import Compiled, Outcome
from ..answers.generated import Generated
from ..tasks.generation import GenerationSpec
from ..types import Example


@dataclass(eq=False)
class WrittenAnswer:
    """An answer that a `Writer` writes.

    Attributes:
        example: the row, encoded by the prompt's form.
        prompt: what it is written behind; its form is `Generated`.
        on_done: called once, with the outcome or with the error that ended it; never after `Writer.cancel`. It must not raise.
        tell: called with each new piece of the text, in whole characters. What it raises ends the answer.
        generation: how it is written; None: as the task says. Its `stop` takes the place of the task's.
        ids: what is written so far, the token that ends it included.
        cancelled: set by `Writer.cancel`.
    """

    example: Example
    prompt: Compiled
    on_done: Callable[[Outcome | Exception], object]
    tell: Callable[[str], object] | None = None
    generation: GenerationSpec | None = None
    ids: list[int] = field(default_factory=list, init=False)
    cancelled: bool = field(default=False, init=False)

    @property
    def how(self) -> GenerationSpec:
        """How it is written."""
        own: GenerationSpec = self.prompt.task.spec.generation  # type: ignore[attr-defined]  # a task that writes
        return self.generation or own

    @property
    def refusal(self) -> str:
        """Why it cannot be written beside others, and what to do; empty if it can."""
        prompt = self.prompt
        if not isinstance(prompt.form, Generated):
            return f"the task {prompt.task.name!r} {prompt.form.unstreamable}"
        if not prompt.base.mixes_prompts:
            return f"base {prompt.base.name!r} ({prompt.base.kind}) writes no answers of several prompts together; ask predict"
        if self.how.num_beams > 1:
            return f"num_beams is {self.how.num_beams}, and beams are not written token by token; ask predict, or set 1"
        most = prompt.bound.room - len(self.example.text)
        if self.how.max_new_tokens > most:
            return f"max_new_tokens is {self.how.max_new_tokens}, and behind this text the base has room for {most}; set less"
        return ""
