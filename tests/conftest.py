"""Shared by all tests: determinism, and the marker that needs a GPU."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads it: no test may ask a hub

import pytest
import torch

torch.use_deterministic_algorithms(True, warn_only=True)


LONG = ("test_notebooks", "test_parallel")


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: item.path.stem not in LONG
    )  # first, so that processes that share the files end together
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; none is visible")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
