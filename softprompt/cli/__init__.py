"""The command line: `softprompt VERB`. One file a verb; errors become one line and exit code 2 here and nowhere else."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Verbs(TyperGroup):
    """The verbs; Ctrl-C comes out of them as it is (typer would end the process without asking what it means)."""

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
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # an error is one line; a mistake of ours is shown by `ending`
    help="Train small prompts on a frozen model, swap them per task or per request, and know how good they are.",
    epilog="Start with: `softprompt base get smollm2`, then `softprompt train RUN.yaml --out runs/first`.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"softprompt {version('softprompt')}")
        raise typer.Exit


@app.callback()
def _all_verbs(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What every verb takes."""


def main() -> None:
    """Entry point of the `softprompt` command."""
    # tokenizers warns about forks; nothing here forks after tokenizing
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .ending import ended
    from .streams import make_streams_safe

    make_streams_safe()
    with ended():
        from . import (  # noqa: F401 - each adds its verb
            base,
            bench,
            compare,
            data,
            distil,
            doctor,
            evaluate,
            importing,
            inspect,
            merge,
            methods,
            predict,
            prune,
            sweep,
            train,
        )
        from .console import alike

        with alike():
            try:
                app(standalone_mode=True)
            finally:
                sys.stdout.flush()  # a pipe that is closed is told here, not while Python ends
