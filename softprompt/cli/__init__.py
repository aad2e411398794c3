"""The command line: `softprompt VERB`. One file a verb; errors become one line and exit code 2 here and nowhere else."""

from __future__ import annotations

import io
import os
import sys
import time

import typer

from ..errors import SoftpromptError
from ..launcher import launched

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
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # what goes to a file or a pipe is JSON and tables of any language
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
    from .console import alike, complain

    try:
        with alike():
            app(standalone_mode=True)
    except SoftpromptError as error:
        if launched("rank") == 0:
            complain(error)
        else:
            time.sleep(1)  # a launcher ends all as soon as one has ended; the first is to be heard before
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C
            print("a training run goes on from its last checkpoint with the same command", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `… | head` is no error
        sys.exit(0)
