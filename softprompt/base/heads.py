"""From hidden states to logits, as each family does it: only at the positions that are asked for."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .families import Kind
from .prepacked import is_plain


class Head(Protocol):
    """What a family does behind its last layer."""

    def __call__(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Hidden states [K, H] → logits in fp32, [K, V] or of these tokens alone [K, C]."""


def make_head(model: Any, kind: Kind, config: Any) -> Head | None:
    """The head of a model; None for an encoder. To be made again when modules were put into the model."""
    if kind == "encoder":
        return None
    layer = model.get_output_embeddings()
    behind = [child for name, child in model.named_children() if name != model.base_model_prefix]
    # families multiply by one of these or divide by it (Cohere, Granite, HyperCLOVA X): their own code knows
    scaled = any(getattr(config, name, None) is not None for name in ("logit_scale", "logits_scaling"))
    simple = kind == "causal" and not scaled and all(child is layer for child in behind)
    return CausalHead(layer, config) if simple else WholeHead(model, kind, config)


class CausalHead:
    """The output layer, with the cap that some families put behind it."""

    def __init__(self, layer: nn.Module, config: Any) -> None:
        self._layer, self._config = layer, config

    def __call__(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[K, H] → [K, V]; of a few tokens without the products of the others."""
        if tokens is None:
            logits = self._layer(hidden)
        elif is_plain(self._layer):
            weight, bias = self._layer.weight, self._layer.bias
            logits = F.linear(hidden, weight[tokens], None if bias is None else bias[tokens])
        else:  # quantized, adapted or watched by a hook: it alone knows what it computes
            logits = self._layer(hidden)[:, tokens]
        logits = logits.float()
        if (cap := getattr(self._config, "final_logit_softcapping", None)) is not None:  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits


class WholeHead:
    """Everything that the model's own forward does behind its body: transforms, norms, biases, scalings.

    No table of architectures: a second module object over the same submodules, of which one is replaced, so that the body gives
    the states it is asked with. The model itself is not touched, so threads never meet.
    """

    def __init__(self, model: Any, kind: Kind, config: Any) -> None:
        prefix = model.base_model_prefix
        self._seq2seq = kind == "seq2seq"
        self._model = copy.copy(model)
        own = vars(self._model)
        # one that a loader put on the object is bound to the model, which would run as a whole
        own.pop("forward", None)
        own.update(_modules=dict(model._modules), _forward_pre_hooks=OrderedDict(), _forward_hooks=OrderedDict())
        # T5 has its stacks directly in the model
        self._model._modules[prefix if prefix in model._modules else "decoder"] = _Given(config)

    def __call__(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[K, H] → [K, V], or [K, C] of these tokens."""
        states = hidden[None]
        if self._seq2seq:
            encoded = _Output([states])  # which nothing reads
            out = self._model(encoder_outputs=encoded, decoder_inputs_embeds=states, use_cache=False)
        else:
            out = self._model(inputs_embeds=states)
        logits = out.logits[0] if tokens is None else out.logits[0][:, tokens]
        return logits.float()


class _Given(nn.Module):
    """A body, or a decoder, whose last hidden states are its inputs."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def get_decoder(self) -> _Given:
        """As a body answers for its decoder."""
        return self

    def forward(
        self,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> _Output:
        states = inputs_embeds if decoder_inputs_embeds is None else decoder_inputs_embeds
        return _Output([states])


class _Output(tuple):
    """What a body would give: states, and nothing else by any name."""

    @property
    def last_hidden_state(self) -> Tensor:
        """[1, K, H]."""
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
