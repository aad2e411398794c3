"""The peer's side: prompt tuning as PEFT's documentation does it. `python -m softprompt.benchmarks.peft_side`.

Right-padded batches, labels of -100 everywhere but at the answer, the model's own loss.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
from softprompt.benchmarks.cases import INIT_TEXT, LR
from softprompt.benchmarks.worker import Step, serve


def set_up(request: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """Training steps of `get_peft_model` with PromptTuningConfig."""
    from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["base"])
    base = AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32)
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        prompt_tuning_init=PromptTuningInit.TEXT,
        num_virtual_tokens=request["peer_length"],
        prompt_tuning_init_text=INIT_TEXT,
        tokenizer_name_or_path=request["base"],
    )
    model = get_peft_model(base, config)
    model.eval()  # no dropout on either side, so that losses can be compared
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0)
    rows, size = request["rows"], request["batch"]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    batches = cycle([_batch(tokenizer, rows[begin : begin + size], pad) for begin in range(0, len(rows), size)])

    def step() -> float:
        loss = model(**next(batches)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, {"parameters": sum(weight.numel() for weight in trained)}


def _batch(tokenizer: Any, rows: list[dict[str, str]], pad: int) -> dict[str, torch.Tensor]:
    """Ids, mask and labels [B, T]."""
    prompts = [tokenizer(f"Review: {row['text']}\nSentiment:").input_ids for row in rows]
    answers = [tokenizer(f" {row['label']}").input_ids for row in rows]
    width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))

    def grid(parts: list[tuple[list[int], list[int]]], fill: int) -> torch.Tensor:
        return torch.tensor([first + second + [fill] * (width - len(first) - len(second)) for first, second in parts])

    pairs = list(zip(prompts, answers, strict=True))
    return {
        "input_ids": grid(pairs, pad),
        "attention_mask": grid([([1] * len(p), [1] * len(a)) for p, a in pairs], 0),
        "labels": grid([([-100] * len(p), a) for p, a in pairs], -100),
    }


if __name__ == "__main__":
    serve(set_up)
