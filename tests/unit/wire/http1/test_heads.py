"""What heads look like when we write them."""

from __future__ import annotations

import pytest

from bioproxy.wire.http1.heads import block, end_to_end, request_head, status_line, tokens, upgrade_of


def test_status_lines() -> None:
    """A phrase of the engine's is kept, a known status has its own, an unknown one has none."""
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(200, b"Fine") == b"HTTP/1.1 200 Fine\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize("value", [b"a\nb", b"a\r\nSet-Cookie: x", b"a\rb"])
def test_smuggled_line_ends_raise(value: bytes) -> None:
    """A value that would begin a new line is a bug of ours, and is never sent."""
    with pytest.raises(ValueError, match="line end"):
        block([(b"X", value)])


def test_hop_by_hop_headers_stay_here() -> None:
    """What speaks about the connection does not travel, nor what any Connection header names; order and case stay."""
    headers = [
        (b"B", b"1"),
        (b"Connection", b"keep-alive, X-Secret"),
        (b"x-secret", b"2"),
        (b"connection", b"x-other"),
        (b"Keep-Alive", b"timeout=5"),
        (b"TE", b"trailers"),
        (b"X-OTHER", b"3"),
        (b"a", b"4"),
    ]
    assert end_to_end(headers) == [(b"B", b"1"), (b"a", b"4")]


def test_request_head_has_our_host_and_length() -> None:
    """The engine is told its own name and the length of the body that we send, whatever the client said."""
    headers = [(b"Host", b"evil"), (b"Content-Length", b"9"), (b"Expect", b"100-continue"), (b"X", b"y")]
    head = request_head("POST", b"/a", headers, host=b"engine:1", length=3)
    assert head == b"POST /a HTTP/1.1\r\nHost: engine:1\r\nX: y\r\nContent-Length: 3\r\n\r\n"


def test_length_of_nothing_is_said_where_it_means_something() -> None:
    """A POST without a body says so; a GET says nothing."""
    assert b"Content-Length: 0" in request_head("POST", b"/", [], host=b"e", length=0)
    assert b"Content-Length" not in request_head("GET", b"/", [], host=b"e", length=0)


def test_upgrade_is_asked_for_again() -> None:
    """An upgrade that was let through is asked of the engine as our own."""
    headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Key", b"k")]
    assert upgrade_of(headers) == b"websocket"
    head = request_head("GET", b"/", headers, host=b"e", length=0, upgrade=b"websocket")
    assert head.endswith(b"Sec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


def test_tokens() -> None:
    """Words of a header in lower case."""
    assert tokens(b"Close , X-a,") == [b"close", b"x-a", b""]
