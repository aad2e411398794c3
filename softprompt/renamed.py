"""Old names are read for one more version, with a warning."""

from __future__ import annotations

import warnings


def tell_renamed(what: str, level: int = 2) -> None:
    """Warn of an old name that was met.

    Args:
        what: which name it has now.
        level: whose line is shown; 1 is the caller's, 2 that of its caller.
    """
    warnings.warn(f"{what}; the next version will not know the old name", FutureWarning, stacklevel=level + 1)
