"""What an engine says when it refuses a request, or its stream fails, in each of the shapes that engines use.

    {"error": {"message": …, "type": …, "code": …}}    llama-server, OpenAI, vLLM; what else stands there is kept
    {"type": "error", "error": {…}}                     Anthropic
    {"object": "error", "message": …}                   older vLLM
    {"error": "…"}, {"message": …}                      many
    {"detail": "…"}, {"detail": [{"loc", "msg"}, …]}    FastAPI
    [{"error": {…}}], plain text                        others; a page for browsers says nothing

Pure, and never raises: what an engine sends must not cost the client its answer.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec

from bioproxy.errors import NOT_JSON, EngineRefused
from bioproxy.wire.coding import decoded

Json: TypeAlias = Any

LONGEST_ERROR = 500  # characters
LONGEST_DECODED = 4 << 20  # bytes that a compressed one may become
MOST_ERRORS = 8  # of a list, in one message
OTHER_WORDS = ("detail", "msg", "errors", "response")
WORDS = re.compile(rb'"(?:message|msg|detail|error)"\s*:\s*("(?:[^"\\]|\\.)*")')
SAID = frozenset({"message", "error", "object", "detail"})  # members that the message was made of


def refusal(body: bytes, status: int) -> EngineRefused:
    """An engine's error as one of ours: its words, and what it says besides (`type`, `n_ctx` and the like)."""
    try:
        told = msgspec.json.decode(body)
    except NOT_JSON:
        told = None
    inner = told if isinstance(told, dict) else {}
    if isinstance(inner.get("error"), dict):
        inner = inner["error"]
    fields = {name: value for name, value in inner.items() if name not in SAID and not isinstance(value, dict | list)}
    for name in ("type", "code"):
        if name in fields and (not isinstance(fields[name], str | int) or isinstance(fields[name], bool)):
            del fields[name]
    return EngineRefused(error_message(body, status), status=status, fields=fields)


def error_message(body: bytes, status: int, *, encoding: str = "") -> str:
    """What went wrong, in the engine's words (500 characters at most), else the status and its name."""
    if words := error_words(decoded(body, encoding, limit=LONGEST_DECODED) or b""):
        return words
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def error_words(body: bytes) -> str:
    """What an engine's error says (500 characters at most); "" if it says nothing."""
    try:
        words = words_of(msgspec.json.decode(body))
    except NOT_JSON:
        words = words_in(body)
    return shortened(words)


def shortened(text: str) -> str:
    """A text as the activity table keeps it."""
    return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + "..."


def words_of(told: Json, names: tuple[str, ...] = ("error", "message", *OTHER_WORDS), *, depth: int = 4) -> str:
    """The first text in what an engine says about an error; "" if there is none."""
    if isinstance(told, str):
        return told.strip()
    if isinstance(told, list) and depth:
        return "; ".join(filter(None, [words_of(one, depth=depth - 1) for one in told[:MOST_ERRORS]]))
    if not isinstance(told, dict) or not depth:
        return ""
    inner = ("message", "error", *OTHER_WORDS)
    text = next(filter(None, (words_of(told.get(name), inner, depth=depth - 1) for name in names)), "")
    place = told.get("loc")  # FastAPI's: which field is wrong
    return f"{'.'.join(map(str, place))}: {text}" if text and place and isinstance(place, list) else text


def words_in(body: bytes) -> str:
    """The same of a body that is no JSON, or the end of one."""
    try:
        if (found := WORDS.search(body)) is not None:
            return str(msgspec.json.decode(found[1], strict=False)).strip()
        text = " ".join(body.decode().split())
    except NOT_JSON:
        return ""
    return text if text.isprintable() and not text.startswith(("<", "{", "[")) else ""
