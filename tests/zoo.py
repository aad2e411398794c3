"""Is a type of model exact here, or refused in words? `python tests/zoo.py gemma2 t5` says so of single types.

Of each a tiny random model is built (`zoo_models.py`). For each method that puts something into a row, the loss and the
gradient of what is learned are compared with plain transformers' (`zoo_truth.py`). Rows have 5 to 47 tokens, windows 12.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import transformers
import zoo_docs
from models import tiny_tokenizer
from torch import Tensor
from zoo_docs import Record
from zoo_models import MAPPINGS, build, types
from zoo_truth import NotJoined, Truth

from softprompt.base import Base
from softprompt.engine import Learned, lay_out, make_engine, plan
from softprompt.errors import SoftpromptError
from softprompt.methods import make_method
from softprompt.types import Example

EXACT = 1e-4  # of loss and gradient, in proportion; rounding in fp32 is at 1e-6
LENGTH = 3
PREFIX_IDS, CUE = (5, 6, 7), (8, 9, 10)
METHODS: dict[str, dict[str, Any]] = {
    "soft": {"name": "soft"},
    "prefix": {"name": "prefix"},
    "infix embeddings": {"name": "infix", "form": "embeddings"},
    "infix": {"name": "infix"},
}
# words of Python's or torch's own errors: a refusal that has them does not name its cause
OBSCURE = re.compile(
    r"index out of range|to unpack|permute\(|object has no attribute|unexpected keyword|NoneType|not subscriptable|"
    r"size of tensor|shapes cannot be multiplied|shape '\[|is not iterable|KeyError|positional argument|sparse_coo"
)


def judge(kind: str, model_type: str) -> Record:
    """Build one type, load it as a base, and compare each method with the plain model."""
    record = Record(kind, model_type)
    with quiet():
        try:
            model = build(kind, model_type)
            truth = Truth(model, kind)
        except Exception as error:  # sizes of a config that the builder does not know
            return Record(kind, model_type, "not built", _first_line(error))
        try:
            base = Base(model, tiny_tokenizer(frame="" if kind == "causal" else kind), model_type)
        except SoftpromptError as error:
            return _refused(record, error)
        except Exception as error:
            return _failed(record, error)
        for name, settings in METHODS.items():
            if kind != "masked" or name in ("soft", "prefix"):  # the others stand in front of everything there, too
                _compare(record, base, truth, name, settings)
    return record


def _refused(record: Record, error: SoftpromptError) -> Record:
    record.reason = str(error)
    record.verdict = "obscure" if OBSCURE.search(record.reason) or "\n" in record.reason else "refused"
    return record


def _failed(record: Record, error: Exception) -> Record:
    where = traceback.extract_tb(error.__traceback__)[-1]
    record.verdict, record.reason = (
        "traceback",
        f"{type(error).__name__}: {_first_line(error)} ({where.filename}:{where.lineno})",
    )
    return record


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _compare(record: Record, base: Base, truth: Truth, name: str, settings: dict[str, Any]) -> None:
    """Note how far one method is off."""
    try:
        ours = _both(base, settings, lambda value: _our_loss(base, settings, value))
    except SoftpromptError as error:
        _refused(one := Record(record.kind, record.type), error)
        record.methods[name] = "refused: " + str(error)
        record.verdict = one.verdict if one.verdict == "obscure" else record.verdict
        return
    except Exception as error:
        _failed(record, error)
        return
    try:
        theirs = _both(base, settings, lambda value: _their_loss(base, truth, settings, value))
    except NotJoined as error:
        record.methods[name] = f"not compared: {error}"
        return
    except Exception as error:
        record.verdict, record.reason = "wrong", f"{name} runs here, but not in the plain model: {_first_line(error)}"
        return
    off = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-2)) for a, b in zip(ours, theirs, strict=True))
    record.methods[name] = off
    if not off <= EXACT:
        record.verdict, record.reason = "wrong", f"{name} is off by {off:.2g}"


def _both(base: Base, settings: dict[str, Any], loss_of: Any) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient in what is learned."""
    shape = make_method({**settings, "length": LENGTH}).shape(base)  # type: ignore[attr-defined]
    value = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if len(shape) == 2:
        value = value * base.embed(torch.arange(3, 99)).std() + base.embed(torch.arange(3, 3 + LENGTH))
    value = value.detach().requires_grad_()
    loss = loss_of(value)
    loss.backward()
    assert value.grad is not None
    return loss.detach(), value.grad


def rows() -> list[Example]:
    """Of 5, 23 and 47 tokens."""
    ids = [[(7 * place + 5 * row + 11) % 300 + 12 for place in range(size)] for row, size in enumerate((5, 23, 47))]
    answers = ((21, 22), (33,), (44, 45, 46))
    return [Example(tuple(text), answers, gold, f"row:{gold}", {}) for gold, text in enumerate(ids)]


def _our_loss(base: Base, settings: dict[str, Any], value: Tensor) -> Tensor:
    no: dict[str, tuple[()]] = dict.fromkeys(("prefix_ids", "text", "cue"), ())
    slots = lay_out(no, no, {"prefix_ids": len(PREFIX_IDS), "cue": len(CUE)}, decoder=base.kind == "seq2seq")
    parts = make_method({**settings, "length": LENGTH}).segments(slots, len(CUE))
    how = plan(parts, bidirectional=base.bidirectional)
    engine = make_engine(base, how, PREFIX_IDS, CUE)
    engine.encode(rows())
    return engine.loss(rows(), Learned({"prompt": value}))[0]


def _their_loss(base: Base, truth: Truth, settings: dict[str, Any], value: Tensor) -> Tensor:
    total = torch.zeros(())
    for row in rows():
        found = _their_logits(base, truth, settings, value, row)
        total = total + F.cross_entropy(found, torch.tensor(row.answer), reduction="sum")
    return total


def _their_logits(base: Base, truth: Truth, settings: dict[str, Any], value: Tensor, row: Example) -> Tensor:
    """Logits of a row's answer tokens [n, V]."""
    front, keys = settings["name"] != "infix", value.dim() == 5
    text, size = (*PREFIX_IDS, *row.text, *CUE), len(row.answer)
    if base.kind == "seq2seq":
        read, write = truth.embed(text), truth.embed((*base.start_ids, *row.answer[:-1]), written=True)
        if not keys:
            read, write = (torch.cat([value, read]), write) if front else (read, torch.cat([value, write]))
        return truth.written(read, write, value if keys and front else None, value if keys and not front else None)[
            -size:
        ]
    if base.kind == "masked":
        assert base.mask_id is not None
        masked = truth.embed((*text, *[base.mask_id] * size))
        return (truth.logits(masked, value) if keys else truth.logits(torch.cat([value, masked])))[-size:]
    whole, before = (*text, *row.answer[:-1]), len(text) - 1
    if keys and front:
        return truth.logits(truth.embed(whole), value, start=LENGTH)[-size:]
    if keys:
        return truth.logits(truth.embed(whole), truth.turned(value, before), since=before)[-size:]
    cut = 0 if front else before
    return truth.logits(torch.cat([truth.embed(whole[:cut]), value, truth.embed(whole[cut:])]))[-size:]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers says while random models are made."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)


def main(asked: list[str]) -> None:
    """A line for each type asked for, of each kind that has it; without any, for all of them.

    With `--docs` all are tried, and `docs/models.md` is written anew.
    """
    write = "--docs" in asked
    records = []
    for kind in MAPPINGS:
        for model_type in types(kind):
            if write or not asked or model_type in asked or kind in asked:
                records.append(judge(kind, model_type))
                print(records[-1].line(), flush=True)
    print(dict(Counter(f"{record.kind} {record.verdict}" for record in records)))
    if write:
        zoo_docs.write(records)


if __name__ == "__main__":
    main(sys.argv[1:])
