"""The web page's files: `/ui/` on both ports, what `make ui` put into the package.

A file is served if the folder's listing has it, so no path leads out of the folder. Names below `assets/` carry a hash
of what is in them: browsers keep those for ever, and ask for everything else anew, which costs a 304. The build has put
a smaller form of each text beside it (`.br`, `.gz`); nothing is compressed here, and nothing is kept in memory but the
names and the tags, because a browser asks for a file once.

The files are public: they hold nothing private, and a person must see the page that asks for a key. What the page may
do is told to the browser with each file: run and load what comes from here, and ask nobody else. So text of a model
that got into the page as markup could do nothing there.

On the admin port the page asks models where it came from, too (`ask_model`): a reverse proxy, a tunnel or a container
may show that port alone, and under another name and number than ours.

Redirects are relative, so they hold below a path of a reverse proxy. Only `/` cannot know whether the browser asked for
`/box` or `/box/`; front/prefix.py tells.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy.admin.routes import Entry, Question
from bioproxy.config.addresses import authority, host_fault, host_of, is_any, is_loopback, socket_path
from bioproxy.errors import NotFound
from bioproxy.front.prefix import outside
from bioproxy.wire.connection import Handler
from bioproxy.wire.http1.message import Headers, Request

FOLDER = Path(__file__).parents[1] / "page"
INDEX = "index.html"
NOT_BUILT = "the web page was not built: run `make ui` in bioproxy's source folder, or install a wheel, which has it"
HASHED = "assets/"  # where the build puts what has a hash in its name
HASH = 8  # characters
CODINGS = {"br": ".br", "gzip": ".gz"}  # the smaller one first
FOR_EVER, ANEW = b"public, max-age=31536000, immutable", b"no-cache"
TYPES = {
    ".html": b"text/html; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8",
    ".json": b"application/json", ".webmanifest": b"application/manifest+json", ".txt": b"text/plain; charset=utf-8",
    ".svg": b"image/svg+xml", ".png": b"image/png", ".ico": b"image/x-icon", ".woff2": b"font/woff2",
    ".woff": b"font/woff", ".ttf": b"font/ttf", ".wasm": b"application/wasm",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MODEL_PATHS = ("/v1/{path...}", "/sdapi/{path...}")  # what the Playground asks
USUAL_PORTS = {80, 443}  # a browser does not say them


class File(msgspec.Struct):
    """One file; `forms` are the names it has by coding, "" is plain, and `tags` their ETags, once they were read."""

    kind: bytes
    keep: bytes
    forms: dict[str, Path]
    tags: dict[str, bytes] = {}


class WebPage:
    """Serves the page. `front` answers what it asks models on the admin port, by the proxy port's rules.

    The folder is listed again if another build was put there.
    """

    def __init__(self, front: Handler, *, folder: Path = FOLDER) -> None:
        self.front = front
        self.asking: set[asyncio.Task[None]] = set()
        self.folder = folder
        self.built = 0  # when index.html was written, in nanoseconds; 0: there is none
        self.files: dict[str, File] = {}

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/", "To the web page.", self.from_root, None, guard="public"),
            Entry("GET", "/upstream", "To the web page.", self.from_upstream, None, guard="public"),
            Entry("GET", "/ui", "To the web page.", self.from_root, "page", guard="public"),
            Entry("GET", "/ui/{path...}", "The web page.", self.serve, "page", guard="public"),
            *(
                Entry(method, path, "What the web page asks a model.", self.ask_model)
                for path in MODEL_PATHS
                for method in ("GET", "POST")
            ),
        )

    def look(self) -> bool:
        """Whether the page was built; lists its files if that is news."""
        try:
            built = (self.folder / INDEX).stat().st_mtime_ns
        except OSError:
            built = 0
        if built != self.built:
            self.built, self.files = built, listed(self.folder) if built else {}
        return built != 0

    def wanted(self, request: Request) -> bool:
        """Whether a person at a browser asks, and there is a page to show."""
        return b"text/html" in (request.header(b"accept") or b"") and self.look()

    async def from_root(self, question: Question) -> None:
        """`/` and `/ui`, the same page."""
        self.redirect(question, b"ui/")

    async def from_upstream(self, question: Question) -> None:
        self.redirect(question, b"ui/#/models")

    def redirect(self, question: Question, to: bytes) -> None:
        if not self.look():
            raise NotFound(NOT_BUILT)
        request = question.request
        if request.path == "/" and (prefix := outside(request)):
            to = prefix + b"/" + to
        question.responder.send(302, [(b"Location", to), (b"Vary", b"Accept"), (b"Cache-Control", b"no-store")])

    async def serve(self, question: Question) -> None:
        """One file, in the smallest form that the client can read; 304 if it has that already."""
        request, responder = question.request, question.responder
        if not self.look():
            raise NotFound(NOT_BUILT)
        file = self.files.get(question.parameters["path"] or INDEX)
        if file is None:
            raise NotFound(f"the web page has no file {request.path}; it begins at ui/")
        coding = chosen(request.header(b"accept-encoding") or b"", file)
        headers = [*self.headers(file), *([(b"Content-Encoding", coding.encode())] if coding else ())]
        known = (request.header(b"if-none-match") or b"").replace(b"W/", b"").replace(b" ", b"").split(b",")
        if file.tags.get(coding) in known:
            responder.start(304, [*headers, (b"ETag", file.tags[coding])], length=None)
            responder.finish()
            return
        try:
            body = await asyncio.to_thread(file.forms[coding].read_bytes)
        except OSError as error:
            raise NotFound(
                f"the web page's file {request.path} is gone: {error.strerror}; was it built anew?"
            ) from error
        file.tags[coding] = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
        responder.send(200, [*headers, (b"ETag", file.tags[coding])], body)

    async def ask_model(self, question: Question) -> None:
        """A request of the Playground, which came past the admin port's guard: from here on it is the proxy port's.

        A page of another origin cannot send the header; programs, which do not, are told to ask the proxy port.
        """
        request, task = question.request, asyncio.current_task()
        if request.header(b"x-requested-with") != b"bioproxy":
            raise NotFound(f"the admin port has no {request.path}: models are asked on the proxy port")
        assert task is not None
        self.asking.add(task)
        try:
            await self.front(request, question.responder)
        finally:
            self.asking.discard(task)

    async def close(self, *, until: float) -> None:
        """Let answers of models end, and cut what is left at the loop's time `until`: the engines are stopped next."""
        if self.asking:
            await asyncio.wait(self.asking, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        await aio.finish(self.asking)

    def headers(self, file: File) -> Headers:
        """What a browser must know of the file, and what it must not let the page do."""
        return [
            (b"Content-Type", file.kind),
            (b"Cache-Control", file.keep),
            (b"Vary", b"Accept-Encoding"),
            (b"Content-Security-Policy", POLICY.encode()),
            (b"Referrer-Policy", b"no-referrer"),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Cross-Origin-Opener-Policy", b"same-origin"),
        ]


def listed(folder: Path) -> dict[str, File]:
    """The files by their names below `ui/`, with the smaller forms that lie beside them."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    smaller = tuple(CODINGS.values())
    return {
        name: File(
            kind=TYPES.get(path.suffix, b"application/octet-stream"),
            keep=FOR_EVER if has_hash(name) else ANEW,
            forms={"": path} | {coding: found[name + end] for coding, end in CODINGS.items() if name + end in found},
        )
        for name, path in found.items()
        if not (name.endswith(smaller) and name.rpartition(".")[0] in found)
    }


def has_hash(name: str) -> bool:
    """Whether another content would have another name: `assets/index-DOr1mPOo.js`."""
    stem = name.rpartition("/")[2].partition(".")[0]
    return name.startswith(HASHED) and len(stem.partition("-")[2]) >= HASH


def chosen(accepted: bytes, file: File) -> str:
    """The coding that the client takes, by `Accept-Encoding`; "" for none (RFC 9110, 12.5.3)."""
    takes = {}
    for part in accepted.decode("latin-1").lower().split(","):
        name, _, weight = part.replace(" ", "").partition(";q=")
        takes[name] = weight.strip("0.") != "" if weight else True
    return next((one for one in CODINGS if one in file.forms and takes.get(one, takes.get("*", False))), "")


def other_port(request: Request, *, here: int, bound: str, port: int, tls: bool) -> str:
    """The origin of another port of ours, by the name under which a browser asked this one, which is `here`.

    A port that is bound to one address only is asked by that. "" if nobody can tell: the browser said no name, or none
    of this port (a reverse proxy or a tunnel is between us), or the other one is a unix socket.
    """
    host = (request.header(b"host") or b"").decode("latin-1")
    straight = host.endswith(f":{here}") or here in USUAL_PORTS
    if socket_path(bound) or outside(request) or not straight:
        return ""
    name = host_of(host if is_any(bound) or is_loopback(bound) else bound)
    return f"{'https' if tls else 'http'}://{authority(name, port)}" if name and not host_fault(name) else ""
