"""Captures: what is kept of a request, for how long, and what is never kept."""

from __future__ import annotations

import base64
import gzip
import json
import os
import tracemalloc
from typing import Any

import msgspec
import pytest

from bioproxy.activity import Capture
from bioproxy.admin.captures import Captures
from bioproxy.config.schema import MIB
from support.admin import metered

HEADERS = ((b"content-type", b"application/json"), (b"authorization", b"Bearer secret"))


def capture(request: bytes = b"asked", response: bytes = b"answered", *more: tuple[bytes, bytes]) -> Capture:
    return Capture(
        request_headers=HEADERS,
        request_body=request,
        response_headers=((b"content-type", b"text/plain"), (b"set-cookie", b"secret"), *more),
        response_body=response,
    )


async def shown(captures: Captures, identity: int = 1) -> dict[str, Any]:
    kept = await captures.kept(identity)
    assert kept is not None
    written = msgspec.json.encode(kept)
    assert b"secret" not in written
    found: dict[str, Any] = json.loads(written)
    return found


async def test_a_capture_is_llama_swaps_json() -> None:
    """Bodies as base64, secrets taken out."""
    captures = Captures(MIB)
    captures.add(1, metered(), capture())
    assert await shown(captures) == {
        "id": 1,
        "req_path": "/v1/chat/completions",
        "req_headers": {"Content-Type": "application/json", "Authorization": "[REDACTED]"},
        "req_body": base64.b64encode(b"asked").decode(),
        "resp_headers": {"Content-Type": "text/plain", "Set-Cookie": "[REDACTED]"},
        "resp_body": base64.b64encode(b"answered").decode(),
    }


@pytest.mark.parametrize(
    ("path", "request_kept", "response_kept"),
    [
        ("/v1/completions", True, True),
        ("/v1/audio/speech", True, False),
        ("/v1/audio/voices", False, True),
        ("/v1/audio/transcriptions", False, True),
        ("/v1/images/generations", True, False),
        ("/v1/images/edits", False, False),
        ("/sdapi/v1/txt2img", True, False),
        ("/upstream/draw/sdapi/v1/img2img", False, False),
    ],
)
async def test_sound_and_pictures_are_left_out(path: str, request_kept: bool, response_kept: bool) -> None:
    """By route, in either direction; headers always stay."""
    captures = Captures(MIB)
    captures.add(1, metered(path=path), capture())
    found = await shown(captures)
    assert (found["req_body"] is not None, found["resp_body"] is not None) == (request_kept, response_kept)
    assert found["resp_headers"]


async def test_a_failed_request_has_no_answer() -> None:
    """Its row says why it failed."""
    captures = Captures(MIB)
    captures.add(1, metered(status=502), capture())
    found = await shown(captures)
    assert found["resp_body"] is None
    assert found["req_body"] is not None


async def test_a_compressed_answer_is_kept_readable() -> None:
    """And does not claim to be compressed any more."""
    captures = Captures(MIB)
    captures.add(1, metered(), capture(b"", gzip.compress(b"answered"), (b"content-encoding", b"gzip")))
    found = await shown(captures)
    assert base64.b64decode(found["resp_body"]) == b"answered"
    assert "Content-Encoding" not in found["resp_headers"]


async def test_an_answer_that_cannot_be_unpacked_stays_as_it_is() -> None:
    """With the header that says how it is compressed."""
    captures = Captures(MIB)
    captures.add(1, metered(), capture(b"", b"packed", (b"content-encoding", b"br")))
    found = await shown(captures)
    assert base64.b64decode(found["resp_body"]) == b"packed"
    assert found["resp_headers"]["Content-Encoding"] == "br"


async def test_large_captures_are_compressed_when_the_buffer_is_full() -> None:
    """Not before; all in one go, and whoever asks meanwhile waits for it. None has to go for that."""
    captures, body = Captures(MIB), b'"%b"' % (b"x" * 249_998)
    for identity in range(1, 5):
        captures.add(identity, metered(), capture(body))
    assert captures.statistics().bytes > 1_000_000
    captures.add(5, metered(), capture(body))
    assert captures.packing is not None
    assert captures.has(1)
    assert len(base64.b64decode((await shown(captures))["req_body"])) == 250_000
    assert captures.statistics().kept == 5
    assert captures.statistics().bytes < 100_000


async def test_what_waits_to_be_compressed_has_a_bound() -> None:
    """Beyond four times the buffer the oldest go at once, and what is in the thread's hands comes to nothing."""
    captures = Captures(MIB)
    for identity in range(1, 40):
        captures.add(identity, metered(), capture(os.urandom(250_000)))
        assert captures.statistics().bytes <= 4 << 20
    assert not captures.has(1)
    assert await captures.kept(1) is None
    assert captures.has(39)
    assert captures.statistics().bytes <= 1 << 20


async def test_the_oldest_make_room() -> None:
    """In the order in which they were kept, and only as many as must."""
    captures = Captures(MIB)
    for identity in range(1, 50):
        captures.add(identity, metered(), capture(os.urandom(30_000)))
    assert await captures.kept(1) is None
    assert captures.has(49)
    assert not captures.has(1)
    statistics = captures.statistics()
    assert statistics.kept > 30
    assert statistics.bytes <= statistics.limit


@pytest.mark.parametrize("size", [0, 40, 2000])
async def test_the_buffer_is_what_they_really_take(size: int) -> None:
    """A small capture is mostly objects: they count, so that 1 MB is 1 MB of memory."""
    record = metered()
    tracemalloc.start()
    try:
        captures = Captures(MIB)
        before = tracemalloc.get_traced_memory()[0]
        for identity in range(4000):
            captures.add(identity, record, capture(os.urandom(size), os.urandom(size), (b"x", b"%d" % identity)))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert captures.statistics().kept < 4000
    assert 0.6 * (1 << 20) < taken <= 1 << 20


async def test_what_alone_is_too_large_is_left_out() -> None:
    """It would push out everything else."""
    captures = Captures(MIB)
    captures.add(1, metered(), capture())
    captures.add(2, metered(), capture(os.urandom(2 << 20)))
    assert await captures.kept(2) is None
    captures.add(3, metered(), capture(b"", b"x" * (5 << 20)))
    assert not captures.has(3)
    assert captures.has(1)
    assert captures.statistics().skipped == 2


async def test_without_a_buffer_nothing_is_kept() -> None:
    """And nobody need collect bodies."""
    captures = Captures(0)
    captures.add(1, metered(), capture())
    assert not captures.limit
    assert not captures.has(1)


async def test_a_smaller_buffer_after_a_reload_lets_the_oldest_go() -> None:
    """What fits stays."""
    captures = Captures(2 * MIB)
    for identity in range(1, 60):
        captures.add(identity, metered(), capture(os.urandom(30_000)))
    captures.configure(MIB)
    assert captures.has(59)
    assert not captures.has(1)
    assert captures.statistics().bytes <= 1 << 20


async def test_closing_forgets_everything() -> None:
    """What is being compressed too."""
    captures = Captures(MIB)
    captures.add(1, metered(), capture())
    captures.add(2, metered(), capture(b"x" * (3 << 20)))
    await captures.close()
    assert not captures.has(1)
    assert not captures.has(2)
