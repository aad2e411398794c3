"""A task's rows: read and checked, without duplicates, cut into splits; what was left out or looks odd is noted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ..data import CATALOGUE, Check, Found, Row, find_source, read_rows, usable
from ..data.duplicates import Duplicates, apart, deduplicate, leaks, near, normalize, refuse_leaks
from ..data.formats import SHAPE_FIELDS
from ..data.splits import PROPORTIONS, has_value, hold_out, in_proportion, split
from ..errors import ConfigError, DataError
from ..storage import canonical_json
from ..types import Progress
from .spec import TaskSpec

Splits = dict[str, list[Row]]
Sizes = dict[str, Any]
_SHOWN = 3  # rows that were skipped, in the notice
_PUBLISHED = {"train": 1024, "dev": 256}  # of catalogue data, and of all data under the rules of format 1


class ReadsRows(Protocol):
    """What the loading of rows asks of a task (see `Task`)."""

    answer_fields: tuple[str, ...]
    derived: ClassVar[dict[str, str]]
    also_read: ClassVar[tuple[str, ...]]
    several: ClassVar[bool]
    spec: TaskSpec
    folder: Path
    rules: int

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def fields(self) -> set[str]:
        """Fields of a row that are read."""

    def check_row(self, values: dict[str, Any]) -> str | None:
        """Why a labelled row cannot be used, or None."""

    def check_any(self, values: dict[str, Any]) -> str | None:
        """Why a row, labelled or not, cannot be used, or None."""

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has no answer at all."""

    def content(self, row: Row) -> str:
        """All that is read of a row, and asked."""

    def strata(self, rows: Sequence[Row]) -> Callable[[Row], Hashable]:
        """What a split of these rows is stratified by."""

    def gold(self, values: dict[str, Any]) -> Any:
        """The right answer."""

    def answer(self, row: Row) -> Hashable:
        """By what rows that ask the same contradict each other."""


class RowLoader:
    """Loads the rows of one task.

    Catalogue data keep the splits that results were published with; tasks of format 1 keep those that they were trained
    with. There, rows whose texts differ only in case, width or white space are the same, whatever their answers.

    Attributes:
        left_out: rows that were left out.
        notices: what a person should know of the rows, a line each.
    """

    def __init__(
        self, task: ReadsRows, progress: Progress, labelled: bool, given: Sequence[Found] | None = None
    ) -> None:
        """
        Args:
            given: rows in memory that take the place of the task's own data.
        """
        self._task, self._progress, self._labelled, self._given = task, progress, labelled, given
        self._data = task.spec.data
        self._published = task.rules == 1 or (given is None and self._data.source in CATALOGUE)
        self._several = task.several and not self._published
        self.left_out = Duplicates()
        self.notices: list[str] = []

    def load(self) -> Splits:
        """`train`, `dev` and `test`.

        Raises:
            ConfigError: no source, or contradicting ones.
            DataError: every malformed row at once; too few rows.
        """
        data, name = self._data, self._task.name
        source, separate = data.source, data.separate
        if self._given is not None:
            source, separate = "rows", {}
        elif data.problem is not None:
            raise ConfigError(f"task {name!r}: {data.problem}")
        if leaks_out := sorted({*self._task.fields} & {*self._task.answer_fields}):
            raise ConfigError(
                f"task {name!r}: template.input reads {{{{ {leaks_out[0]} }}}}, the right answer itself; remove it"
            )
        self._look_at_columns()
        try:
            splits = self._cut(self.read(source)) if source is not None else self._of_files(separate)
        except DataError as error:
            if error.problems or not self.left_out:
                raise
            raise DataError(f"{error} (left out: {self.left_out})") from None
        if self.left_out:
            self.notices.insert(0, f"left out: {self.left_out}")
        ordered = {part: splits.get(part, []) for part in ("test", "dev", "train")}
        shown = {self._key(Row(values, "")) for values in self._task.spec.demonstrations.rows}
        if seen := [row for part in ("dev", "test") for row in splits.get(part, []) if self._key(row) in shown]:
            self.notices.append(
                f"warning: {len(seen)} dev and test rows are demonstrations, too, with their answers, the first {seen[0].where}"
            )
        if not self._published and (line := near(ordered, self._task.content)) is not None:
            self.notices.append(f"warning: {line}")
        return splits

    def _look_at_columns(self) -> None:
        """Warn of columns under a name that nothing reads, as a misspelt one is."""
        data = self._data
        read = {*self._task.fields, *self._task.answer_fields, *self._task.derived.values(), data.split.group}
        if data.hold_out is not None:
            read.add(data.hold_out.field)
        read |= {*getattr(self._task, "needs", ()), *self._task.also_read}
        idle = [name for name in data.columns if name not in read | SHAPE_FIELDS]
        if idle and not self._published:
            known = ", ".join(sorted(filter(None, read)))
            self.notices.append(
                f"warning: data.columns names {', '.join(map(repr, idle))}, which nothing reads ({known} are)"
            )

    def read(self, source: str) -> list[Row]:
        """Rows of a catalogue name, file or `datasets:NAME`; those without a label are refused, or left out on request."""
        task = self._task
        path = source if self._given is not None else find_source(source, self._task.folder, self._progress)
        if not self._labelled:
            return self._usable(path, task.check_any)
        skips = self._skips(self._data.skip_unlabelled, source)
        hint = (
            "" if self._data.on_bad_rows == "skip" else "; data.skip_unlabelled: true leaves rows without a label out"
        )

        def check(values: dict[str, Any]) -> str | None:
            problem = task.check_row(values)
            if problem is None or not task.unlabelled(values):
                return problem
            return None if skips else f"{problem}{hint}"

        rows = self._usable(path, check)
        kept = [row for row in rows if not (skips and task.unlabelled(row.values))]
        if not kept:
            raise DataError(f"{source}: none of {len(rows)} rows has a label")
        self.left_out += Duplicates(unlabelled=len(rows) - len(kept))
        return kept

    def _usable(self, path: str | Path, check: Check) -> list[Row]:
        """Rows of a file, or those that were given; unusable ones are left out and counted, where `on_bad_rows` says so.

        Raises:
            DataError: they are not to be left out; or are more than the others, so that the task does not fit the file.
        """
        skipped: list[str] | None = [] if self._data.on_bad_rows == "skip" else None
        reads = self._task.fields
        try:
            if self._given is not None:
                rows = usable(self._given, str(path), check, self._data.columns, skipped, reads)
            else:
                rows = read_rows(path, check, self._data.columns, self._remark, skipped, reads)
        except DataError as error:
            advice = "; correct them, or leave them out with data.on_bad_rows: skip" if error.problems else ""
            raise DataError(f"{error}{advice}", error.problems) from None
        skipped = skipped or []
        if len(skipped) > len(rows):
            count = f"{len(skipped)} of {len(skipped) + len(rows)}"
            raise DataError(
                f"{path}: {count} rows cannot be used, too many for data.on_bad_rows: skip; correct the task or the rows",
                skipped,
            )
        self.left_out += Duplicates(unusable=len(skipped), examples=tuple(skipped[:_SHOWN]))
        return rows

    def _remark(self, line: str) -> None:
        if line not in self.notices:  # a file may be named for several splits
            self.notices.append(line)

    def _of_files(self, separate: dict[str, str]) -> Splits:
        """Splits that have files of their own; dev comes from train where it has none."""
        cut = self._data.split
        found = {part: self.read(path) for part, path in separate.items()}
        if "train" in found and "dev" not in found:
            rows = self._different(found["train"])
            size: int | float = (
                256 if cut.dev in ("auto", None) or (self._published and cut.dev == 0) else float(cut.dev)
            )
            size = size if 0 < size < 1 else min(int(size), len(rows) // 5)
            strata = self._task.strata(rows)
            found |= split(rows, {"dev": size, "train": None}, strata, cut.seed, self._together(rows))
        splits = {part: found.get(part, []) for part in ("test", "dev", "train")}
        dropped = {
            id(row)
            for part, pairs in leaks(splits, self._key).items()
            if self._skips(self._data.skip_leaked, separate.get(part, separate.get("train", "")))
            for row, _ in pairs
        }
        kept = {part: [row for row in rows if id(row) not in dropped] for part, rows in splits.items()}
        self.left_out += Duplicates(leaked=len(dropped))
        refuse_leaks(kept, self._key)
        return kept

    def _cut(self, rows: Sequence[Row]) -> Splits:
        """The splits of the rows of one source; held-out ones before anything is left out, so that they are all there."""
        cut, held = self._data.split, self._data.hold_out
        sizes: Sizes = {part: getattr(cut, part) for part in ("train", "dev", "test")}
        strata = self._task.strata
        if held is None:
            rows = self._different(rows)
            return split(rows, self._resolved(sizes, len(rows)), strata(rows), cut.seed, self._together(rows))
        tests, others = hold_out(rows, held.field, held.values)
        if absent := [value for value in held.values if not has_value(tests, held.field, value)]:
            self.notices.append(f"warning: data.hold_out: no row has {held.field} {', '.join(map(repr, absent))}")
        tests, others, found = apart(tests, others, self._key, self._answer, cut.group, self._several)
        self.left_out += found
        wanted = sizes["test"]
        if isinstance(wanted, int) and wanted > len(tests):
            raise DataError(
                f"data.split.test asks for {wanted} rows, data.hold_out keeps {len(tests)}; ask for fewer, or null for all"
            )
        sizes = self._resolved({**sizes, "test": 0}, len(others))
        del sizes["test"]
        # groups are apart from the others already, so a sample of the test rows may cut them
        return split(others, sizes, strata(others), cut.seed, self._together(others)) | split(
            tests, {"test": wanted}, strata(tests), cut.seed
        )

    def _resolved(self, sizes: Sizes, rows: int) -> Sizes:
        """Sizes of which those that the task file does not give are filled in."""
        auto = [part for part, size in sizes.items() if size == "auto"]
        usual = {**sizes, **{part: _PUBLISHED[part] for part in auto}}
        if not auto or self._published:
            return usual
        open_test = sizes["test"] is None and "train" in auto
        named = {part: size for part, size in sizes.items() if part not in auto and not (part == "test" and open_test)}
        asked = sum(size * rows if isinstance(size, float) else size or 0 for size in usual.values())
        fits = asked <= rows and list(usual.values()).count(None) < 2
        if fits and any(size != 0 for size in named.values()):
            return usual
        found = in_proportion(named, rows)
        parts = ", ".join(f"{found[part]} {part}" for part in sizes)
        ratio = " : ".join(str(PROPORTIONS[part]) for part in sizes if part not in named or named[part] is None)
        self.notices.append(f"splits: {parts}; data.split gives no {' and '.join(auto)}, so rows are divided {ratio}")
        return found

    def _different(self, rows: Sequence[Row]) -> list[Row]:
        kept, found = deduplicate(rows, self._key, self._answer, self._several)
        self.left_out += found
        return kept

    def _key(self, row: Row) -> str:
        """What makes two rows ask the same: all that is read, to the letter."""
        content = self._task.content(row)
        return normalize(content) if self._published else content

    def _answer(self, row: Row) -> Hashable:
        return canonical_json(self._task.gold(row.values)) if self._several else self._task.answer(row)

    def _skips(self, wanted: bool | None, source: str) -> bool:
        return source.startswith("datasets:") if wanted is None else wanted

    def _together(self, rows: Sequence[Row]) -> str | Callable[[Row], str] | None:
        """What keeps rows in one split: `split.group`, and the text where it stands with several answers."""
        group = self._data.split.group
        if not self._several or len({self._key(row) for row in rows}) == len(rows):
            return group
        if group is None:
            return self._key
        leader: dict[str, str] = {}  # of texts and groups, those that are linked

        def lead(name: str) -> str:
            while leader.setdefault(name, name) != name:
                name = leader[name]
            return name

        for row in rows:
            if row.values.get(group) is None:
                return group  # `split` tells it
            leader[lead(f"text {self._key(row)}")] = lead(f"group {row.values[group]}")
        return lambda row: lead(f"group {row.values[group]}")
