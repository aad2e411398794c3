"""What members gain by answering together, as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .console import out

if TYPE_CHECKING:
    from ..answers import Evaluation


def tell_gain(together: Evaluation, members: Sequence[Evaluation], names: Sequence[str]) -> dict[str, Any]:
    """Say the gain over the best member, and give it for `--json` under `gain` (null where the metric has no rows' scores)."""
    from ..answers import gain_over_best

    found = gain_over_best(together, members)
    if found is None:
        return {"gain": None}
    over = names[found.best]
    out.print(f"gain over the best member on these rows, {over}: {found.difference} (95 %, rows paired)")
    return {"gain": {"over": over, **found.difference.as_dict()}}


def member_measures(found: Evaluation) -> dict[str, Any]:
    """A member's metric and log loss, for `--json`."""
    return {**found.estimate.as_dict(), "log_loss": found.nll}
