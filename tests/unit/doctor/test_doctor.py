"""The doctor's list: bounded in bytes, and a fault of one request is not the end of the others."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bioproxy.doctor.doctor import Case, Doctor, response_id
from bioproxy.events import Bus
from bioproxy.templates.bodies import Body
from bioproxy.wire.relay import Tail
from support.config_files import settings

Json = Any


def broken(size: int = 10) -> Case:
    """A request that nothing is known of, so looking at it fails."""
    nothing = cast("Json", None)
    return Case(
        record=nothing, body=Body(bytes(size)), expanded=nothing, dialect="chat", want=nothing, prepared=nothing,
        keeper=nothing, tail=Tail(), life=0, fingerprint="",
    )  # fmt: skip


async def test_what_is_left_is_looked_at_after_a_fault() -> None:
    """The service starts again, and needs no further request for that."""
    doctor = Doctor(settings(), Bus())
    for _ in range(2):
        doctor.see(broken())
    for left in (1, 0):
        with pytest.raises(AttributeError):
            await doctor.run()
        assert len(doctor.cases) == left
    assert doctor.waiting == 0


async def test_what_comes_too_fast_is_skipped_and_counted() -> None:
    """What waits takes no more than `doctor.memory`, whatever one request takes; with none nothing is counted."""
    doctor = Doctor(settings(doctor__memory=100), Bus())
    for size in (60, 101, 60, 40, 1):
        doctor.see(broken(size))
    assert [len(case.body.raw) for case in doctor.cases] == [60, 40]
    assert (doctor.statistics().skipped, doctor.statistics().waiting) == (3, 2)
    off = Doctor(settings(doctor__memory=0), Bus())
    off.see(broken())
    assert (off.statistics().skipped, off.statistics().waiting) == (0, 0)


async def test_it_can_be_cancelled_while_it_waits() -> None:
    """Nobody asks for anything."""
    task = asyncio.create_task(Doctor(settings(), Bus()).run())  # noqa: TID251 - the service itself
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("answer", "events", "identity"),
    [
        (b'{"choices":[{"message":{"tool_calls":[{"id":"call"}]}}],"id":"chatcmpl-1"}', False, "chatcmpl-1"),
        (b'data: {"choices":[],"id":"chatcmpl-2"}\n\n', True, "chatcmpl-2"),
        (b': wait\n\nevent: message_start\ndata: {"type":"x","message":{"id":"msg_3"}}\n\n', True, "msg_3"),
        (b'data: {"type":"response.created","response":{"id":"resp_4"}}\r\n\r\n', True, "resp_4"),
        (b"data: [DONE]\n\n", True, ""),
        (b"[1]", False, ""),
        (b'{"id": 5}', False, ""),
        (b"no JSON", False, ""),
        (b"", False, ""),
    ],
)
def test_the_id_of_an_answer(answer: bytes, events: bool, identity: str) -> None:
    """Whole or streamed, in each API; what has none is found by the request's own."""
    tail = Tail()
    tail.events = events
    if answer:
        tail.add(answer)
    assert response_id(tail) == identity
