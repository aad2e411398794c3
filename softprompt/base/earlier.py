"""Names of the version before, of a base: read for one more version, with a warning."""

from __future__ import annotations

from typing import Any

from ..renamed import tell_renamed


class EarlierNames:
    """See the module."""

    def turn(self, kv: Any, by: Any) -> Any:
        """`Base.rotate`."""
        tell_renamed("turn is now Base.rotate")
        return self.rotate(kv, by)  # type: ignore[attr-defined]  # a base has it
