"""What the command line shows: a progress bar on a terminal, plain lines elsewhere, errors in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..errors import visible_controls
from ..launcher import launched
from ..types import Progress as Callback
from .streams import NoticeConsole, VisibleConsole, write_whole

if TYPE_CHECKING:
    from ..answers import AnswerForm, Evaluation
    from ..runfile import BaseSpec, RunSpec
    from ..tasks import BoundTask

# Nothing that we print is markup: a label such as [b] or a token such as [/INST] is shown as it is
_PLAIN = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
err = NoticeConsole(stderr=True, **_PLAIN)  # type: ignore[arg-type]
# a table that goes to a file or a pipe is not squeezed into the 80 columns that rich assumes there
out = VisibleConsole(**_PLAIN, width=None if sys.stdout.isatty() else 160)  # type: ignore[arg-type]

_EVERY = 10.0  # seconds between two plain lines of the same work


@contextmanager
def progress() -> Iterator[Callback]:
    """A progress callback for the time of a `with`."""
    if not err.is_terminal:
        yield _PlainLines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        last = [""]

        def show(what: str, done: int, total: int) -> None:
            kind = what.partition(",")[0]
            if kind != last[0]:
                last[0] = kind
                bar.reset(task, total=total)
            bar.update(task, description=visible_controls(what), completed=done, total=total)

        yield show


@contextmanager
def as_one_process() -> Iterator[None]:
    """Of several processes only the first is heard, and all fail alike; a traceback is shown, whoever it comes from."""
    if launched("world") == 1:
        yield
        return
    from ..parallel import processes

    with contextlib.ExitStack() as stack:
        if launched("rank"):
            nothing = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nothing))
            stack.enter_context(contextlib.redirect_stderr(nothing))
        stack.enter_context(processes().together())
        yield


class _PlainLines:
    """One line when a piece of work begins to report, every few seconds, and when it ends.

    Work inside other work (a dev evaluation while training) is silent unless it takes long: what it found stands in the next
    line of the work around it.
    """

    def __init__(self) -> None:
        self._kind, self._open, self._inside, self._at = "", False, False, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        kind, now = what.partition(",")[0], time.monotonic()
        if self._open and kind != self._kind:
            news, self._inside = False, True
        else:
            news = self._inside or kind != self._kind or done >= total
            self._kind, self._open, self._inside = kind, done < total, False
        if news or now - self._at >= _EVERY:
            self._at = now
            write_whole(visible_controls(f"{what}: {done}/{total}") + "\n", sys.stderr)


def run_of(artifact: Path) -> RunSpec | None:
    """The run file of this user's own run that made an artifact; see `training/known.py`.

    An artifact holds no paths; the run file knows where base and data are on this machine.
    """
    from ..run_reader import load_run
    from ..training.known import is_known

    file = _run_file(artifact)
    return load_run(file, [], ours=True) if file is not None and is_known(file) else None


def _run_file(artifact: Path) -> Path | None:
    """The run file beside an artifact or a member of one, if it lies in the folder of a run (which holds it as `artifact/`)."""
    above = artifact.resolve().parents
    if len(above) > 1 and (above[0].name, above[1].name) == ("members", "artifact"):
        artifact = above[1]
    if (artifact / "artifact").is_dir():
        file = artifact / "run.yaml"
    elif artifact.resolve().name == "artifact":
        file = artifact.resolve().parent / "run.yaml"
    else:
        return None
    return file if file.is_file() else None


def base_of(
    artifact: Path, recorded: str, given: str | None, dtype: str | None = None, quantization: str | None = None
) -> BaseSpec:
    """Which base to load for an artifact, and how: the one given, the one of its own run, or a bundled one.

    Where it runs is chosen anew: the folder may have been moved from another machine.

    Args:
        recorded: the base's name in the manifest.
        given, dtype, quantization: from the command line, None where they are not; quantization may be `none`.

    Raises:
        ConfigError: the base is named by the artifact alone, or by a run file of somebody else; or it is gone.
    """
    from ..base.bundled import BUNDLED
    from ..config import parse
    from ..errors import ConfigError
    from ..run_reader import load_run
    from ..runfile import BaseSpec

    file, own = _run_file(artifact), run_of(artifact)
    run = own or (load_run(file, []) if file is not None else None)
    # how it is held may be read off any run file, which base it is not
    section: dict[str, Any] = {} if run is None else run.base.model_dump(exclude={"device"})
    name = given or (recorded if run is None or run.base.name == "auto" else run.base.name)
    if given is None and name not in BUNDLED:
        gone = own is not None and Path(name).is_absolute() and not Path(name).exists()
        if own is None or gone:
            why = (
                "is not there any more"
                if gone
                else "is not loaded because an artifact or a run file from elsewhere names it"
            )
            raise ConfigError(f"{artifact}: made on base {name!r}, which {why}; give --base NAME-OR-FOLDER")
    if section.get("name") != name:
        section.pop("kind", None)  # that of the run's own base
    section["name"] = name
    if dtype is not None:
        section["dtype"] = dtype
    if quantization is not None:
        section |= {"quantization": None if quantization == "none" else quantization, "isolated": True}
    return parse(BaseSpec, section, "base")


def tell_cut(bound: BoundTask) -> None:
    """Say how many texts had to be cut, and to what; and where options have the same tokens."""
    if bound.cut:
        limit = bound.task.spec.max_text_tokens
        why = f"task.max_text_tokens ({limit})" if limit and limit <= bound.room else "the base's context"
        side = "beginning" if bound.prompter.keeps_end else "end"
        err.print(f"{bound.cut} texts were longer than {why} and were cut at their {side}")
    if bound.tied:
        err.print(
            f"warning: {bound.tied} rows have different options with the same tokens in this base; the first one counts"
        )


def tell_answers(evaluation: Evaluation, form: AnswerForm[Any]) -> None:
    """Say what there is to know of the answers, such as how many could not be written to their end."""
    outcomes = evaluation.outcomes
    texts, cut = [one.predicted for one in outcomes], [one.cut for one in outcomes]
    for line in form.notices(texts, cut, [one.tokens for one in outcomes]):
        err.print(f"warning: {line}")
