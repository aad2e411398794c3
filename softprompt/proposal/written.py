"""A proposed run as a commented file that is read in a minute, and what was seen of the rows in some lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..yaml_file import inline
from .run import Proposal

_OPEN = ("task", "task.data", "task.template", "task.verbalizer")
"""Mappings that are written a key a line; all others stand in one."""

_COMMENTS_AT = 44  # characters of a line, behind which its comment stands
_MOST_LABELS = 12  # that are listed
_TYPES = {
    "classification": "one of the labels below",
    "generation": "free text, written token by token",
    "span": "a stretch of the context",
    "tagging": "a tag for each word",
    "multilabel": "any of the labels below, each by itself",
}
_NOTES = {
    "base": "or a folder or hub id; {name: …, dtype: bf16} halves its memory",
    "task.data.columns": "field of the task: its column in the file",
    "task.template.instruction": "in front of every row",
    "task.template.input": "the row's text; add more columns as {{ name }}",
    "task.template.cue": "behind the row's text",
    "task.template.answer": "what the model should answer",
    "task.verbalizer": "label: the word that the model answers with",
    "task.tags": "all tags, in the order of the head's answers",
    "task.labels": "all labels, in the order of the head's answers",
    "task.separator": "separator of the labels in a cell",
    "task.generation": "longest answer in tokens, and what ends an answer",
    "task.metric": "reported, and chooses the best step on dev",
    "method": "`softprompt methods` lists them",
    "train": "what is left out has the method's default; e.g. {epochs: 5, lr: 0.01}",
    "seed": "for the initialisation and the order of rows",
}


def written(found: Proposal, folder: Path, command: str) -> str:
    """The run file.

    Args:
        folder: where it will lie; a source inside of it is named from there.
        command: that trains it, for its head.
    """
    source = found.seen.path.resolve()
    inside = source.is_relative_to(folder.resolve())
    data = {**found.task["data"], "source": str(source.relative_to(folder.resolve()) if inside else source)}
    run = {**found.run, "task": {**found.task, "data": data}}
    head = f"# A run proposed for {found.seen.path.name}. Edit it, then run:\n# {command}\n"
    return head + "".join(_lines(run, _notes(found)))


def command_of(file: Path, out: Path | None = None) -> str:
    """The command that trains a run file, or a file of rows."""
    return f"softprompt train {shlex.quote(str(file))} --out {shlex.quote(str(out or Path('runs') / file.stem))}"


def summary(found: Proposal) -> list[str]:
    """What was seen, a line each."""
    seen, roles = found.seen, found.seen.roles
    read = " and ".join(map(repr, roles.fields)) if roles.kind != "tagging" else "the words"
    answer = " and ".join(map(repr, roles.answers))
    rows = sum(map(len, found.splits.values()))
    lines = [
        *seen.told,
        f"{seen.path}: {len(seen.rows) + len(seen.unread)} rows; columns: {', '.join(map(str, seen.columns))}",
        f"task: {roles.kind}; reads {read}, predicts {answer}",
    ]
    if roles.marked:
        lines.append("each label has a column of 0 and 1")
    elif roles.kind == "multilabel":
        between = "in lists" if seen.separator is None else f"with {seen.separator!r} between them"
        lines.append(f"a cell holds several labels {between}; --type classification reads it as one")
    if seen.labels:
        names = [f"{label!r} {count}" for label, count in seen.labels.items()]
        more = f" and {len(names) - _MOST_LABELS} more" if len(names) > _MOST_LABELS else ""
        lines.append(
            f"{len(names)} {'tags' if roles.kind == 'tagging' else 'labels'}: {', '.join(names[:_MOST_LABELS])}{more}"
        )
    lines += found.notices
    parts = ", ".join(f"{len(part)} {name}" for name, part in found.splits.items())
    stratified = ", stratified by label" if seen.labels and roles.kind != "multilabel" else ""
    lines.append(f"splits: {rows} rows{stratified}: {parts}")
    lines.append(_lengths(found))
    if found.word_lengths:
        lines.append(_words(found))
    return lines + [f"warning: {remark}" for remark in seen.remarks]


def _words(found: Proposal) -> str:
    sizes = [*found.word_lengths.values()]
    size = str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    line = f"label words: {size} token{'s' * (size != '1')} each, "
    if not found.begins:
        return line + "none is the beginning of another"
    one, other = found.begins[0]
    return f"warning: {line}and the word of {one!r} is the beginning of the word of {other!r}; give one of them another word"


def _lengths(found: Proposal) -> str:
    if found.lengths:
        middle, longest = found.lengths[len(found.lengths) // 2], found.lengths[-1]
        return f"texts: median {middle} tokens, longest {longest} ({found.run['base']})"
    longest = max(
        (len(str(row.values.get(name))) for row in found.seen.rows for name in found.seen.roles.fields), default=0
    )
    base = found.run["base"]
    return f"texts: {longest} characters at most; to count tokens, first run softprompt base get {base}"


def _notes(found: Proposal) -> dict[str, str]:
    seen, task = found.seen, found.task
    rows = sum(map(len, found.splits.values()))
    shown = " / ".join(str(len(found.splits[name])) for name in ("train", "dev", "test"))
    notes = {**_NOTES}
    if seen.roles.kind == "classification":
        notes["method"] += "; auto (base: auto) compares"
    notes["task.type"] = f"the answer is {_TYPES[seen.roles.kind]}"
    notes["task.data.source"] = f"{len(seen.rows) + len(seen.unread)} rows, {rows} of them complete and different"
    notes["task.data.split"] = f"{shown} rows" + (", stratified by label" if task.get("verbalizer") else "")
    notes["task.data.on_bad_rows"] = "skip: bad rows are left out and counted; refuse: they are an error"
    for label in task.get("verbalizer", ()):
        size = found.word_lengths.get(label)
        tokens = "" if size is None else f", {size} token{'s' * (size != 1)}"
        notes[f"task.verbalizer.{label}"] = f"{seen.labels[label]} rows{tokens}"
    return notes


def _lines(data: Mapping[str, Any], notes: Mapping[str, str], path: str = "") -> Iterator[str]:
    for key, value in data.items():
        dotted = f"{path}{key}"
        opened = dotted in _OPEN
        text = "  " * path.count(".") + f"{inline(key)}:" + ("" if opened else f" {inline(value)}")
        note = notes.get(dotted, "")
        yield (f"{text:<{_COMMENTS_AT}}  # {note}" if note else text) + "\n"
        if opened:
            yield from _lines(value, notes, dotted + ".")
