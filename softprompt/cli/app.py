"""The program that each verb adds itself to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..version import __version__

MAY_NAME_A_FILE = {"--json": (".json",), "--report": (".html", ".json")}
"""Options that may stand alone, which means stdout, or before a file's name, and the endings of such names."""

_OTHER_ENDINGS = (".txt", ".log", ".out", ".md", ".html", ".csv", ".tsv", ".jsonl", ".yaml", ".yml")
"""Endings of files that a name behind such an option may mean by mistake; names of models may hold a dot, too."""


def _with_values(args: Sequence[str]) -> Iterator[str]:
    """Arguments in which each of `MAY_NAME_A_FILE` has a value: click knows options with one and options without."""
    for place, arg in enumerate(args):
        if arg == "--":
            yield from args[place:]
            return
        following = args[place + 1] if place + 1 < len(args) else ""
        endings = MAY_NAME_A_FILE.get(arg)
        if endings is not None:
            _refuse_other_ending(arg, following, endings)
        alone = endings is not None and not following.lower().endswith(endings) and not following.startswith("/dev/")
        yield f"{arg}=-" if alone else arg


def _refuse_other_ending(option: str, following: str, endings: tuple[str, ...]) -> None:
    """
    Raises:
        ConfigError: what follows the option is a file's name with another ending, and no file to be read.
    """
    from ..errors import ConfigError

    path = Path(following)
    if path.suffix.lower() in _OTHER_ENDINGS and path.suffix.lower() not in endings and not path.exists():
        raise ConfigError(f"{option} {following}: no such file to read; a file to write ends in {' or '.join(endings)}")


def _at_home(arg: str) -> str:
    """An argument that begins with `~`, or whose value does, with the home folder.

    A shell does so with a word of its own, but not with a quoted one, nor behind `--out=`.
    """
    name, mark, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return name + mark + os.path.expanduser(value) if value == "~" or value.startswith("~/") else arg  # noqa: PTH111


class _Verbs(TyperGroup):
    """The verbs; Ctrl-C comes out of them as it is (typer would end the process without asking what it means)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments of all verbs."""
        return super().parse_args(ctx, [_at_home(arg) for arg in _with_values(args)])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        from .ending import Stopped

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(stop) from None


app = typer.Typer(
    name="softprompt",
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # an error is one line; a mistake of ours is shown by `ending`
    help="Train small prompts on a frozen model, swap them per task or per request, and know how good they are.",
    epilog="Start with: `softprompt train ROWS.csv --out runs/first`, or `softprompt new ROWS.csv` to see the task first.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"softprompt {__version__}")
        raise typer.Exit


@app.callback()
def _all_verbs(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What every verb takes."""
