"""Clocks that go on while the machine sleeps, and how long it slept.

Time-outs and times to live shall not count a night with the lid closed, and Python's monotonic clock stands still then
on Linux and macOS, so nothing has to be done for them. (On Windows it goes on.) What does age in that time is a
connection: whoever is at its other end did not sleep. So that is measured with `since_boot`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial


def clocks() -> tuple[Callable[[], float], Callable[[], float]]:
    """A clock that goes on while the machine sleeps, and one that stands still; twice the same if there are not two."""
    if sys.platform == "darwin":
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC), partial(time.clock_gettime, time.CLOCK_UPTIME_RAW)
    if sys.platform == "linux":
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME), partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    else:  # noqa: RET505 - the type checker reads the code of one system only
        return time.monotonic, time.monotonic


since_boot, awake = clocks()


def suspended() -> float:
    """Seconds that this machine has slept since it was booted; 0 if the system does not tell."""
    return since_boot() - awake()
