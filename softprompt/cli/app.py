"""The program that each verb adds itself to."""

from __future__ import annotations

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
