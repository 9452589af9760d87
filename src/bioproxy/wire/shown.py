"""Headers as people may see them: in the list of running requests, and in captures.

Each name once, with its first value, written the way Go writes it (`X-Api-Key`), for that is what the pages and scripts
that were made for llama-swap look for. What lets somebody in is never shown: who may read a list of requests must not
be able to send one in another's name.
"""

from __future__ import annotations

from collections.abc import Iterable

REDACTED = "[REDACTED]"
SECRET = frozenset({"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "Api-Key"})
SECRET_BYTES = frozenset(name.lower().encode() for name in SECRET)


def without_secrets(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The same headers in their order, with `[REDACTED]` for what lets somebody in: for whoever keeps them."""
    return tuple((name, REDACTED.encode() if name.lower() in SECRET_BYTES else value) for name, value in headers)


def shown(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Name to first value; keys and cookies are replaced by `[REDACTED]`."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = "-".join(word.capitalize() for word in raw.decode("latin-1").split("-"))
        if name not in found:
            found[name] = REDACTED if name in SECRET else value.decode("utf-8", "replace")
    return found
