"""SetFit as its documentation trains it: contrastive pairs tune the body, a logistic regression reads its embeddings.

`python -m softprompt.benchmarks.compare.peers.setfit_side [PARENT]`: one JSON request on the standard input (see
`SetFitRequest`), one JSON answer on the standard output, all else on the standard error.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.base import bundled
from softprompt.base.memory import peak_memory
from softprompt.benchmarks.compare.parent import end_with
from softprompt.benchmarks.compare.peers import LabelledText, SetFitRequest
from softprompt.config import parse

PACKAGES = ("setfit", "sentence-transformers", "transformers", "torch", "scikit-learn")


def answer(request: SetFitRequest) -> dict[str, Any]:
    """Train, answer dev and tests; see `run_setfit`."""
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    if request.threads:
        torch.set_num_threads(request.threads)
    began = time.perf_counter()
    body = load_body(request.base, request.max_length)
    model = SetFitModel(model_body=body, model_head=LogisticRegression())
    place = {label: index for index, label in enumerate(request.labels)}
    texts, labels = [row.text for row in request.train], [place[row.label] for row in request.train]
    pairs, steps = length_of_training(request)
    loaded = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            batch_size=request.batch_size,
            num_epochs=request.epochs,
            num_iterations=request.iterations,
            sampling_strategy=request.sampling,
            max_steps=-1 if steps is None else steps,
            body_learning_rate=request.lr,
            seed=request.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        rows = Dataset.from_dict({"text": texts, "label": labels})
        trainer = Trainer(model=model, args=settings, train_dataset=rows)
        trainer.train()
        trained = time.perf_counter()
        parts = {"dev": request.dev, **request.tests}
        chances = {name: _asked(model, request.labels, rows) for name, rows in parts.items() if rows}
        tested = time.perf_counter()
        size = _bytes(model, Path(scratch) / "saved")
    peak = peak_memory()
    state = trainer.st_trainer.state
    head = model.model_head.coef_.size + model.model_head.intercept_.size
    numbers = sum(weight.numel() for weight in body.parameters()) + head
    lengths = [len(ids) for ids in body.tokenizer(texts)["input_ids"]]
    return {
        "predicted": {name: [request.labels[k] for k in own.argmax(axis=1)] for name, own in chances.items()},
        "nll": {name: _nll(own, [place[row.label] for row in parts[name]]) for name, own in chances.items()},
        "probabilities": {name: own.tolist() for name, own in chances.items()},
        "seconds": {"load": loaded - began, "train": trained - loaded, "test": tested - trained},
        "pairs_by_default": pairs,
        "pairs": len(trainer.st_trainer.train_dataset),
        "steps": state.global_step,
        "trained": numbers,
        "stored": numbers,
        "artifact_bytes": size,
        "truncated": sum(length > request.max_length for length in lengths),
        **{name: round(gb * 1e9) if (gb := peak.get(f"{name}_gb")) else None for name in ("peak_rss", "peak_cuda")},
        "device": str(body.device),
        "versions": {name: version(name) for name in PACKAGES},
    }


def load_body(base: str, max_length: int) -> Any:
    """An encoder as all-MiniLM-L6-v2 is published: mean of the last states, at length one (no pooling layer of BERT's own)."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder = str(bundled.get(base)) if base in bundled.BUNDLED else base
    # all-MiniLM-L6-v2 never reads BERT's pooler, so it would be a layer that is neither trained nor used
    words = Transformer(folder, max_seq_length=max_length, model_kwargs={"add_pooling_layer": False})
    mean = Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[words, mean, Normalize()])


def length_of_training(request: SetFitRequest) -> tuple[int, int | None]:
    """(pairs of an epoch by SetFit's own settings, optimizer steps if fewer than those pairs take are made, else None).

    SetFit pairs each text with each, itself included; oversampling repeats the rarer kind until both are equally many.
    """
    count = len(request.train)
    alike = sum(n * (n + 1) // 2 for n in Counter(row.label for row in request.train).values())
    kinds = (alike, count * (count + 1) // 2 - alike)
    if request.iterations:
        pairs = 2 * request.iterations * count
    elif request.sampling == "unique":
        pairs = sum(kinds)
    else:
        pairs = 2 * (max(kinds) if request.sampling == "oversampling" else min(kinds))
    steps = math.ceil(pairs / request.batch_size) * request.epochs
    made = max(1, round(min(steps, request.max_steps or steps) * request.share))
    return pairs, made if made < steps else None


def _asked(model: Any, labels: Sequence[str], rows: Sequence[LabelledText]) -> np.ndarray:
    """Probabilities [n, K] of the labels in their order; 0 of those that no training row has."""
    chances = np.zeros((len(rows), len(labels)))
    chances[:, model.model_head.classes_] = model.predict_proba([row.text for row in rows], as_numpy=True)
    return chances


def _nll(chances: np.ndarray, right: Sequence[int]) -> float:
    """Mean −log-probability of the right labels."""
    own = chances[np.arange(len(right)), right]
    return float(-np.log(np.clip(own, np.finfo(np.float64).tiny, 1.0)).mean())


def _bytes(model: Any, folder: Path) -> int:
    """Of the folder that SetFit saves: tuned body, head, settings (its README aside)."""
    model.save_pretrained(str(folder))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "README.md")


def main(parent: int | None = None) -> int:
    """Answer one request; an error is an answer too, of one line.

    Args:
        parent: the process that asks; with it this one ends.
    """
    if parent is not None:
        end_with(parent)
    out, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints may get into the answer
    try:
        found, code = answer(parse(SetFitRequest, json.load(sys.stdin), "setfit")), 0
    except Exception as error:
        traceback.print_exc()
        found, code = {"error": " ".join(str(error).split()) or type(error).__name__}, 1
    out.write(json.dumps(found) + "\n")
    out.flush()
    return code


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:2])))
