"""Reading a request target: what path it names, and which targets are refused.

A gate that judges by path is only as good as its agreement with the engine about what the path is. `/v1//completions`
or `/v1/%2e%2e/completions` can mean one thing to us and another to the engine, and what we took for harmless would
compute, or act on a slot. So a path that can be read in two ways is refused here (400) instead of being put
right: no client of an API needs one. A slash behind an escape (`/slots%2f0`) is another matter, for names of files and
models have slashes: the code that knows what the path is for judges it (`hides_slash`).

What is left is decoded once, for routing and for people. The engine always gets the bytes as they came. A target that
names a host (`GET http://host/path`, RFC 9112, 3.2.2) is rewritten to the plain form, for engines do not know it.

Pure: no socket, no loop. Targets repeat, so short ones are remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

from bioproxy.errors import RequestError

REMEMBERED = 256  # bytes; longer targets are read again each time, or a scanner could fill the memory
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
BAD_BYTE = re.compile(rb"[\x00-\x20\x7f#]")
# After these comes a name, whose slashes clients escape, or the path to ask an engine for.
NAMING = (
    b"/upstream/", b"/comfyui/", b"/v1/models/", b"/api/models/load/", b"/api/models/unload/", b"/logs/stream/",
    b"/api/templates/", b"/warmup/",
)  # fmt: skip
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.%A-Za-z]+\])(?::[0-9]*)?")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def read_target(target: bytes, method: bytes) -> tuple[bytes, str, bytes | None]:
    """The target in origin form, its decoded path, and the authority that an absolute target named (else None).

    RequestError (400) for anything that could be read in two ways.
    """
    if target[:1] == b"/":
        return target, (remembered_path(target) if len(target) <= REMEMBERED else path_of(target)), None
    if target == b"*" and method == b"OPTIONS":
        return target, "*", None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1] or not valid_host(absolute[1]):
        raise RequestError(f"the request target {shown(target)} is neither a path nor a full http URL")
    rest = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    return rest, path_of(rest), absolute[1]


def path_of(target: bytes) -> str:
    """The decoded path of an origin-form target (`/path?query`); RequestError if it could be read in two ways."""
    if BAD_BYTE.search(target) is not None:
        raise RequestError(f"the request target {shown(target)} has a fragment, a blank or a control byte in it")
    raw = target.partition(b"?")[0]
    path = raw.decode("utf-8", "replace") if b"%" not in raw else decoded(raw)
    if "//" in path or "\\" in path:
        raise RequestError(f"the path {shown(raw)} has an empty segment or a backslash in it; write each '/' once")
    if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
        raise RequestError(f"the path {shown(raw)} has a dot segment in it; write the path that it leads to")
    return path


remembered_path = lru_cache(maxsize=1024)(path_of)


def decoded(raw: bytes) -> str:
    """A path with escapes, decoded once; RequestError for escapes that hide a control byte, or are none."""
    if BAD_ESCAPE.search(raw) is not None:
        raise RequestError(f"the path {shown(raw)} has a '%' that is no escape; write a literal '%' as %25")
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    if CONTROL.search(path) is not None:
        raise RequestError(f"the path {shown(raw)} hides a control byte behind an escape")
    return path


def hides_slash(target: bytes) -> bool:
    """Whether a slash of the path is escaped: one reader may take it for a part of a name, another for its end."""
    return b"%" in target and b"%2f" in target.partition(b"?")[0].lower()


def hidden_slash(target: bytes) -> RequestError:
    """The error for such a path, if nothing says what it is for."""
    return RequestError(f"the path {shown(target.partition(b'?')[0])} hides a '/' behind an escape; write it plainly")


def check_slashes(target: bytes) -> None:
    """RequestError for a hidden slash anywhere but in a name."""
    if hides_slash(target) and not target.startswith(NAMING):
        raise hidden_slash(target)


def query_of(target: bytes) -> list[tuple[str, str]]:
    """The decoded name and value pairs after the `?`, in order; names without a value have an empty one."""
    text = target.partition(b"?")[2].decode("utf-8", "replace")
    return parse_qsl(text, keep_blank_values=True, errors="replace") if text else []


@lru_cache(maxsize=256)
def valid_host(value: bytes) -> bool:
    """Whether a Host header's value is a name or an address with an optional port (RFC 9110, 7.2); empty is allowed."""
    return AUTHORITY.fullmatch(value) is not None


def shown(text: bytes) -> str:
    """Bytes from outside, short and harmless, for an error message."""
    return repr(text[:80].decode("latin-1")) + ("…" if len(text) > 80 else "")
