"""The model FLOPs of a step, and the machine's peak FLOPs a second. Utilisation is FLOPs / (peak · seconds).

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B) compares what the model's own
arithmetic needs with what the machine could do meanwhile. Whatever else an implementation computes is not counted.

FLOPs of a forward are as in Kaplan et al. 2020 (arXiv:2001.08361, §2.1). Each weight of a linear layer counts 2 for
each token. In each layer `QKᵀ` and `AV` count 2 · 2 · A · D for each query and key that it sees. A causal token sees
itself and what stands before it. Norms, activations, softmax, rotations, embeddings and the optimizer count for
nothing, as there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from softprompt.base import Base
from softprompt.engine import Engine, Learned, Slot
from softprompt.types import Example

SQUARES = (512, 1024, 1536)  # of matrices whose products are timed for the peak
STRETCH = 0.04  # seconds at least that each of them is repeated: processor time of milliseconds is not to be relied on


@dataclass(frozen=True)
class Flops:
    """FLOPs of one step: of the layers' linear weights, of attention's two products, of the LM head; forward and backward."""

    linear: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.linear + self.attention + self.head

    def as_dict(self) -> dict[str, float]:
        """For the JSON."""
        return {**asdict(self), "total": self.total}


@dataclass
class _Run:
    """Tokens that run, and pairs of a token and a key that it sees."""

    tokens: int = 0
    pairs: float = 0.0

    def add(self, tokens: int, before: int) -> None:
        """So many tokens behind so many keys."""
        self.tokens += tokens
        self.pairs += tokens * before + tokens * (tokens + 1) / 2


def step_flops(engine: Engine, examples: Sequence[Example], learned: Learned, training: bool = True) -> Flops:
    """What a step on these rows needs, on a causal base of dense layers without sliding windows.

    A token runs once: what all rows share once per step, what is kept not at all. The head runs at scored positions.
    Through frozen weights the backward costs as much as the forward (gradients of activations only), through trained
    weights twice as much (their gradients as well). In attention it has four products for the forward's two, in all
    layers.

    Not needed, and not counted: gradients of the input of the first layer that runs (its projections to queries, keys
    and values), where nothing learned comes in there. In the last layer, all but the keys and values of shared tokens.

    Counted, though a step could do without: the last layer of tokens that are not scored (as in PaLM's count). Also the
    first layer's modules in front of its first adapter.

    Left out: the encoder of `p_tuning`, and trained weights that are no linear layers.

    Args:
        training: with a backward.
    """
    plan, shape = engine.plan, engine.base.shape
    live = engine.base if learned.base is None else learned.base
    shared, rows = _tokens(engine, examples, learned)
    layers = [_weights(live.layer(index)) for index in range(plan.first_layer, shape.layers)]
    every, trained = sum(of[0] for of in layers), sum(of[1] for of in layers)
    keys = 2 * shape.hidden_size * shape.kv_heads * shape.head_size  # weights that make keys and values
    width = int(engine.base.config.num_attention_heads) * shape.head_size
    queries = shape.hidden_size * width
    scored, vocabulary = sum(len(example.answer) for example in examples), shape.vocab_size * shape.hidden_size
    last = layers[-1][0] - keys
    last_trained = layers[-1][1] - (keys if layers[-1][0] == layers[-1][1] else 0)
    linear = 2.0 * rows.tokens * every + 2.0 * shared.tokens * (every - last)
    pair = 4.0 * width
    attention = pair * (len(layers) * rows.pairs + (len(layers) - 1) * shared.pairs)
    head = 2.0 * scored * vocabulary
    if not training:
        return Flops(linear, attention, head)
    embeds = live.model.get_input_embeddings().weight.requires_grad
    enters = {slot.name for box in (plan.shared_live, plan.row_live) for slot in box if slot.learned == "embeddings"}
    of_rows = embeds or any(slot.name in enters for slot in plan.row_live)
    of_shared = embeds or any(slot.name in enters for slot in plan.shared_live)
    unneeded = (0 if of_rows else rows.tokens) + (0 if of_shared else shared.tokens)
    back = linear - 2.0 * unneeded * (queries + keys) + 2.0 * rows.tokens * trained
    back += 2.0 * shared.tokens * (trained - last_trained)
    out = live.model.get_output_embeddings().weight.requires_grad
    return Flops(linear + back, 3 * attention, (3 if out else 2) * head)


def _tokens(engine: Engine, examples: Sequence[Example], learned: Learned) -> tuple[_Run, _Run]:
    """What runs once for all rows, and what runs in them."""
    plan, shared, rows = engine.plan, _Run(), _Run()

    def size(slot: Slot, example: Example | None = None) -> int:
        if slot.learned is not None:
            value = learned.segments.get(slot.name)
            return 0 if value is None else value.shape[3 if slot.learned == "kv" else 0]
        if example is not None and slot.name == "text":
            return len(example.part(slot.part))
        if example is not None and slot.name == "answer":
            return len(example.answer) - 1
        return len(engine.pieces.shared_ids(slot))

    before = sum(size(slot) for slot in plan.shared_frozen)
    for slot in plan.shared_live:
        if slot.learned != "kv":
            shared.add(size(slot), before)
        before += size(slot)
    for example in examples:
        seen = before
        for slot in (*plan.row_frozen, *plan.row_live):
            if slot.learned != "kv" and not (plan.keeps_texts and slot in plan.row_frozen):
                rows.add(size(slot, example), seen)
            seen += size(slot, example)
    return shared, rows


def _weights(layer: nn.Module) -> tuple[int, int]:
    """Numbers in the weights of a layer's linear layers, and how many of them are trained."""
    found = [module.weight for module in layer.modules() if isinstance(module, nn.Linear | Conv1D)]
    return sum(w.numel() for w in found), sum(w.numel() for w in found if w.requires_grad)


class Peak:
    """Products of matrices as fast as the machine does them: squares, and a batch by the model's own weights.

    In the base's precision, on its device, with this process's threads.

    Args:
        tokens: of a batch.
    """

    def __init__(self, base: Base, tokens: int) -> None:
        def random(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, dtype=base.dtype, device=base.device)

        self.pairs = [(random(size, size), random(size, size)) for size in SQUARES]
        linear = [module.weight for module in base.layer(0).modules() if isinstance(module, nn.Linear)]
        for shape in sorted({tuple(weight.shape) for weight in linear}):
            self.pairs.append((random(tokens, shape[1]), random(*shape).t()))
        self.cuda = base.device.type == "cuda"

    def measure(self) -> tuple[float, float]:
        """FLOPs per second of the fastest product of this round: by the clock, and by the time a thread was given."""
        found = [self._rates(a, b) for a, b in self.pairs]
        return max(clock for clock, _ in found), max(cpu for _, cpu in found)

    def _rates(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        needed = 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
        self._wait()
        began, cpu = time.perf_counter(), time.process_time()
        laps = [began]
        while laps[-1] - began < STRETCH or len(laps) < 3:
            torch.mm(a, b)
            self._wait()
            laps.append(time.perf_counter())
        cpu = (time.process_time() - cpu) / (len(laps) - 1)
        best = min(after - before for before, after in pairwise(laps))
        return needed / best, needed * torch.get_num_threads() / max(cpu, 1e-9)

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
