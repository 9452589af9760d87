"""What holds for all tests: Ctrl-C reaches what they start, and their collection is left alone by the other one.

Ctrl-C reaches the programs that tests start, also if a shell runs the tests in the background (`make test &`). There it
is ignored, and children inherit that.

While eleven thousand tests are made, nothing becomes garbage; Python's collector, which looks for it again and again,
would take a third of the time.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without collecting garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
