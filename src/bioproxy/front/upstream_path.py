"""`/upstream/<model>/<rest>` and `/comfyui/<rest>`: paths that name an engine and what to ask it, past all routing.

The model is the longest beginning of the path that means one (IDs have slashes); what follows goes to the engine with
its escapes and its query, by any method, websockets too, without filters. A path that ends with the model gets a
redirect to itself with a slash, or the relative links of an engine's page would miss the model.

Pages ask for a lot beside themselves. So that a forgotten browser tab does not swap models, paths that match
`upstream.ignorePaths` do not start one, and of `comfyui_auto` only its page itself does. Whoever holds a model's state
asks `Split.refused` before it sends anything. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

import msgspec

from bioproxy.config.dialect.go import compile_pattern
from bioproxy.errors import NotFound, RequestError
from bioproxy.front import routes
from bioproxy.models.names import Choose, NoTarget, Registry, Target
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.http1.target import hidden_slash

COMFYUI_MODEL = "comfyui_auto"
LONGEST = 4096  # characters of a path that expressions are tried on


class Redirect(msgspec.Struct, frozen=True):
    """An answer that sends the client to `location`, below what a reverse proxy has before it."""

    status: int
    location: bytes

    def headers(self, outside: bytes) -> Headers:
        return [(b"Location", outside + self.location), (b"Cache-Control", b"no-store")]


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A path taken apart: who is asked, for what (`rest` decoded, `target` as it goes out), and whether it may start.

    `reason` is why it may not; empty if it may.
    """

    asked: Target
    rest: str
    target: bytes
    reason: str = ""

    def refused(self) -> RequestError:
        """The answer if there is a `reason` and the model is not ready."""
        return RequestError(f"model {self.asked.model} is not loaded; {self.reason}", status=409)


class Ignored:
    """The expressions of `upstream.ignorePaths`, searched for anywhere in the path after the model's name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.searches: tuple[Callable[[str], object], ...] = tuple(map(compile_pattern, patterns))

    def reason(self, rest: str) -> str:
        """Why `rest` ("/style.css") starts nothing; "" if it may."""
        if len(rest) > LONGEST:
            return f"a path of more than {LONGEST:,} characters starts nothing"
        return "path matches upstream.ignorePaths" if any(search(rest) for search in self.searches) else ""


def redirect(method: str, target: bytes) -> Redirect:
    """To the same path with a slash at its end, the query kept; 308 if the method has to be kept too."""
    path, mark, query = target.partition(b"?")
    return Redirect(301 if method in {"GET", "HEAD"} else 308, path + b"/" + mark + query)


def split_upstream(
    method: str, target: bytes, *, path: str, registry: Registry, choose: Choose, ignored: Ignored
) -> Split | Redirect:
    """Read `/upstream/…`; `path` is the decoded path. NotFound if it names no model, or a disabled one."""
    named = path.removeprefix(routes.UPSTREAM_PATH)
    found = registry.in_path(named, choose)
    asked, rest = found or (None, "")
    if asked is None or isinstance(asked, NoTarget):
        raise NotFound("model not found")
    name = named[: len(named) - len(rest)].removesuffix("/")
    if name == named:
        return redirect(method, target)
    reason = ignored.reason("/" + rest) if not asked.peer else ""
    return Split(asked=asked, rest="/" + rest, target=behind(target, routes.UPSTREAM_PATH + name), reason=reason)


def split_comfyui(method: str, target: bytes, *, path: str, registry: Registry) -> Split | Redirect:
    """Read `/comfyui…`, which always means the local model `comfyui_auto`; NotFound if there is none."""
    if path == routes.COMFYUI_PATH:
        return redirect(method, target)
    if COMFYUI_MODEL not in registry.known.ids:
        raise NotFound(f"local model {COMFYUI_MODEL} not found")
    asked = Target(model=COMFYUI_MODEL, requested=COMFYUI_MODEL, name=COMFYUI_MODEL)
    rest = path.removeprefix(routes.COMFYUI_PATH)
    reason = "" if rest == "/" else f"only {routes.COMFYUI_PATH}/ can start it"
    return Split(asked=asked, rest=rest, target=behind(target, routes.COMFYUI_PATH), reason=reason)


def behind(target: bytes, start: str) -> bytes:
    """What of a raw target follows the decoded path `start`, its escapes and query kept; it begins with a slash.

    RequestError if that slash is an escape.
    """
    path, mark, query = target.partition(b"?")
    place = -1
    for _ in range(start.count("/") + 1):  # a name's slash may be an escape, so there may be fewer of them here
        place = path.find(b"/", place + 1)
        if place >= 0 and unquote_to_bytes(path[:place]).decode(errors="replace") == start:
            return path[place:] + mark + query
    raise hidden_slash(target)  # it is the one between the name and the rest


def check_guarded(method: str, split: Split) -> None:
    """RequestError if an escaped slash makes up a path that we guard, on what is, or may be, a llama-server.

    It decodes as we do, and what stands between may not. Other engines have names of files in their paths.
    """
    found = routes.ONE.find(method, split.rest)
    if found is not None and found[0].gate != "free":
        raise hidden_slash(split.target)
