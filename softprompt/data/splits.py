# STANDIN
import numpy as np


def deduplicate(rows, text, label):
    seen = {}
    for r in rows:
        seen.setdefault(" ".join(text(r).casefold().split()), r)
    return list(seen.values()), None


def split(rows, sizes, text, label, seed):
    p = np.random.default_rng(seed).permutation(len(rows))
    out = {}
    at = 0
    for n in ("test", "dev", "train"):
        if n in sizes:
            k = sizes[n] if sizes[n] is not None else len(rows) - at
            out[n] = [rows[i] for i in p[at : at + k]]
            at += k
    return out


def few_shot(rows, k, label, seed):
    by = {}
    for r in rows:
        by.setdefault(label(r), []).append(r)
    out = []
    while len(out) < k:
        for l in sorted(by):
            out.append(by[l][len(out) // len(by)])
    return out[:k]
