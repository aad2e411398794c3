"""What the program around us has set in torch changes nothing that we compute, and is as it was when a call ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """torch as it is where nobody has set anything, for the time of a call; also a decorator.

    That is fp32 as the default type (of the process), the CPU as the default device, gradients on, neither inference mode nor
    autocast (of the thread). Each is touched only where it is something else. Our own calls say what they need within.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
