"""Headers as people may see them: in the list of running requests, and in captures.

Each name once, with its first value, written the way Go writes it (`X-Api-Key`), because the pages and scripts that
were made for llama-swap look for that. Credentials are never shown: reading a list of requests must not enable anyone
to send one in another client's name.
"""

from __future__ import annotations

from collections.abc import Iterable

from bioproxy.config.masking import is_secret

REDACTED = "[REDACTED]"
HIDDEN = REDACTED.encode()


def packed(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers in their order as one piece, credentials as `[REDACTED]`: a store of captures keeps thousands of them."""
    return b"\n".join(
        [name + b":" + (HIDDEN if is_secret(name.decode("latin-1")) else value) for name, value in headers]
    )


def unpacked(piece: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that `packed` made one piece of."""
    return tuple((name, value) for name, _, value in (line.partition(b":") for line in piece.split(b"\n") if line))


def shown(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Name to first value; credentials are replaced by `[REDACTED]`."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = "-".join(word.capitalize() for word in raw.decode("latin-1").split("-"))
        if name not in found:
            found[name] = REDACTED if is_secret(name) else value.decode("utf-8", "replace")
    return found
