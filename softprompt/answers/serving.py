"""Batches of rows that are answered behind compiled prompts, each behind its own.

On a causal base rows of different prompts run in one batch. Elsewhere (models that read both ways, or with an encoder) they
run prompt after prompt.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch

from ..engine import Reading, buckets
from ..types import Example, Progress, ignore_progress
from .form import Compiled, Prompt
from .outcome import Outcome

LONG = 64  # tokens of a text that is worth keeping, and whose keys are not copied for each row


@torch.no_grad()
def compiled(prompt: Prompt) -> Compiled:
    """Run what stands in front of the text, once. The method must hold its learned tensors."""
    learned = prompt.method.learned()
    prefix = prompt.engine.shared_prefix(learned)
    return Compiled(
        prompt.base,
        prompt.method,
        prompt.form,
        prompt.engine,
        prefix.detach() if prefix else None,
        prompt.engine.middle(learned),
        learned.base or prompt.base,
        prompt.form.once(prompt, learned),
    )


@torch.no_grad()
def answer(rows: Sequence[Example], prompts: Sequence[Compiled], progress: Progress = ignore_progress) -> list[Outcome]:
    """Run rows, each behind its own prompt, mixed freely in length-sorted batches."""
    outcomes: dict[int, Outcome] = {}
    for indices in _batches(rows, prompts):
        some, mine = [rows[index] for index in indices], [prompts[index] for index in indices]
        outcomes.update(zip(indices, mine[0].form.serve(some, mine), strict=True))
        progress("answering", len(outcomes), len(rows))
    return [outcomes[index] for index in range(len(rows))]


def _batches(rows: Sequence[Example], prompts: Sequence[Compiled]) -> Iterator[list[int]]:
    """Indices of the rows of each batch, sorted by length: those that may be served together.

    Rows behind a long text that was read before are by themselves, so that it need not be copied for each.
    """
    together: dict[Hashable, list[int]] = {}
    for index, prompt in enumerate(prompts):
        together.setdefault((prompt.form.together(prompt), id(long_reading(prompt))), []).append(index)
    for some in together.values():
        sizes = [prompts[index].size(rows[index]) for index in some]
        for batch in buckets(sizes):
            yield [some[index] for index in batch]


def long_reading(prompt: Compiled) -> Reading | None:
    """The text that a prompt's rows begin with, if it was read before and is too long to be copied for each of them."""
    return prompt.reading if prompt.reading is not None and len(prompt.reading.text) >= LONG else None
