"""`python -m softprompt.lm_eval --model softprompt …`: the harness's own command line, which knows our model."""

from __future__ import annotations

from ..cli.ending import ended


def main() -> None:
    """Register the model and hand over; an error that the user can mend is one line, and exit code 2."""
    with ended():
        from . import SoftpromptLM  # noqa: F401 - the import registers it

        from lm_eval.__main__ import cli_evaluate  # isort: skip

        cli_evaluate()


if __name__ == "__main__":
    main()
