"""`softprompt bench speed`: steps of ours against the peer's, interleaved in one run, each side its own process."""

from __future__ import annotations

import statistics
from importlib.metadata import version
from typing import Any

from softprompt.benchmarks import provenance
from softprompt.benchmarks.speed.cases import CASES, CHUNKS, ENCODING, EXTRA, MIXED, NAMES, NO_PEER, TEMPLATE, rows_for
from softprompt.benchmarks.speed.grid import METHODS, run_grid
from softprompt.benchmarks.speed.scaling import encoding_slopes, slopes
from softprompt.benchmarks.speed.sides import OURS, Side, compare
from softprompt.benchmarks.speed.sweep import SWEEP, measure
from softprompt.config import suggest
from softprompt.errors import ConfigError, MissingExtraError
from softprompt.types import Progress, ignore_progress

MIXED_PREFIXES = (5, 10, 15, 20)
LEFT_OUT = [f"{name}: {why}" for name, why in NO_PEER.items()]


def main(
    base: str,
    steps: int = 7,
    only: list[str] | None = None,
    progress: Progress = ignore_progress,
    grid: str | None = None,
) -> dict[str, Any]:
    """Run the cases, or a grid of sizes.

    Args:
        base: bundled name or folder.
        steps: measured steps per side and case, after one that warms up (counted for the losses).
        only: names of cases; of methods for a grid. Default: the standard cases; soft prompts, infix and LoRA in a grid.
        grid: sizes (see `grid.sizes`) at which methods are measured in place of the cases.

    Returns:
        {"rows": [...], "scaling": [...], "left_out": [...], "machine": {...}, "versions": {...}}. A case whose losses differ
        where they must be equal has `losses_equal` False and no speeds. `scaling` are exponents of cost (see `scaling.py`).

    Raises:
        ConfigError: no such case, method or size.
        MissingExtraError: PEFT is not installed.
    """
    from softprompt.base import bundled

    known = list(NAMES) if grid is None else list(METHODS)
    for name in only or []:
        if name in NO_PEER:
            raise ConfigError(f"no case {name!r}: {NO_PEER[name]}")
        if name not in known:
            raise ConfigError(f"no case {name!r}{suggest(name, known)}")
    try:
        versions = {name: version(name) for name in ("softprompt", "torch", "transformers", "peft")}
    except ModuleNotFoundError as error:
        raise MissingExtraError("bench speed compares with PEFT: pip install 'softprompt[peft]'") from error
    folder = str(bundled.get(base)) if base in bundled.BUNDLED else base
    rows: list[dict[str, Any]] = []
    scaling: list[dict[str, Any]] = []
    left_out = LEFT_OUT
    if grid is not None:
        rows, left_out = run_grid(folder, only or ["soft", "infix", "lora"], grid, steps, progress)
        scaling = slopes(rows)
    else:
        wanted = only or [*(case.name for case in CASES), MIXED]
        rows = [compare(folder, case, steps, progress) for case in (*CASES, *EXTRA) if case.name in wanted]
        if MIXED in wanted:
            rows.append(_mixed(folder, steps * 3, progress))
        if ENCODING in wanted:
            row, scaling = _encoding(folder, progress)
            rows.append(row)
        if SWEEP in wanted:
            rows.append(measure(folder, progress=progress))
    import torch

    machine = {"processor": provenance.processor(), "threads": torch.get_num_threads()}
    return {"rows": rows, "scaling": scaling, "left_out": left_out, "machine": machine, "versions": versions}


def _mixed(base: str, steps: int, progress: Progress) -> dict[str, Any]:
    """Prefixes of four lengths in one batch against one prefix, padded to the same shape; both are ours."""
    batch = 32
    request = {"base": base, "rows": rows_for(30, batch * 4), "batch": batch}
    progress(f"{MIXED}, starting", 0, steps + 1)
    single_of = {**request, "prefixes": [max(MIXED_PREFIXES)]}
    with Side(OURS, {**request, "prefixes": list(MIXED_PREFIXES)}) as mixed, Side(OURS, single_of) as single:
        pairs = []
        for done in range(steps + 1):
            pairs.append((mixed.step().seconds, single.step().seconds))
            progress(f"{MIXED}, steps", done + 1, steps + 1)
        memory = (mixed.peak(), single.peak())
    mine, theirs = (statistics.median(pair[side] for pair in pairs[1:]) for side in (0, 1))
    return {
        "name": MIXED,
        "method": "prefix",
        "prompt_length": list(MIXED_PREFIXES),
        "batch": batch,
        "text_tokens": 30,
        "peer": f"ours, one prefix, P={max(MIXED_PREFIXES)}",
        "peer_seconds": theirs,
        "our_seconds": mine,
        "speedup": theirs / mine,
        "throughput_ratio": theirs / mine,
        "our_peak_gb": memory[0],
        "peer_peak_gb": memory[1],
        "memory_ratio": memory[0] / memory[1],
        "losses_equal": None,
        "steps": steps,
    }


def _encoding(base: str, progress: Progress) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Texts that an infix' engine encodes, at several numbers of rows and tokens; every text once.

    Returns:
        (a row of the table, for the largest number of rows; the exponents).
    """
    method = {"name": "infix", "length": 10, "cue": 1, "text": TEMPLATE["cue"]}
    chunks = [(30, 8), *CHUNKS]  # the first warms up
    of = {about: iter(rows_for(about, sum(n for t, n in chunks if t == about))) for about, _ in chunks}
    rows = [next(of[about]) for about, count in chunks for _ in range(count)]
    with Side(OURS, {"base": base, "method": method, "rows": rows, "chunks": [n for _, n in chunks]}) as side:
        side.step()  # what is set up at the first use is not timed
        measured = []
        for place, (about, count) in enumerate(CHUNKS):
            measured.append((about, side.facts["tokens"][place + 1], count, side.step().seconds))
            progress(f"{ENCODING}, {count} rows of {about} tokens", place + 1, len(CHUNKS))
        memory = side.peak()
    about, most = 30, max(count for _, count in CHUNKS)
    row = {
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
    return row, encoding_slopes(measured)
