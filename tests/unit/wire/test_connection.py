"""A client's connection between its states, without a socket: what the event loop could call in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from bioproxy.config.schema import Limits
from bioproxy.wire.connection import Port, ServerConnection, State
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import plain_error

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Transport:
    """Remembers what was sent, and whether it was cut."""

    def __init__(self) -> None:
        self.sent = b""
        self.cut = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.cut

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.cut = True


def connected(handler: Any) -> tuple[Port, ServerConnection, Transport]:
    """A port, and one connection on it that waits for a request."""
    port = Port(handler, limits=Limits(), name="test", error_body=plain_error, files=1000)
    port.loop = asyncio.get_running_loop()
    connection, transport = ServerConnection(port), Transport()
    connection.connection_made(cast("asyncio.Transport", transport))
    return port, connection, transport


@contextmanager
def sets_deadline(connection: ServerConnection, seconds: float) -> Iterator[None]:
    """What is done inside gives the connection a deadline, `seconds` from then."""
    now = connection.port.loop.time
    before = now()
    yield
    assert before + seconds <= connection.deadline <= now() + seconds


async def answer(request: Request, responder: Responder) -> None:
    responder.send(200, [], request.path.encode())


async def test_a_client_that_leaves_before_its_request_has_begun() -> None:
    """In one turn of the loop a request comes and its client goes: nothing runs for it, and nothing of it is left."""
    asked: list[str] = []

    async def handler(request: Request, _: Responder) -> None:
        asked.append(request.path)

    port, connection, transport = connected(handler)
    connection.data_received(GET)
    assert (connection.state, len(port.tasks)) == (State.READY, 1)
    connection.connection_lost(None)
    (task,) = port.tasks
    await task
    assert (asked, transport.sent) == ([], b"")
    assert (port.tasks, port.connections, port.waiting, port.empty.is_set()) == (set(), set(), {}, True)


async def test_states_of_a_request() -> None:
    """Its head, its body, its task, and idle again; each has the deadline of its rule, and a running request none."""
    port, connection, transport = connected(answer)
    limits = port.limits
    for piece, state, seconds in (
        (b"POST / HTTP/1.1\r\nHost: h\r\n", State.HEAD, limits.head_timeout),
        (b"Content-Length: 2\r\n\r\n", State.BODY, limits.body_timeout),
        (b"hi", State.READY, float("inf")),
    ):
        with sets_deadline(connection, seconds):
            connection.data_received(piece)
        assert connection.state is state
    assert connection.task is not None
    with sets_deadline(connection, limits.idle_timeout):
        await connection.task
    assert transport.sent.endswith(b"\r\n\r\n/")
    assert connection.state is State.IDLE


async def test_a_slow_reader_has_a_deadline_in_every_state() -> None:
    """While the client reads nothing the time to write counts, and afterwards the state's own again."""
    port, connection, _ = connected(answer)
    with sets_deadline(connection, port.limits.write_timeout):
        connection.pause_writing()
    with sets_deadline(connection, port.limits.idle_timeout):
        connection.resume_writing()
    assert connection.state is State.IDLE
