"""The peer's side: what is trained as PEFT's documentation does it. `python -m softprompt.benchmarks.speed.peft_side`.

Right-padded batches, labels of -100 everywhere but at the answer, the model's own loss.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch

from softprompt.benchmarks.speed.cases import INIT_TEXT, LORA, P_TUNING_HIDDEN, TEMPLATE
from softprompt.benchmarks.speed.worker import Work, digest, serve

PLAIN = ("full", "plain", "features")  # transformers alone


def set_up(request: dict[str, Any]) -> Work:
    """Training steps of `get_peft_model`, or of the plain model with all its weights, or its forward alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["base"], trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    safely: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True}
    base: Any = AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32, **safely)
    base.to(device)
    kind = request["peer_method"]
    model = base if kind in PLAIN else _with_peft(base, tokenizer, request)
    model.eval()  # no dropout on either side, so that losses can be compared
    rows, size = request["rows"], request["batch"]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    parts = [_batch(tokenizer, rows[begin : begin + size], pad) for begin in range(0, len(rows), size)]
    batches = cycle([{key: value.to(device) for key, value in part.items()} for part in parts])

    @torch.no_grad()
    def look() -> float:
        batch = dict(next(batches))
        if kind == "plain":
            return model(**batch).loss.item()
        scored = batch.pop("labels") != -100
        states = model(**batch, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
        places = scored.int().argmax(1) - 1  # of the token before the answer
        return digest(states[torch.arange(len(states), device=device), places])

    if kind in ("plain", "features"):
        return Work(look, {"parameters": 0, "device": device})
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    # fused as ours; the default is slower
    optimizer = torch.optim.AdamW(trained, lr=request["lr"], weight_decay=0.0, fused=True)

    def step() -> float:
        loss = model(**next(batches)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return Work(step, {"parameters": sum(weight.numel() for weight in trained), "device": device})


def _with_peft(base: Any, tokenizer: Any, request: dict[str, Any]) -> Any:
    """The model with PEFT's prompt or modules in it, by its documented defaults."""
    import peft

    method, length = request["peer_method"], request["peer_length"]
    config: peft.PeftConfig
    if method == "prompt":
        config = peft.PromptTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            prompt_tuning_init=peft.PromptTuningInit.TEXT,
            num_virtual_tokens=length,
            prompt_tuning_init_text=INIT_TEXT,
            tokenizer_name_or_path=request["base"],
        )
    elif method == "prefix":
        config = peft.PrefixTuningConfig(task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=length)
    elif method == "p_tuning":
        config = peft.PromptEncoderConfig(
            task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=length, encoder_hidden_size=P_TUNING_HIDDEN
        )
    elif method == "ia3":
        config = peft.IA3Config(task_type=peft.TaskType.CAUSAL_LM)
    else:
        cue = tokenizer(TEMPLATE["cue"], add_special_tokens=False).input_ids
        config = peft.LoraConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            r=LORA["r"],
            lora_alpha=LORA["alpha"],
            lora_dropout=LORA["dropout"],
            alora_invocation_tokens=cue if method == "alora" else None,
        )
    start = _prefix(base, tokenizer, length) if method == "prefix" else None
    torch.manual_seed(0)  # as ours does, so that LoRA starts from the same weights
    model: Any = peft.get_peft_model(base, config)
    if start is not None:
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(start)
    return model


def _prefix(base: Any, tokenizer: Any, length: int) -> torch.Tensor:
    """The text's K/V in PEFT's layout [P, L·2·G·D]: both prefixes start there (at random PEFT's trains far worse)."""
    ids = tokenizer(INIT_TEXT, add_special_tokens=False).input_ids
    with torch.no_grad():
        some = torch.tensor([(ids * (length // len(ids) + 1))[:length]], device=base.device)
        cache = base(some, use_cache=True).past_key_values
    kv = torch.stack([torch.cat((layer.keys, layer.values)) for layer in cache.layers])  # [L, 2, G, P, D]
    return kv.permute(3, 0, 1, 2, 4).flatten(1)


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
