"""The page Templates on the real program: how warm each prefix is, and what it costs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from support.browser import GONE, Tab
from support.cache_rig import TEXT, listed, program
from support.swap_rig import Rig

REVIEW = {"review.md": "You review:\n<{more.txt}>\nBe brief. <{message}>"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """A program with one of two models loaded, and two templates that are warm on it."""
    folder = tmp_path_factory.mktemp("templates")
    prefixes = {"@code": str(folder / "code.md"), "/review": str(folder / "review.md")}
    async with program(folder, files=REVIEW, prefixes=prefixes) as running:
        assert (await running.post("/api/models/load/a")).status == 200
        await listed(running, 2)
        yield running


def row(page: Page, prefix: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=prefix, exact=True))


async def test_each_template_says_how_warm_it_is(tab: Tab, rig: Rig) -> None:
    """On each model, with tokens, size and the last warm-up; a model that does not run is told too."""
    page = await tab.open(rig.port, "/templates")
    code = row(page, "@code")
    await expect(code).to_contain_text("warm")
    await expect(code).to_contain_text("not loaded")
    await expect(code.get_by_role("cell").nth(2)).to_have_text("800")
    await expect(code.get_by_role("cell").nth(4)).to_have_text("1")
    await expect(code.get_by_role("cell").nth(5)).to_contain_text("ago")
    await expect(row(page, "/review")).to_contain_text("review.md")


async def test_hits_are_counted(tab: Tab, rig: Rig) -> None:
    """They move while one looks."""
    page = await tab.open(rig.port, "/templates")
    await expect(row(page, "@code").get_by_role("cell").nth(6)).not_to_contain_text("of")
    answer = await rig.chat("a", messages=[{"role": "user", "content": "@code What is this?"}])
    assert answer.status == 200
    await expect(row(page, "@code").get_by_role("cell").nth(6)).to_have_text("100 % of 1")


async def test_the_fold_shows_files_and_text(tab: Tab, rig: Rig) -> None:
    """Where each file begins, the place of the message, and a jump from a file to its text."""
    page = await tab.open(rig.port, "/templates")
    button = page.get_by_role("button", name="@code", exact=True)
    await button.click()
    await expect(button).to_have_attribute("aria-expanded", "true")
    text = page.get_by_label("The template's text")
    await expect(text).to_contain_text("line 99 of what is always said")
    await expect(text).to_contain_text("<{message}>")
    assert await text.locator(".file").all_inner_texts() == ["code.md", "more.txt", "code.md"]
    await page.get_by_role("button", name="more.txt").click()
    await expect(text.locator(".file").nth(1)).to_be_in_viewport()
    copied = await tab.copied(page.get_by_role("button", name="Copy the text"))
    assert copied == f"{TEXT}more\nAnswer: <{{message}}>"
    await button.click()
    await expect(text).to_be_hidden()


async def test_warm_now(tab: Tab, rig: Rig) -> None:
    """The program is asked, for a prefix with a slash too, and the person is told."""
    page = await tab.open(rig.port, "/templates")
    for prefix in ("@code", "/review"):
        async with page.expect_response("**/warmup/**") as answered:
            await row(page, prefix).get_by_role("button", name="Warm now").click()
        assert (await answered.value).status == 202
        await expect(page.get_by_text(f"{prefix} is warmed as soon as no user waits")).to_be_visible()


async def test_a_change_is_shown_line_by_line(tab: Tab, tmp_path: Path) -> None:
    """And from which token on it costs; a broken text is told with its reason, and the last good one stays."""
    tab.expected(GONE)
    async with program(tmp_path) as rig:
        await rig.post("/api/models/load/a")
        await listed(rig, 1)
        page = await tab.open(rig.port, "/templates")
        await expect(page.get_by_text("The engine has read no other version")).to_be_visible()
        (tmp_path / "more.txt").write_text("something else\n")
        await row(page, "@code").get_by_role("button", name="Warm now").click()
        diff = page.get_by_label("Lines that differ")
        await expect(diff.locator(".minus")).to_have_text("-more")
        await expect(diff.locator(".plus")).to_have_text("+something else")
        await expect(page.get_by_role("heading", name="The last change")).to_be_visible()
        await expect(page.get_by_text("on, where more.txt differs, at 99 % of the template.")).to_be_visible()
        (tmp_path / "code.md").write_text("no place for the message")
        await row(page, "@code").get_by_role("button", name="Warm now").click()
        await expect(row(page, "@code")).to_contain_text("faulty")
        await expect(page.get_by_text("the last good text stays in use")).to_be_visible()
        await expect(page.get_by_label("The template's text")).to_contain_text("line 99 of what is always said")


async def test_no_model_runs(tab: Tab, tmp_path: Path) -> None:
    """Nothing can be warmed, which is said; what is on disk of an earlier run is told once the model was met."""
    tab.expected(GONE)
    async with program(tmp_path) as rig:
        page = await tab.open(rig.port, "/templates")
        await row(page, "@code").get_by_role("button", name="Warm now").click()
        await expect(page.get_by_text("No model that has it is running")).to_be_visible()
        await expect(row(page, "@code")).to_contain_text("2 not loaded")
        await rig.post("/api/models/load/a")
        await expect(row(page, "@code")).to_contain_text("warm")
        await listed(rig, 1)
        await rig.post("/api/models/unload/a")
        await expect(row(page, "@code")).to_contain_text("on disk")


async def test_there_are_none(tab: Tab, tmp_path: Path) -> None:
    """The page says what would fill it."""
    tab.expected(GONE)
    async with program(tmp_path, prefixes={}) as rig:
        page = await tab.open(rig.port, "/templates")
        await expect(page.get_by_text("There are no templates.")).to_contain_text("prefixes")


async def test_a_key_for_certain_models_warms_nothing(tab: Tab, tmp_path: Path) -> None:
    """It manages none, so the page does not offer it."""
    tab.expected(GONE)
    async with program(tmp_path, api_keys=[{"key": "k1", "name": "one", "models": ["a"]}]) as rig:
        tab.expected("401")
        page = await tab.open(rig.port, "/templates", live=False)
        await page.get_by_role("dialog").get_by_label("Key").fill("k1")
        await page.get_by_role("button", name="Use this key").click()
        await tab.until_live()
        await expect(row(page, "@code").get_by_role("button", name="Warm now")).to_be_disabled()


async def test_with_a_keyboard(tab: Tab, rig: Rig) -> None:
    """Enter opens and closes the fold, and the text can be scrolled."""
    page = await tab.open(rig.port, "/templates")
    await tab.tab_to("@code")
    await tab.press("Enter")
    await expect(page.get_by_label("The template's text")).to_be_visible()
    await tab.tab_to("Copy the text")
    await tab.press("Tab")
    assert await page.get_by_label("The template's text").evaluate("one => one === document.activeElement")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """Axe finds nothing serious with a fold open, and on a phone nothing is cut off."""
    await tab.dark(on=dark)
    page = await tab.open(rig.port, "/templates")
    await page.get_by_role("button", name="@code", exact=True).click()
    await expect(page.get_by_label("The template's text")).to_be_visible()
    assert await tab.axe() == []
    await tab.phone()
    assert await tab.spilled() == []
    assert await tab.axe() == []


async def test_a_head_without_a_prefix_stands_below_the_templates(tab: Tab, rig: Rig) -> None:
    """As soon as two conversations began with it: its state, its tokens; on the page Cache it is a head, too."""
    system = {"role": "system", "content": "You are an agent. " * 200}
    for question in ("one", "two"):
        answer = await rig.chat("a", messages=[system, {"role": "user", "content": question}])
        assert answer.status == 200
    page = await tab.open(rig.port, "/templates")
    await expect(page.get_by_role("heading", name="Heads without a prefix")).to_be_visible()
    head = page.get_by_role("row").filter(has_text=re.compile("[0-9a-f]{8}")).last
    await expect(head).to_contain_text("warm")
    page = await tab.open(rig.port, "/cache")
    await expect(page.get_by_role("cell", name=re.compile("^head [0-9a-f]{8}"))).to_be_visible()
