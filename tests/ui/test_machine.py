"""The page of the machine: its plots and what one can choose of them, and the hardware as rows and as text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.browser import GONE, Tab
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """A model that was asked something."""
    async with swap_rig(tmp_path_factory.mktemp("machine"), fakes("a")) as running:
        await running.chat("a")
        yield running


async def test_it_plots_requests_tokens_and_the_machine(tab: Tab, rig: Rig) -> None:
    """Each with its newest values in words."""
    page = await tab.open(rig.port, "/machine")
    for title in ("Requests", "Tokens per second", "CPU", "Memory", "Load average"):
        figure = page.get_by_role("figure").filter(has=page.get_by_role("heading", name=title, exact=True))
        await expect(figure.locator("canvas")).to_be_visible()
    await expect(page.get_by_role("figure").filter(has_text="Memory")).to_contain_text("used")


async def test_requests_are_plotted_that_began_before_the_page(tab: Tab, rig: Rig) -> None:
    """Nobody has to watch for the queue to be known later."""
    held = await rig.ask_held("a")
    page = await tab.open(rig.port, "/machine")
    figure = page.get_by_role("figure").filter(has=page.get_by_role("heading", name="Requests", exact=True))
    await expect(figure).to_contain_text(re.compile(r"running (0\.[1-9]|1)"))
    await rig.release("a")
    assert (await held).status == 200


async def test_window_and_pace_are_kept(tab: Tab, rig: Rig) -> None:
    """Over a reload of the page; it can also be asked by hand."""
    page = await tab.open(rig.port, "/machine")
    await page.get_by_label("Window").select_option("60")
    await page.get_by_label("Refresh", exact=True).select_option("0")
    await page.reload()
    await expect(page.get_by_label("Window")).to_have_value("60")
    await expect(page.get_by_label("Refresh", exact=True)).to_have_value("0")
    async with page.expect_response("**/api/performance*") as answer:
        await page.get_by_role("button", name="Refresh now").click()
    assert (await answer.value).ok


async def test_a_hidden_tab_asks_nothing(tab: Tab, rig: Rig) -> None:
    """Until it is looked at again."""
    page = await tab.open(rig.port, "/machine")
    await page.clock.install()
    await page.reload()
    await expect(page.locator("canvas").first).to_be_visible()
    asked: list[str] = []
    await page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.on("request", lambda request: asked.append(request.url) if "/api/performance" in request.url else None)
    await page.clock.run_for(60_000)
    assert asked == []
    await page.evaluate("Object.defineProperty(document, 'hidden', { value: false, configurable: true })")
    async with page.expect_response("**/api/performance*"):
        await page.clock.run_for(6_000)
    assert asked


async def test_figures_that_are_switched_off_are_told(tab: Tab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With the key, and requests and tokens are plotted all the same."""
    tab.expected(GONE)
    tab.expected("503")
    folder = tmp_path_factory.mktemp("off")
    async with swap_rig(folder, fakes("a"), performance={"disabled": True}) as off:
        page = await tab.open(off.port, "/machine")
        await expect(page.get_by_text("performance.disabled")).to_be_visible()
        await expect(page.get_by_role("heading", name="Tokens per second")).to_be_visible()


async def test_the_hardware_can_be_copied_for_a_bug_report(tab: Tab, rig: Rig) -> None:
    """What is known, with the version."""
    page = await tab.open(rig.port, "/machine")
    await page.get_by_role("tab", name="Hardware").click()
    await expect(page.get_by_role("heading", name="Processor and memory")).to_be_visible()
    text = await tab.copied(page.get_by_role("button", name="Copy"))
    assert text.startswith("bioproxy ")
    assert "Memory:" in text


@pytest.mark.parametrize("dark", [False, True])
async def test_everybody_can_use_it(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """In both themes, and on a phone nothing reaches beyond the edge."""
    await tab.dark(on=dark)
    page = await tab.open(rig.port, "/machine")
    await expect(page.locator("canvas").first).to_be_visible()
    assert await tab.axe() == []
    await tab.phone()
    assert await tab.spilled() == []
    await page.get_by_role("tab", name="Hardware").click()
    await expect(page.get_by_role("heading", name="As text")).to_be_visible()
    assert await tab.axe() == []
