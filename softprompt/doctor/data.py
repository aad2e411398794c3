"""Are the rows, their labels and the seams between the template's pieces fit to learn from?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from ..findings import Finding
from ..metrics import estimate, majority, metric_of
from ..tasks.scored import ScoredTask
from ..template import render
from ..template.reading import always_printed
from ..types import Example, Ids
from ..values import is_blank
from .case import Case

_THINKS = re.compile(r"<(think|thinking|reasoning)>(?!.*</\1>)", re.DOTALL)
CUT = 0.05  # share of truncated texts that is worth a warning
SKEW = 0.9  # share of one label that is worth a warning
CEILING_ROWS = 50  # whose right answers are measured
_MANY = 50  # labels; more are no classes to balance


def rows(case: Case) -> Iterator[Finding]:
    """Texts are there and whole, answers are there, labels are balanced enough for the metric to mean something."""
    splits = {name: part for name, part in case.ready.splits.items() if part}
    if not splits:
        instead = ", so the model is run on made-up rows" if case.made_up and case.rows else ""
        yield Finding("rows", "skipped", f"the run's data is not at hand{instead}")
        return
    everything = [row for part in splits.values() for row in part]
    empty = [row.where for row in everything if not row.text]
    unlabelled = [row.where for row in everything if row.gold is None and not row.windows]
    unreached = [row.where for row in everything if row.gold is None and row.windows]
    mute = [row.where for row in everything if row.gold is not None and not row.answer]
    for places, what, advice in (
        (empty, "texts are empty", "leave these rows out"),
        (unlabelled, "rows have no label", "label them or leave them out"),
        (mute, "answers have no tokens", "check template.answer and the label words"),
    ):
        if places:
            yield Finding("rows", "error", f"{len(places)} of {len(everything)} {what}, the first {places[0]}", advice)
    if unreached:
        what = f"{len(unreached)} of {len(everything)} right answers do not fit into any window whole, the first {unreached[0]}"
        yield Finding("rows", "warning", what, "raise task.window_overlap; the answer there can only be partly right")
    cut = sum(row.truncated for row in everything) / len(everything)
    longest = max(len(run.text) for row in everything for run in row.runs)
    parted = sum(bool(row.windows) for row in everything)
    yield Finding(
        "rows",
        "warning" if cut > CUT else "ok",
        f"{', '.join(f'{len(part)} {name}' for name, part in splits.items())}; {cut:.1%} of the texts are cut "
        f"(longest {longest} tokens, room for {case.bound.room})"
        + (f"; {parted / len(everything):.1%} are read in windows" if parted else ""),
        "raise task.max_text_tokens, shorten the template, or use a base with a longer context" if cut > CUT else "",
    )
    for what, advice in case.form.remarks(everything):
        yield Finding("rows", "warning", what, advice)
    for name in ("train", "dev"):
        yield from _balance(case, name)
    yield from _hollow(case, everything)
    yield from _ceiling(case, everything)
    if case.bound.task.spec.template.in_chat and (opened := _THINKS.search(case.decode(case.bound.cue))):
        what = (
            f"the base's chat template opens {opened[0]} in front of the answer, so the answer is learned inside of it"
        )
        yield Finding("rows", "warning", what, "use a base that answers at once, or set template.chat: false")
    for what, advice in (*case.bound.task.remarks(splits), *case.bound.task.spec.template.remarks):
        yield Finding("rows", "warning", what, advice)


def _hollow(case: Case, everything: list[Example]) -> Iterator[Finding]:
    """Fields that the template prints whatever they hold say something, each of them."""
    for name in sorted(always_printed(case.bound.task.spec.template.input) & case.bound.task.fields):
        places = [row.where for row in everything if isinstance(text := row.values.get(name), str) and is_blank(text)]
        if places:
            what = f"field {name!r} is empty in {len(places)} of {len(everything)} rows, the first {places[0]}"
            yield Finding(
                "rows", "warning", what, f"leave them out, or write {{% if {name} %}} around what stands there"
            )


def _ceiling(case: Case, everything: list[Example]) -> Iterator[Finding]:
    """The right answers themselves score best, as they do not where a metric does not read their script."""
    task = case.bound.task
    if metric_of(task.spec.metric).takes != "texts":
        return
    gold = [answers for row in everything if (answers := task.gold(row.values))][:CEILING_ROWS]
    found = estimate(task.spec.metric, gold, [answers[0].strip() for answers in gold]) if gold else None
    if found is not None and found.value < 0.9 * metric_of(task.spec.metric).top:
        what = f"the right answers themselves score {found} {task.spec.metric} (the first {len(gold)} of them)"
        advice = (
            "it does not read this script, or they are too short for it: use another metric (…_zh, chrf, exact_text)"
        )
        yield Finding("rows", "warning", what, advice)


def _balance(case: Case, split: str) -> Iterator[Finding]:
    task = case.bound.task
    if not task.words:
        return
    gold: list[str] = [
        label for row in case.ready.splits.get(split, []) if (label := task.gold(row.values)) is not None
    ]
    counts = Counter(gold)
    if not counts or len(counts) > _MANY:
        return
    shares = ", ".join(f"{label} {count / len(gold):.0%}" for label, count in counts.most_common(6))
    metric = task.spec.metric
    what = f"{split}: {shares}; always answering the most frequent label has {metric} {majority(metric, gold):.3f}"
    if len(counts) == 1:
        yield Finding(
            "rows", "warning", what, "rows of one label can neither train nor measure: add rows of other labels"
        )
    elif max(counts.values()) > SKEW * len(gold):
        yield Finding("rows", "warning", what, "use metric: macro_f1 or mcc, and more rows of the rare labels")
    else:
        yield Finding("rows", "ok", what)


def labels(case: Case) -> Iterator[Finding]:
    """No two labels are the same tokens; answers begin as the tokenizer begins words."""
    if not case.rows:
        yield Finding("labels", "skipped", "there are no labelled rows")
        return
    task, first = case.bound.task, case.rows[0]
    if not isinstance(task, ScoredTask):
        how = "written" if case.learned.head is None else "read off the text's tokens"
        one_by_one = case.form.needs_head and not case.form.reads_tokens
        what = "a classifier decides each label, so none has words" if one_by_one else ""
        yield Finding("labels", "skipped", what or f"answers are {how}, there are no labels")
        return
    words, _ = task.candidates(first.values)
    sizes = [len(ids) for ids in first.candidates]
    owner = [_label_of(task, place, sizes) for place in range(len(words))]
    seen: dict[Ids, int] = {}
    for place, ids in enumerate(first.candidates):
        other = seen.setdefault(ids, place)
        if owner[other] != owner[place]:
            both = " and ".join(repr(task.label_name(first.values, owner[k])) for k in (other, place))
            yield Finding(
                "labels",
                "error",
                f"{both} are answered with the same tokens {case.decode(ids)} {list(ids)}",
                "give them different words, or do not fold them together in template.answer",
            )
            return
    template = task.spec.template
    texts = [render(template.answer, {"answer": word}, "template.answer") for word in words]
    bare = [text for text in texts if not template.in_chat and not (text[:1].isspace() or template.cue[-1:].isspace())]
    split = [text for text in bare if _size(case, " " + text) < _size(case, text)]
    if split:
        yield Finding(
            "labels",
            "warning",
            f"{split[0]!r} is {_size(case, split[0])} tokens right behind the cue, {_size(case, ' ' + split[0])} with a space",
            'write template.answer: " {{ answer }}"',
        )
    starts = len({ids[0] for ids in first.candidates})
    shown = ", ".join(
        f"{text!r} {len(ids)} tokens" for text, ids in list(zip(texts, first.candidates, strict=True))[:6]
    )
    yield Finding("labels", "ok", f"{len(words)} answers, {starts} different first tokens: {shown}")


def _label_of(task: ScoredTask, place: int, sizes: list[int]) -> int:
    """Which label a candidate speaks for: the one that wins when only this candidate is probable."""
    scores = torch.full((len(sizes),), -1e6)
    scores[place] = 0.0
    return int(task.label_scores(scores, sizes).argmax())


def joints(case: Case) -> Iterator[Finding]:
    """The pieces' tokens are those of the whole text: elsewhere the prompt is tokenized as one."""
    if not case.rows:
        yield Finding("joints", "skipped", "there are no labelled rows")
        return
    bound = case.bound
    if bound.task.spec.template.slots:
        yield Finding("joints", "skipped", "the template has slots of its own, at which its text is cut")
        return
    found: dict[str, list[str]] = {}
    # what a row writes of special tokens is text for us, and none for the tokenizer alone
    plain = [row for row in case.rows if not any(bound.prompter.texts.named(text) for text in _texts_of(row.values))]
    if not plain:
        yield Finding("joints", "skipped", "all rows write special tokens as text")
        return
    for row in plain:
        words, _ = bound.task.candidates(row.values)
        text = bound.prompter.prompt(bound.task.shown(row.values), row.where)
        whole = _ids(case, text)
        pairs = []
        # else nothing is spoken behind the cue, or nothing that is known (of made-up rows)
        speaks = case.learned.head is None and not case.form.needs_head
        if speaks and case.base.answers_at_end and words:
            index = row.gold or 0
            answer = render(bound.task.spec.template.answer, {"answer": words[index]}, "template.answer")
            if bound.task.spec.template.in_chat:
                answer = answer.lstrip()  # as `Prompter` has it: a chat turn begins without a space
            spoken = case.form.spoken(row.candidates[index])
            pairs.append(("cue and answer", (*whole, *spoken), _ids(case, text + answer)))
        if not row.truncated and not row.windows:
            ours = (*bound.prefix_ids, *row.text, *bound.behind)
            pairs.append(("template and text", _without_lead(case, ours, whole), whole))
        for joint, pieces, joined in pairs:
            if pieces != joined:
                found.setdefault(joint, []).append(f"{row.where}: {_difference(case, pieces, joined)}")
    for joint, shown in found.items():
        yield Finding(
            "joints",
            "warning",
            f"{len(shown)} of {len(plain)} rows have other tokens as one text, at the joint of {joint}, e.g. {shown[0]}",
            "let white space stand only on one side of a joint, or other programs tokenize the prompt differently",
        )
    if not found:
        yield Finding("joints", "ok", f"{len(plain)} rows have the same tokens in pieces and as one text")


def _texts_of(value: Any) -> Iterator[str]:
    """All texts in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(inner)


def _without_lead(case: Case, ids: Ids, whole: Ids) -> Ids:
    """Without the special tokens that the tokenizer puts in front (BOS)."""
    special = set(case.base.tokenizer.all_special_ids)
    while ids and ids[0] in special and ids[:1] != whole[:1]:
        ids = ids[1:]
    return ids


def _difference(case: Case, pieces: Ids, joined: Ids) -> str:
    """Where two tokenizations part, a few tokens of both."""
    same = next(
        (k for k, (a, b) in enumerate(zip(pieces, joined, strict=False)) if a != b), min(len(pieces), len(joined))
    )
    both = ([case.base.tokenizer.decode([token]) for token in ids[same : same + 3]] for ids in (pieces, joined))
    return "{} in pieces, {} as one".format(*both)


def _ids(case: Case, text: str) -> Ids:
    return tuple(case.base.tokenizer(text, add_special_tokens=False)["input_ids"])


def _size(case: Case, text: str) -> int:
    return len(_ids(case, text))
