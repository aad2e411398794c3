"""Many runs on one base and one encoding: every combination of some values (grid), or points that Optuna chooses (search)."""

from .run import REPORT, sweep

__all__ = ["REPORT", "sweep"]
