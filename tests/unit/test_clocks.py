"""Clocks that go on while the machine sleeps."""

from __future__ import annotations

import sys
import time

import pytest

from bioproxy import clocks

NEAR = 1.0  # second: two clocks are read one after the other


def test_they_are_apart_by_what_the_machine_slept() -> None:
    """One ran ahead of the other by so much."""
    assert clocks.suspended() > -NEAR
    assert clocks.since_boot() - clocks.awake() == pytest.approx(clocks.suspended(), abs=NEAR)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of other systems docs/operating.md tells")
def test_time_outs_do_not_count_the_sleep() -> None:
    """The clock that they are measured with is the one that stands still."""
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    assert clocks.since_boot.args == (time.CLOCK_BOOTTIME,)  # type: ignore[attr-defined]
