"""The same training, step by step, as PEFT's own code and a plain `transformers.Trainer` do it.

Same base, rows, start, optimizer and learning rate; theirs runs padded batches of whole sequences. fp32, five steps of AdamW.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import peft
import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model
from transformers import Trainer, TrainingArguments

from softprompt.methods import make_method
from softprompt.training import TrainSpec, prepare
from softprompt.training.checkpoints import NoStore
from softprompt.training.loop import batch_at, fit

from .cases import LORA

FAMILIES = ["llama", "gpt2", "qwen"]
STEPS, ROWS, RATE, SEED = 5, 8, 1e-2, 11
LENGTH = 6
TEMPLATE = {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "question": "\nWhich?", "cue": "\nIt is:"}
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's advice on positions and on how GPT-2 keeps its weights


def ready_for(method, family):
    """A method attached to its base, and the task's rows."""
    task = tiny_task(template=TEMPLATE, scoring={"over": "vocabulary"})
    return prepare(tiny_base(family), task, make_method(method), rows=tiny_rows(), seed=SEED)


def our_losses(ready, rate=RATE):
    """Train by the loop itself; the loss of every step."""
    spec = TrainSpec(lr=rate, batch_size=ROWS, max_steps=STEPS, epochs=9, schedule="constant", warmup=0, weight_decay=0)
    train, store = ready.splits["train"], NoStore()
    ready.engine.encode(train)
    alone = replace(ready, splits={"train": train})
    fit(alone, spec.filled(ready.method, len(train)), SEED, store)
    return [event["loss"] for event in store.events if event["event"] == "step"]


def padded(ready, examples):
    """Whole sequences, padded on the right, labels at the answers only."""
    rows = [(*ready.bound.prefix_ids, *example.text, *ready.bound.behind, *example.answer) for example in examples]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor(
            [
                [-100] * (len(row) - len(e.answer)) + [*e.answer] + [-100] * (longest - len(row))
                for row, e in zip(rows, examples, strict=True)
            ]
        ),
    }


def their_losses(ready, model):
    """Train PEFT's model by a plain loop."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    losses = []
    model.eval()
    for step in range(STEPS):
        loss = model(**padded(ready, batch_at(ready.splits["train"], step, ROWS, SEED))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def compare(ours, theirs, losses, tensors, tolerance=1e-5, outliers=0):
    """Losses of every step and the final tensors, in each of which so many numbers may be others."""
    assert len(losses[0]) == STEPS and losses[0] == pytest.approx(losses[1], rel=tolerance)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        other, start = theirs[name].detach(), tensors[name]
        assert not torch.allclose(other, start, atol=1e-4), f"{name} was not trained"
        off = (value - other).abs() > tolerance * max(1.0, float(other.abs().max()))
        assert int(off.sum()) <= outliers, name


def check(ready, model, tolerance=1e-5, outliers=0):
    """Both sides hold the same start; train both and compare losses and what is saved."""

    def held():
        state = peft.get_peft_model_state_dict(model)
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    start, ours = held(), ready.method.export()
    assert all(torch.allclose(ours[name], value, atol=1e-6) for name, value in start.items())
    losses = our_losses(ready), their_losses(ready, model)
    compare(ready.method.export(), held(), losses, start, tolerance, outliers)


def peft_prompt(ready, family, config):
    return peft.get_peft_model(tiny_model(family), config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_prompt_is_pefts_prompt_tuning(family):
    ready = ready_for({"name": "soft", "length": LENGTH}, family)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    model = peft_prompt(ready, family, config)
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(ready.method.value)
    check(ready, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_is_pefts_prefix_tuning(family):
    ready = ready_for({"name": "prefix", "length": LENGTH}, family)
    model = peft_prompt(ready, family, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH))
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(ready.method.export()["prompt_embeddings"])
    check(ready, model)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_p_tuning_is_pefts_p_tuning(family, encoder):
    """Its encoder, too: PEFT's weights are copied into ours."""
    method = {"name": "p_tuning", "length": LENGTH, "encoder": encoder, "hidden": 16, "residual": False}
    ready = ready_for(method, family)
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=16,
        encoder_num_layers=2,
        encoder_dropout=0.0,
    )
    torch.manual_seed(SEED)
    model = peft_prompt(ready, family, config)
    theirs, ours = model.prompt_encoder["default"], ready.method._encoder
    with torch.no_grad():
        ours.embedding.copy_(theirs.embedding.weight)
    ours.mlp.load_state_dict(theirs.mlp_head.state_dict())
    if encoder == "lstm":
        ours.lstm.load_state_dict(theirs.lstm_head.state_dict())
    check(ready, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_reparameterised_prefix_is_pefts_prefix_projection(family):
    from softprompt.methods.encoder import PrefixEncoder

    ready = ready_for({"name": "prefix", "length": LENGTH, "reparameterization": "mlp", "hidden": 16}, family)
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prefix_projection=True, encoder_hidden_size=16
    )
    torch.manual_seed(SEED)
    model = peft_prompt(ready, family, config)
    theirs, shape = model.prompt_encoder["default"], ready.method.shape(ready.base)
    ours = PrefixEncoder(torch.zeros(shape), theirs.embedding.weight.shape[1], 16, residual=False)
    with torch.no_grad():
        ours.embedding.copy_(theirs.embedding.weight)
    ours.mlp.load_state_dict(theirs.transform.state_dict())
    ready.method.make_from(ours)
    check(ready, model)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "method",
    [LORA, {**LORA, "rslora": True}, {**LORA, "dora": True}, {**LORA, "activate": "cue"}, "peft:IA3"],
    ids=["lora", "rslora", "dora", "activated", "ia3"],
)
def test_tuners_are_pefts_own(family, method):
    """Also activated LoRA: PEFT finds the cue's tokens in each row and lets the weights act from there on."""
    ready = ready_for(method, family)
    config = copy.deepcopy(ready.method.config(ready.base))
    if isinstance(method, dict) and method.get("activate"):
        config.alora_invocation_tokens = list(ready.bound.cue)
    model = peft_prompt(ready, family, config)
    peft.set_peft_model_state_dict(model, ready.method.export())
    # where a gradient is nearly zero, Adam makes much of its rounding; GPT-2 keeps queries, keys and values in one weight
    check(ready, model, 5e-5 if family == "gpt2" else 1e-5, outliers=1)


class Told(Trainer):
    """Writes down every step's loss as it is."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.losses = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.losses.append(float(found[0] if return_outputs else found))
        return found


@pytest.mark.parametrize("family", FAMILIES)
def test_full_fine_tuning_is_a_plain_trainers(family, tmp_path):
    """Every weight of the model after five steps."""
    ready, model, rate = ready_for("full", family), tiny_model(family), 1e-4
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    rows = [row for step in range(STEPS) for row in batch_at(ready.splits["train"], step, ROWS, SEED)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=ROWS,
        num_train_epochs=1,
        learning_rate=rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
    )
    trainer = Told(model=model, args=arguments, train_dataset=rows, data_collator=lambda some: padded(ready, some))
    trainer.train()
    losses = our_losses(ready, rate), trainer.losses
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    theirs, ours = dict(model.named_parameters()), ready.method.export()
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert not torch.equal(theirs[name], start[name])
        # the softmax does not see a bias of all keys: its gradient is rounding, of which Adam makes steps of either sign
        close = 2 * STEPS * rate if name.endswith("c_attn.bias") else 1e-5
        assert (value - theirs[name]).abs().max() <= close, name
