"""The frame of the web page: what stands around every page of it, and how it holds on to the program."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, Route, expect

from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.browser import GONE, Tab
from support.page import reverse_proxy
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

PLACES = [
    "Now", "Models", "Templates", "Cache", "Requests", "Logs", "Machine", "Playground", "Configuration", "Settings",
]  # fmt: skip
UNKNOWN_KEY = "401"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with two models and a profile."""
    profiles = {"work": {"pins": {"big": "a"}}}
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a b"), profiles=profiles) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a key."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a"), apiKeys=["sesame"]) as running:
        yield running


def link(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True)


# where one can go


async def test_the_sidebar_lists_every_page(tab: Tab, rig: Rig) -> None:
    """The one that is open is marked, also for those who hear it."""
    page = await tab.open(rig.port)
    nav = page.get_by_role("navigation", name="Pages")
    assert [await one.inner_text() for one in await nav.locator("> a").all()] == PLACES
    await link(page, "Models").click()
    await expect(link(page, "Models")).to_have_attribute("aria-current", "page")
    await expect(link(page, "Now")).not_to_have_attribute("aria-current", "page")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")


async def test_many_models_leave_room_for_every_page(tab: Tab, tmp_path: Path) -> None:
    """They scroll, and the pages below them do not have to."""
    tab.expected(GONE)
    names = " ".join(f"model-{number}" for number in range(20))
    async with swap_rig(tmp_path, fakes(names), profiles={"work": {"pins": {"big": "model-1"}}}) as rig:
        page = await tab.open(rig.port)
        await expect(page.get_by_role("combobox", name="Profile")).to_be_visible()
        nav = page.get_by_role("navigation", name="Pages")
        await expect(nav.get_by_role("link", name="model-1", exact=False).first).to_be_visible()
        assert await nav.evaluate("one => one.scrollHeight <= one.clientHeight")


async def test_the_tab_says_where_one_is(tab: Tab, rig: Rig) -> None:
    """And whether the page is live."""
    page = await tab.open(rig.port)
    await expect(page).to_have_title("● Now · bioproxy")
    await link(page, "Cache").click()
    await expect(page).to_have_title("● Cache · bioproxy")


async def test_an_address_that_is_no_page(tab: Tab, rig: Rig) -> None:
    """A link leads back."""
    page = await tab.open(rig.port, "/nowhere/at/all")
    await page.get_by_role("link", name="To the start page").click()
    await expect(link(page, "Now")).to_have_attribute("aria-current", "page")


async def test_the_theme(tab: Tab, rig: Rig) -> None:
    """It follows the system until one is chosen, and the choice outlives the tab."""
    page = await tab.open(rig.port)
    themed = page.locator("html")
    await expect(themed).to_have_attribute("data-theme", "light")
    await tab.dark()
    await expect(themed).to_have_attribute("data-theme", "dark")
    await page.get_by_role("button", name="Theme: system").click()
    await expect(themed).to_have_attribute("data-theme", "light")
    await page.get_by_role("button", name="Theme: light").click()
    await tab.dark(on=False)
    await page.reload()
    await expect(themed).to_have_attribute("data-theme", "dark")
    await page.get_by_role("button", name="Theme: dark").click()
    await expect(themed).to_have_attribute("data-theme", "light")


async def test_the_sidebar_as_symbols(tab: Tab, rig: Rig) -> None:
    """The names are still read aloud, and shown when the pointer rests there."""
    page = await tab.open(rig.port)
    await page.get_by_role("button", name="Show symbols only").click()
    await page.reload()
    models = link(page, "Models")
    await expect(models).to_have_attribute("title", "Models")
    box = await models.bounding_box()
    assert box is not None
    assert box["width"] < 60
    await page.get_by_role("button", name="Show names").click()
    await expect(models).not_to_have_attribute("title", "Models")


async def test_a_profile_is_chosen(tab: Tab, rig: Rig) -> None:
    """The program has it, and every other page shows it."""
    page = await tab.open(rig.port)
    await page.get_by_label("Profile").select_option("work")
    await rig.look(lambda: active(rig, "work"), "the profile is active")
    await page.reload()
    await expect(page.get_by_label("Profile")).to_have_value("work")
    await page.get_by_label("Profile").select_option("None")
    await rig.look(lambda: active(rig, ""), "no profile is active")


async def active(rig: Rig, name: str) -> bool:
    return ((await rig.get("/api/profiles")).json()["active"] or "") == name


# for everyone


async def test_the_skip_link(tab: Tab, rig: Rig) -> None:
    """The first Tab and Enter lead past the sidebar, and no further: the page stays the one that it was."""
    page = await tab.open(rig.port, "/models")
    assert await tab.press("Tab") == "a To the content"
    await tab.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/models")


async def test_a_keyboard_is_enough(tab: Tab, rig: Rig) -> None:
    """Every page can be reached, and what has the focus is seen."""
    page = await tab.open(rig.port)
    for name in PLACES:
        await tab.tab_to(f"a {name}")
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    await tab.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    await tab.tab_to("Theme")
    assert await tab.press("Space") == "button Theme: light"


async def test_on_a_phone(tab: Tab, rig: Rig) -> None:
    """The pages are behind a button at the top, which says whether they are shown."""
    await tab.phone()
    page = await tab.open(rig.port)
    pages = page.get_by_role("button", name="Pages")
    await expect(pages).to_have_attribute("aria-expanded", "false")
    await expect(link(page, "Requests")).to_be_hidden()
    await pages.click()
    await link(page, "Requests").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Requests")
    await expect(link(page, "Requests")).to_be_hidden()
    assert await tab.spilled() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """Axe finds nothing serious in the frame, wide and on a phone with the pages shown."""
    await tab.dark(on=dark)
    page = await tab.open(rig.port, "/nowhere")
    assert await tab.axe() == []
    await tab.phone()
    await page.get_by_role("button", name="Pages").click()
    assert await tab.axe() == []


# keys


async def test_a_wrong_key_and_the_right_one(tab: Tab, locked: Rig) -> None:
    """The dialog comes by itself, says what is wrong, and goes when the key is right. The key stays in the tab."""
    tab.expected(UNKNOWN_KEY)
    page = await tab.open(locked.port, live=False)
    dialog = page.get_by_role("dialog", name="An API key is needed")
    await expect(dialog.get_by_label("Key")).to_be_focused()
    await expect(page).to_have_title(re.compile("^▲"))
    assert await tab.axe() == []
    for wrong, sentence in (("“wrong”", "a key is made of ASCII"), ("wrong", "This key was not accepted.")):
        await dialog.get_by_label("Key").fill(wrong)
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_text(sentence)).to_be_visible()
    await dialog.get_by_label("Key").fill("sesame")
    await dialog.get_by_role("button", name="Use this key").click()
    await expect(dialog).to_be_hidden()
    await tab.until_live()
    await page.reload()
    await tab.until_live()
    kept = await page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href].join()")
    assert "sesame" not in kept


async def test_a_key_can_be_given_later(tab: Tab, locked: Rig) -> None:
    """Esc closes the dialog, and a button opens it again. Until then the focus stays in it."""
    tab.expected(UNKNOWN_KEY)
    page = await tab.open(locked.port, live=False)
    dialog = page.get_by_role("dialog", name="An API key is needed")
    await expect(dialog.get_by_label("Key")).to_be_focused()
    for _ in range(4):
        await tab.press("Tab")
        assert await dialog.evaluate("one => one.contains(document.activeElement)")
    await tab.press("Escape")
    await expect(dialog).to_be_hidden()
    await page.get_by_role("button", name="Give a key").click()
    await expect(dialog.get_by_label("Key")).to_be_focused()


# staying connected


async def test_the_program_is_restarted(tab: Tab, tmp_path: Path) -> None:
    """The page says that what it shows is old, and is live again by itself, without being loaded anew."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port)
        await page.evaluate("window.mark = 'the same page'")
        await rig.program.stop()
        await expect(page).to_have_title(re.compile("^◐"))
        await expect(page.get_by_text("The connection to bioproxy was lost")).to_be_visible()
        await rig.program.start()
        await tab.until_live()
        await expect(page.get_by_text("The connection to bioproxy was lost")).to_be_hidden()
        assert await page.evaluate("window.mark") == "the same page"


async def test_the_program_is_updated(tab: Tab, rig: Rig) -> None:
    """A part of the page that the new version has no more is not missed: the page is loaded anew."""
    tab.expected("404|Failed to fetch dynamically imported module")
    page = await tab.open(rig.port)
    anew: list[str] = []

    async def answer(route: Route) -> None:
        await (route.continue_() if anew else route.fulfill(status=404))

    await page.route("**/assets/Templates-*.js", answer)
    page.on("request", lambda request: anew.append(request.url) if request.is_navigation_request() else None)
    async with page.expect_event("load"):
        await link(page, "Templates").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Templates")


async def test_a_page_that_was_never_opened_while_the_program_is_away(tab: Tab, tmp_path: Path) -> None:
    """It comes as soon as the program is there again; the browser does not put an error of its own in its place."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port)
        await rig.program.stop()
        await link(page, "Templates").click()
        await expect(page.get_by_text("It comes by itself once bioproxy answers.")).to_be_visible()
        await rig.program.start()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Templates")
        await tab.until_live()


async def test_one_engine(tab: Tab, tmp_path: Path) -> None:
    """Its page is on the admin port, whose address alone leads a browser there."""
    tab.expected(GONE)
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, warmup={"enabled": False}) as app:
        await tab.page.goto(f"http://127.0.0.1:{app.admin_port}/")
        await tab.until_live()
        assert tab.page.url.startswith(f"http://127.0.0.1:{app.admin_port}/ui/")


async def test_below_a_path_of_a_reverse_proxy(tab: Tab, rig: Rig) -> None:
    """All that the page asks for is below that path, and a person may leave out its last slash."""
    async with reverse_proxy(rig.port) as port:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        for address in ("/some/prefix", "/some/prefix/", "/some/prefix/ui"):
            await tab.page.goto(f"http://127.0.0.1:{port}{address}")
            await tab.until_live()
            assert tab.page.url.startswith(f"http://127.0.0.1:{port}/some/prefix/ui/")
        for name in PLACES:
            await link(tab.page, name).click()
            await expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
        assert [one for one in asked if "/some/prefix" not in one] == []
        await tab.page.close()
