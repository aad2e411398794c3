"""What no peer does: prefixes of several lengths in one batch, and the encoding of texts."""

from __future__ import annotations

import statistics
from typing import Any

from softprompt.benchmarks.speed.cases import CHUNKS, ENCODING, MIXED, TEMPLATE, rows_for
from softprompt.benchmarks.speed.scaling import encoding_slopes
from softprompt.benchmarks.speed.sides import OURS, Side
from softprompt.benchmarks.speed.turns import Turns, interval
from softprompt.types import Progress

MIXED_PREFIXES = (5, 10, 15, 20)
MIXED_BATCH = 32


def mixed(base: str, turns: Turns, progress: Progress) -> dict[str, Any]:
    """Prefixes of four lengths in one batch against one prefix, padded to the same shape; both are ours."""
    request = {"base": base, "rows": rows_for(30, MIXED_BATCH * 4), "batch": MIXED_BATCH}
    progress(f"{MIXED}, starting", 0, turns.most + 1)
    with Side(OURS) as several, Side(OURS) as single:
        several.set_up({**request, "prefixes": list(MIXED_PREFIXES)})
        single.set_up({**request, "prefixes": [max(MIXED_PREFIXES)]})
        pairs: list[tuple[float, float]] = []
        while not turns.enough(ratios := [theirs / mine for mine, theirs in pairs[1:]]):
            pairs.append((several.step().seconds, single.step().seconds))
            progress(f"{MIXED}, steps", len(pairs), turns.most + 1)
        progress(f"{MIXED}, done", len(pairs), len(pairs))
        memory = (several.peak(), single.peak())
    mine, theirs = (statistics.median(pair[side] for pair in pairs[1:]) for side in (0, 1))
    return {
        "name": MIXED,
        "method": "prefix",
        "prompt_length": list(MIXED_PREFIXES),
        "batch": MIXED_BATCH,
        "text_tokens": 30,
        "peer": f"ours, one prefix, P={max(MIXED_PREFIXES)}",
        "peer_seconds": theirs,
        "our_seconds": mine,
        "speedup": theirs / mine,
        "speedup_interval": interval(ratios),
        "throughput_ratio": theirs / mine,
        "our_peak_gb": memory[0],
        "peer_peak_gb": memory[1],
        "memory_ratio": memory[0] / memory[1],
        "losses_equal": None,
        "steps": len(pairs) - 1,
    }


def encoding(base: str, progress: Progress) -> dict[str, Any]:
    """Texts that an infix' engine encodes, at several numbers of rows and tokens; every text once.

    Returns:
        a row of the table, for the largest number of rows; `measured` holds all of them.
    """
    method = {"name": "infix", "length": 10, "cue": 1, "text": TEMPLATE["cue"]}
    chunks = [(30, 8), *CHUNKS]  # the first warms up
    of = {about: iter(rows_for(about, sum(n for t, n in chunks if t == about))) for about, _ in chunks}
    rows = [next(of[about]) for about, count in chunks for _ in range(count)]
    progress(f"{ENCODING}, starting", 0, len(CHUNKS))
    with Side(OURS) as side:
        side.set_up({"base": base, "method": method, "rows": rows, "chunks": [n for _, n in chunks]})
        side.step()  # what is set up at the first use is not timed
        measured = []
        for index, (about, count) in enumerate(CHUNKS):
            measured.append((about, side.facts["tokens"][index + 1], count, side.step().seconds))
            progress(f"{ENCODING}, {count} rows of {about} tokens", index + 1, len(CHUNKS))
        memory = side.peak()
    about, most = 30, max(count for _, count in CHUNKS)
    return {
        "name": ENCODING,
        "method": "infix",
        "prompt_length": None,
        "batch": most,
        "text_tokens": statistics.mean(tokens for t, tokens, n, _ in measured if (t, n) == (about, most)),
        "peer": "–",
        "our_seconds": statistics.median(seconds for t, _, n, seconds in measured if (t, n) == (about, most)),
        "peer_seconds": None,
        "speedup": None,
        "our_peak_gb": memory,
        "memory_ratio": None,
        "losses_equal": None,
        "measured": [dict(zip(("about", "text_tokens", "rows", "seconds"), one, strict=True)) for one in measured],
    }


def encoding_scaling(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Exponents of cost, of `encoding`'s row."""
    return encoding_slopes([(one["about"], one["text_tokens"], one["rows"], one["seconds"]) for one in row["measured"]])
