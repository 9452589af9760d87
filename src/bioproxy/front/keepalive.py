"""Signs of life for a stream that waits: in the queue, while a model loads, while a long prompt is evaluated.

Proxies and SDKs close a connection that says nothing for a minute, and llama-server says nothing before a slot starts
(facts, section 2). So after `stream_keepalive` seconds without a byte we send the head of a 200 and a comment line, and
again every so many seconds until the engine's first byte. The price: a later error can only be an event in the stream.
"""

from __future__ import annotations

import asyncio

from bioproxy.front.dialects import keepalive
from bioproxy.front.exchange import Exchange


class Keepalive:
    """One timer for one exchange."""

    __slots__ = ("exchange", "period", "timer")

    def __init__(self, exchange: Exchange, period: float) -> None:
        self.exchange = exchange
        self.period = period
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count; does nothing for a period of 0."""
        if self.period > 0:
            self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)

    def stop(self) -> None:
        """No further comment will be sent."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def tick(self) -> None:
        """Send the head if it is not out, then a comment, unless the engine has spoken."""
        exchange = self.exchange
        if exchange.tail.first is not None:
            self.timer = None
            return
        exchange.open_stream()
        exchange.responder.write(keepalive(exchange.dialect))
        self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)
