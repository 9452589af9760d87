"""Web pages: which may read our answers (CORS), and which may ask at all.

A browser sends what any page in it wants, from wherever the page came, with the operator's network and the password
that the operator once typed. The page then cannot read the answer unless we say so (CORS), but what it asked for is
done: an image whose address is `http://localhost:8080/unload` stops every model. So two questions are answered here.

**Which pages may read.** With API keys any origin may: the key is the secret, and the page has to know it. Without keys
a page anywhere could read what the operator's templates contain, so only pages of this machine may, and apps whose
scheme no web page can have. `cors_origins` names others. The engine's own CORS headers, which allow everyone, are taken
out.

**Which pages may ask** for what changes something. What the browser itself says is believed, in this order, because no
page can write these headers: `Sec-Fetch-Site`, `Origin`, `Referer`. Browsers send the first over HTTPS and to this
machine only, the second not with images, links and frames, and a page can forbid the third. So if none of them says
anything, a client that looks like a browser is refused, unless its request is one that browsers send for a foreign page
only after a preflight, which we did not allow. Programs (curl, SDKs, scrapers) do not look like browsers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bioproxy.config.addresses import host_of, is_address, is_loopback
from bioproxy.errors import ForeignPage
from bioproxy.front.prefix import outside
from bioproxy.keys import KEY_HEADERS, sent_by_itself
from bioproxy.wire.http1.message import Headers, Request

METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED = b"x-request-id, request-id, server-timing, retry-after"
PREFLIGHT_SECONDS = b"600"
LONGEST = 80  # characters of an origin that a message shows
MOST_PAGES = 100  # pages that are told apart; more of them are counted in one heap
HEAP = "others"
# Origins of desktop apps, editors and extensions; a web page's is http, https or "null".
APPS = frozenset({
    "app", "capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension", "tauri", "vscode-file",
    "vscode-webview", "wails",
})  # fmt: skip
SIMPLE_METHODS = frozenset({"GET", "HEAD", "POST"})
SIMPLE_CONTENT = frozenset({  # forms, and what browsers send by themselves: pings and reports
    b"", b"text/plain", b"multipart/form-data", b"application/x-www-form-urlencoded",
    b"text/ping", b"application/csp-report", b"application/reports+json",
})  # fmt: skip
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
SAID = frozenset({b"sec-fetch-site", b"origin", b"referer"})  # by browsers, about the page that asks
BROWSERS = (b"Mozilla/", b"Opera/")
PROGRAMS = (b"PowerShell/", b"CFNetwork/")  # they send what browsers do; a page cannot write a browser's User-Agent


class Cors:
    """The origins that are allowed: those named, `*` for any; none named: any with keys, else this machine and apps."""

    def __init__(self, origins: tuple[str, ...], *, keys: bool) -> None:
        self.any = "*" in origins or (not origins and keys)
        self.default = not origins
        self.origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str, *, itself: bool = False) -> bool:
        """Whether a page from `origin` ("https://chat.example") may read answers, and ask for changes.

        `itself`: the browser adds a password by itself, so that a page has shown no secret of its own.
        """
        scheme, separator, _ = origin.lower().partition("://")
        if origin.lower() in self.origins or (separator and f"{scheme}://*" in self.origins):
            return True
        if self.any and not itself:
            return True
        here = scheme in APPS or (scheme in {"http", "https"} and is_loopback(origin))
        return self.default and bool(separator) and here

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

    def unread(self, request: Request) -> str:
        """The origin of a foreign page that asks and may not read the answer; "" if none does."""
        origin = origin_in(request, b"origin")
        return "" if not origin or is_own(origin, request) or self.allows(origin) else origin[:LONGEST]

    def check(self, request: Request) -> None:
        """ForeignPage if a page asks that may not: it could not read the answer, but what it asks for would be done."""
        itself = sent_by_itself(request.header)
        check_page(request, allows=lambda origin: self.allows(origin, itself=itself), key="cors_origins")

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


def check_name(request: Request, *, names: frozenset[str], addresses: bool, port: str) -> None:
    """ForeignPage unless the name by which we were asked is one of ours; `addresses`: any IP address is.

    A page's name can be pointed at this machine while the page is open (DNS rebinding). For the browser our answers are
    then the page's own, and all that is left of the page is its name in `Host`. Nobody can do that with an address.
    """
    host = (request.header(b"host") or b"").decode("latin-1")
    name = host_of(host)
    if is_ours(name, names=names, addresses=addresses):
        return
    shown = (name or host)[:LONGEST]
    said = f"the {port} port was asked as {shown!r}, which is none of its names"
    raise ForeignPage(f"{said}; if it should be, add it to admin_hosts", page=shown)


def is_ours(name: str, *, names: frozenset[str], addresses: bool) -> bool:
    """Whether nobody else can have this name, or one of `names` was configured; `addresses`: any IP address will do."""
    return is_loopback(name) or (name != "" and name in names) or (addresses and is_address(name))


def check_page(request: Request, *, allows: Callable[[str], bool], key: str) -> None:
    """ForeignPage if a browser asks for a page that may not.

    `allows` says of an origin whether its pages may; `key` is where an operator would name one.
    """
    site = request.header(b"sec-fetch-site")
    if site in {b"same-origin", b"none"}:
        return
    origin, referer = origin_in(request, b"origin"), origin_in(request, b"referer")
    if origin:
        if is_own(origin, request) or allows(origin):
            return
        shown = origin[:LONGEST]
        raise ForeignPage(f"a page of {shown!r} may not ask for this; if it should, add it to {key}", page=shown)
    if not is_simple(request) or (referer and (is_own(referer, request) or allows(referer))):
        return
    if site is not None or referer:
        raise unproven(request, "a page of another site may not ask for this", referer[:LONGEST] or "another site")
    if is_browser(request):
        raise unproven(request, "a browser asks, and does not say for which page", "a page that is not named")


def origin_in(request: Request, name: bytes) -> str:
    """The origin that `Origin` or `Referer` tells, such as "https://chat.example"; "" if it tells none."""
    return "/".join((request.header(name) or b"").decode("latin-1").split("/", 3)[:3])


def unproven(request: Request, what: str, page: str) -> ForeignPage:
    """The refusal of a request that only a person at a browser, or a program, may make."""
    link = outside(request) + request.target if request.method == "GET" else b""
    how = "follow the link on this page if you meant it, or ask with a program such as curl"
    return ForeignPage(f"{what}; {how}", page=page, confirmed_by=link)


def is_own(origin: str, request: Request) -> bool:
    """Whether a page of this origin came from the port that it now asks."""
    host = (request.header(b"host") or b"").decode("latin-1")
    return bool(host) and origin.partition("://")[2].lower() == host.lower()


def is_simple(request: Request) -> bool:
    """Whether a browser sends such a request for any page without a preflight (Fetch, "CORS-safelisted")."""
    if request.method not in SIMPLE_METHODS or any(request.header(name) is not None for name in KEY_HEADERS):
        return False
    if request.header(b"authorization") is not None and not sent_by_itself(request.header):
        return False
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    return kind in SIMPLE_CONTENT


def is_browser(request: Request) -> bool:
    """Whether a request has the signs of a browser that no page can take away."""
    agent = request.header(b"user-agent") or b""
    if any(program in agent for program in PROGRAMS):
        return False
    return agent.startswith(BROWSERS) or request.header(b"accept-language") not in {
        None,
        b"*",
    }  # node's fetch sends `*`


class Refusals:
    """How often which page was refused, since the start."""

    def __init__(self) -> None:
        self.pages: Counter[str] = Counter()

    def add(self, page: str) -> bool:
        """Count one; whether it is the first of its page, so that the log says each once."""
        new = page not in self.pages
        if new and len(self.pages) >= MOST_PAGES:
            page, new = HEAP, False
        self.pages[page] += 1
        return new

    def statistics(self) -> dict[str, int]:
        """Page (its origin, or the name by which we were asked) to count."""
        return dict(self.pages)


def options_headers(cors: Cors, request: Request) -> Headers:
    """The headers of the 204 that answers OPTIONS on any path, without a key; no engine ever sees one.

    llama-swap says `*` to every page, and its other answers allow none: pages can make models compute, and cannot read
    what they said. Here one rule decides both. As there, words of the asked-for headers that are no
    tokens are left out, or they could add lines of their own.
    """
    headers = [pair for pair in cors.preflight(request) if pair[0] != b"Access-Control-Allow-Headers"]
    if not cors.headers(request):
        return headers
    asked = (request.header(b"access-control-request-headers") or b"").decode("latin-1")
    names = [name for word in asked.split(",") if (name := word.strip()) and TOKEN.issuperset(name)]
    allowed = ", ".join(names) or "Content-Type, Authorization, Accept, X-Requested-With"
    return [*headers, (b"Access-Control-Allow-Headers", allowed.encode())]
