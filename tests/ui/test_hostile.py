"""A program in which everything that others choose is hostile: names, texts, paths, headers, answers, logs, errors.

Each page shows such text somewhere, and on none of them is it more than text. What each place makes of it in detail the
pages' own tests say.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.browser import GONE, Tab
from support.http import call
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

EVIL = (
    "<img src=x onerror=pwned=1><script>pwned=2</script><svg onload=pwned=3><a href=javascript:pwned=4>x</a>"
    "\x1b[31m\x1b]8;;http://evil.example/\x07click\x1b]8;;\x07 ![i](http://evil.example/i.png) {{7*7}} ${pwned=5}"
    "\u202e"
)
PAGES = (
    "/", "/models", "/models/a", "/models/b", "/templates", "/cache", "/requests", "/requests/LAST", "/logs",
    "/machine", "/playground", "/config", "/settings",
)  # fmt: skip
STRANGE = "main :is(script, iframe, object, embed, base, img[src='x'], [onerror], [onload], a[href^='javascript:' i])"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """One model that answers, and one that failed after a line of a megabyte."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    text = folder / "<img src=x onerror=pwned=6>.txt"
    text.write_text(f"{EVIL}\n<{{message}}>")
    say = shlex.quote(EVIL.replace("$", ""))  # the file's own macros begin so
    models = {
        "a": fake(f"--say {say}", name=EVIL.replace("$", ""), description=EVIL.replace("$", "")),
        "b": fake("--log_bytes 1000000 --log_no_newline --exit 3 --after 0.3"),
    }
    profiles = {"<img src=x onerror=pwned=7>": {"description": EVIL.replace("$", ""), "pins": {"big": "a"}}}
    async with swap_rig(folder, models, profiles=profiles, prefixes={"@evil": str(text)}, captureBuffer=20) as running:
        headers = {"X-Session-ID": "<img src=x onerror=pwned=8>", "User-Agent": "<script>pwned=9</script>"}
        await running.chat("a", messages=[{"role": "user", "content": EVIL}], headers=headers, bytes=1_000_000)
        await running.chat("a", messages=[{"role": "user", "content": f"@evil {EVIL}"}], headers=headers, stream=True)
        await call(running.port, "POST", "/upstream/a/%3Cimg%20src=x%20onerror=pwned=10%3E", data={"text": EVIL})
        await running.chat("<img src=x onerror=pwned=11>")
        await running.chat("b")
        yield running


@pytest.mark.parametrize("route", PAGES)
async def test_what_others_choose_is_only_text(tab: Tab, rig: Rig, route: str) -> None:
    """Nothing of it runs, loads, links or restyles; the page still answers at once."""
    if "LAST" in route:
        records = (await call(rig.port, "GET", "/api/requests?limit=5")).json()["requests"]
        route = route.replace("LAST", records[-1]["id"])
    page = await tab.open(rig.port, route)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    for button in await page.get_by_role("tab").all():
        await button.click()
        assert await page.locator(STRANGE).count() == 0
    assert await page.locator(STRANGE).count() == 0
    assert await page.evaluate("globalThis.pwned") is None
    await tab.phone()
    assert await tab.spilled() == []


async def test_long_names_have_room(tab: Tab, tmp_path: Path) -> None:
    """Those of a model, its alias, its description and its failure; what tells two of them apart can be read."""
    tab.expected(GONE)
    name = f"organisation/{'with-a-long-name-' * 7}Q4_K_M"
    models = {name: fake(description="What it is good for. " * 20, aliases=["x" * 90]), "b": fake("--exit 3")}
    async with swap_rig(tmp_path, models) as rig:
        await rig.chat("b")
        page = await tab.open(rig.port, "/models")
        reason = page.get_by_role("cell", name="upstream command exited prematurely")
        assert (box := await reason.bounding_box())
        assert box["width"] > 200
        await expect(reason).not_to_contain_text("last lines of its log")
        routes = ("/", "/models", f"/models/{name}", "/logs", "/requests", "/playground?tab=load")
        for size in ("wide", "phone"):
            if size == "phone":
                await tab.phone()
            for route in routes:
                await tab.open(rig.port, route)
                await expect(page.get_by_role("heading", level=1)).to_be_visible()
                assert await tab.spilled() == [], (route, size)
        await tab.open(rig.port, "/playground?tab=chat")
        await page.get_by_role("combobox", name="Model").click()
        option = page.get_by_role("option", name=name)
        assert await option.evaluate("one => one.scrollWidth <= one.clientWidth")


async def test_an_error_is_only_text(tab: Tab, rig: Rig) -> None:
    """What the program says about something that somebody made up is shown to the person, and can do nothing."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models/b")
    await page.route("**/load/b", lambda route: route.fulfill(status=500, json={"error": {"message": EVIL}}))
    await page.get_by_role("button", name="Load").first.click()
    toast = page.locator("[data-sonner-toast]")
    await expect(toast).to_contain_text("<script>pwned=2</script>")
    assert await toast.locator("script, a, img[src='x']").count() == 0
    assert await page.evaluate("globalThis.pwned") is None
