"""Names of the version before, of a base: read for one more version, with a warning."""

from __future__ import annotations

import warnings
from typing import Any


class EarlierNames:
    """See the module."""

    def turn(self, kv: Any, by: Any) -> Any:
        """`Base.rotate`."""
        message = "turn is now Base.rotate; the next version will not know the old name"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return self.rotate(kv, by)  # type: ignore[attr-defined]  # a base has it
