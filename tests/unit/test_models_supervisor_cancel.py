"""Every place in the supervisor at which whoever waits can be cancelled: nothing is kept, nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio
from bioproxy.errors import ModelFailed, QueueTimeout
from bioproxy.models.state import State
from bioproxy.models.ticket import Place
from support.cancelling import each_await
from support.leaks import until
from support.swap_standins import Machine


async def test_a_request_that_waits_for_its_model() -> None:
    """Cancelled wherever it is, its place goes, and the next one is served."""
    machine = Machine("a b")

    async def use() -> None:
        hold = await machine.supervisor.hold("a", timeout=5.0)
        await asyncio.sleep(0)
        hold.release()

    async for _ in each_await(use_and_release(machine, use)):
        machine.sound()
    await machine.end()


def use_and_release(machine: Machine, use: object) -> object:
    """As it stands; here so that each test reads alike."""
    del machine
    return use
