"""The page of the configuration: values and their places, and a file that is edited, checked, refused and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from support.browser import GONE, Tab
from support.http import call
from support.swap_models import fakes
from support.swap_rig import swap_rig

EDIT: dict[str, Any] = {"ui": {"edit_config": True}}


def editor(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Text of")


async def go_to_line_of(page: Page, tab: Tab, text: str) -> None:
    """The cursor stands at the end of the line with this text."""
    await editor(page).get_by_text(text, exact=False).first.click()
    await tab.press("End")


async def test_values_are_shown_with_their_places(tab: Tab, tmp_path: Path) -> None:
    """Those that were set, or all; one that has a word in it."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7) as rig:
        page = await tab.open(rig.port, "/config")
        await expect(page.get_by_text("set ui.edit_config to allow it")).to_be_visible()
        await expect(editor(page)).to_have_count(0)
        await page.get_by_role("tab", name="Values in force").click()
        row = page.get_by_role("row").filter(has_text="queue_limit")
        await expect(row).to_contain_text("7")
        await expect(row).to_contain_text("config.yaml:")
        await expect(row).to_contain_text("at once")
        await expect(page.get_by_role("row").filter(has_text="queue_timeout")).to_have_count(0)
        await page.get_by_label("defaults as well").check()
        await expect(page.get_by_role("row").filter(has_text="queue_timeout").first).to_be_visible()
        await page.get_by_label("Show only keys or values with this").fill("queue_limit")
        await expect(page.get_by_role("row")).to_have_count(2)
        await page.get_by_label("Show only keys or values with this").fill("no such word")
        await expect(page.get_by_text("No key or value contains that.")).to_be_visible()


async def test_a_key_that_is_given_later_opens_it(tab: Tab, tmp_path: Path) -> None:
    """The page asks again once it may; so do the contexts and the hardware, which are asked for once, too."""
    tab.expected(f"{GONE}|401")
    async with swap_rig(tmp_path, fakes("a"), admin_key="root", **EDIT) as rig:
        for route, text in (("/config", "Save and reload"), ("/cache", "Keep"), ("/machine", "Copy")):
            page = await tab.open(rig.ports.admin, route, live=False)
            if route == "/machine":
                await expect(page.get_by_role("dialog")).to_be_visible()
                await tab.press("Escape")
                await expect(page.get_by_role("dialog")).to_be_hidden()
                await page.get_by_role("tab", name="Hardware").click()
                await page.get_by_role("button", name="Give a key").click()
            await page.get_by_role("dialog").get_by_label("Key").fill("root")
            await page.get_by_role("button", name="Use this key").click()
            await tab.until_live()
            await expect(page.get_by_role("button", name=text, exact=True)).to_be_visible()
            await expect(page.get_by_role("alert")).to_have_count(0)
            await page.evaluate("sessionStorage.clear()")
            await page.reload()


async def test_a_change_is_explained_before_it_is_saved(tab: Tab, tmp_path: Path) -> None:
    """Then it is in the file and in force, and the old text is beside it. Lines end as they did."""
    tab.expected(GONE)
    path = tmp_path / "config.yaml"
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        before = path.read_bytes().replace(b"\n", b"\r\n")
        path.write_bytes(before)
        await rig.chat("a")
        page = await tab.open(rig.ports.admin, "/config")
        save = page.get_by_role("button", name="Save and reload")
        await expect(save).to_be_disabled()
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Backspace", "9")
        await expect(page.get_by_text("Takes effect at once: queue_limit.")).to_be_visible()
        await expect(page.get_by_text("No model that runs is stopped.")).to_be_visible()
        await save.click()
        await tab.told("Saved, and taken over")
        await expect(page.get_by_text("config.yaml.bak")).to_be_visible()
        await expect(save).to_be_disabled()
        assert await rig.running() == {"a": "ready"}
    assert path.read_bytes() == before.replace(b'"queue_limit": 7', b'"queue_limit": 9')
    assert (tmp_path / "config.yaml.bak").read_bytes() == before


async def test_a_broken_text_cannot_be_saved(tab: Tab, tmp_path: Path) -> None:
    """Each problem has its line, which a click shows; what was typed can be discarded."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await go_to_line_of(page, tab, '"queue_limit"')
        await page.keyboard.type("x")
        problem = page.get_by_role("status").get_by_role("listitem").filter(has_text="queue_limit")
        await expect(problem).to_be_visible()
        await expect(page.get_by_role("button", name="Save and reload")).to_be_disabled()
        await problem.get_by_role("button", name="Line").click()
        await expect(editor(page)).to_be_focused()
        await page.get_by_role("button", name="Discard").click()
        await expect(problem).to_have_count(0)
        await expect(editor(page)).not_to_contain_text("7x")


async def test_a_file_that_somebody_else_changed_is_not_overwritten(tab: Tab, tmp_path: Path) -> None:
    """The person is told, and what they typed is still there."""
    tab.expected(GONE)
    tab.expected("412")
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Backspace", "9")
        await expect(page.get_by_text("Takes effect at once: queue_limit.")).to_be_visible()
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text() + "# by hand\n")
        await page.get_by_role("button", name="Save and reload").click()
        await tab.told("was changed by somebody else since you opened it")
        await expect(editor(page)).to_contain_text('"queue_limit": 9')
    assert path.read_text().endswith("# by hand\n")


async def test_what_somebody_else_wrote_can_be_replaced(tab: Tab, tmp_path: Path) -> None:
    """Once the person has said so; it is beside the file then."""
    tab.expected(GONE)
    tab.expected("412")
    path = tmp_path / "config.yaml"
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        save = page.get_by_role("button", name="Save and reload")
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Backspace", "9")
        await expect(page.get_by_text("Takes effect at once: queue_limit.")).to_be_visible()
        theirs = path.read_text() + "# by hand\n"
        path.write_text(theirs)
        await save.click()
        await page.get_by_role("button", name="Keep mine").click()
        await expect(page.get_by_role("button", name="Keep mine")).to_have_count(0)
        await save.click()
        await expect(page.get_by_text("The previous text is in")).to_be_visible()
    assert '"queue_limit": 9' in path.read_text()
    assert (tmp_path / "config.yaml.bak").read_text() == theirs


async def test_what_was_typed_stays_until_it_is_saved(tab: Tab, tmp_path: Path) -> None:
    """Whoever looks at the values or at another page finds it again, and the browser asks before it goes."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Backspace", "9")
        changes = page.get_by_text("Takes effect at once: queue_limit.")
        await expect(changes).to_be_visible()
        await page.get_by_role("tab", name="Values in force").click()
        await expect(page.get_by_role("row").filter(has_text="queue_limit")).to_contain_text("7")
        await page.get_by_role("tab", name="File").click()
        await expect(editor(page)).to_contain_text('"queue_limit": 9')
        await page.get_by_role("link", name="Settings").click()
        await expect(page.get_by_role("heading", name="Settings", level=1)).to_be_visible()
        async with page.expect_event("dialog") as asked:
            await page.evaluate("setTimeout(() => location.reload())")
        assert (await asked.value).type == "beforeunload"
        await (await asked.value).dismiss()
        await page.get_by_role("link", name="Configuration").click()
        await expect(editor(page)).to_contain_text('"queue_limit": 9')
        await expect(changes).to_be_visible()
        await page.get_by_role("button", name="Save and reload").click()
        await expect(page.get_by_text("The previous text is in")).to_be_visible()
        await page.reload()
        await expect(editor(page)).to_contain_text('"queue_limit": 9')


async def test_who_has_forgotten_the_key_sees_nothing_of_it(tab: Tab, tmp_path: Path) -> None:
    """Until it is given again: then what was typed is still there."""
    tab.expected(f"{GONE}|401")
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, admin_key="root", **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config", live=False)
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Key").fill("root")
        await page.get_by_role("button", name="Use this key").click()
        await tab.until_live()
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Backspace", "9")
        await page.get_by_role("link", name="Settings").click()
        await page.get_by_role("button", name="Forget it").click()
        await expect(dialog).to_be_visible()
        await tab.press("Escape")
        await page.get_by_role("link", name="Configuration").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Configuration")
        await expect(page.get_by_role("tab")).to_have_count(0)
        await page.get_by_role("button", name="Give a key").click()
        await dialog.get_by_label("Key").fill("root")
        await page.get_by_role("button", name="Use this key").click()
        await expect(editor(page)).to_contain_text('"queue_limit": 9')


async def test_the_values_are_those_of_the_newest_reload(tab: Tab, tmp_path: Path) -> None:
    """The file that is shown is, too, while nobody has typed."""
    tab.expected(GONE)
    path = tmp_path / "config.yaml"
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await expect(editor(page)).to_contain_text('"queue_limit": 7')
        path.write_text(path.read_text().replace('"queue_limit": 7', '"queue_limit": 9'))
        await call(rig.ports.admin, "POST", "/reload")
        await expect(editor(page)).to_contain_text('"queue_limit": 9')
        await page.get_by_role("tab", name="Values in force").click()
        await expect(page.get_by_role("row").filter(has_text="queue_limit")).to_contain_text("9")


async def test_a_key_that_is_not_known_is_told_before_a_save(tab: Tab, tmp_path: Path) -> None:
    """It stops no save; its line is a click away."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Enter")
        await page.keyboard.type("queue_limmit: 8")
        note = page.get_by_role("listitem").filter(has_text="did you mean queue_limit?")
        await expect(note.get_by_role("button", name="Line")).to_be_visible()
        await expect(page.get_by_role("button", name="Save and reload")).to_be_enabled()


async def test_keys_are_offered(tab: Tab, tmp_path: Path) -> None:
    """Those that may stand there, with what they do."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await go_to_line_of(page, tab, '"queue_limit"')
        await tab.press("Enter")
        await page.keyboard.type("queue_t")
        await page.get_by_role("option", name="queue_timeout").click()
        await expect(editor(page)).to_contain_text("queue_timeout: ")


@pytest.mark.parametrize("dark", [False, True])
async def test_everybody_can_use_it(tab: Tab, tmp_path: Path, *, dark: bool) -> None:
    """In both themes, and on a phone nothing reaches beyond the edge."""
    tab.expected(GONE)
    await tab.dark(on=dark)
    async with swap_rig(tmp_path, fakes("a"), **EDIT) as rig:
        page = await tab.open(rig.ports.admin, "/config")
        await expect(editor(page)).to_be_visible()
        assert await tab.axe() == []
        await page.get_by_role("tab", name="Values in force").click()
        await expect(page.get_by_role("table")).to_be_visible()
        assert await tab.axe() == []
        await tab.phone()
        assert await tab.spilled() == []
