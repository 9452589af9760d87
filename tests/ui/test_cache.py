"""The page Cache on the real program: what is on disk, what goes next, and what a person may do about it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from bioproxy.kv.chain import chain
from bioproxy.kv.snapshot import Snapshot, new_id, temporary_name
from bioproxy.prompt import Piece
from fakes.fake_engine import FakeEngine
from fakes.real_engine import needs_real_engine
from support.apps import running_app
from support.browser import GONE, Tab
from support.cache_rig import TEXT, app_of, listed, program, snapshots
from support.http import call
from support.real_swap import WHEN_IDLE, real
from support.swap_rig import Rig, swap_rig

SIZES = (400_000, 200_000, 90_000, 30_000)  # of conversations, what is worth most per byte last


@asynccontextmanager
async def filled(folder: Path, **keys: object) -> AsyncIterator[Rig]:
    """A program with its template on disk, four conversations of its model, and one of a model that is gone."""
    async with program(folder, **keys) as rig:
        await app_of(rig).fleet.load("a")
        [row] = await listed(rig, 1)
        for number, size in enumerate((*SIZES, 50_000)):
            await save(rig, number, size, known=number < len(SIZES))
        await listed(rig, 6)
        assert row.template
        yield rig


async def save(rig: Rig, number: int, size: int, *, known: bool) -> None:
    """What a save of a conversation leaves."""
    [shelf] = app_of(rig).shelves.known.values()
    assert shelf.folder is not None
    like = next(one for one in shelf.index.snapshots.values() if one.template and not one.reference)
    identity = new_id()
    name = temporary_name(identity)
    (shelf.folder.path / name).write_bytes(os.urandom(size))
    shelf.pending.add(name)
    await shelf.commit(
        name,
        msgspec.structs.replace(
            like,
            id=identity,
            fingerprint=like.fingerprint if known else "e" * 16,
            cuts=chain("", [Piece("", f"question {number}".encode())]),
            template=False,
            prefix="",
            group=f"group{number}",
            tokens=100 + number,
            prompt=100 + number,
            size=size,
            seconds=0.5,
            checksum=None,
        ),
        seconds=0.1,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """For tests that change nothing."""
    async with filled(tmp_path_factory.mktemp("cache")) as running:
        yield running


def cells(page: Page) -> Locator:
    return page.get_by_role("group", name="Map of snapshots").get_by_role("button")


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Table of snapshots").locator("tbody tr")


def row(page: Page, group: str) -> Locator:
    return rows(page).filter(has_text=group)


async def of(rig: Rig, group: str) -> Snapshot | None:
    [shelf] = app_of(rig).shelves.known.values()
    return next((one for one in shelf.index.snapshots.values() if one.group == group), None)


# looking


async def test_the_map_and_the_table_show_the_same(tab: Tab, rig: Rig) -> None:
    """All snapshots; what goes next is at the map's end, and a template in use does not go before others."""
    page = await tab.open(rig.port, "/cache")
    await expect(cells(page)).to_have_count(6)
    await expect(rows(page)).to_have_count(6)
    assert (await cells(page).first.get_attribute("aria-label") or "").startswith("template @code, ")
    assert "goes next" in (await cells(page).last.get_attribute("aria-label") or "")
    await expect(row(page, "group0").get_by_role("cell").nth(9)).to_have_text("next")
    await expect(row(page, "group4")).to_contain_text("of no model that ran since the start")


async def test_the_areas_are_the_sizes(tab: Tab, rig: Rig) -> None:
    """As far as pixels go."""
    page = await tab.open(rig.port, "/cache")
    await expect(cells(page)).to_have_count(6)
    areas = {}
    for cell in await cells(page).all():
        box = await cell.locator(".area").bounding_box()
        assert box is not None
        areas[await cell.get_attribute("aria-label") or ""] = (box["width"] + 2) * (box["height"] + 2)
    large = next(area for name, area in areas.items() if "400 kB" in name)
    small = next(area for name, area in areas.items() if "200 kB" in name)
    assert large / small == pytest.approx(2, rel=0.2)


async def test_the_budget_says_what_goes_next(tab: Tab, rig: Rig) -> None:
    """In the program's own order; a click shows which."""
    page = await tab.open(rig.port, "/cache")
    budget = page.get_by_role("region", name="Budget of")
    await expect(budget).to_contain_text(str(rig.folder / "slots"))
    await expect(budget).to_contain_text("Written today")
    going = budget.get_by_role("button")
    await expect(going).to_have_count(4)
    await expect(going.first).to_have_text("conversation 400 kB")
    await going.first.click()
    await expect(page.get_by_role("dialog", name="conversation")).to_contain_text("group0")


async def test_the_table_is_filtered_and_sorted(tab: Tab, rig: Rig) -> None:
    """By kind, by words, by each column."""
    page = await tab.open(rig.port, "/cache")
    await expect(rows(page)).to_have_count(6)
    kind = page.get_by_label("Kind")
    for name, count in (("Templates", 1), ("Conversations", 4), ("Not used", 1), ("Pinned", 0), ("All kinds", 6)):
        await kind.select_option(name)
        await expect(page.get_by_text(f"{count} of 6")).to_be_visible()
    await page.get_by_label("Filter snapshots").fill("GROUP2")
    await expect(rows(page)).to_have_count(1)
    await page.get_by_label("Filter snapshots").fill("nothing like it")
    await expect(page.get_by_text("No snapshot matches the filter.")).to_be_visible()
    await page.get_by_label("Filter snapshots").fill("")
    for column in await page.get_by_role("region", name="Table of snapshots").locator("th button").all():
        await column.click()
        await expect(column.locator("..")).to_have_attribute(
            "aria-sort", "descending" if await down(column) else "ascending"
        )
    size = page.get_by_role("button", name="Size")
    await size.click()
    await expect(rows(page).first).to_contain_text("1.")
    await size.click()
    await expect(rows(page).first).to_contain_text("30.0 kB")


async def down(column: Locator) -> bool:
    return "↓" in await column.inner_text()


async def test_what_the_cache_spared(tab: Tab, rig: Rig) -> None:
    """Tokens from the cache and evaluated, of today as far as the program ran, and what became of restores."""
    page = await tab.open(rig.port, "/cache")
    spared = page.get_by_role("region", name="What the cache spared")
    await expect(spared).to_contain_text("since the start")
    await expect(spared).to_contain_text("From the cache 0 tokens")
    await rig.chat("a", messages=[{"role": "user", "content": "@code hello"}])
    await expect(spared).not_to_contain_text("From the cache 0 tokens")


async def test_the_map_with_a_keyboard(tab: Tab, rig: Rig) -> None:
    """Tab leads to it once, arrows move in it, Enter opens one, Esc closes it and leads back."""
    page = await tab.open(rig.port, "/cache")
    await expect(cells(page)).to_have_count(6)
    await tab.tab_to("template @code")
    assert "conversation" in await tab.press("ArrowRight")
    last = await tab.press("End")
    assert "goes next" in last
    assert await tab.press("Home", "ArrowDown", "ArrowUp") != ""
    await tab.press("End", "Enter")
    dialog = page.get_by_role("dialog", name="conversation")
    await expect(dialog).to_contain_text("400 kB")
    await tab.press("Escape")
    await expect(dialog).to_be_hidden()
    await tab.tab_to("Filter snapshots", most=3)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """Axe finds nothing serious, nor in the dialog, and on a phone nothing is cut off."""
    await tab.dark(on=dark)
    page = await tab.open(rig.port, "/cache")
    await expect(cells(page).first).to_be_visible()
    assert await tab.axe() == []
    await row(page, "group1").get_by_role("button", name="conversation", exact=True).click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await tab.axe() == []
    await tab.press("Escape")
    await tab.phone()
    assert await tab.spilled() == []
    assert await tab.axe() == []


# doing


async def test_a_pin_is_set_and_taken_away(tab: Tab, tmp_path: Path) -> None:
    """In the table and in the dialog; the program's order changes with it."""
    tab.expected(GONE)
    async with filled(tmp_path) as rig:
        page = await tab.open(rig.port, "/cache")
        await row(page, "group0").get_by_role("button", name="Pin conversation").click()
        await expect(row(page, "group0").get_by_role("cell").nth(9)).to_have_text("pinned")
        await expect(row(page, "group1").get_by_role("cell").nth(9)).to_have_text("next")
        assert next(one for one in (await snapshots(rig)).snapshots if one.group == "group0").pinned
        await page.get_by_label("Kind").select_option("Pinned")
        await expect(rows(page)).to_have_count(1)
        await rows(page).get_by_role("button", name="conversation", exact=True).click()
        await page.get_by_role("dialog").get_by_role("button", name="Unpin").click()
        await expect(page.get_by_role("dialog").get_by_role("button", name="Pin", exact=True)).to_be_visible()
        await tab.press("Escape")
        await expect(page.get_by_text("No snapshot matches the filter.")).to_be_visible()


async def test_one_is_verified(tab: Tab, tmp_path: Path) -> None:
    """A whole file is told; of one with a flipped byte the reason stands in the table from then on."""
    tab.expected(GONE)
    async with filled(tmp_path) as rig:
        page = await tab.open(rig.port, "/cache")
        await row(page, "group1").get_by_role("button", name="conversation", exact=True).click()
        verify = page.get_by_role("dialog").get_by_role("button", name="Verify")
        await verify.click()
        await tab.told("Every byte is as it was written")
        snapshot = await of(rig, "group1")
        assert snapshot is not None
        path = tmp_path / "slots" / snapshot.name
        times, data = path.stat(), bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        await verify.click()
        await tab.told("It is not whole")
        await expect(page.get_by_role("dialog")).to_contain_text("Not used: the content of")
        await page.get_by_role("dialog").get_by_role("button", name="Pin", exact=True).click()
        await expect(page.get_by_text("is never used again")).to_be_visible()
        tab.expected("409")
        await tab.press("Escape")
        await expect(row(page, "group1")).to_contain_text("is not what was written")


async def test_one_is_deleted(tab: Tab, tmp_path: Path) -> None:
    """After a second question; it leaves table, map and disk."""
    tab.expected(GONE)
    async with filled(tmp_path) as rig:
        page = await tab.open(rig.port, "/cache")
        snapshot = await of(rig, "group2")
        assert snapshot is not None
        await row(page, "group2").get_by_role("button", name="conversation", exact=True).click()
        dialog = page.get_by_role("dialog")
        assert await tab.copied(dialog.get_by_role("button", name="Copy the file's name")) == snapshot.name
        await dialog.get_by_role("button", name="Delete", exact=True).click()
        await expect(dialog.get_by_role("alert")).to_contain_text("computed again")
        await dialog.get_by_role("button", name="Keep it").click()
        await dialog.get_by_role("button", name="Delete", exact=True).click()
        await dialog.get_by_role("button", name="Delete for good").click()
        await expect(dialog).to_be_hidden()
        await expect(rows(page)).to_have_count(5)
        await expect(cells(page)).to_have_count(5)
        assert not (tmp_path / "slots" / snapshot.name).exists()


async def test_one_that_is_gone_meanwhile(tab: Tab, tmp_path: Path) -> None:
    """The program says so, and the page shows what there is."""
    tab.expected(GONE)
    async with filled(tmp_path) as rig:
        page = await tab.open(rig.port, "/cache")
        await row(page, "group3").get_by_role("button", name="conversation", exact=True).click()
        [shelf] = app_of(rig).shelves.known.values()
        snapshot = await of(rig, "group3")
        assert snapshot is not None
        with shelf.held(snapshot):
            await page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
            await page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
            await expect(page.get_by_text("is being read; try again in a moment")).to_be_visible()
        tab.expected("409")
        await shelf.drop([snapshot], "budget")
        await expect(rows(page)).to_have_count(5)
        await expect(page.get_by_role("dialog")).to_be_hidden()


async def test_saving_is_paused(tab: Tab, tmp_path: Path) -> None:
    """What is in the way stands at the top, in the program's words."""
    tab.expected(GONE)
    async with program(tmp_path, kv={"min_seconds": 0, "min_free": 1 << 60}) as rig:
        await rig.post("/api/models/load/a")
        page = await tab.open(rig.port, "/cache")
        await expect(page.get_by_text("Saving is paused of a.")).to_be_visible()
        await expect(page.get_by_text("kv.min_free keeps")).to_be_visible()


async def test_nothing_is_there(tab: Tab, tmp_path: Path) -> None:
    """The page says what would fill it, once it is known that nothing is."""
    tab.expected(GONE)
    async with program(tmp_path, prefixes={}) as rig:
        page = await tab.open(rig.port, "/cache")
        await expect(page.get_by_text("What is on disk is known once a model has run.")).to_be_visible()
        await rig.post("/api/models/load/a")
        await expect(page.get_by_text("Nothing is on disk yet.")).to_be_visible()


async def test_many_are_shown_by_the_hundred(tab: Tab, tmp_path: Path) -> None:
    """A button shows the next ones."""
    tab.expected(GONE)
    async with program(tmp_path) as rig:
        await rig.post("/api/models/load/a")
        await listed(rig, 1)
        for number in range(110):
            await save(rig, number, 2000 + number, known=True)
        page = await tab.open(rig.port, "/cache")
        await expect(cells(page)).to_have_count(111)
        await expect(rows(page)).to_have_count(100)
        await page.get_by_role("button", name="Show 11 more").click()
        await expect(rows(page)).to_have_count(111)


async def test_a_key_for_certain_models_changes_nothing(tab: Tab, tmp_path: Path) -> None:
    """It manages none, so the page does not offer it."""
    tab.expected(GONE)
    async with filled(tmp_path, api_keys=[{"key": "k1", "name": "one", "models": ["a"]}, "k2"]) as rig:
        tab.expected("401")
        page = await tab.open(rig.port, "/cache", live=False)
        await page.get_by_role("dialog").get_by_label("Key").fill("k1")
        await page.get_by_role("button", name="Use this key").click()
        await tab.until_live()
        await expect(rows(page)).to_have_count(1)  # conversations are nobody's business but their own
        await expect(rows(page).first.get_by_role("button").last).to_be_disabled()
        await expect(page.get_by_text("group1")).to_be_hidden()
        await rows(page).first.get_by_role("button").first.click()
        for name in ("Verify", "Pin", "Delete"):
            await expect(page.get_by_role("dialog").get_by_role("button", name=name, exact=True)).to_be_disabled()
        await tab.press("Escape")
        await page.get_by_role("link", name="Now").click()
        used = page.get_by_role("region", name="Keys").locator("tbody tr")
        await expect(used).to_have_count(1)  # its own
        await expect(used).to_contain_text("one")


async def test_one_engine(tab: Tab, tmp_path: Path) -> None:
    """On the admin port, without a word of models; a pin is set there, too."""
    tab.expected(GONE)
    (tmp_path / "slots").mkdir()
    (tmp_path / "code.md").write_text(f"{TEXT}<{{message}}>")
    prefixes = {"@code": str(tmp_path / "code.md")}
    async with (
        FakeEngine(tokens_per_second=900, slot_folder=tmp_path / "slots") as engine,
        running_app(tmp_path, backend_url=engine.url, prefixes=prefixes, kv={"min_seconds": 0}) as app,
    ):
        page = await tab.open(app.admin_port, "/templates")
        await expect(page.get_by_role("row").filter(has_text="@code").first).to_contain_text("warm")
        await expect(page.get_by_label("The template's text")).to_contain_text("line 99 of what is always said")
        await page.get_by_role("link", name="Cache").click()
        await expect(rows(page)).to_have_count(1)
        await expect(page.get_by_role("button", name="Model")).to_be_hidden()
        await rows(page).get_by_role("button", name="Pin @code").click()
        await expect(rows(page).get_by_role("button", name="Unpin @code")).to_be_enabled()


@pytest.mark.real_engine
async def test_on_llama_cpp(tab: Tab, tmp_path: Path) -> None:
    """True snapshots: a template and a conversation, verified, pinned over a restart of the engine, deleted."""
    needs_real_engine()
    tab.expected(GONE)
    (tmp_path / "code.md").write_text(f"{TEXT}<{{message}}>")
    prefixes = {"@code": str(tmp_path / "code.md")}
    async with swap_rig(tmp_path, {"a": real(0)}, kv=WHEN_IDLE, prefixes=prefixes, warmup={"settle": 0}) as rig:
        await app_of(rig).fleet.load("a")
        await listed(rig, 1)
        assert (await rig.chat("a", messages=[{"role": "user", "content": "@code hello"}], max_tokens=40)).status == 200
        await listed(rig, 2)
        page = await tab.open(rig.port, "/cache")
        await page.get_by_label("Kind").select_option("Templates")
        await rows(page).get_by_role("button", name="@code", exact=True).click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Verify").click()
        await tab.told("Every byte is as it was written")
        await dialog.get_by_role("button", name="Pin").click()
        await expect(dialog.get_by_role("button", name="Unpin")).to_be_enabled()
        await tab.press("Escape")
        await rig.post("/api/models/unload/a")
        await app_of(rig).fleet.load("a")
        await expect(rows(page).get_by_role("cell").nth(9)).to_have_text("pinned")
        await page.get_by_label("Kind").select_option("Conversations")
        await rows(page).get_by_role("button", name="conversation, @code").first.click()
        await dialog.get_by_role("button", name="Delete", exact=True).click()
        await dialog.get_by_role("button", name="Delete for good").click()
        await expect(dialog).to_be_hidden()
        await expect(page.get_by_text("No snapshot matches the filter.")).to_be_visible()


# contexts


async def test_a_context_is_kept_renamed_exported_and_deleted(tab: Tab, tmp_path: Path) -> None:
    """From a request's id; what went wrong is the program's own sentence."""
    tab.expected(rf"{GONE}|404 \(Not Found\)")
    async with program(tmp_path, kv={"min_seconds": 0, "min_free": 0, "save_after": 3600}) as rig:
        await rig.chat("a", messages=[{"role": "user", "content": "what is a cache? " * 60}])
        identity = app_of(rig).records[-1].id
        page = await tab.open(rig.port, "/cache")
        found = page.get_by_role("region", name="Table of contexts").locator("tbody tr")
        dialog = page.get_by_role("dialog")
        await page.get_by_role("button", name="Keep", exact=True).click()
        await dialog.get_by_label("Name").fill("repo")
        await dialog.get_by_label("Id of the request").fill("nobody")
        await dialog.get_by_role("button", name="Keep it").click()
        await tab.told("no request 'nobody' is known")
        await dialog.get_by_label("Id of the request").fill(identity)
        await dialog.get_by_role("button", name="Keep it").click()
        await expect(found).to_have_count(1)
        await page.get_by_role("button", name="Rename repo").click()
        await dialog.get_by_label("Name").fill("docs")
        await dialog.get_by_role("button", name="Rename it").click()
        await expect(found).to_contain_text("docs")
        async with page.expect_download() as saved:
            await page.get_by_role("button", name="Export docs").click()
        assert (await saved.value).suggested_filename == "docs.tar"
        await page.get_by_role("button", name="Delete docs").click()
        await dialog.get_by_role("button", name="Delete for good").click()
        await expect(found).to_have_count(0)


async def test_a_context_that_somebody_else_keeps_is_shown(tab: Tab, tmp_path: Path) -> None:
    """And is gone once they delete it, without the page being loaded anew."""
    tab.expected(GONE)
    async with program(tmp_path, kv={"min_seconds": 0, "min_free": 0, "save_after": 3600}) as rig:
        await rig.chat("a", messages=[{"role": "user", "content": "what is a cache? " * 60}])
        identity = app_of(rig).records[-1].id
        page = await tab.open(rig.port, "/cache")
        found = page.get_by_role("region", name="Table of contexts").locator("tbody tr")
        await expect(page.get_by_text("more are free")).to_be_visible()
        kept = await rig.post("/api/contexts", {"name": "repo", "from": identity})
        assert kept.status == 201, kept.text
        await expect(found).to_contain_text("repo")
        header = {"X-Requested-With": "bioproxy"}
        gone = await call(rig.port, "DELETE", "/api/contexts/repo", headers=header)
        assert gone.status < 300, gone.text
        await expect(found).to_have_count(0)
