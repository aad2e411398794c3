"""The probability from which on a label is given, chosen on rows that were not trained on.

A head trained by cross-entropy seldom gives a rare label more than one half, so the threshold of the best F1 is lower.
With calibrated probabilities it is half of the best F1 (Lipton et al. 2014, arXiv:1402.1892). Few rows choose badly, so
a label's threshold is drawn towards one half.

`DRAWN` was chosen on simulated scores: label shares of 3, 10 and 30 %, 50 to 1,000 dev rows, calibrated or not. Mean F1
on 8,000 other rows, by the number of dev rows that have the label:

| rows     | at one half | at the dev rows' best | drawn by 2 rows | by 5 rows |
| -------- | ----------- | --------------------- | --------------- | --------- |
| 5 to 9   | .32         | .44                   | .44             | .42       |
| 10 to 29 | .47         | .56                   | .57             | .56       |
"""

from __future__ import annotations

import numpy as np

FEWEST = 3
"""Dev rows that must have a label; of fewer it keeps one half."""
DRAWN = 2.0
"""Rows that speak for one half."""


def best_thresholds(likely: np.ndarray, right: np.ndarray) -> list[float]:
    """Each label's threshold, [K].

    Args:
        likely: probabilities [n, K].
        right: whether each row has each label [n, K].
    """
    return [threshold(likely[:, place], right[:, place]) for place in range(likely.shape[1])]


def threshold(likely: np.ndarray, right: np.ndarray) -> float:
    """One label's: of the best F1 in these rows [n], its log-odds times k / (k + DRAWN) where k rows have the label.

    Of thresholds between the same two rows it is one half if that is one of them, else the middle.
    """
    count = int(right.sum())
    if count < FEWEST:
        return 0.5
    order = np.argsort(-likely, kind="stable")
    values, hits = likely[order], right[order].cumsum()
    given = np.arange(1, len(values) + 1)
    f1 = 2 * hits / (given + count)
    # rows of one probability are given the label together
    last = np.append(values[:-1] > values[1:], True)
    best = last & (f1 >= f1[last].max() - 1e-12)
    above, below = values[best], np.append(values[1:], 0.0)[best]
    between = np.where((below < 0.5) & (above >= 0.5), 0.5, (above + below) / 2)
    choices = np.clip(between, 1e-4, 1 - 1e-4)
    odds = np.log(choices / (1 - choices))
    nearest = odds[np.abs(odds).argmin()] * count / (count + DRAWN)
    return round(float(1 / (1 + np.exp(-nearest))), 4)
