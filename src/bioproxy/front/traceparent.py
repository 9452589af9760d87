"""`traceparent` (W3C Trace Context): a valid one is passed on, and an invalid one is taken out with its `tracestate`.

Whoever meets an invalid one must begin the trace anew, or another server would go on with ids that nobody has. We begin
it ourselves only if we write spans (spans.py); else the engine does. Pure.
"""

from __future__ import annotations

import re

from bioproxy.wire.http1.message import Request

NAMES = frozenset({b"traceparent", b"tracestate"})
# version-trace-parent-flags; later versions may have more after it
VALID = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def settle(request: Request) -> str:
    """The trace that a request belongs to (32 hex digits); "" if its headers name none, and then they are gone."""
    values = [value for name, value in request.headers if name.lower() == b"traceparent"]
    found = VALID.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or (found[1] == b"00" and found[3] is not None):
        replace(request, NAMES, [])
        return ""
    return found[2].decode("ascii")


def replace(request: Request, names: frozenset[bytes], lines: list[tuple[bytes, bytes]]) -> None:
    """Put header `lines` in the place of those with these `names`."""
    request.headers[:] = [*(pair for pair in request.headers if pair[0].lower() not in names), *lines]
    for name in names:
        request.fields.pop(name, None)
    request.fields.update(lines)
