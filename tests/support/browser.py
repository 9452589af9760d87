"""The web page in a real browser, driven with Playwright: the distribution's Chromium, one for all tests of a worker.

A test takes the fixture `tab`: a browser context of its own with one page in it. It opens an address of a running
program and then asks `tab.page`, which is Playwright's. When the test ends, everything that went wrong in the page
fails it: an error in the console, an exception that nobody caught, something that the content security policy forbade,
a request to another host. What a test provokes on purpose it announces with `tab.expected`.

The page is built anew if a source is newer than it, where npm and `ui/node_modules` are there; a person who changes a
page runs its test and sees the change.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, async_playwright, expect

from bioproxy import aio
from support.clients import NAMES, PROGRAM
from support.page import ROOT, packaging

Json = Any
SOURCES = ROOT / "ui"
AXE = SOURCES / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE = 30_000.0  # ms for what must come
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HIGHEST = 4000  # pixels of a picture
OURS = {"127.0.0.1", "localhost", "box.lan"}
# Each window would load what the address bar shows below itself, which is a web page and takes more processor time than
# ours. Of several such lists only the last counts, so what Playwright switches off, and a test might notice, follows.
OFF = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "SpareRendererForSitePerProcess",
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch",
)  # fmt: skip
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", f"--host-resolver-rules={NAMES}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    f"--disable-features={','.join(OFF)}",
)  # fmt: skip
FORBIDDEN = """addEventListener("securitypolicyviolation", told => console.error(
  `forbidden by the content security policy: ${told.effectiveDirective} ${told.blockedURI} in ${told.sourceFile}` +
  `:${told.lineNumber} ${told.sample}`))"""
# What a program's stop is to a browser: before a connection, on one that is made or kept, before or amid an answer.
GONE = (
    "ERR_CONNECTION_(REFUSED|RESET|CLOSED|ABORTED)|ERR_SOCKET_NOT_CONNECTED"
    "|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONTENT_LENGTH_MISMATCH"
)
# What the page says over its title goes after some seconds, in which a busy machine may not have looked.
TOASTS = """window.toasts = []; new MutationObserver(changes => { for (const { addedNodes } of changes)
  for (const one of addedNodes) if (one instanceof Element) toasts.push(...(one.matches("[data-sonner-toast]") ? [one]
    : one.querySelectorAll("[data-sonner-toast]"))); }).observe(document, { childList: true, subtree: true })"""
SERIOUS = {"serious", "critical"}
FOCUSED = """() => { const one = document.activeElement; return one === document.body ? "" : [
  one.getAttribute("role") ?? one.tagName.toLowerCase(),
  (one.getAttribute("aria-label") ?? one.labels?.[0]?.innerText ?? one.innerText ?? "").trim()].join(" ").trim() }"""
SPILLED = """async () => { const frame = () => new Promise(done => requestAnimationFrame(done));
  await frame(); await frame(); // what measures itself has done so
  const most = document.documentElement.clientWidth; return [...document.querySelectorAll("main *")]
  .filter(one => one.getBoundingClientRect().right > most + 1 && !hidden(one)).map(one => one.outerHTML.slice(0, 120));
  function hidden(one) { for (let at = one.parentElement; at; at = at.parentElement)
    if (getComputedStyle(at).overflowX !== "visible") return true; return false; } }"""

expect.set_options(timeout=PATIENCE)


def why_not() -> str:
    """Why the page cannot be tried here; "" if it can."""
    return no_page() if PROGRAM else "chromium is not installed; the web page is not tried"


def no_page() -> str:
    """Why there is no page; "" if there is one. Builds it if a source is newer and its packages are there."""
    page = packaging("page")
    with alone():
        if not page.fresh(ROOT) and (SOURCES / "node_modules").exists() and (why := page.build(ROOT)):
            return f"the web page was not built: {why}"
        return "" if page.index(ROOT).exists() else "the web page was not built (make ui); it is not tried"


@contextmanager
def alone() -> Iterator[None]:
    """Workers that start at once build once."""
    import fcntl  # POSIX only

    folder = os.open(SOURCES, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAM, args=[*FLAGS])
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """One page in the browser, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.allowed: list[str] = []
        page.on("console", self.console)
        page.on("pageerror", lambda error: self.faults.append(f"not caught: {error.stack or error.message}"))
        page.on("request", self.request)

    def console(self, told: ConsoleMessage) -> None:
        if told.type in {"error", "warning"}:
            self.faults.append(f"{told.type} in the console: {told.text} ({told.location.get('url', '')})")

    def request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and address.hostname not in OURS:
            self.faults.append(f"asked another host: {request.url}")

    def expected(self, pattern: str) -> None:
        """From now on, and until the test ends, faults that contain this regular expression are none."""
        self.allowed.append(pattern)

    def wrong(self) -> list[str]:
        """What went wrong and was not expected."""
        return [one for one in self.faults if not any(re.search(pattern, one) for pattern in self.allowed)]

    async def open(self, port: int, route: str = "/", *, live: bool = True, prefix: str = "") -> Page:
        """Go to a page of the program on this port; returns when what it shows is live."""
        await self.page.goto(f"http://127.0.0.1:{port}{prefix}/ui/#{route}")
        if live:
            await self.until_live()
        return self.page

    async def until_live(self) -> None:
        """The page has a state, and follows it."""
        await expect(self.page).to_have_title(re.compile("^●"))

    async def press(self, *keys: str) -> str:
        """Press one key after another; what has the focus then."""
        for key in keys:
            await self.page.keyboard.press(key)
        return await self.focused()

    async def focused(self) -> str:
        """Role and name of what has the focus, "" if nothing has: `button Theme: dark`."""
        return str(await self.page.evaluate(FOCUSED))

    async def tab_to(self, name: str, *, most: int = 60) -> None:
        """Press Tab until what has the focus is called so; AssertionError if it cannot be reached."""
        seen = []
        for _ in range(most):
            if name in (now := await self.press("Tab")):
                return
            seen.append(now)
        raise AssertionError(f"Tab does not reach {name!r}, but {seen}")

    async def shown(self) -> str:
        """All that a person sees of the page, and what the browser keeps for it."""
        text, kept = await self.page.evaluate("[document.body.innerText, JSON.stringify(localStorage)]")
        return "\n".join((await self.page.title(), self.page.url, text, kept, await self.focused()))

    async def spilled(self) -> list[str]:
        """What reaches beyond the right edge of the window, and cannot be scrolled to within a part of the page."""
        return list(await self.page.evaluate(SPILLED))

    async def copied(self, button: Locator) -> str:
        """Press a button that copies; what is in the clipboard once something is: it may come after the click."""

        async def look() -> str | None:
            return str(await self.page.evaluate("navigator.clipboard.readText()")) or None

        await self.page.evaluate("navigator.clipboard.writeText('')")
        await button.click()
        text = await aio.poll(look, interval=0.05, deadline=PATIENCE / 1000)
        assert text is not None, "nothing was copied"
        return text

    async def told(self, text: str) -> None:
        """The page has said something with this text over its title; it may be gone by now."""

        async def look() -> bool | None:
            texts = await self.page.evaluate("toasts.map(one => one.textContent)")
            return any(text in one for one in texts) or None

        assert await aio.poll(look, interval=0.05, deadline=PATIENCE / 1000), f"the page did not say {text!r}"

    async def dark(self, *, on: bool = True) -> None:
        """As for a person whose system is dark, or light."""
        await self.page.emulate_media(color_scheme="dark" if on else "light")

    async def phone(self) -> None:
        """As wide as a phone."""
        await self.page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})

    async def axe(self, *, within: str = "") -> list[str]:
        """What axe finds that keeps people out, a line for each element. `within`: a selector. [] without axe."""
        if not AXE.exists():
            return []
        await self.page.evaluate(AXE.read_text("utf-8"))
        options = {"resultTypes": ["violations"], "rules": {"region": {"enabled": True}}}
        found = await self.page.evaluate("([where, options]) => axe.run(where || document, options)", [within, options])
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Take a picture; `whole`: the window becomes as high as the page, so that all of it is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size or {**WIDE}
        if whole:
            height = int(await self.page.evaluate("document.documentElement.scrollHeight"))
            await self.page.set_viewport_size({"width": size["width"], "height": min(height, HIGHEST)})
        await self.page.screenshot(path=path, animations="disabled")
        await self.page.set_viewport_size({"width": size["width"], "height": size["height"]})


@asynccontextmanager
async def new_tab(browser: Browser) -> AsyncIterator[Tab]:
    """A tab with storages of its own; it does not check itself."""
    context = await browser.new_context(
        viewport={"width": WIDE["width"], "height": WIDE["height"]}, reduced_motion="reduce", locale="en-GB"
    )
    try:
        context.set_default_timeout(PATIENCE)
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await context.add_init_script(FORBIDDEN)
        await context.add_init_script(TOASTS)
        yield Tab(await context.new_page())
    finally:
        await asyncio.wait_for(context.close(), PATIENCE / 1000)
