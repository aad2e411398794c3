"""The benchmark's tables, for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def tables(found: dict[str, Any]) -> list[Table]:
    """Of what `main` gives: the cases, and the exponents where there are any."""
    made = [_cases(found["rows"])]
    if found["scaling"]:
        made.append(_scaling(found["scaling"]))
    return made


def _cases(rows: list[dict[str, Any]]) -> Table:
    names = ["case", "against", "P", "B", "text tokens", "trained", "peer's", "peer s", "ours s", "times faster"]
    table = Table(*names, "peak GB, peer, ours", "utilisation, of cpu time", "losses equal")
    table.columns[0].no_wrap = True
    for row in rows:
        length, equal = row["prompt_length"], {True: "yes", False: "no", None: "–"}[row["losses_equal"]]
        table.add_row(
            row["name"],
            row["peer"],
            "–" if length is None else str(length),
            str(row.get("batch", "–")),
            _number(row.get("text_tokens"), 0),
            _count(row.get("our_parameters")),
            _count(row.get("peer_parameters")),
            _number(row["peer_seconds"], 3),
            _number(row["our_seconds"], 3),
            _number(row["speedup"], 2),
            f"{_number(row.get('peer_peak_gb'), 2)}, {_number(row.get('our_peak_gb'), 2)}",
            f"{_number(row.get('utilisation'), 2)}, {_number(row.get('utilisation_of_cpu_time'), 2)}",
            equal,
        )
    return table


def _scaling(slopes: list[dict[str, Any]]) -> Table:
    table = Table("case", "side", "unit", "grows with", "to the power", "points")
    for one in slopes:
        between = "" if one["interval"] is None else " [{:.2f}, {:.2f}]".format(*one["interval"])
        table.add_row(
            one["name"],
            one["side"],
            one["unit"].replace("_", " "),
            one["over"],
            f"{one['exponent']:.2f}{between}",
            str(one["points"]),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
