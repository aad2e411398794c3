"""A gate round every layer: start at a layer from kept states, stop at one, or compute a layer again in the backward.

Where learning begins in an upper layer, everything below it is frozen per row. So the states that enter that layer are
computed once per row and kept. Late prompt tuning does the same to compute its prompts (Liu et al. 2022,
arXiv:2210.11292). The layers keep their own code; this module only decides whether they run, and on what.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import current, running
from .prepacked import prepacked


class Gate:
    """One layer's forward, as the `Call` that its thread is in asks for it."""

    def __init__(self, layer: nn.Module, index: int) -> None:
        self.layer, self.index = layer, index
        self._forward = layer.forward

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's own forward, skipped below `call.first` and from `call.stop` on."""
        call = current()
        if call is None:
            return self._forward(hidden, *args, **kwargs)
        if self.index == call.stop:
            call.kept = hidden
        if self.index < call.first or (call.stop is not None and self.index >= call.stop):
            return hidden
        if self.index == call.first and call.states is not None:
            hidden = call.states
        if not (call.gradient_checkpointing and hidden.requires_grad):
            return self._forward(hidden, *args, **kwargs)

        def run(hidden: Tensor) -> Tensor:
            with prepacked(call.prepacked), running(call):  # the backward runs outside of the forward's `with`
                return self._forward(hidden, *args, **kwargs)

        return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=True)


def find_layers(body: nn.Module, count: int | None = None) -> nn.ModuleList | None:
    """A model's list of layers, whatever it is called and however deep it lies; None if there is no single one.

    Args:
        count: its length, where that is known; else the outermost list is taken.
    """
    level: list[nn.Module] = [body]
    while level:
        children = [child for parent in level for child in parent.children()]
        lists = [child for child in children if isinstance(child, nn.ModuleList)]
        if fitting := [child for child in lists if count is None or len(child) == count]:
            return fitting[0] if len(fitting) == 1 else None
        level = [child for child in children if not isinstance(child, nn.ModuleList)]
    return None


def gate_layers(body: nn.Module, count: int | None = None) -> bool:
    """Put a gate round every layer; False where the layers are not found (then nothing is changed)."""
    layers = find_layers(body, count)
    if layers is None:
        return False
    for index, layer in enumerate(layers):
        if not isinstance(getattr(layer.forward, "__self__", None), Gate):
            layer.forward = Gate(layer, index).forward  # type: ignore[method-assign, assignment]
    return True
