"""Writing heads: status lines, header blocks, request lines, and which headers must not travel further.

A hop-by-hop header speaks about one connection, not about the message (RFC 9110, 7.6.1); a proxy that passes one on
lets a client speak for the proxy. Everything else goes on in its order and its case.

Every block is checked for line ends that a value smuggled in. A value from a parser cannot have any; the check is there
for values that a program made, and costs a tenth of a microsecond. Pure: no socket, no loop.
"""

from __future__ import annotations

from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
REPLACED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}  # in a request: written by us, or answered by us
FRAMING = HOP_BY_HOP | {b"content-length"}
ONLY_ITSELF = frozenset({b"close", b"keep-alive", b"Keep-Alive"})  # Connection values that name no other header
STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode("ascii")) for status in HTTPStatus}
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # a length is said even when it is 0 (RFC 9110, 8.6)


def status_line(status: int, reason: bytes = b"") -> bytes:
    """The first line of a response; `reason` replaces the usual phrase."""
    if reason:
        return b"HTTP/1.1 %d %b\r\n" % (status, reason)
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def block(headers: Headers) -> bytes:
    """Header lines, each with its line end; ValueError if a name or value has a line end in it."""
    if not headers:
        return b""
    lines = b"\r\n".join([b": ".join(pair) for pair in headers]) + b"\r\n"
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise ValueError(f"a header has a line end in it: {headers!r}")
    return lines


def fields_of(headers: Headers) -> dict[bytes, bytes]:
    """Lower-case name to value; the first of several counts."""
    return {name.lower(): value for name, value in reversed(headers)}


def tokens(value: bytes) -> list[bytes]:
    """The comma-separated words of a header's value, in lower case: `Connection: Close, X` → [b"close", b"x"]."""
    return [word.strip() for word in value.lower().split(b",")]


def end_to_end(
    headers: Headers, dropped: frozenset[bytes] = HOP_BY_HOP, *, beginning: tuple[bytes, ...] = ()
) -> Headers:
    """The headers that travel on, without those that a Connection header names.

    `dropped` are the lower-case names that stay here, `beginning` what the names of others begin with.
    """
    kept: Headers = []
    named: set[bytes] = set()
    for pair in headers:
        key = pair[0].lower()
        if key not in dropped:
            if not beginning or not key.startswith(beginning):
                kept.append(pair)
        elif key == b"connection" and pair[1] not in ONLY_ITSELF:
            named.update(tokens(pair[1]))
    return [pair for pair in kept if pair[0].lower() not in named] if named else kept


def upgrade_of(headers: Headers) -> bytes | None:
    """The protocol that these headers ask to change to, if any."""
    return next((value for name, value in headers if len(name) == 7 and name.lower() == b"upgrade"), None)


def request_head(
    method: str, target: bytes, headers: Headers, *, host: bytes, length: int, upgrade: bytes | None = None
) -> bytes:
    """The head that an engine gets: `headers` less what speaks about the client's connection; Host and length are ours.

    `upgrade` is the protocol to ask for; the server lets a client's Upgrade header through only if it may.
    """
    kept = end_to_end(headers, REPLACED)
    if upgrade is not None:
        kept += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    if length or method in WITH_BODY:
        kept.append((b"Content-Length", b"%d" % length))
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (method.encode("ascii"), target, host, block(kept))
