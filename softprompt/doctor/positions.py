"""Is what is trained and served what the plain model computes, whatever the padding, and at the right tokens?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..base import Base
from ..base.check import tolerance
from ..engine import NOTHING, SLOTS, Engine, make_engine, plan, run
from ..findings import Finding
from ..template import render
from ..types import Example, Ids
from .case import TOGETHER, Case, far


@torch.no_grad()
def padding(case: Case) -> Iterator[Finding]:
    """The plain model, padded left and right, agrees with the engine's packed rows, and rows alone with rows together."""
    if not case.rows:
        yield Finding("padding", "skipped", "there are no labelled rows to run")
        return
    if case.base.answers_at_end:  # else there is nothing behind a context, and loading has compared whole rows
        yield from _against_plain(case)
    together, alone = case.logits(case.learned), case.logits(case.learned, together=1)
    yield _agrees(
        "padding", far(together, alone), case.allowed(together), f"{len(case.rows)} rows alone against the same rows together",
        "a row must not see another: check the method's segments for state of their own",
    )  # fmt: skip


def _against_plain(case: Case) -> Iterator[Finding]:
    """The engine's packed rows against the plain model's padded ones."""
    base, bound, rows = case.base, case.bound, case.rows[:TOGETHER]
    ours = _contexts(Engine(base, plan(SLOTS), bound.prefix_ids, bound.behind), rows)
    whole = [(*bound.prefix_ids, *row.text, *bound.behind) for row in rows]
    allowed = max(tolerance(dtype, ours) for dtype in (base.dtype, base.autocast or base.dtype))
    for side in ("left", "right"):
        off = far(ours, _padded(base, whole, side))
        yield _agrees(
            "padding", off, allowed, f"the plain model, {side}-padded, against packed rows without padding",
            "use attn_implementation and transformers as tested, and report this base",
        )  # fmt: skip


@torch.no_grad()
def positions(case: Case) -> Iterator[Finding]:
    """The tokens that are scored are the answer's, at the places where a naive forward of one whole row has them.

    On bases that are not causal, the reference is the same engine with one row at a time and nothing kept. Loading has
    already compared these bases with their plain models.
    """
    if not case.rows:
        yield Finding("positions", "skipped", "there are no labelled rows to run")
        return
    rows = case.rows[:TOGETHER]
    if case.learned.head is not None or case.form.needs_head:
        yield _headed(case, rows)
        return
    logits, targets = case.form.logits(case.engine, rows, case.learned)
    sizes = [len(row.answer) for row in rows]
    wrong = [row for row, ids in zip(rows, targets.split(sizes), strict=True) if not _says(case, row, ids.tolist())]
    if wrong:
        row, said = wrong[0], dict(zip(map(id, rows), targets.split(sizes), strict=True))
        yield Finding(
            "positions",
            "error",
            f"{row.where}: the scored tokens say {case.decode(said[id(row)].tolist())}, the answer is {_answer(case, row)!r}",
            "the tokenizer does not give the answer's text back: change template.answer or the label words",
        )
    whole = torch.cat([_naive(case, row) for row in rows])
    off, allowed = far(logits.float(), whole), case.allowed(whole)
    sums = [_log_p(part, row) for part, row in zip(whole.split(sizes), rows, strict=True)]
    total, count = case.engine.loss(rows, case.learned)
    gap, room = abs(float(total) + sum(sums)), allowed * count
    what = f"Σ log p of {count} answer tokens: {-float(total):.4f} by the engine, {sum(sums):.4f} row by row without caches"
    if not (off <= allowed and gap <= room):
        yield Finding(
            "positions",
            "error",
            f"{what}; logits differ by {off:.3g} (allowed {allowed:.3g})",
            "the answer is scored at other tokens: check the method's segments, length and positions",
        )
    elif not wrong:
        yield Finding("positions", "ok", what)
    row, part = rows[0], whole[: sizes[0]]
    yield Finding(
        "positions",
        "ok",
        f"{row.where}: after {case.decode((*row.text, *case.bound.behind)[-12:])} the right answer {case.decode(row.answer)} "
        f"has log p {sums[0]:.2f}; most probable is {case.decode([int(part[0].argmax())])}",
    )


def _headed(case: Case, rows: Sequence[Example]) -> Finding:
    """A head's logits, by the engine and row by row."""
    logits, _ = case.form.logits(case.engine, rows, case.learned)
    alone = torch.cat([_alone(case, row).flatten() for row in rows]).view(logits.shape)
    return _agrees(
        "positions", far(logits, alone), case.allowed(alone), f"the head's logits of {len(rows)} rows against row by row",
        "the head reads other tokens: check the method's segments, length and positions",
    )  # fmt: skip


def _alone(case: Case, row: Example) -> Tensor:
    """Logits of one row's answer from an engine that has kept nothing."""
    bound, how = case.bound, case.engine.plan
    engine = make_engine(case.base, how, bound.prefix_ids, bound.cue, tail=bound.tail, question=bound.question)
    return case.form.logits(engine, [row], case.learned)[0].float()


def _agrees(check: str, off: float, allowed: float, what: str, advice: str) -> Finding:
    if off <= allowed:
        return Finding(check, "ok", f"{what}: logits differ by {off:.2g} (allowed {allowed:.2g})")
    return Finding(check, "error", f"{what}: logits differ by {off:.3g} (allowed {allowed:.2g})", advice)


def _contexts(engine: Engine, rows: Sequence[Example]) -> Tensor:
    """Logits [B, V] behind the contexts of the bare base, by the engine."""
    found: dict[int, Tensor] = {}
    for part, batch in engine.contexts(rows, NOTHING, continued=False):
        found.update(zip(part, engine.base.logits(batch.last), strict=True))
    return torch.stack([found[place] for place in range(len(rows))])


def _padded(base: Base, rows: Sequence[Ids], side: Literal["left", "right"]) -> Tensor:
    """Logits [B, V] behind rows, by the plain model on a padded batch."""
    width = max(map(len, rows))
    pad = base.tokenizer.pad_token_id or 0
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[place, at], mask[place, at] = torch.tensor(row), 1
    where = (mask.cumsum(1) - 1).clamp_min(0)
    ends = torch.tensor([width - 1 if side == "left" else len(row) - 1 for row in rows])
    out = _plain(base, input_ids=ids, attention_mask=mask, position_ids=where)
    return out[torch.arange(len(rows)), ends.to(out.device)]


def _plain(base: Base, **inputs: Tensor) -> Tensor:
    """The plain model's logits [B, T, V], as transformers runs it."""
    moved: dict[str, Any] = {name: value.to(base.device) for name, value in inputs.items()}
    with torch.autocast(base.device.type, base.autocast, enabled=base.autocast is not None):
        return base.model(**moved, use_cache=False).logits.float()


def _naive(case: Case, row: Example) -> Tensor:
    """Logits [a, V] of the answer's tokens: the whole row in one piece, alone, nothing kept.

    On a causal base, by the plain model itself where the learned thing is embeddings and whole weights; else by one forward of
    all its tokens.
    """
    if not case.base.answers_at_end:
        return _alone(case, row)
    learned, base = case.learned, case.learned.base or case.base
    count = len(row.answer)
    adapted = [slot.adapted for slot in case.slots]
    everywhere = not any(adapted) or next(p for p, on in enumerate(adapted) if on) == _first_ids(case)
    if everywhere and all(slot.learned != "kv" for slot in case.slots):
        bound = case.bound
        ids = {"prefix_ids": bound.prefix_ids, "question": bound.question, "cue": bound.cue, "answer": row.answer[:-1]}
        pieces = []
        for slot in case.slots:
            if slot.learned:
                pieces.append(learned.segments[slot.name].to(base.dtype))
            elif part := row.part(slot.part) if slot.name == "text" else ids[slot.name][slot.start : slot.stop]:
                pieces.append(base.embed(torch.tensor(part, device=base.device)))
        return _plain(base, inputs_embeds=torch.cat(pieces)[None])[0, -count:]
    how = replace(case.engine.plan, first_layer=0)
    engine = Engine(case.base, how, case.bound.prefix_ids, case.bound.cue, question=case.bound.question)
    one = engine.row(row, engine.shared_prefix(learned), engine.middle(learned), row.answer[:-1])
    batch = run(engine.base, [one], live=base)
    return batch.base.logits(batch.states[-count:])


def _first_ids(case: Case) -> int:
    """Place of the first slot that holds ids."""
    return next(place for place, slot in enumerate(case.slots) if not slot.learned)


def _log_p(logits: Tensor, row: Example) -> float:
    ids = torch.tensor(row.answer, device=logits.device)
    return float(logits.log_softmax(-1).gather(1, ids[:, None]).sum())


def _answer(case: Case, row: Example) -> str:
    words, gold = case.bound.task.candidates(row.values)
    word = words[row.gold if gold is None else gold] if row.gold is not None else ""
    return render(case.bound.task.spec.template.answer, {"answer": word}, "template.answer")


def _says(case: Case, row: Example, ids: Sequence[int]) -> bool:
    """Whether ids are the answer's text (tokenizers are free about white space at its edges)."""
    said = case.base.tokenizer.decode(list(case.form.spoken(tuple(ids))), clean_up_tokenization_spaces=False)
    return bool(said.strip() == _answer(case, row).strip())
