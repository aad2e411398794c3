"""How the JSON of artifacts and ensembles is checked: its format first, then its fields."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from ..config import parse
from ..errors import ArtifactError, ConfigError
from ..version import __version__
from .files import one_line

Content = TypeVar("Content", bound=BaseModel)


def refuse_newer(what: str, version: int, readable: int, where: str) -> None:
    """
    Args:
        what: `artifact` or `ensemble`.
        version: its format's.
        readable: the newest format that this version reads.

    Raises:
        ArtifactError: a later version wrote it.
    """
    if version > readable:
        raise ArtifactError(
            f"{where}: the {what} has format version {version}, softprompt {__version__} reads up to "
            f"{readable}; update with `pip install -U softprompt`"
        )


def parse_content(model: type[Content], data: dict[str, Any], where: str) -> Content:
    """The content as its model; what a stranger's file holds cannot fill the terminal.

    Raises:
        ArtifactError: fields that do not fit, in one line.
    """
    try:
        return parse(model, data, where)
    except ConfigError as error:
        raise ArtifactError(one_line(str(error))) from None
