"""The command line: `softprompt VERB`. One file a verb; errors become one line and exit code 2 here and nowhere else."""

from __future__ import annotations

import os
import sys

import typer

from ..errors import SoftpromptError

app = typer.Typer(
    name="softprompt",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train small prompts on a frozen model, swap them per task or per request, and know how good they are.",
    epilog="Start with: `softprompt base get smollm2`, then `softprompt train RUN.yaml --out runs/first`.",
)


def main() -> None:
    """Entry point of the `softprompt` command."""
    # tokenizers warns about forks; nothing here forks after tokenizing
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from . import base, bench, data, doctor, evaluate, importing, inspect, methods, predict, sweep, train  # noqa: F401 - each adds its verb
    from .console import complain

    try:
        app(standalone_mode=True)
    except SoftpromptError as error:
        complain(error)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C
            print("a training run goes on from its last checkpoint with the same command", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `… | head` is no error
        sys.exit(0)
