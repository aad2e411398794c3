"""In PEFT: load the prompt that softprompt trained, train it on for some steps, save it as PEFT does.

python there.py BASE ARTIFACT OUT [STEPS]
"""

import csv
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

TRAIN = Path(__file__).parent / "train.csv"


def loss_of(model, tokenizer, rows):
    """Mean loss of the teams' words; -100 keeps all other tokens out of it."""
    texts = [tokenizer(f"Message: {message}\nTeam:").input_ids for message, _ in rows]
    answers = [tokenizer(f" {team}", add_special_tokens=False).input_ids for _, team in rows]
    pairs = list(zip(texts, answers, strict=True))
    width = max(len(text) + len(answer) for text, answer in pairs)
    ids = torch.tensor([text + answer + [0] * (width - len(text) - len(answer)) for text, answer in pairs])
    sizes = torch.tensor([len(text) + len(answer) for text, answer in pairs])
    labels = torch.tensor([[-100] * len(t) + a + [-100] * (width - len(t) - len(a)) for t, a in pairs])
    mask = (torch.arange(width) < sizes[:, None]).long()
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def main(base, artifact, out, steps=6):
    """Load the artifact as PEFT's own prompt, train it for some steps of eight tickets, and save it as PEFT does."""
    base = Path(base).expanduser()
    tokenizer = AutoTokenizer.from_pretrained(base)
    frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(frozen, artifact)
    rows = list(csv.reader(TRAIN.open(encoding="utf-8")))[1:]
    learned = [parameter.requires_grad_() for parameter in model.prompt_encoder.parameters()]  # it is loaded frozen
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.0)
    for step in range(int(steps)):
        loss = loss_of(model, tokenizer, rows[8 * step : 8 * step + 8])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss.item():.3f}")
    model.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
