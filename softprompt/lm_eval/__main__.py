"""`python -m softprompt.lm_eval --model softprompt …`: the harness's own command line, which knows our model."""

from __future__ import annotations

import sys

from ..errors import SoftpromptError


def main() -> None:
    """Register the model and hand over; an error of ours that the user can mend is one line, and exit code 2."""
    try:
        from . import SoftpromptLM  # noqa: F401 - the import registers it

        from lm_eval.__main__ import cli_evaluate  # isort: skip

        cli_evaluate()
    except SoftpromptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
