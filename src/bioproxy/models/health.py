"""Waiting until an engine is healthy: asked often while it starts, and not a moment longer.

llama-swap looks once a second, so half a second of each swap is spent waiting for the next look. A connection that is
refused costs some 50 µs here, so a look every 20 ms is cheap even for an engine that loads for minutes. Healthy is
exactly 200, without following redirects: a redirect to a login page is no health, and 503 means "still loading".

An engine that accepts and never answers must not hold us for ever, so each look has a limit of its own and the whole
has one; the end of the process makes all of it moot (unit.py races the two).
"""

from __future__ import annotations

import asyncio

from bioproxy.errors import BioproxyError
from bioproxy.wire.upstream import Pool

INTERVAL = 0.02  # seconds between two looks
PATIENCE = 10.0  # seconds for one look: a server that is busy loading may answer late


async def wait_healthy(pool: Pool, path: str, *, timeout: float) -> str:  # noqa: ASYNC109 - told in the sentence
    """Return "" once `GET path` answers 200; else, after `timeout` seconds, what the last look saw."""
    seen = "nothing answered"
    try:
        async with asyncio.timeout(timeout):
            while True:
                seen = await look(pool, path)
                if not seen:
                    return ""
                await asyncio.sleep(INTERVAL)
    except TimeoutError:
        return seen


async def look(pool: Pool, path: str) -> str:
    """One look: "" if it is healthy, else what was seen."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await pool.request("GET", path.encode(), [], b"")
            await answer.read()
    except TimeoutError:
        return f"{path} did not answer within {PATIENCE:g} s"
    except BioproxyError as error:
        return error.message
    return "" if answer.status == 200 else f"{path} answered {answer.status}"
