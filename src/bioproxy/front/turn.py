"""Waiting one's turn: the one place where a request of a client meets the gate."""

from __future__ import annotations

import asyncio
import time

from bioproxy.front.exchange import Exchange
from bioproxy.front.seat import Recalled, Seat
from bioproxy.gate.gate import Grant
from bioproxy.station import Station


async def acquire(
    exchange: Exchange, engine: Station, seat: Seat, *, key: object = None, exclusive: bool = False
) -> Grant:
    """A grant for this exchange's client; `exclusive`: once nothing else runs.

    An engine that was absent is looked at first: if it is back, it must not get requests before it is attached, for
    they would not find their cache. The wait is noted also where it was in vain: who gave up after a minute belongs
    into the histogram of waits. Raises what the gate raises (QueueFull, QueueTimeout, the shutdown's error), and
    Recalled where the place at the model was taken back meanwhile.
    """
    record, principal = exchange.record, exchange.principal
    record.gated = True
    started = time.monotonic()
    try:
        if engine.looked_after and engine.attachment.state == "absent":
            await engine.attachment.look_now()
        seat.gated(exchange.task)
        return await engine.gate.acquire(
            work=record.work,
            client=record.client,
            priority=principal.priority if principal else 0,
            max_running=principal.max_running if principal else 0,
            owner=principal.name if principal else "",
            key=key,
            exclusive=exclusive,
        )
    except asyncio.CancelledError:
        if seat.taken_back():
            raise Recalled from None
        raise
    finally:
        seat.gated(None)
        record.queue += time.monotonic() - started
