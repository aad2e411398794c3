"""Tags of words: a head reads each word of the row's text at its first piece (Devlin et al. 2019, arXiv:1810.04805, §5.3).

Tags of neighbours depend on each other, so the head learns which follows which (see `chain.py`), and those of a row are chosen
together. Which piece is a word's first is found by where both stand in the text, in characters, so words that a tokenizer cuts
or joins have one, too. Where a text is read in windows, a word is read in the window in which it has most context.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..base import Base, check_numbers
from ..engine import Engine, Learned, in_forwards, summed_loss, token_states
from ..errors import ConfigError
from ..metrics.spans import OUTSIDE, spans_of
from ..tasks import Task
from ..tasks.tagging import Tagging
from ..types import Example, Progress, ignore_progress
from .chain import best_chain, chain_nll
from .form import AnswerForm, Prompt, frozen_learned
from .outcome import Outcome
from .windows import ReadField, Windows, holder, in_windows

MOST_CHAINED = 256  # tags; their transitions are as many numbers as the square of that
_TEXT = ReadField("text", "words", "tagged")


class Tagged(AnswerForm[Tagging]):
    """A tag for each word of the row's text, from a head that reads the word's first piece."""

    reads_tokens = needs_head = True
    rate = 2.5
    word_dropout = 0.15
    epochs = 10  # after 3, words of 256 addresses were tagged 6 points worse or more (benchmarks/LOG.md)

    @classmethod
    def head_size(cls, task: Task) -> int:
        """One logit a tag."""
        return len(task.spec.tags)  # type: ignore[attr-defined]  # the task names this form

    @classmethod
    def chained(cls, task: Task) -> bool:
        """As the task says, else unless there are very many tags."""
        asked: bool | None = task.spec.transitions  # type: ignore[attr-defined]  # the task names this form
        return cls.head_size(task) <= MOST_CHAINED if asked is None else asked

    @classmethod
    def check(cls, base: Base, task: Task) -> None:
        """A decoder reads no text; and the tags must be known."""
        if base.has_decoder:
            raise ConfigError(
                f"base {base.name!r} ({base.kind}) writes its answers with a decoder, which has no state for each word; set "
                "base.kind: encoder to use its encoder alone, or use another base"
            )
        if not cls.head_size(task):
            raise ConfigError(
                f"task {task.name!r}: tags is missing, the list of all tags, e.g. [O, B-person, I-person]"
            )

    @property
    def unstreamable(self) -> str:
        """Tags are read all at once."""
        return f"tags words (type {self.task.spec.type!r}); ask predict"

    def encode(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row with the place of each word's first piece, and its tags as places in the task's list.

        Raises:
            ConfigError: the tokenizer does not tell where its tokens stand.
            DataError: the template does not show the text as it is, or what stands around it leaves too little room.
        """
        read = in_windows(self.bound, values, _TEXT, self.task.spec.window_overlap, where)
        text, words = self.task.words_of(values)
        tags = self.task.gold(values)
        known = tags is not None and self.task.places.keys() >= set(tags)  # a row that is asked may say anything
        target = tuple(self.task.places[tag] for tag in tags) if tags is not None and known else None
        return replace(read.example(values, where, target), places=_first_pieces(read, text, words))

    def lacking(self, example: Example) -> str | None:
        """A token for each word."""
        if -1 in example.places:
            text, words = self.task.words_of(example.values)
            begin, end = words[example.places.index(-1)]
            return f"this base's tokenizer has no token for the word {text[begin:end]!r}; remove it, and its tag"
        return super().lacking(example)

    def word_logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> list[Tensor]:
        """Logits of the tags, per row [words that have a token, K]."""
        assert learned.head is not None
        states = token_states(engine, rows, learned)
        read = [own[list(_read(row))] for own, row in zip(states, rows, strict=True)]
        return list(learned.head(torch.cat(read).float()).split([len(own) for own in read]))

    def logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, Tensor]:
        """Logits [words, K] of all rows' words that have a token, and their right tags [words]."""
        logits = torch.cat(self.word_logits(engine, rows, learned))
        return logits, torch.cat([_targets(row) for row in rows]).to(logits.device)

    def loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """−Σ over rows of the log-probability of their words' tags, and how many words there are."""
        logits = self.word_logits(engine, rows, learned)
        targets = [_targets(row).to(own.device) for row, own in zip(rows, logits, strict=True)]
        return _nll(logits, targets, learned, rows), sum(map(len, targets))

    def loss_weight(self, example: Example) -> int:
        """Its words."""
        return len(_read(example))

    @torch.no_grad()
    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """The most likely tag of every word, and the spans that these make."""
        learned = frozen_learned(prompt.method)
        outcomes: dict[int, Outcome] = {}
        for indices in in_forwards(prompt.engine, rows):
            some = [rows[index] for index in indices]
            every = self.word_logits(prompt.engine, some, learned)
            for index, example, logits in zip(indices, some, every, strict=True):
                outcomes[index] = self._outcome(example, logits, learned)
            progress("evaluating", len(outcomes), len(rows))
        return [outcomes[index] for index in range(len(rows))]

    def _outcome(self, example: Example, logits: Tensor, learned: Learned) -> Outcome:
        check_numbers(logits, example.where)
        transitions = _transitions(learned)
        if transitions is None or not len(logits):
            best = iter(logits.argmax(-1).tolist())
        else:
            best = iter(best_chain(logits, transitions))
        tags = [OUTSIDE if place < 0 else self.task.spec.tags[next(best)] for place in example.places]
        nll = None
        if example.target is not None:
            nll = float(_nll([logits], [_targets(example).to(logits.device)], learned, [replace(example, weight=1.0)]))
        return Outcome(
            example.where,
            self.task.gold(example.values),
            tags,
            nll=nll,
            weight=self.loss_weight(example),
            shown=self._shown(example.values, tags),
        )

    def _shown(self, values: dict[str, Any], tags: Sequence[str]) -> dict[str, Any]:
        """The tags, the words that they are of where the row does not name them, and the spans."""
        text, words = self.task.words_of(values)
        spans = []
        for label, first, stop in spans_of(tags):
            start, end = words[first][0], words[stop - 1][1]
            spans.append({"text": text[start:end], "label": label, "start": start, "end": end})
        named = {"tokens": [text[begin:end] for begin, end in words]}
        return {**({} if self.task.names_words(values) else named), "tags": list(tags), "spans": spans}


def _transitions(learned: Learned) -> Tensor | None:
    return getattr(learned.head, "transitions", None)


def _nll(logits: Sequence[Tensor], targets: Sequence[Tensor], learned: Learned, rows: Sequence[Example]) -> Tensor:
    """Σ over rows of the tags' negative log-probability, each row's times its weight."""
    transitions = _transitions(learned)
    if transitions is None:
        return summed_loss(torch.cat(list(logits)), torch.cat(list(targets)), rows, list(map(len, targets)))
    tagged = [(own, tags, row.weight) for own, tags, row in zip(logits, targets, rows, strict=True) if len(tags)]
    if not tagged:
        return transitions.sum() * 0.0
    losses = chain_nll([own for own, _, _ in tagged], [tags for _, tags, _ in tagged], transitions)
    weights = [weight for _, _, weight in tagged]
    return losses.sum() if {*weights} == {1} else (losses * losses.new_tensor(weights)).sum()


def _read(example: Example) -> tuple[int, ...]:
    """Text tokens whose states are read, in the words' order."""
    return tuple(place for place in example.places if place >= 0)


def _targets(example: Example) -> Tensor:
    """The right tags of the words that have a token; of a row without tags (made up by doctor) the first tag."""
    tags = example.target or (0,) * len(example.places)
    return torch.tensor([tag for place, tag in zip(example.places, tags, strict=True) if place >= 0], dtype=torch.long)


def _first_pieces(read: Windows, text: str, words: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Of each word, the token that begins in it first, else one that it shares with words before it; -1: it has none."""
    tokens = []
    for token, (start, end) in enumerate(read.offsets):
        piece = text[start:end]
        if piece.strip():  # a blank in front of a word is often counted to its first token
            tokens.append((start + len(piece) - len(piece.lstrip()), end, token))
    starts = [start for start, _, _ in tokens]
    places = []
    for begin, end in words:
        at = bisect.bisect_left(starts, begin)
        if at == len(tokens) or starts[at] >= end:
            at -= 1
        if at < 0 or begin == end or not (starts[at] < end and tokens[at][1] > begin):
            places.append(-1)
            continue
        token = tokens[at][2]
        window = holder(read.bounds, token, token)
        assert window is not None
        places.append(read.place(window, token))
    return tuple(places)
