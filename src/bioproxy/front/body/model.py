"""Which model a request asks for, and whether it wants a stream: read from its body or its query, by content type.

| request                                       | where `model` stands                                       |
|-----------------------------------------------|------------------------------------------------------------|
| GET, HEAD, DELETE, OPTIONS                    | query                                                      |
| a body whose Content-Type says JSON           | top level of the body, else query                          |
| `application/x-www-form-urlencoded`           | body, else query                                           |
| `multipart/form-data`                         | query, else body: the order in which Go's `FormValue` looks|
| any other body that is a JSON object          | as JSON                                                    |

The last row is ours, and so is "else query" for JSON: llama-swap answers 404 there. Clients forget the content type
(`curl -d '{…}'` sends that of a form), and a request that can be read should be served; `Asked.untyped` says that the
engine needs to be told. What cannot be mistaken for JSON stays what it says it is.

`model` may be a number, which is read as text. Malformed JSON is not our business as long as its model can be read: the
engine's error is better than ours. Only the top level counts, so a `"model"` in a message never routes anything. What
msgspec can't read in one pass is worked through here word by word, so it must be small (`LONGEST_READ`): a larger body
names no model, and `Asked.unreadable` says why.

A JSON body is opened here, once: what follows on its way (filters, a prefix by the model's name, templates) works on
the same `Body`. Pure but for the request that is read.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Literal
from urllib.parse import quote_plus, unquote_plus

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON
from bioproxy.front.body import multipart
from bioproxy.templates.bodies import BOM, LONGEST_READ, Body
from bioproxy.wire.http1.message import Request

Kind = Literal["json", "multipart", "urlencoded", "query"]

WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
MOST_FIELDS = 1000  # pairs of a form that are looked at
LONGEST_KEY = 64  # bytes of a key that may mean `model`, escapes included
UNREADABLE = (
    "the body is no JSON that can be read, and more than 64 KiB are not searched for a model all the same; send JSON "
    "without NaN, lone surrogates and very deep nesting, or name the model in the query: `?model=<id>`"
)
LONGEST_NAME = 4096  # bytes of a value in a form or query that may name a model, escapes included
PAIR = re.compile(rb"[^&]+")
# strings (an unclosed one ends with the body, or looking for its end would begin anew at each quote) and brackets
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
PLAIN = re.compile(rb'\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*|true|false)', re.DOTALL)


class Top(msgspec.Struct):
    """The two members of a JSON body that decide where it goes, as they came; empty if they are missing."""

    model: Raw = Raw()
    stream: Raw = Raw()


TOP = msgspec.json.Decoder(Top)
STRING = msgspec.json.Decoder(str)


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for; `model` is empty if it names none.

    `kind` says where a model's name has to be written if it changes (json: filters.apply, else `renamed`). `untyped`: a
    JSON body that does not say so; the engine should get `Content-Type: application/json`. `unreadable`: it is no JSON,
    and too large to look for its model all the same. `body`: the JSON, opened.
    """

    model: str = ""
    stream: bool = False
    kind: Kind = "query"
    untyped: bool = False
    unreadable: bool = False
    body: Body | None = None


def read(request: Request) -> Asked:
    """What a request asks for; never raises."""
    if request.method in WITHOUT_BODY:
        return from_query(request)
    content_type = (request.header(b"content-type") or b"").decode("latin-1")
    kind = content_type.lower()
    if "application/json" in kind:
        asked = from_json(request.body)
        return asked if asked.model else or_query(asked, request)
    if "multipart/form-data" in kind:
        return from_multipart(request, content_type)
    if looks_like_json(request.body):
        asked = from_json(request.body)
        return or_query(msgspec.structs.replace(asked, untyped=True), request)
    if "application/x-www-form-urlencoded" in kind:
        asked = Asked(field(request.body, "model"), field(request.body, "stream") == "true", "urlencoded")
        return asked if asked.model else from_query(request)
    return from_query(request)


def from_query(request: Request) -> Asked:
    """By the query alone."""
    query = request.target.partition(b"?")[2]
    return Asked(field(query, "model"), field(query, "stream") == "true") if query else Asked()


def or_query(asked: Asked, request: Request) -> Asked:
    """A JSON body's own words, with the query's model if it names none."""
    if asked.model or b"?" not in request.target:
        return asked
    return msgspec.structs.replace(asked, model=from_query(request).model)


def from_multipart(request: Request, content_type: str) -> Asked:
    """By query and form; the kind is that of the form if it names the model."""
    query = from_query(request)
    boundary = multipart.boundary_of(content_type)
    if query.model or not boundary:
        return query
    model = multipart.value(request.body, boundary, "model") or ""
    stream = query.stream or multipart.value(request.body, boundary, "stream") == "true"
    return Asked(model, stream, "multipart")


def looks_like_json(body: bytes) -> bool:
    """Whether a body is a JSON object, by its two ends: forms and recordings have others."""
    return body[:64].removeprefix(BOM).lstrip()[:1] == b"{" and body[-64:].rstrip()[-1:] == b"}"


def from_json(raw: bytes) -> Asked:
    """By the top level of a JSON body, as well as it can be read."""
    body = Body(raw)
    if body.fields is not None:
        return Asked(body.model or text_of(bytes(body.fields.get("model", b""))), body.stream, "json", body=body)
    try:
        top = TOP.decode(raw[3:] if raw.startswith(BOM) else raw)
    except NOT_JSON:
        asked = from_malformed(raw)
    else:
        asked = Asked(text_of(bytes(top.model)), bytes(top.stream) == b"true", "json")
    return msgspec.structs.replace(asked, body=body)


def text_of(token: bytes) -> str:
    """The text of a JSON string or number; empty for anything else."""
    if token[:1] == b'"':
        try:
            return STRING.decode(token)
        except NOT_JSON:
            return lenient(token)
    return token.decode("ascii") if token[:1].isdigit() or token[:1] == b"-" else ""


def lenient(token: bytes) -> str:
    """A JSON string that only the standard library reads: control characters, half a surrogate pair (read as `?`)."""
    try:
        text = str(json.loads(token.decode(errors="replace"), strict=False))
        return text.encode(errors="replace").decode()  # UTF-8 can hold it, so /requests can show it
    except ValueError:
        return ""


def key_of(token: bytes) -> str:
    """The text of a JSON string that may be a key that we look for."""
    return lenient(token) if b"\\" in token else token[1:-1].decode("latin-1")


def from_malformed(body: bytes) -> Asked:
    """By the words at the top level of something that is nearly JSON; the last of equal keys counts."""
    if len(body) > LONGEST_READ:
        return Asked(kind="json", unreadable=True)
    depth = 0
    found = {"model": b"", "stream": b""}
    for token in TOKEN.finditer(body):
        text = token[0]
        if text[:1] != b'"':
            depth += 1 if text in {b"{", b"["} else -1
        elif depth == 1 and len(text) <= LONGEST_KEY and (key := key_of(text)) in found:
            value = PLAIN.match(body, token.end())
            if value is not None:
                found[key] = value[1]
    return Asked(text_of(found["model"]), found["stream"] == b"true", "json")


def field(pairs: bytes, name: str) -> str:
    """The first value of a field in `a=b&c=d`, decoded; empty if it is missing."""
    for pair in islice(PAIR.finditer(pairs), MOST_FIELDS):
        key, _, value = pair[0].partition(b"=")
        if is_named(key, name):
            return decoded(value[:LONGEST_NAME])
    return ""


def decoded(text: bytes) -> str:
    """A name or value of a form as text."""
    return unquote_plus(text.decode(errors="replace"), errors="replace")


def is_named(key: bytes, name: str) -> bool:
    """Whether the key of a pair is `name`, however it is escaped."""
    return len(key) <= LONGEST_KEY and decoded(key) == name


def with_field(pairs: bytes, name: str, value: str) -> bytes:
    """`a=b&c=d` with `value` for every pair of that name; all others byte for byte."""
    given = name.encode() + b"=" + quote_plus(value).encode()
    return PAIR.sub(
        lambda pair: given if is_named(pair[0].partition(b"=")[0], name) else pair[0], pairs, count=MOST_FIELDS
    )


def rewrite_multipart(body: bytes, content_type: str, field: str, value: str) -> bytes:
    """A form with another value in one field; all other bytes, their order and the parts' heads as they were."""
    boundary = multipart.boundary_of(content_type)
    return multipart.with_value(body, boundary, field, value) if boundary else body


def renamed(request: Request, asked: Asked, model: str, *, target: bytes = b"") -> tuple[bytes, bytes]:
    """Target and body of a request that is no JSON, with another model's name, wherever it stands in them.

    `target` is the engine's, if the client's is another one. Both places are written: the engine may look at the one
    that we did not read.
    """
    content_type = (request.header(b"content-type") or b"").decode("latin-1")
    body = request.body
    if asked.kind == "urlencoded":
        body = with_field(body, "model", model)
    elif "multipart/form-data" in content_type.lower():
        body = rewrite_multipart(body, content_type, "model", model)
    return renamed_target(target or request.target, model), body


def renamed_target(target: bytes, model: str) -> bytes:
    """A target whose query names another model; the same object if it names none."""
    path, mark, query = target.partition(b"?")
    if not field(query, "model"):
        return target
    return path + mark + with_field(query, "model", model)
