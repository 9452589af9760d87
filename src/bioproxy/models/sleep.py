"""vLLM's sleep: the process stays and leaves the card, so that its next start takes a second instead of minutes.

Level 1 keeps the weights in the machine's memory, level 2 drops them, and they are read again when it wakes; the KV
cache is gone either way. vLLM has these routes if it was started with `--enable-sleep-mode` and VLLM_SERVER_DEV_MODE=1:

    POST /sleep?level=N                 returns once it sleeps (older versions: a little before)
    POST /wake_up                       after level 1, or with ?tags=weights, then ?tags=kv_cache
    POST /collective_rpc                after level 2, between these two: {"method": "reload_weights"}
    GET  /is_sleeping                   {"is_sleeping": true}

Source: docs.vllm.ai, features/sleep_mode. For the schedule an engine that sleeps is stopped, because it holds nothing
of the card but its context; that there is still a process is the unit's secret. What does not work is said, and the
process ended instead: a card that is half free helps nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.wire.upstream import Pool

INTERVAL = 0.1  # seconds between two looks whether it sleeps by now
PATIENCE = 60.0  # seconds until it does, after it said so
JSON = [(b"Content-Type", b"application/json")]
AWAKE: dict[int, tuple[tuple[str, bytes], ...]] = {
    1: (("/wake_up", b""),),
    2: (
        ("/wake_up?tags=weights", b""),
        ("/collective_rpc", b'{"method": "reload_weights"}'),
        ("/wake_up?tags=kv_cache", b""),
    ),
}


class Told(msgspec.Struct, frozen=True):
    """The answer of `/is_sleeping`."""

    is_sleeping: bool


class Failed(Exception):
    """It did not do what it was asked for; the text says what it did."""


async def within(seconds: float, steps: Coroutine[Any, Any, None]) -> str:
    """Go these steps, for `seconds` at most; why they failed, or ""."""
    try:
        async with asyncio.timeout(seconds):
            await steps
    except TimeoutError:
        return f"that took more than {seconds:g} s"
    except (Failed, BioproxyError) as error:
        return str(error)
    return ""


async def fall_asleep(pool: Pool, level: int) -> None:
    """Have it sleep; returns when it does."""
    await ask(pool, "POST", f"/sleep?level={level}")

    async def look() -> bool | None:
        return await is_sleeping(pool) or None

    if await aio.poll(look, interval=INTERVAL, deadline=PATIENCE) is None:
        raise Failed("it says that it does not sleep")


async def wake(pool: Pool, level: int) -> None:
    for path, body in AWAKE[level]:
        await ask(pool, "POST", path, body)
    if await is_sleeping(pool):
        raise Failed("it says that it still sleeps")


async def is_sleeping(pool: Pool) -> bool:
    try:
        return msgspec.json.decode(await ask(pool, "GET", "/is_sleeping"), type=Told).is_sleeping
    except NOT_JSON as error:
        raise Failed(f"GET /is_sleeping answers what vLLM does not: {error}") from None


async def ask(pool: Pool, method: str, path: str, body: bytes = b"") -> bytes:
    """The answer's body; Failed for any status but 200."""
    response = await pool.request(method, path.encode(), JSON if body else [], body)
    try:
        answer = await response.read()
    except BaseException:
        response.abort()
        raise
    if response.status != 200:
        hint = "; it needs --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1" if response.status == 404 else ""
        raise Failed(f"{method} {path} answered {response.status}{hint}")
    return answer
