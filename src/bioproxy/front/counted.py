"""A request in the tables of those under way: one for people, who may cancel it; one for selectors, who count."""

from __future__ import annotations

import asyncio
from collections import Counter

from bioproxy.errors import BioproxyError
from bioproxy.front.exchange import Exchange
from bioproxy.front.inflight import Inflight
from bioproxy.models.names import Target

Busy = Counter[tuple[str, str]]  # requests by selector and target


class Counted:
    """Enters the request when it is made, and takes it out at the end of the block.

    A cancellation by an operator becomes an answer that says so; a client that left stays one.
    """

    __slots__ = ("busy", "entry", "inflight", "selected")

    def __init__(self, inflight: Inflight, busy: Busy, exchange: Exchange, target: Target) -> None:
        self.inflight = inflight
        self.busy = busy
        self.selected = (target.selector, target.name) if target.selector else None
        request, record = exchange.request, exchange.record
        record.session = inflight.session(request.header)
        self.entry = inflight.add(
            exchange.id,
            model=target.model,
            path=record.req_path or request.path,
            method=request.method,
            headers=request.headers,
            remote=request.peer,
            metadata=record.metadata,
            started=record.started,
            cancel=exchange.task.cancel if exchange.task is not None else None,
        )
        self.entry.watch(lambda: exchange.responder.bytes_out, exchange.reply)

    def __enter__(self) -> None:
        if self.selected is not None:
            self.busy[self.selected] += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.selected is not None:
            self.busy[self.selected] -= 1
        self.inflight.remove(self.entry)
        if isinstance(error, asyncio.CancelledError) and self.entry.cancelled:
            task = asyncio.current_task()
            if task is not None and task.uncancel() == 0:
                raise BioproxyError("the request was cancelled by an operator", status=503) from None
