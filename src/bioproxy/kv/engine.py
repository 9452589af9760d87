"""An engine's slot actions with a time limit.

Every slot action here runs under an exclusive grant (kv-rule 4); that is the caller's promise. A time limit is needed
all the same: a hung engine must not hold a user's request for ever. After an action that hit it, what the slot holds is
not known, so that is an error of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import msgspec

from bioproxy.engines.facts import SlotView
from bioproxy.engines.llama import Llama
from bioproxy.errors import NOT_JSON, EngineUnavailable
from bioproxy.kv.policy import Speeds

T = TypeVar("T")
POKE = (1,)  # the prompt that makes the server move what is resident into its RAM cache
PATIENCE = 10.0  # times the expected duration
AT_LEAST = 5.0  # seconds


class SlotActionTimeout(EngineUnavailable):
    """A slot action did not end in time; what the slot holds is unknown (kv-rule 4)."""

    code = "slot_action_timeout"


async def limited(work: Awaitable[T], *, seconds: float, what: str) -> T:
    """Await `work` for `seconds` at most. Raises SlotActionTimeout."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise SlotActionTimeout(f"{what} did not end within {seconds:.0f} s") from error


def time_limit(size: int, rate: float) -> float:
    """Seconds that moving `size` bytes may take at a measured `rate`."""
    return max(AT_LEAST, PATIENCE * size / rate)


async def poke(engine: Llama, speeds: Speeds) -> float:
    """Make the server move what is resident into its RAM cache (kv-rule 16); the seconds it took."""
    clock = asyncio.get_running_loop().time
    started = clock()
    await limited(engine.prefill(POKE), seconds=max(AT_LEAST, PATIENCE * speeds.poke), what="a one-token request")
    return clock() - started


async def slots_now(engine: Llama) -> list[SlotView]:
    """What `/slots` says at this moment; [] if it does not say.

    Under an exclusive grant, so the engine may be asked at once: kv-rule 5 is there for the cancellation of running
    requests, and none runs. An answer of the usual pace may be older than the request that just ended.
    """
    look = await engine.ask(b"/slots")
    if look.status != 200:
        return []
    try:
        return msgspec.json.decode(look.body, type=list[SlotView])
    except NOT_JSON:
        return []
