"""A real browser: what a page elsewhere asks of us by any of its means is refused, and a person is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from bioproxy.config.schema import Limits
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server
from support.clients import Browser, browser, needs_chromium
from support.http import call
from support.swap_models import apart, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

# Every way in which a page makes its browser ask somebody else; each asks for a path of its own.
WAYS = {
    "img", "script", "css", "prefetch", "preload", "video", "iframe", "object", "embed", "background", "open",
    "formget", "nocors", "language", "head", "cors", "worker", "eventsource", "websocket", "post", "beacon", "formpost",
    "sandbox",
}  # fmt: skip
PAGE = """<!doctype html><meta name=referrer content=%(policy)s><body>
<iframe name=one></iframe><iframe name=two></iframe>
<script>
const to = way => "%(target)s/upstream/b/" + way;
const add = (kind, what) => document.body.append(Object.assign(document.createElement(kind), what));
const quiet = promise => promise.catch(() => 0);
add("img", {src: to("img")});
add("script", {src: to("script")});
add("link", {rel: "stylesheet", href: to("css")});
add("link", {rel: "prefetch", href: to("prefetch")});
add("link", {rel: "preload", as: "fetch", href: to("preload")});
add("video", {src: to("video"), onerror: () => window.open(to("open"))});  // a tab behind another one plays nothing
add("iframe", {src: to("iframe")});
add("object", {data: to("object")});
add("embed", {src: to("embed")});
add("div", {style: "height: 9px; background: url(" + to("background") + ")"});
const form = (method, way, frame) => {
  add("form", {id: way, method: method, action: to(way), target: frame, enctype: "text/plain"});
  document.getElementById(way).submit();
};
form("GET", "formget", "one");
form("POST", "formpost", "two");
const q = '<form id=q method=POST action=' + to("sandbox") + '></form><script>q.submit()<\\/script>';
add("iframe", {sandbox: "allow-scripts allow-forms", srcdoc: q});
const blind = {mode: "no-cors", referrerPolicy: "no-referrer", credentials: "include"};
quiet(fetch(to("nocors"), blind));
quiet(fetch(to("language"), {...blind, headers: {"Accept-Language": "*", "Accept": "application/json"}}));
quiet(fetch(to("head"), {...blind, method: "HEAD"}));
quiet(fetch(to("post"), {...blind, method: "POST", body: "{}"}));
quiet(fetch(to("cors")));
navigator.sendBeacon(to("beacon"), "{}");
new EventSource(to("eventsource"));
new WebSocket(to("websocket").replace("http", "ws"));
new Worker(URL.createObjectURL(new Blob(["fetch('" + to("worker") + "', {mode: 'no-cors'})"])));
</script>"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One browser for all."""
    async with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program as others in a LAN know it, without keys; `a` is loaded, and nobody wants `b`."""
    models, names = fakes("a b"), ["box.lan"]
    async with swap_rig(tmp_path_factory.mktemp("swap"), models, admin_hosts=names, groups=apart("a b")) as running:
        await running.chat("a")
        yield running


@asynccontextmanager
async def elsewhere(page: str) -> AsyncIterator[str]:
    """A page on another site; its address."""

    async def serve(request: Request, responder: Responder) -> None:
        responder.send(200, [(b"Content-Type", b"text/html")], page.encode())

    server = Server(serve, limits=Limits(), name="elsewhere")
    await server.listen("127.0.0.1", 0)
    try:
        yield f"http://evil.example:{server.port}/"
    finally:
        await server.close(deadline=0)


async def statuses(rig: Rig) -> dict[str, int]:
    """How each way below `/upstream/b/` was answered."""
    found = (await call(rig.ports.admin, "GET", "/requests")).json()["requests"]
    return {one["path"].rpartition("/")[2]: one["status"] for one in found if one["path"].startswith("/upstream/b/")}


@pytest.mark.parametrize("policy", ["no-referrer", "unsafe-url"])
@pytest.mark.parametrize("name", ["box.lan", "localhost"])
async def test_a_page_elsewhere_changes_nothing(name: str, policy: str, tab: Browser, rig: Rig) -> None:
    """Browsers send Sec-Fetch-* to this machine, but not over plain HTTP to another one, and a page can hide itself."""
    before = len((await call(rig.ports.admin, "GET", "/requests")).json()["requests"])
    async with elsewhere(PAGE % {"policy": policy, "target": f"http://{name}:{rig.port}"}) as address:
        await tab.ask("Page.bringToFront")
        await tab.ask("Page.navigate", url=address)

        async def all_came() -> bool:
            found = (await call(rig.ports.admin, "GET", "/requests")).json()["requests"]
            new = found[: len(found) - before]
            return {one["path"].rpartition("/")[2] for one in new} >= WAYS

        await rig.look(all_came, "the browser tried every way", seconds=20)
        assert await statuses(rig) == dict.fromkeys(WAYS, 403)
        assert await rig.running() == {"a": "ready"}
        await tab.go("about:blank")


async def test_a_person_follows_the_link(tab: Browser, rig: Rig) -> None:
    """An address that was typed looks like a foreign page's doing in a LAN; a click on our own page does not."""
    await tab.go(f"http://box.lan:{rig.port}/upstream/a/page")
    assert "follow the link" in await tab.text()
    await tab.click("a")
    assert "follow the link" not in await tab.text()


async def test_a_person_at_this_machine_needs_no_link(tab: Browser, rig: Rig) -> None:
    """There the browser says that no page asked."""
    await tab.go(f"http://localhost:{rig.port}/upstream/a/page")
    assert "follow the link" not in await tab.text()


async def test_a_name_that_was_pointed_at_us_reads_nothing(tab: Browser, rig: Rig) -> None:
    """For the browser it would be the page's own answer."""
    await tab.go(f"http://evil.example:{rig.port}/v1/models")
    assert "none of its names" in await tab.text()
