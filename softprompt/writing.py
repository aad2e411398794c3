"""Answers that are written: generated behind each row's context, and how likely the right ones are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from .engine import Answer, BatchOutput, Engine, Learned, buckets, generate
from .tasks import BoundTask
from .tasks.generation import Generation
from .types import Example, Progress, ignore_progress
from .values import is_blank

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

_ANSWER_TOKENS = 1024  # scored in one forward: each has a row of V logits


@torch.no_grad()
def written(
    engine: Engine,
    bound: BoundTask,
    examples: Sequence[Example],
    learned: Learned,
    progress: Progress = ignore_progress,
    told: BaseStreamer | None = None,
) -> list[Answer]:
    """The answers that are written behind the examples, in their order.

    Args:
        told: every token of one example as it comes.
    """
    found: dict[int, Answer] = {}
    for part, batch in engine.contexts(examples, learned, open_ended=True):
        answers = write_behind(batch, [examples[index] for index in part], [bound] * len(part), told)
        found.update(zip(part, answers, strict=True))
        progress("writing answers", len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def write_behind(
    batch: BatchOutput, examples: Sequence[Example], bounds: Sequence[BoundTask], told: BaseStreamer | None = None
) -> list[Answer]:
    """The answers behind contexts that have run; all of these tasks have the same settings, ends and stops."""
    bound = bounds[0]
    seeds = [
        _seed(cast(Generation, own.task).spec.generation.seed, example)
        for own, example in zip(bounds, examples, strict=True)
    ]
    settings = cast(Generation, bound.task).spec.generation.settings()
    return generate(batch, bound.prompter.tokenizer, bound.ends, settings, bound.stops, seeds, told)


def too_long(lengths: Sequence[int], limit: int) -> str:
    """How many right answers of so many tokens cannot be written in `limit` of them, in one line; empty if all can."""
    longer = sum(length > limit for length in lengths)
    if not longer:
        return ""
    return (
        f"{longer} of {len(lengths)} right answers are longer than generation.max_new_tokens {limit} "
        f"(longest {max(lengths)} tokens)"
    )


def silent(texts: Sequence[str]) -> str:
    """How many written answers say nothing, in one line; empty if all do."""
    if not (count := sum(map(is_blank, texts))):
        return ""
    return f"{count} of {len(texts)} written answers are empty: an end, or a text of generation.stop, came first"


def cut_short(cut: Sequence[bool], limit: int) -> str:
    """How many written answers had not ended after `limit` tokens, in one line; empty if all had."""
    if not any(cut):
        return ""
    return f"{sum(cut)} of {len(cut)} written answers were cut at generation.max_new_tokens {limit}"


def _seed(seed: int, example: Example) -> int:
    """Of what a row draws: a function of the task's seed and of what the model reads of the row, not of the rows beside it."""
    digest = hashlib.sha256(repr((seed, example.text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def likelihoods(
    engine: Engine, examples: Sequence[Example], learned: Learned, progress: Progress = ignore_progress
) -> list[float]:
    """−log-likelihood of each example's right answer, summed over its tokens."""
    found: dict[int, float] = {}
    for part in _parts(examples):
        rows = [examples[index] for index in part]
        logits, targets = engine.answers(rows, learned)
        losses = F.cross_entropy(logits, targets, reduction="none").split([len(row.answer) for row in rows])
        found.update((index, float(loss.sum())) for index, loss in zip(part, losses, strict=True))
        progress("evaluating", len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def _parts(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Examples of like length, few enough for one forward and for its logits."""
    for bucket in buckets([len(example.text) + len(example.answer) for example in examples]):
        part: list[int] = []
        tokens = 0
        for index in bucket:
            mine = len(examples[index].answer)
            if part and tokens + mine > _ANSWER_TOKENS:
                yield part
                part, tokens = [], 0
            part.append(index)
            tokens += mine
        yield part
