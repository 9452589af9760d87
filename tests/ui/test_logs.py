"""The page of logs: two of them side by side, what one sees of each, and what a hostile line can do (nothing)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from support.browser import GONE, Tab
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> \x1b[31mred\x1b[0m \x1b]0;title\x07end"
SAY = "'" + HOSTILE + "'"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Two models, of which one has said something."""
    async with swap_rig(tmp_path_factory.mktemp("logs"), {"a": fake(f"--say {SAY}"), "b": fake()}) as running:
        await running.chat("a")
        yield running


def view(page: Page, source: str) -> Locator:
    """The log of this source, with its tools."""
    return page.get_by_role("region", name=f"Log {source}", exact=True)


def lines(page: Page, source: str) -> Locator:
    return page.get_by_role("log", name=f"Lines of {source}", exact=True)


async def test_both_logs_stand_side_by_side_and_follow(tab: Tab, rig: Rig) -> None:
    """What the program says, and what its engines say, as they say it."""
    page = await tab.open(rig.port, "/logs")
    await expect(lines(page, "proxy")).to_contain_text("a is ready after")
    await expect(lines(page, "upstream")).to_contain_text("red")
    await rig.chat("b")
    await expect(lines(page, "proxy")).to_contain_text("b is ready after")


async def test_a_hostile_line_is_text_with_colours(tab: Tab, rig: Rig) -> None:
    """Markup is shown, terminal colours are colours, and other terminal codes are left out."""
    page = await tab.open(rig.port, "/logs")
    log = lines(page, "upstream")
    await expect(log).to_contain_text("<img src=x onerror=alert(1)><script>alert(2)</script> red end")
    red = log.get_by_text("red", exact=True)
    assert await red.evaluate("one => one.style.color") == "var(--ansi-1)"
    assert await log.locator("img, script").count() == 0


async def test_a_pattern_keeps_what_fits(tab: Tab, rig: Rig) -> None:
    """Without case; one that is broken is told, and shows all."""
    page = await tab.open(rig.port, "/logs")
    proxy = view(page, "proxy")
    field = proxy.get_by_label("Show only lines that match this pattern")
    await field.fill("A IS READY")
    await expect(lines(page, "proxy")).not_to_contain_text("started, pid")
    await expect(lines(page, "proxy")).to_contain_text("a is ready")
    await field.fill("(")
    await expect(proxy.get_by_role("alert")).to_contain_text("(")
    await expect(lines(page, "proxy")).to_contain_text("started, pid")
    await field.fill("")
    await expect(proxy.get_by_role("alert")).to_have_count(0)


async def test_a_level_leaves_out_what_is_less(tab: Tab, rig: Rig) -> None:
    """And says how many lines of how many are shown."""
    page = await tab.open(rig.port, "/logs")
    await expect(lines(page, "proxy")).to_contain_text("[INFO]")
    await view(page, "proxy").get_by_label("Lowest level").select_option("error")
    await expect(lines(page, "proxy")).not_to_contain_text("[INFO]")
    await expect(view(page, "proxy")).to_contain_text("0 lines of")


async def test_size_wrap_copy_and_clear(tab: Tab, rig: Rig) -> None:
    """The first two outlive a reload of the page."""
    page = await tab.open(rig.port, "/logs")
    proxy, log = view(page, "proxy"), lines(page, "proxy")
    await expect(log).to_contain_text("[INFO]")
    await proxy.get_by_label("Font size").select_option("15")
    await proxy.get_by_label("wrap").check()
    await page.reload()
    await expect(log).to_contain_text("[INFO]")
    assert await log.evaluate("one => getComputedStyle(one).fontSize") == "15px"
    assert await log.locator(".line").first.evaluate("one => getComputedStyle(one).whiteSpace") == "pre-wrap"
    assert "[INFO]" in await tab.copied(proxy.get_by_role("button", name="Copy what is shown"))
    await proxy.get_by_role("button", name="Clear").click()
    await expect(log).not_to_contain_text("a is ready after")


async def test_one_log_alone_and_another_one(tab: Tab, rig: Rig) -> None:
    """A model's own among them; the choice outlives a reload."""
    page = await tab.open(rig.port, "/logs")
    await page.get_by_role("button", name="Left only").click()
    await expect(view(page, "upstream")).to_have_count(0)
    await view(page, "proxy").get_by_label("Which log").select_option("a")
    await expect(lines(page, "a")).to_contain_text("red")
    await page.reload()
    await expect(lines(page, "a")).to_contain_text("red")
    await page.get_by_role("button", name="Right only").click()
    await expect(lines(page, "upstream")).to_contain_text("red")
    await page.get_by_role("button", name="Both").click()
    await expect(page.get_by_role("log")).to_have_count(2)


async def test_the_border_moves_by_keys(tab: Tab, rig: Rig) -> None:
    """And stays there."""
    page = await tab.open(rig.port, "/logs")
    border = page.get_by_role("separator", name="Move the border")
    await border.focus()
    await tab.press("ArrowRight", "ArrowRight", "ArrowLeft")
    await expect(border).to_have_attribute("aria-valuenow", "55")
    await page.reload()
    await expect(border).to_have_attribute("aria-valuenow", "55")


async def test_who_scrolled_up_is_left_there(tab: Tab, rig: Rig) -> None:
    """New lines do not move the view; a button leads back to the end."""
    page = await tab.open(rig.port, "/logs")
    await page.set_viewport_size({"width": 1280, "height": 520})
    log, follow = lines(page, "proxy"), view(page, "proxy").get_by_role("button", name="Follow")
    for _ in range(40):
        await rig.chat("a")
    await rig.chat("a", headers={"User-Agent": "the last one"})
    await expect(log).to_contain_text("the last one")  # no line is on its way, which would lead back to the end
    await log.hover()
    await page.mouse.wheel(0, -40_000)
    await expect(follow).to_be_visible()
    await expect(log).to_contain_text("a started")
    await rig.chat("a")
    await expect(log).to_contain_text("a started")
    await follow.click()
    await expect(follow).to_have_count(0)
    await expect(log).not_to_contain_text("a started")


async def test_a_log_goes_on_after_the_connection_was_lost(tab: Tab, tmp_path: Path) -> None:
    """It is read anew as soon as the page is live again."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port, "/logs")
        await expect(lines(page, "proxy")).not_to_be_empty()
        await rig.program.stop()
        await expect(page).to_have_title(re.compile("^◐"))
        await rig.program.start()
        await tab.until_live()
        await rig.chat("a")
        await expect(lines(page, "proxy")).to_contain_text("a is ready after")


async def test_a_hundred_thousand_lines(tab: Tab, rig: Rig) -> None:
    """Only those in sight are drawn, however many there are and however long one is."""
    page = await tab.open(rig.port, "/logs")
    await expect(lines(page, "upstream")).to_contain_text("red")
    text = "".join(f"line {number}\n" for number in range(100_000)) + "x" * 1_000_000 + "\nlast line\n"

    async def answer(route: object) -> None:
        await route.fulfill(body=text, content_type="text/plain")  # type: ignore[attr-defined]

    await page.route("**/logs/stream/upstream", answer)
    await page.reload()
    log = lines(page, "upstream")
    await expect(log).to_contain_text("last line")
    await expect(log).to_contain_text("996,000 more characters")
    await expect(view(page, "upstream")).to_contain_text("100,002 lines")
    assert await log.locator(".line").count() < 200
    await log.get_by_text("996,000 more characters").click()
    await view(page, "upstream").get_by_label("Show only lines that match this pattern").fill("^line 99999$")
    await expect(view(page, "upstream")).to_contain_text("1 line of 100002")


@pytest.mark.parametrize("dark", [False, True])
async def test_everybody_can_use_it(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """In both themes, and on a phone nothing reaches beyond the edge."""
    await tab.dark(on=dark)
    page = await tab.open(rig.port, "/logs")
    await expect(lines(page, "upstream")).to_contain_text("red")
    assert await tab.axe() == []
    await tab.phone()
    await expect(lines(page, "upstream")).to_be_visible()
    assert await tab.spilled() == []


async def test_who_may_not_read_the_log_is_told_so(tab: Tab, tmp_path: Path) -> None:
    """And not that there are no lines."""
    tab.expected(f"{GONE}|401|403")
    async with swap_rig(tmp_path, fakes("a"), apiKeys=["anna", "bert"]) as rig:
        page = await tab.open(rig.port, "/logs", live=False)
        await page.get_by_label("Key", exact=True).last.fill("anna")
        await page.get_by_role("button", name="Use this key").click()
        await expect(view(page, "proxy").get_by_role("alert")).to_contain_text("it wants admin_key")
        await expect(view(page, "proxy").get_by_text("Nothing has been logged yet")).to_have_count(0)
