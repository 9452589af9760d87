"""The HTTP of the fake engine for swaps: blocking sockets, a thread per connection, there within milliseconds.

It stands beside plain_http.py for one reason: asyncio takes 30 ms to import, and a test of swaps starts dozens of
engines. Nothing is imported here that a health check does not need; `typing` is for the type checker only.
"""

from __future__ import annotations

import json
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = Any

PHRASES = {101: "Switching Protocols", 200: "OK", 204: "No Content", 302: "Found", 404: "Not Found"}
WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Gone(Exception):
    """The client has left."""


class Call:
    """One request; `headers` as pairs in the order and case in which they came."""

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        path, _, query = target.partition("?")
        self.path = unquote(path)
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        self.query = {unquote(name): unquote(value) for name, _, value in pairs}
        self.members: dict[str, Json] = {}
        if self.header("content-type").startswith("application/json"):
            found = json.loads(body or b"{}")
            self.members = found if isinstance(found, dict) else {}

    def header(self, name: str) -> str:
        """The first value of the header `name` (in lower case), or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def wish(self, name: str, default: Json) -> Json:
        """What the client wants of the fake: a member of the body, else of the query, else the header `X-Name`."""
        if name in self.members:
            return self.members[name]
        text = self.query.get(name) or self.header(f"x-{name}")
        return json.loads(text) if text else default

    def record(self) -> Json:
        """The request as the fake tells of it."""
        return {
            "method": self.method,
            "target": self.target,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": self.body.decode("utf-8", "replace"),
        }


def unquote(text: str) -> str:
    """`%2F` and `+` read back."""
    first, *parts = text.replace("+", " ").encode().split(b"%")
    return (first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in parts)).decode("utf-8", "replace")


class Connection:
    """One client's connection; every wait looks whether the client is still there."""

    def __init__(self, sock: socket.socket, *, extra: str = "") -> None:
        self.sock, self.extra = sock, extra
        self.buffer = b""
        self.keep = True
        self.chunked = False

    def fill(self) -> None:
        """Read more; Gone where nothing more comes."""
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise Gone
        self.buffer += data

    def until(self, mark: bytes) -> bytes:
        """Read up to `mark`, which is left out."""
        while mark not in self.buffer:
            self.fill()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        """Read `size` bytes."""
        parts, left = [self.buffer[:size]], size - len(self.buffer)
        self.buffer = self.buffer[size:]
        while left > 0:
            self.fill()
            parts.append(self.buffer[:left])
            left, self.buffer = left - len(self.buffer), self.buffer[left:]
        return b"".join(parts)

    def call(self) -> Call:
        """The next request, whole; Gone where there is none."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        given = {name.lower(): value.lower() for name, value in headers}
        if given.get("expect") == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.chunks() if "transfer-encoding" in given else self.exactly(int(given.get("content-length", 0)))
        self.keep = version == "HTTP/1.1" and "close" not in given.get("connection", "")
        return Call(method, target, headers, body)

    def chunks(self) -> bytes:
        """A chunked body."""
        body = b""
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            body += self.exactly(size)
            self.until(b"\r\n")
        self.until(b"\r\n")
        return body

    def send(self, data: bytes) -> None:
        """Send bytes as they are; Gone where the client has left."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Gone from error

    def head(self, status: int, kind: str, *fields: str) -> None:
        """The head of an answer."""
        lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Status')}", "Server: swap-engine", f"Content-Type: {kind}"]
        lines += [*fields, *([self.extra] if self.extra else []), *([] if self.keep else ["Connection: close"])]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, status: int, value: Json, *, kind: str = "application/json", bare: bool = False) -> None:
        """A whole answer: bytes as they are, anything else as JSON; `bare`: the head alone, as HEAD wants it."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.head(status, kind, f"Content-Length: {len(body)}")
        self.send(b"" if bare else body)

    def stream(self) -> None:
        """The head of a stream of events."""
        self.head(200, "text/event-stream", "Transfer-Encoding: chunked")

    def event(self, value: Json, name: str = "") -> None:
        """One event, as a chunk."""
        text = value if isinstance(value, str) else json.dumps(value)
        data = ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The end of a stream."""
        self.send(b"0\r\n\r\n")

    def pause(self, seconds: float) -> None:
        """Do nothing for a while; Gone as soon as the client leaves."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.look(left)

    def look(self, seconds: float) -> None:
        """Wait at most `seconds` for the client's leaving: Gone."""
        ready, _, _ = select.select([self.sock], [], [], seconds)
        if not ready:
            return
        try:
            left = not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            left = True
        if left:
            raise Gone
        time.sleep(min(seconds, 0.005))  # bytes of the next request; they keep


def echo_frames(connection: Connection, call: Call) -> None:
    """Upgrade to a websocket and send every frame back unmasked, until the client closes."""
    import base64  # only this needs them
    import hashlib

    accept = base64.b64encode(hashlib.sha1((call.header("sec-websocket-key") + WEBSOCKET).encode()).digest())
    connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    code = 0
    while code != 8:
        first, second = connection.exactly(2)
        size, code = second & 0x7F, first & 0x0F
        length = connection.exactly(2) if size == 126 else b""
        size = int.from_bytes(length, "big") if length else size
        mask = connection.exactly(4) if second & 0x80 else bytes(4)
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(connection.exactly(size)))
        connection.send(bytes([first, size if not length else 126]) + length + payload)


def form_fields(call: Call) -> list[Json]:
    """The parts of a multipart body, in order: name, file name, type, and the value (of a file only its length)."""
    boundary = call.header("content-type").partition("boundary=")[2].strip('"').encode()
    found: list[Json] = []
    for part in call.body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
        pairs = (line.partition(": ") for line in head.decode().split("\r\n"))
        lines = {name.lower(): value for name, _, value in pairs}
        words = [word.strip().partition("=") for word in lines["content-disposition"].split(";")]
        names = {name: text.strip('"') for name, _, text in words}
        field: Json = {"name": names["name"], "type": lines.get("content-type", ""), "bytes": len(value)}
        named = {"filename": names["filename"]} if "filename" in names else {"value": value.decode("utf-8", "replace")}
        found.append(field | named)
    return found
