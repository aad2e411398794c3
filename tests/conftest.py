"""Shared by all tests: determinism, markers, the order of the files, and how much a test of the default run may take."""

from __future__ import annotations

import os
import signal
import subprocess

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads it: no test may ask a hub
# a job in a shell's background ignores Ctrl-C, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import forked
import pytest
import torch

torch.use_deterministic_algorithms(True, warn_only=True)

# What takes longest comes first, and what starts processes stands together: processes that share the tests end together.
FIRST = ["test_notebooks", "test_setfit", "test_parallel", "test_compare", "test_bench", "test_training", "test_cli"]
LIMIT = 10.0
BEGAN = pytest.StashKey[float]()


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(FIRST)))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; none is visible")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


def cpu_seconds():
    """Of a processor, that this process has taken, and all that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + forked.cpu_seconds()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[BEGAN] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    """What several tests share counts by itself: whichever of them comes first."""
    began = cpu_seconds()
    result = yield
    if fixturedef.scope != "function":
        taken = cpu_seconds() - began
        request._pyfuncitem.stash[BEGAN] += taken
        refuse(request._pyfuncitem, taken, f"the fixture {fixturedef.argname} of {request.node.nodeid}")
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    """A test that takes too long, with what it sets up for itself, fails: the default run is to be short."""
    result = yield
    refuse(item, cpu_seconds() - item.stash[BEGAN], item.nodeid)
    return result


def refuse(item, taken, name):
    """Seconds of a processor are counted: those on the clock depend on what else the machine does."""
    if taken > LIMIT and "full" not in item.keywords:
        pytest.fail(
            f"{name} took {taken:.1f} seconds of a processor, and in the default run there are {LIMIT:.0f}: make it "
            "smaller, or mark it `full` and leave a smaller one beside it",
            pytrace=False,
        )


@pytest.fixture
def forks(monkeypatch):
    """Interpreters that a test, or what it tests, starts are forked from one that has all loaded (see forked.py)."""
    forked.server()  # now: a test may go into a folder of its own, and look who else is there
    monkeypatch.setattr(subprocess, "Popen", forked.popen)
