"""The path below which a reverse proxy shows us: `https://example.org/llm/` for all that we call `/`.

Either the reverse proxy passes paths on as they came, and `proxy.base_path` is taken off here, before anything else
looks at the request: routes, guards, records and engines know one path, whichever way it came. Or it takes the prefix
off itself, and says so (`X-Forwarded-Prefix`) or not. In all cases a browser gets it back in what it is told to ask
next (`outside`). Requests without the prefix are served, too: probes and the command line of this machine come past the
reverse proxy.

A prefix with escapes in it is refused. We would not take it off, and whatever reads the path after us might.
"""

from __future__ import annotations

import re

from bioproxy.errors import RequestError
from bioproxy.wire.connection import Handler
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.target import path_of, shown

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+/?")


def below(base: str, handler: Handler) -> Handler:
    """`handler`, which gets requests for `base` and what is below it as if they were for `/`; itself if there is none.

    The base has no slash at its end.
    """
    raw = base.encode()

    async def handle(request: Request, responder: Responder) -> None:
        target = request.target
        rest = target.removeprefix(raw)
        if rest != target and rest[:1] in {b"", b"/", b"?"}:
            request.target = rest if rest[:1] == b"/" else b"/" + rest
            request.path = path_of(request.target)
            request.base = raw
        elif request.path == base or request.path.startswith(base + "/"):
            raise RequestError(f"the path {shown(target)} hides {base} behind an escape; write it plainly")
        else:
            request.base = forwarded_prefix(request) or raw
        await handler(request, responder)

    return handle if base else handler


def outside(request: Request) -> bytes:
    """What stands before our paths where the client is, without a slash at its end; b"" if nothing does, or is said."""
    return request.base or forwarded_prefix(request)


def forwarded_prefix(request: Request) -> bytes:
    """What the reverse proxy says that it took off; b"" for what is no path."""
    said = (request.header(b"x-forwarded-prefix") or b"").decode("latin-1").strip()
    return said.rstrip("/").encode() if PREFIX.fullmatch(said) else b""
