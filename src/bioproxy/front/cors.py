"""CORS: which web pages may read answers.

A page's script may always *send* a simple request; the browser shows it the answer only if we say so. With API keys any
origin may be allowed, for the key is the secret and no cookie is involved. Without keys a page anywhere could read what
the operator's templates contain, so by default only pages from this machine may (`cors_origins: []`); the engine's own
CORS headers, which allow everyone, are taken out.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from bioproxy.errors import Forbidden
from bioproxy.wire.message import Headers, Request

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
DROPPED_PREFIX = b"access-control-"
METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED = b"x-request-id, request-id, server-timing, retry-after"
PREFLIGHT_SECONDS = b"600"


class Cors:
    """The origins that are allowed: those named, `*` for any; none named: any with keys, else loopback pages."""

    def __init__(self, origins: tuple[str, ...], *, keys: bool) -> None:
        self.any = "*" in origins or (not origins and keys)
        self.loopback = not origins
        self.origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        """Whether a page from `origin` ("https://chat.example") may read answers."""
        if self.any or origin.lower() in self.origins:
            return True
        return self.loopback and host_of(origin) in LOOPBACK

    def headers(self, request: Request) -> Headers:
        """What to add to an answer: nothing for clients that are no browser pages, or foreign ones."""
        origin = request.header(b"origin")
        if origin is None or not self.allows(origin.decode("latin-1")):
            return []
        return [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Expose-Headers", EXPOSED),
            (b"Vary", b"Origin"),
        ]

    def check(self, request: Request, what: str = "slot actions") -> None:
        """Forbidden for a foreign page: it could not read the answer, but what it asks for would be done."""
        origin = (request.header(b"origin") or b"").decode("latin-1")
        host = (request.header(b"host") or b"").decode("latin-1")
        own = origin.partition("://")[2].lower() == host.lower()
        if origin and not own and not self.allows(origin):
            raise Forbidden(f"a page of {origin[:80]!r} may not use {what}; if it should, add it to cors_origins")

    @staticmethod
    def is_preflight(request: Request) -> bool:
        """Whether the browser asks on the page's behalf; such a question carries no key."""
        return request.method == "OPTIONS" and request.header(b"access-control-request-method") is not None

    def preflight(self, request: Request) -> Headers:
        """The headers of the 204 that answers a preflight."""
        if not self.headers(request):
            return [(b"Vary", b"Origin")]
        asked = request.header(b"access-control-request-headers")
        headers: Headers = [
            (b"Access-Control-Allow-Methods", METHODS),
            (b"Access-Control-Max-Age", PREFLIGHT_SECONDS),
        ]
        if asked is not None:
            headers.append((b"Access-Control-Allow-Headers", asked))
        return headers


def host_of(origin: str) -> str:
    """The host that an `Origin` names; empty for `null` and for what is no origin at all."""
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
