"""Is this run, or this artifact, what it seems to be? One function a check; each says in one line what it found.

Prompts that silently did nothing are the most reported trouble of the field (PEFT #1093, #2123, #2642, #2816). A new check is
one function `Case -> Iterator[Finding]` and one line in `registry.py`, or an entry point in the group `softprompt.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .. import registry
from ..errors import SoftpromptError, TrainingError
from ..findings import Finding
from ..prepared import Prepared
from ..surroundings import plain_torch
from ..types import Progress, ignore_progress
from .case import Case, sample

__all__ = ["QUICK", "Case", "Check", "Finding", "before_training", "checks", "examine", "refuse", "sample"]

Check = Callable[[Case], Iterator[Finding]]
"""A check: it gets a case and yields its findings."""
GROUP = "softprompt.checks"
QUICK = ("rows", "labels", "joints", "effect", "gradient")
"""The checks before every training: what training relies on."""
QUICK_ROWS = 4


def checks(names: Sequence[str] | None = None) -> dict[str, Check]:
    """Checks by name, in the order in which they run; all that are registered, or these.

    Raises:
        ConfigError: no such check.
    """
    return {name: registry.find(GROUP, name) for name in names or registry.names(GROUP)}


@plain_torch()
def examine(
    case: Case, some: dict[str, Check] | None = None, progress: Progress = ignore_progress, what: str = "checking"
) -> list[Finding]:
    """Run the checks. A check that cannot run is a finding, too, because training needs the same things.

    Args:
        some: as from `checks`; by default all of them.
        what: names the work to `progress`.
    """
    found: list[Finding] = []
    some = checks() if some is None else some
    for done, (name, check) in enumerate(some.items()):
        progress(f"{what}, {name}", done, len(some))
        try:
            found += check(case)
        except (SoftpromptError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            found.append(Finding(name, "error", f"could not be run: {reason}", "correct this first"))
    progress(what, len(some), len(some))
    return found


def before_training(ready: Prepared, progress: Progress = ignore_progress) -> list[Finding]:
    """Run the quick checks on a few of the shortest training rows, before anything is encoded. The run does not
    change."""
    rows = sample(ready.splits.get("train", []), QUICK_ROWS, short=True)
    return examine(Case(ready, rows), checks(QUICK), progress, "checking before training")


def refuse(findings: Sequence[Finding]) -> None:
    """Stop at errors.

    Raises:
        TrainingError: all of them, in one line.
    """
    if errors := [str(finding) for finding in findings if finding.level == "error"]:
        raise TrainingError(
            f"the check before training found: {' | '.join(errors)} (--no-check, in Python check=False, trains anyway)"
        )
