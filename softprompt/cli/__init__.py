"""The command line: `softprompt VERB`. One file a verb; errors become one line and exit code 2 here and nowhere else."""

from __future__ import annotations

import os
import sys

from .app import app


def main() -> None:
    """Entry point of the `softprompt` command."""
    # tokenizers warns about forks; nothing here forks after tokenizing
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .ending import ended
    from .streams import make_streams_safe

    make_streams_safe()
    with ended():
        import_verbs()
        from .console import as_one_process

        with as_one_process():
            try:
                app(standalone_mode=True)
            finally:
                sys.stdout.flush()  # a pipe that is closed is told here, not while Python ends


def import_verbs() -> None:
    """Import every verb, which adds itself to the program."""
    from . import (  # noqa: F401 - each adds its verb
        ask,
        average,
        base,
        bench,
        compare,
        data,
        distil,
        doctor,
        ensemble,
        evaluate,
        examples,
        export,
        importing,
        inspect,
        merge,
        methods,
        new,
        predict,
        prune,
        push,
        schema,
        serve,
        sweep,
        train,
        trying,
        tutorial,
    )
