"""The page of settings: each choice counts at once, and outlives the tab; the key does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.browser import GONE, Tab
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with swap_rig(tmp_path_factory.mktemp("settings"), fakes("a")) as running:
        yield running


async def test_theme_and_title(tab: Tab, rig: Rig) -> None:
    """Both are seen at once, and after a reload."""
    page = await tab.open(rig.port, "/settings")
    await page.get_by_label("dark").check()
    await page.get_by_label("Title of this page").fill("gpu box")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page).to_have_title("● Settings · gpu box")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page).to_have_title("● Settings · gpu box")


async def test_what_is_shown(tab: Tab, rig: Rig) -> None:
    """Three choices."""
    page = await tab.open(rig.port, "/settings")
    for label in ("models that are not listed", "what a model can do, as tags", "symbols only in the sidebar"):
        box = page.get_by_label(label)
        before = await box.is_checked()
        await box.click()
        await page.reload()
        assert await page.get_by_label(label).is_checked() is not before


async def test_the_key_is_kept_for_this_tab_only(tab: Tab, rig: Rig) -> None:
    """It is never in localStorage."""
    page = await tab.open(rig.port, "/settings")
    await page.get_by_label("API key").fill("sesame")
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.get_by_text("A key is used in this tab.")).to_be_visible()
    assert "sesame" in await page.evaluate("JSON.stringify({ ...sessionStorage })")
    assert "sesame" not in await page.evaluate("JSON.stringify({ ...localStorage })")
    await page.get_by_role("button", name="Forget it").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert "sesame" not in await page.evaluate("JSON.stringify({ ...sessionStorage })")


async def test_which_program_this_is(tab: Tab, rig: Rig) -> None:
    """Version, configuration, and the stream's state."""
    page = await tab.open(rig.port, "/settings")
    await expect(page.locator("main")).to_contain_text("config.yaml")
    await expect(page.get_by_text("Commit")).to_be_visible()
    await expect(page.locator("main")).to_contain_text("live")


async def test_one_engine(tab: Tab, tmp_path: Path) -> None:
    """Nothing is asked for that such a program does not have."""
    tab.expected(GONE)
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        page = await tab.open(app.admin_port, "/settings")
        await expect(page.locator("main")).to_contain_text("live")
        await expect(page.get_by_text("Commit")).to_be_hidden()


@pytest.mark.parametrize("dark", [False, True])
async def test_everybody_can_use_it(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """In both themes, and on a phone nothing reaches beyond the edge."""
    await tab.dark(on=dark)
    await tab.open(rig.port, "/settings")
    assert await tab.axe() == []
    await tab.phone()
    assert await tab.spilled() == []
