"""Errors as llama-swap words them, for clients and scripts that were written for it.

Its envelope is OpenAI's with one key more: `{"src": "llama-swap", "error": {message, type, param, code}}`. `src` is how
scripts tell an error of the proxy from one of the engine, so it keeps that name. OpenAI's SDKs read the rest; those of
Anthropic do not, so what lies under `/v1/messages` gets Anthropic's body (dialects.py), where llama-swap has one for
all.

A client that asks for `text/plain` or `text/html` gets a line or a page; a 429 is JSON whatever was asked for, as
there. An error in a stream that has begun is an event, where llama-swap writes bare JSON that every SDK chokes on.

Which sentences scripts match on stands in the code that raises them. Pure.
"""

from __future__ import annotations

import msgspec

from bioproxy.errors import BioproxyError, EngineRefused, ForeignPage, ModelBusy, TokensSpent
from bioproxy.front import dialects
from bioproxy.front.dialects import JSON
from bioproxy.wire.http1.message import Headers

SOURCE = "llama-swap"
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
HTML = (b"Content-Type", b"text/html; charset=utf-8")
CHALLENGES: Headers = [  # a browser asks for a password only for Basic
    (b"WWW-Authenticate", b'Basic realm="llama-swap"'),
    (b"WWW-Authenticate", b'Bearer realm="bioproxy"'),
]

API = ("/v1/", "/v/", "/chat/", "/models")  # paths that only clients of an API ask for
WORDS = {  # status to type and code
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "unauthorized"),
    403: ("authentication_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    409: ("invalid_request_error", "conflict"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "gateway_timeout"),
}
OTHER_OF_CLIENT = ("invalid_request_error", "invalid_request")
OTHER_OF_SERVER = ("server_error", "internal_error")


class Unserved(BioproxyError):
    """A path that is not served, or not by this method: then `allow` names those that are served.

    `managing`: it is one of llama-swap's management routes, whose clients are its own.
    """

    default_status = 404
    code = "not_found_error"

    def __init__(self, message: str, *, allow: str = "", managing: bool = False) -> None:
        super().__init__(message, status=405 if allow else 404)
        self.allow, self.managing = allow, managing

    def words(self, path: str, accept: bytes) -> bytes:
        """What llama-swap says (as Go's mux does); empty for clients that read errors as JSON.

        Scripts and dashboards that were made for it compare its words. SDKs show a number alone for anything but JSON;
        they say so in `Accept`, or their path does.
        """
        if b"application/json" in accept or (path.startswith(API) and not self.managing):
            return b""
        if not self.allow:
            return b"404 page not found\n"
        return b"Method Not Allowed\n" if self.managing else b""


def envelope(error: BioproxyError) -> bytes:
    """The error as llama-swap's JSON."""
    other = OTHER_OF_SERVER if error.status >= 500 else OTHER_OF_CLIENT
    kind, code = WORDS.get(error.status, other)
    if isinstance(error, ModelBusy | TokensSpent):
        code = error.code
    inner = {"message": error.message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"src": SOURCE, "error": inner})


def answer(
    error: BioproxyError, *, path: str, accept: bytes | None = None, request_id: str = ""
) -> tuple[Headers, bytes]:
    """Headers and body of an error on `path`, in what `accept` (the header's value) prefers."""
    accept = accept or b""
    if isinstance(error, Unserved) and (words := error.words(path, accept)):
        content, body = TEXT, words
    elif (dialect := dialects.dialect_of(path)) in {"anthropic", "ollama"}:
        content, body = JSON, dialects.error_json(error, dialect, request_id=request_id)
    elif error.status != 429 and b"text/plain" in accept:
        content, body = TEXT, f"{SOURCE}: {error.message}".encode()
    elif error.status != 429 and b"text/html" in accept:
        link = error.confirmed_by if isinstance(error, ForeignPage) else b""
        content, body = HTML, page(error.message, link=link.decode("latin-1")).encode()
    else:
        content, body = JSON, envelope(error)
    return [content, *further_headers(error)], body


def page(message: str, *, link: str = "") -> str:
    """The error for a browser, whatever stands in the message; `link`: what may be asked from this page instead."""
    import html  # a table of all entities, which a start is spared

    further = f'<p><a href="{html.escape(link)}">{html.escape(link)}</a></p>' if link else ""
    return f"<html><body><h1>{SOURCE}</h1><p>{html.escape(message)}</p>{further}</body></html>"


def further_headers(error: BioproxyError) -> Headers:
    """Never cached; when to come back; how to say who one is."""
    headers: Headers = [(b"Cache-Control", b"no-store")]
    if isinstance(error, Unserved) and error.allow:
        headers.append((b"Allow", error.allow.encode()))
    if isinstance(error, ForeignPage):  # its link must not be clicked unseen, and what is clicked says where it stood
        headers += [(b"X-Frame-Options", b"DENY"), (b"Referrer-Policy", b"same-origin")]
    retry_after = 1 if error.retry_after is None and error.status == 429 else error.retry_after
    if retry_after is not None:
        headers.append((b"Retry-After", b"%d" % retry_after))
    return headers + CHALLENGES if error.status == 401 else headers


def event(error: BioproxyError, *, path: str, request_id: str = "", tail: bytes = b"") -> bytes:
    """The error as the end of a stream that has begun; `tail`: its last bytes.

    Where streams have a form of their own for it, it is that; and an error that is the engine's has not our `src`.
    """
    dialect = dialects.dialect_of(path)
    if isinstance(error, EngineRefused) or dialect in {"anthropic", "responses"}:
        return dialects.error_event(error, dialect, request_id=request_id, tail=tail)
    return dialects.event_of("", envelope(error))
