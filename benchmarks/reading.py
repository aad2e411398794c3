"""Records as they come back from disk, of all measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from softprompt.config import Strict, parse
from softprompt.errors import DataError

T = TypeVar("T", bound=Strict)


def read_record(kind: type[T], path: Path, again: str) -> T:
    """Read one record.

    Args:
        again: what makes a record that was deleted anew, for the error.

    Raises:
        DataError: it is not JSON.
        ConfigError: it is JSON of another shape.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); delete it and {again}") from None
    return parse(kind, values, str(path))
