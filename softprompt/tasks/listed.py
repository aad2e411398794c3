"""Tasks whose file lists all answers: an artifact's head is read by their order."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ..data import Row
from ..errors import ConfigError
from ..types import Progress, ignore_progress
from .base import Task


class ListedTask(Task):
    """A row has any number of answers out of a list.

    Attributes:
        listed: the setting that holds the list.
    """

    listed: ClassVar[str]

    @abstractmethod
    def gold(self, values: dict[str, Any]) -> Sequence[str] | None:
        """A row's answers; None where they are not known, or cannot be read."""

    def in_order(self, answers: set[str]) -> list[str]:
        """The rows' answers as a list of them is proposed."""
        return sorted(answers)

    def load_data(
        self, progress: Progress = ignore_progress, labelled: bool = True, rows: Any = None
    ) -> dict[str, list[Row]]:
        """As any task.

        Raises:
            ConfigError: the list is missing; proposes the answers of the rows.
        """
        splits = super().load_data(progress, labelled, rows)
        if not getattr(self.spec, self.listed):
            there = {answer for rows in splits.values() for row in rows for answer in self.gold(row.values) or ()}
            raise ConfigError(
                f"task {self.name!r}: {self.listed} is missing, the list of all {self.listed}; the rows have "
                f"{self.listed}: {json.dumps(self.in_order(there), ensure_ascii=False)}"
            )
        return splits
