"""Two prompts trained on a plain transformers model: the idea of this project, in one file that imports none of it.

The model is frozen. What stands in front of the learned numbers runs once. What all rows share runs once per step:

    soft prompt   [prompt] [ticket, cue] [answer]     the prompt runs once per step, for all its rows
    infix         [ticket, cue] [prompt] [answer]     each ticket runs once, for all steps

Both are exact: `tests/test_loop.py` compares every loss with the product's. Run it (one to two minutes of a core):

    python examples/loop.py [a model of Llama's kind: folder or hub id]

Shapes: B rows, T tokens, P learned tokens, H hidden size, L layers, G key/value heads, D head size, V vocabulary.
"""

import csv
import sys
from pathlib import Path

import torch
from torch.nn.functional import log_softmax, pad
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

BUNDLED = Path.home() / ".cache/softprompt/bases/smollm2"  # where `softprompt base get smollm2` puts it
TICKETS = Path(__file__).parent / "recipes/own-csv/tickets.csv"
INSTRUCTION = "Decide which team should answer the message: billing, technical, shipping or account.\n\n"
TEAMS = ("billing", "technical", "shipping", "account")


def make_row(tokenizer, message, team, instruction=""):
    """Ids in front of the answer, whose last token predicts the answer's first one, and the answer's."""
    context = tokenizer(f"{instruction}Message: {message}\nTeam:").input_ids
    return context, tokenizer(f" {team}", add_special_tokens=False).input_ids


def keys_and_values(model, embeddings):
    """What the layers keep of embeddings [1, T, H] at positions 0 to T-1: [L, 2, 1, G, T, D], with gradients."""
    cache = DynamicCache()
    model.base_model(None, None, None, cache, embeddings)
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])


def log_likelihood(model, rows, live, past, seen, starts):
    """log p(answer) of each row, [B], from `live`, its ids that run now. The answer's last is not among them: nothing reads it.

    past: keys and values in front of them, [L, 2, B, G, S, D]; seen: [B, S], False where a row's past is padded;
    starts: [B], the position of each row's first live token.
    """
    sizes = torch.tensor([len(ids) for ids in live])
    columns = torch.arange(int(sizes.max()))
    ids = torch.tensor([some + [0] * (len(columns) - len(some)) for some in live])
    mask = torch.cat([seen, columns < sizes[:, None]], dim=1).long()
    states = model.base_model(ids, mask, starts[:, None] + columns, DynamicCache(past)).last_hidden_state  # [B, T, H]
    # the largest matrix of all, H to V, runs where a token of an answer is predicted, and only there
    at = [(b, len(live[b]) - len(answer) + k) for b, (_, answer) in enumerate(rows) for k in range(len(answer))]
    which, places = torch.tensor(at).T
    logits = model.get_output_embeddings()(states[which, places])  # [tokens of all answers, V]
    tokens = torch.tensor([token for _, answer in rows for token in answer])
    values = log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    return torch.zeros(len(rows)).index_add(0, which, values)


class SoftPrompt:
    """[prompt] [ticket, cue] [answer]: P embeddings, which start as those of a text."""

    def __init__(self, model, ids):
        self.model = model
        self.prompt = torch.nn.Parameter(model.get_input_embeddings()(torch.tensor(ids)))  # [P, H]

    def __call__(self, rows):
        prompt = keys_and_values(self.model, self.prompt[None])  # P tokens run, however many rows there are
        prompt = prompt.expand(-1, -1, len(rows), -1, -1, -1)  # no copy; its gradient is the sum of all rows'
        seen = torch.ones(len(rows), len(self.prompt), dtype=torch.bool)
        live = [context + answer[:-1] for context, answer in rows]
        return log_likelihood(self.model, rows, live, prompt, seen, starts=seen.sum(1))


class Infix:
    """[ticket, cue] [prompt] [answer]: P keys and values in each layer, behind texts that have run once and are kept."""

    def __init__(self, model, ids):
        self.model, self.kept = model, {}
        # computed at positions 0 to P-1, so the next token would stand at P; rotated back, it stands at 0
        keys, values = self.encode(ids).unbind(1)
        self.prompt = torch.nn.Parameter(torch.stack([self.rotate(keys, torch.tensor([-len(ids)])), values], dim=1))

    def rotate(self, keys, by):
        """Keys [L, 1, G, P, D] as they are so many positions further on, `by` [B] for each row: [L, B, G, P, D]."""
        cos, sin = self.model.base_model.rotary_emb(keys, by[:, None])  # [B, 1, D]
        left, right = keys.chunk(2, dim=-1)
        return keys * cos[:, None] + torch.cat([-right, left], dim=-1) * sin[:, None]

    @torch.no_grad()
    def encode(self, ids):
        """Keys and values of a text, [L, 2, 1, G, T, D]. Nothing learned stands in front of it, so they stay."""
        if tuple(ids) not in self.kept:
            embeddings = self.model.get_input_embeddings()(torch.tensor([ids]))
            self.kept[tuple(ids)] = keys_and_values(self.model, embeddings)
        return self.kept[tuple(ids)]

    def __call__(self, rows):
        texts = [self.encode(context[:-1]) for context, _ in rows]
        sizes = torch.tensor([text.shape[4] for text in texts])
        columns = torch.arange(int(sizes.max()))
        texts = torch.cat([pad(text, (0, 0, 0, len(columns) - text.shape[4])) for text in texts], dim=2)
        # learned keys take no position: rotated to where each row has come, all rows see them equally far away
        keys, values = self.prompt.unbind(1)
        prompt = torch.stack([self.rotate(keys, sizes), values.expand(-1, len(rows), -1, -1, -1)], dim=1)
        seen = torch.cat([columns < sizes[:, None], torch.ones(len(rows), prompt.shape[4], dtype=torch.bool)], dim=1)
        live = [context[-1:] + answer[:-1] for context, answer in rows]  # the cue's last token: all that a step runs
        return log_likelihood(self.model, rows, live, torch.cat([texts, prompt], dim=4), seen, starts=sizes)


def train(method, rows, lr, steps, size=16):
    """Train the prompt; yields each step's loss, in nats per token of the right answers."""
    optimizer = torch.optim.AdamW([method.prompt], weight_decay=0.0)
    warm = int(0.3 * steps)
    for step in range(steps):
        epoch, place = divmod(step, len(rows) // size)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch)).tolist()
        batch = [rows[index] for index in order[place * size : (place + 1) * size]]
        loss = -method(batch).sum() / sum(len(answer) for _, answer in batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([method.prompt], 1.0)
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / (warm + 1), (steps - step) / (steps - warm))
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def main(source=BUNDLED):
    """Train a soft prompt and an infix on 80 tickets, and show what each answers to tickets that it has not seen."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval().requires_grad_(False)
    start = tokenizer(INSTRUCTION, add_special_tokens=False).input_ids
    answers = [make_row(tokenizer, "", team)[1] for team in TEAMS]
    # the soft prompt takes the instruction's place; in front of an infix it stays
    for kind, instruction, lr, steps in ((SoftPrompt, "", 1e-2, 20), (Infix, INSTRUCTION, 3e-2, 60)):
        rows = [make_row(tokenizer, *row, instruction) for row in list(csv.reader(TICKETS.open(encoding="utf-8")))[1:]]
        method = kind(model, start)
        for step, loss in enumerate(train(method, rows[:80], lr, steps), start=1):
            if step % (steps // 10) == 0:
                print(f"{kind.__name__:10}  step {step:2}  loss {loss:.3f}")
        with torch.no_grad():  # each new ticket's likeliest team
            best = torch.stack([method([(context, ids) for context, _ in rows[80:]]) for ids in answers]).argmax(0)
        right = sum(answers[team] == answer for team, (_, answer) in zip(best, rows[80:], strict=True))
        print(f"{kind.__name__:10}  {right} of {len(rows) - 80} new tickets are right\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
