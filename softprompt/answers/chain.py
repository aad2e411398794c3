"""Tags that follow each other: a linear-chain conditional random field over a row's words (Lafferty et al. 2001; on a
network's logits as in Lample et al. 2016, arXiv:1603.01360, §2.2).

A row's tags y score Σ_t logits[t, y_t] + Σ_t transitions[y_t, y_(t+1)]; their probability is the softmax of that over all
sequences of tags. With transitions of zero each word is by itself. Rows have one word or more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def chain_nll(logits: Sequence[Tensor], targets: Sequence[Tensor], transitions: Tensor) -> Tensor:
    """Negative log-probability of each row's tags, [B], in one pass over the longest row's words.

    Args:
        logits: per row [T, K].
        targets: per row [T], places of the right tags.
        transitions: [K, K], from the row's tag to the column's.
    """
    padded = pad_sequence(list(logits), batch_first=True)
    lengths = torch.tensor([len(own) for own in logits], device=padded.device)
    scores = [
        own.gather(1, tags[:, None]).sum() + transitions[tags[:-1], tags[1:]].sum()
        for own, tags in zip(logits, targets, strict=True)
    ]
    return _log_sums(padded, lengths, transitions) - torch.stack(scores)


def _log_sums(logits: Tensor, lengths: Tensor, transitions: Tensor) -> Tensor:
    """Log of the sum over all sequences of tags [B]; of logits [B, T, K] the first `lengths` words of each row count.

    A tag that is less likely than the best one by more than 87 (in logs), whatever comes before it, counts as if by 87.
    """
    most = transitions.detach().max()
    follows = (transitions - most).exp()
    sums = logits[:, 0]
    for word in range(1, logits.shape[1]):
        top = sums.detach().amax(1, keepdim=True)
        # a product of matrices: K × K numbers a row would have to be kept for the backward otherwise
        reached = ((sums - top).exp() @ follows).clamp_min(torch.finfo(sums.dtype).tiny).log()
        sums = torch.where((word < lengths)[:, None], reached + top + most + logits[:, word], sums)
    return sums.logsumexp(1)


def best_chain(logits: Tensor, transitions: Tensor) -> list[int]:
    """The most likely tags of one row's words, logits [T, K] (Viterbi 1967)."""
    logits, transitions = logits.cpu(), transitions.cpu()  # each place is asked for by itself below
    best, came_from = logits[0], []
    for own in logits[1:]:
        scores, places = (best[:, None] + transitions).max(0)
        best = scores + own
        came_from.append(places)
    tags = [int(best.argmax())]
    for places in reversed(came_from):
        tags.append(int(places[tags[-1]]))
    return tags[::-1]
