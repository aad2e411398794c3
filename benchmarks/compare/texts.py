"""Rows of a test as people read them, for the report's examples; they are read from the data, not kept with the results."""

from __future__ import annotations

from collections.abc import Mapping

from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.record import short
from softprompt.benchmarks.compare.report.page import Texts
from softprompt.benchmarks.compare.results import Results
from softprompt.benchmarks.compare.runs import Cell, cells_of
from softprompt.benchmarks.compare.suite import SuiteSpec
from softprompt.config import parse
from softprompt.errors import SoftpromptError
from softprompt.tasks import Task


def texts_of(results: Results) -> Texts:
    """For a test's task, its rows' fields by `file:line`; nothing where the data cannot be had."""
    context: list[RunContext] = []

    def texts(test: str) -> Mapping[str, str]:
        try:
            suite = parse(SuiteSpec, results.suite.get("suite"), "suite.json")
            context[:] = context or [RunContext(suite.cache)]
            for cell in cells_of(suite):
                for held in (cell.task, *cell.tests):
                    if held["name"] == test:
                        return _shown(context[0], cell, held)
        except SoftpromptError:
            pass  # the report shows where the rows are
        return {}

    return texts


def _shown(context: RunContext, cell: Cell, held: dict[str, object]) -> dict[str, str]:
    """Each row's fields as the template shows them."""
    task = Task.load(held)
    fields = sorted(task.spec.template.fields)
    return {
        short(row.where): " | ".join(str(values.get(name)) for name in fields)
        for row in context.rows_of(cell, held)["test"]
        for values in [task.shown(row.values)]
    }
