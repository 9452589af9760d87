"""How a request and its answer read: on the page, in a file, in an export. Pure.

Captures are kept as they came and put into words here when somebody asks, or before they are written to disk: most
never are. Headers lost their credentials, and bodies the client's key, before anything was kept (captures.py); what
goes here are the fields of a JSON request that are named as secrets are (config/masking.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from bioproxy.activity import Record
from bioproxy.config.masking import masked_command, masked_value
from bioproxy.errors import NOT_JSON
from bioproxy.front import shown
from bioproxy.wire.coding import decoded

Json: TypeAlias = Any
MOST_DECODED = 64 << 20  # bytes that a compressed answer may become
LONGEST_TEXT = 128 << 10  # bytes of a text that is looked through: 20 ms in which nothing else runs


class Light(msgspec.Struct, frozen=True, gc=False):
    """A capture as it came: what is needed to show it, without secrets, in few objects; there are thousands of them.

    A body that cannot be read in a browser is None.
    """

    path: str
    status: int
    request_headers: bytes
    request_body: bytes | None
    response_headers: bytes
    response_body: bytes | None
    original_body: bytes | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One capture as the API shows it; bodies are base64 in JSON, and null if they are left out.

    `req_body` is what the model got. If a rule about clients changed that, `req_original` is what the client sent.
    """

    id: int
    req_path: str
    req_headers: dict[str, str]
    req_body: bytes | None
    resp_headers: dict[str, str]
    resp_body: bytes | None
    req_original: bytes | msgspec.UnsetType = msgspec.UNSET


def masked(body: bytes) -> bytes | None:
    """A request without the values of JSON fields that are named as secrets are: an MCP server's `Authorization`.

    As it came, if there are none, or if it is no text. JSON as some engines take it (NaN, half a character, bytes that
    are no UTF-8) is read, too, and any other text looked through; None for one that is too long for that.
    """
    try:
        value = msgspec.json.decode(body)
        return body if (found := masked_value(value)) == value else msgspec.json.encode(found)
    except NOT_JSON:
        return masked_text(body)


def masked_text(body: bytes) -> bytes | None:
    """The same of what is no strict JSON."""
    try:
        value = json.loads(body.decode("utf-8", "surrogateescape"))
        return body if (found := masked_value(value)) == value else json.dumps(found).encode()
    except (ValueError, RecursionError):
        pass
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    return masked_command(text).encode() if len(body) <= LONGEST_TEXT else None


def pack(batch: Mapping[int, Light]) -> dict[int, bytes]:
    zstd = compressor()
    return {identity: zstd.compress(msgspec.msgpack.encode(kept(identity, one)), 1) for identity, one in batch.items()}


def unpacked(identity: int, packed: bytes | Light) -> Kept:
    """A capture in words, of what memory has of it."""
    if isinstance(packed, Light):
        return kept(identity, packed)
    return msgspec.msgpack.decode(compressor().decompress(packed), type=Kept)


def compressor() -> Any:
    """The module zstd, which a start is spared."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def kept(identity: int, light: Light) -> Kept:
    """A capture in words; an answer that came compressed is made readable, if it can be."""
    headers, body = shown.shown(shown.unpacked(light.response_headers)), light.response_body
    encoding = next((value for name, value in headers.items() if name.lower() == "content-encoding"), "")
    if body is not None and encoding and (plain := decoded(body, encoding, limit=MOST_DECODED)) is not None:
        body = plain
        headers.pop("Content-Encoding", None)
    return Kept(
        id=identity,
        req_path=light.path,
        req_headers=shown.shown(shown.unpacked(light.request_headers)),
        req_body=masked(light.request_body) if light.request_body else light.request_body,
        resp_headers=headers,
        resp_body=body,
        req_original=(light.original_body and masked(light.original_body)) or msgspec.UNSET,
    )


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One capture in an export. A body is the JSON that it was, else a text, else `{"base64": …}`."""

    id: int
    request_id: str
    time: datetime
    model: str
    client: str
    path: str
    status: int
    seconds: float
    request_headers: dict[str, str]
    request: Json = None
    response_headers: dict[str, str]
    response: Json = None
    original: Json = None


def line(record: Record, one: Kept) -> bytes:
    """A capture as a line of JSON Lines."""
    written = Line(
        id=one.id,
        request_id=record.id,
        time=datetime.fromtimestamp(record.started, UTC),
        model=record.model,
        client=record.client,
        path=one.req_path,
        status=record.status,
        seconds=record.total,
        request_headers=one.req_headers,
        request=readable(one.req_body),
        response_headers=one.resp_headers,
        response=readable(one.resp_body),
        original=None if one.req_original is msgspec.UNSET else readable(one.req_original),
    )
    return msgspec.json.encode(written) + b"\n"


def readable(body: bytes | msgspec.UnsetType | None) -> Json:
    """A body as it reads best in JSON."""
    if not isinstance(body, bytes):
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"base64": body}
    try:
        msgspec.json.decode(body)
    except NOT_JSON:
        return text
    return msgspec.Raw(msgspec.json.format(body, indent=-1))
