"""The Playground's chat: what a person sees of an answer, and everything they can press."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, expect

from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.browser import GONE, Tab
from support.http import call
from support.page import PREFIX, reverse_proxy
from support.playground import CHAT, PLACE, Chat, events, script
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig
from ui.look import llama

Json = Any
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
FILE: Json = {"name": "cat.png", "mimeType": "image/png", "buffer": PNG}
SLOW_BROWSER = """{ const open = IDBFactory.prototype.open;
  IDBFactory.prototype.open = function (...words) {
    const request = open.apply(this, words);
    const seen = { get result() { return request.result }, get error() { return request.error } };
    request.onupgradeneeded = event => seen.onupgradeneeded?.(event);
    request.onsuccess = event => (window.goOn = () => seen.onsuccess?.(event));
    return seen } }"""  # opens its database when a test says so
COVERED = """() => { const over = document.querySelector("[data-sonner-toast]").getBoundingClientRect();
  return [...document.querySelectorAll("main :is(a, button, input, textarea)")].filter(one => {
    const { width, left, right, top, bottom } = one.getBoundingClientRect();
    return width > 1 && left < over.right && right > over.left && top < over.bottom && bottom > over.top
  }).map(one => one.outerHTML.slice(0, 120)) }"""  # what lies below what the page says
HOSTILE = """<script>window.harmed = 1</script><img src="/unload" onerror="window.harmed = 2">
![x](/unload) ![y](https://evil.example/pixel.png)

<svg onload="window.harmed = 3"></svg><style>body { display: none }</style>
<form action="/api/models/unload" method="post"><button>Go on</button></form>
<meta http-equiv="refresh" content="0;url=https://evil.example/"><iframe src="/unload"></iframe>

[a](javascript:window.harmed=4) [b](/unload) [c](https://example.org/page)

$\\href{javascript:window.harmed=5}{x}$ the end"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with two scripted models, and two llama-servers that make room for each other."""
    folder = tmp_path_factory.mktemp("play")
    (folder / "slots").mkdir()
    (folder / "code.txt").write_text("You know this code:\n" + "def f(x): return x + 1\n" * 50 + "\n<{message}>")
    slow = fake(f"--wait_for {folder / 'go'}", sendLoadingState=True)
    models: Json = fakes("a b") | {
        "slow": slow,
        "alpha": llama(folder, aliases=["gpt"], name="Alpha 7B"),
        "beta": llama(folder),
    }
    async with swap_rig(
        folder,
        models,
        groups=apart("a b slow") | {"pair": {"swap": True, "exclusive": False, "members": ["alpha", "beta"]}},
        prefixes={"@code": str(folder / "code.txt")},
        kv={"min_seconds": 0.0, "min_free": 0},
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tab: Tab, rig: Rig) -> Chat:
    """Before the scripted model `a`."""
    await script(rig)
    chat = Chat(tab, rig)
    await chat.open()
    return chat


async def test_an_answer_is_shown_piece_by_piece(chat: Chat, rig: Rig) -> None:
    """As the engine writes it: half a word in bold waits for its other half."""
    await script(rig, pieces=["One ", "**tw", "o** three"], hold=[1, 2, 3])
    held = len(rig.log.of("held", "a"))
    await chat.say("Count.")
    for number, text in enumerate(["One", "One **tw", "One two three"], held + 1):
        await rig.until_event("held", "a", count=number)
        await expect(chat.answers.locator(".markdown")).to_have_text(text)
        await expect(chat.answers).to_have_attribute("aria-busy", "true")
        await expect(chat.stop).to_be_visible()
        await rig.release("a")
    answer = await chat.ended()
    await expect(answer.locator("strong")).to_have_text("two")


async def test_a_request_carries_a_session_and_an_id_that_finds_it(chat: Chat, rig: Rig) -> None:
    """The session begins with bppg-, both turns of a chat have the same, and the link under the answer leads there."""
    sessions = set()
    for count in (1, 2):
        await chat.say("Hi")
        answer = await chat.ended(count)
        headers = dict((await rig.last("a"))["headers"])
        sessions.add({name.lower(): value for name, value in headers.items()}["x-session-id"])
        link = answer.get_by_role("link", name="request")
        await expect(link).to_have_attribute("href", re.compile("#/requests/pg-[a-z0-9]{12}$"))
    assert len(sessions) == 1
    assert re.fullmatch("bppg-[a-z0-9]{5}", sessions.pop())


async def test_stop_keeps_what_came(chat: Chat, rig: Rig) -> None:
    """And the engine sees that its client has left."""
    await script(rig, pieces=["Kept. ", "Never."], hold=1)
    held, gone = (len(rig.log.of(event, "a")) for event in ("held", "end"))
    await chat.say("Go")
    await rig.until_event("held", "a", count=held + 1)
    await expect(chat.answers).to_contain_text("Kept.")
    await chat.stop.click()
    answer = await chat.ended()
    await expect(answer).to_contain_text("Stopped; this is what had arrived.")
    await expect(answer).not_to_contain_text("Never")
    assert (await rig.until_event("end", "a", count=gone + 1)).how == "gone"


async def test_a_question_is_edited_and_asked_again_from_there(chat: Chat, rig: Rig) -> None:
    """Enter saves, Esc leaves it as it was; what followed is gone."""
    for count, text in enumerate(["First", "Second"], 1):
        await chat.say(text)
        await chat.ended(count)
    first = chat.questions.first
    await first.get_by_role("button", name="Edit question").click()
    field = first.get_by_role("textbox", name="Question")
    await expect(field).to_be_focused()
    await field.fill("Not this")
    await field.press("Escape")
    await expect(first.locator("p")).to_have_text("First")
    await first.get_by_role("button", name="Edit question").click()
    await field.fill("Another")
    await field.press("Enter")
    await chat.ended(1)
    assert [one["content"] for one in (await chat.sent())["messages"]] == ["Another"]
    await expect(chat.questions).to_have_count(1)


async def test_an_answer_is_given_again(chat: Chat, rig: Rig) -> None:
    """In place of the old one."""
    await chat.say("Hi")
    await chat.ended()
    await script(rig, pieces=["Other words"])
    await chat.button("Answer again").click()
    await expect(await chat.ended()).to_contain_text("Other words")


async def test_an_answer_is_copied_and_shown_as_it_came(chat: Chat, rig: Rig) -> None:
    """Raw and rendered; copied is the text that the model wrote."""
    await script(rig, pieces=["**bold** and `code`\n\n```python\nx = 1\n```"])
    await chat.say("Hi")
    answer = await chat.ended()
    assert (await chat.tab.copied(answer.get_by_role("button", name="Copy answer"))).startswith("**bold** and")
    assert await chat.tab.copied(answer.get_by_role("button", name="Copy this code")) == "x = 1\n"
    await answer.get_by_role("button", name="Raw").click()
    await expect(answer.locator("pre.raw")).to_contain_text("**bold**")
    await answer.get_by_role("button", name="Rendered").click()
    await expect(answer.locator("strong")).to_have_text("bold")


async def test_reasoning_is_folded_away_once_the_answer_comes(chat: Chat, rig: Rig) -> None:
    """Open while the model thinks; its length and time stay, and a click opens it."""
    thoughts = [{"reasoning_content": "Let me "}, {"reasoning_content": "see."}]
    await script(rig, streams=events(*thoughts, {"content": "Yes."}), hold=2)
    held = len(rig.log.of("held", "a"))
    await chat.say("Is it?")
    await rig.until_event("held", "a", count=held + 1)
    await expect(chat.page.get_by_text("Reasoning, 11 characters")).to_be_visible()
    await expect(chat.page.get_by_text("Let me see.")).to_be_visible()
    await rig.release("a")
    answer = await chat.ended()
    await expect(answer.get_by_text("Let me see.")).to_be_hidden()
    await answer.get_by_text(re.compile("Reasoned for .*, 11 characters")).click()
    await expect(answer.get_by_text("Let me see.")).to_be_visible()


async def test_progress_is_told_while_the_prompt_is_read(chat: Chat, rig: Rig) -> None:
    """In tokens, as the engine says it."""
    progress = {"choices": [], "prompt_progress": {"total": 2048, "cache": 0, "processed": 512, "time_ms": 9}}
    await script(rig, streams={CHAT: [["", progress], *events({"content": "Yes."})[CHAT]]}, hold=1)
    held = len(rig.log.of("held", "a"))
    await chat.say("Read this.")
    await rig.until_event("held", "a", count=held + 1)
    await expect(chat.page.get_by_text("Reading the prompt: 512 of 2,048 tokens, 25 %")).to_be_visible()
    assert (await chat.sent())["return_progress"] is True
    await rig.release("a")
    await expect(await chat.ended()).to_contain_text("Yes.")


async def test_it_is_told_that_the_model_loads(tab: Tab, rig: Rig) -> None:
    """As the program says it in the stream; it is no reasoning of the model's."""
    chat = Chat(tab, rig)
    await chat.open("slow")
    await chat.say("Hi")
    await expect(chat.page.get_by_role("status").get_by_text(re.compile("loading", re.IGNORECASE))).to_be_visible()
    await expect(chat.page.get_by_role("navigation").get_by_text("running")).to_have_count(1)
    (rig.folder / "go").touch()
    answer = await chat.ended()
    await expect(answer).to_contain_text("word0")
    await expect(answer).not_to_contain_text("Reasoned")
    await expect(chat.page.get_by_role("navigation").get_by_text("running")).to_have_count(0)


@pytest.mark.parametrize("endpoint", ["chat/completions", "messages", "responses"])
async def test_each_endpoint_answers(tab: Tab, rig: Rig, endpoint: str) -> None:
    """With what it cost: first token, cached and evaluated tokens, tokens a second."""
    chat = Chat(tab, rig)
    await chat.open("alpha")
    await chat.parameters(Endpoint=endpoint, System_prompt="You are brief.", Max_tokens="5")
    for count in (1, 2):
        await chat.say("Tell me about caches in a few words, so that there is a prompt.")
        answer = await chat.ended(count)
        await expect(answer.locator(".markdown")).not_to_be_empty()
        await expect(answer).to_contain_text(re.compile(r"first token after [\d.]+ m?s"))
    await expect(answer).to_contain_text(re.compile(r"\d+ tokens from the cache"))
    await expect(answer).to_contain_text(re.compile(r"\d+ evaluated"))
    await expect(answer).to_contain_text("5 generated")
    if endpoint != "responses":  # where llama-server does not tell
        await expect(answer).to_contain_text("Cut off at 5 tokens")
    records = (await call(rig.ports.admin, "GET", "/requests")).json()["requests"]
    assert next(one["path"] for one in records if one["method"] == "POST") == f"/v1/{endpoint}"


async def test_what_came_from_disk_is_told(tab: Tab, rig: Rig) -> None:
    """A conversation whose model was swapped out comes back from its snapshot."""
    chat = Chat(tab, rig)
    await chat.open("alpha")
    await chat.parameters(Max_tokens="5")
    await chat.say("Remember this conversation, with enough words that it is worth a snapshot on the disk. " * 8)
    await chat.ended()
    await rig.chat("beta")
    await chat.say("Do you?")
    answer = await chat.ended(2)
    await expect(answer).to_contain_text(re.compile(r"tokens from the cache, from disk"))
    await answer.get_by_text("first token after").click()
    await expect(answer.get_by_text("Bringing the cache back")).to_be_visible()


async def test_parameters_are_sent_and_kept(chat: Chat, rig: Rig) -> None:
    """Those that are left empty are not; after a reload of the page they are still there; Defaults takes them back."""
    await chat.parameters(
        System_prompt="Be brief.",
        Temperature="0.35",
        Max_tokens="12",
        Top_P="0.9",
        Seed="7",
        Stop_sequences="END\nFIN",
    )
    await chat.page.reload()
    await chat.say("Hi")
    await chat.ended()
    sent = await chat.sent()
    assert {name: sent[name] for name in ("temperature", "max_tokens", "top_p", "seed", "stop")} == {
        "temperature": 0.35, "max_tokens": 12, "top_p": 0.9, "seed": 7, "stop": ["END", "FIN"],
    }  # fmt: skip
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    await chat.button("Parameters").click()
    await chat.page.get_by_label("Show statistics").uncheck()
    await expect(chat.answers.get_by_text("first token after")).to_be_hidden()
    await chat.button("Defaults").click()
    await chat.button("Done").click()
    await expect(chat.answers.get_by_text("first token after")).to_be_visible()
    await chat.button("Answer again").click()
    await chat.ended()
    sent = await chat.sent()
    assert sent["max_tokens"] == 4096
    assert not {"temperature", "top_p", "seed", "stop"} & set(sent)


async def test_images_are_picked_pasted_dropped_looked_at_and_removed(chat: Chat, rig: Rig) -> None:
    """Up to five; another kind of file is refused with a sentence."""
    page = chat.page
    chooser = page.locator("input[type=file][multiple]")
    await chooser.set_input_files([FILE, {**FILE, "name": "bad.png", "buffer": b"text"}, {**FILE, "name": "dog.png"}])
    await chat.tab.told("bad.png is no image, or a broken one.")
    give = """([kind, bytes]) => { const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
      const box = document.querySelector("form textarea");
      box.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true })) }"""
    for kind in ("paste", "drop"):
        await page.evaluate(give, [kind, [*PNG]])
        await expect(chat.button(f"View {kind}.png")).to_be_visible()
    await chooser.set_input_files([FILE, {"name": "x.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"}, FILE])
    await chat.tab.told("x.svg is not a PNG, JPEG, GIF or WebP.")
    await chat.tab.told("A message takes 5 images at most.")
    await chat.button("View cat.png").first.click()
    await expect(page.get_by_role("dialog", name="cat.png").get_by_role("img")).to_be_visible()
    await page.keyboard.press("Escape")
    for name in ("cat.png", "cat.png", "dog.png", "drop.png"):
        await chat.button(f"Remove {name}").first.click()
    await chat.say("What is it?")
    await chat.ended()
    text, image = (await chat.sent())["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    await expect(chat.questions.get_by_role("button", name="View paste.png")).to_be_visible()


@pytest.mark.parametrize("phone", [False, True], ids=["wide", "phone"])
async def test_what_the_page_says_lies_on_no_control(chat: Chat, *, phone: bool) -> None:
    """Send above all, which one presses next."""
    if phone:
        await chat.tab.phone()
    svg: Json = {"name": "x.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"}
    await chat.page.locator("input[type=file][multiple]").set_input_files([svg])
    await chat.page.locator("[data-sonner-toast][data-mounted=true]").wait_for()
    assert await chat.page.evaluate(COVERED) == []


async def test_a_hostile_answer_can_do_nothing(chat: Chat, rig: Rig) -> None:
    """No script, no form, no request, no link into bioproxy; what it may show is shown."""
    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(request.url))
    await script(rig, pieces=[HOSTILE[at : at + 7] for at in range(0, len(HOSTILE), 7)])
    await chat.say("Be evil.")
    answer = await chat.ended()
    await expect(answer).to_contain_text("the end")
    await expect(answer.get_by_role("button", name="Open from evil.example")).to_be_visible()
    assert await chat.page.evaluate("window.harmed") is None
    inside = answer.locator(".markdown").locator(
        "script, style, svg, form, meta, iframe, img, [style], [id], [onerror]"
    )
    await expect(inside).to_have_count(0)
    links = answer.locator(".markdown a[href]")
    await expect(links).to_have_count(1)
    for name, value in {"rel": "noreferrer noopener", "target": "_blank", "href": "https://example.org/page"}.items():
        await expect(links).to_have_attribute(name, value)
    assert not [url for url in asked if "unload" in url or "evil" in url]
    assert set(await rig.running()) >= {"a"}


async def test_a_megabyte_in_one_line_does_not_freeze_the_page(chat: Chat, rig: Rig) -> None:
    """It is shown as it came, and the page goes on to answer."""
    await script(rig, pieces=["<b>*x*</b>" * 1000] * 100)
    await chat.say("Much.")
    answer = await chat.ended()
    assert len(await answer.locator(".markdown").inner_text()) == 1_000_000
    await script(rig, pieces=["Still here."])
    await chat.say("And now?")
    await expect(await chat.ended(2)).to_contain_text("Still here.")


async def test_errors_stand_in_the_answer(chat: Chat, rig: Rig) -> None:
    """An answer of 500, an error in the middle of a stream, and a name that nobody has: the program's own sentences."""
    chat.tab.expected("status of (500|404)")
    await script(rig, status=500)
    await chat.say("Fail.")
    await expect((await chat.ended()).get_by_role("alert")).to_contain_text("the fake was asked for 500")
    broken = [*events({"content": "Half "})[CHAT][:1], ["", {"error": {"message": "out of memory"}}]]
    await script(rig, streams={CHAT: broken})
    await chat.button("Answer again").click()
    answer = await chat.ended()
    await expect(answer).to_contain_text("Half")
    await expect(answer.get_by_role("alert")).to_contain_text("out of memory")
    await script(rig)
    await pick(chat, "nobody", "Ask “nobody”")
    await chat.button("Answer again").click()
    await expect((await chat.ended()).get_by_role("alert")).to_contain_text("no router for requested model")


async def pick(chat: Chat, typed: str, shown: str) -> None:
    """Choose a model."""
    box = chat.page.get_by_role("combobox", name="Model")
    await box.fill(typed)
    await expect(chat.page.get_by_role("option", name=shown)).to_be_visible()
    await box.press("Enter")


async def test_the_model_is_searched_and_remembered(chat: Chat) -> None:
    """By any of its names, with the arrows; aliases stand below their model."""
    page = chat.page
    box = page.get_by_role("combobox", name="Model")
    await box.click()
    local = page.get_by_role("group", name="Local")
    await expect(local.get_by_role("option").first).to_be_visible()  # the list has come
    texts = [re.sub(r"\s+", " ", await one.inner_text()).strip() for one in await local.get_by_role("option").all()]
    assert [text.split()[0] for text in texts] != []
    assert any(text.startswith("↳ gpt") for text in texts), texts
    await box.fill("7b")
    await expect(page.get_by_role("option")).to_have_count(2)  # and the name itself, which is not listed
    await box.press("ArrowDown")
    await box.press("ArrowUp")
    await box.press("Enter")
    await expect(box).to_have_value("alpha")
    await box.press("ArrowDown")
    await box.press("Escape")
    await expect(box).to_have_value("alpha")
    await page.goto(page.url.partition("?")[0])
    await page.reload()
    await expect(box).to_have_value("alpha")


async def test_a_template_is_put_before_the_text(tab: Tab, rig: Rig) -> None:
    """And the menu says whether it is warm."""
    await rig.chat("alpha")
    chat = Chat(tab, rig)
    await chat.open("alpha")
    await chat.box.fill("Why?")
    await chat.button("Template").click()
    item = chat.page.get_by_role("menuitem", name=re.compile("^@code"))
    await expect(item).to_have_text(re.compile("@code: .+"))
    await item.click()
    await expect(chat.box).to_have_value("@code Why?")
    await expect(chat.box).to_be_focused()


async def test_an_answer_goes_on_while_one_looks_elsewhere(chat: Chat, rig: Rig) -> None:
    """At another page, and at another chat."""
    await script(rig, pieces=["One ", "two ", "three"], hold=[1, 2])
    held = len(rig.log.of("held", "a"))
    await chat.say("Count.")
    await rig.until_event("held", "a", count=held + 1)
    await chat.page.evaluate("location.hash = '#/models'")
    await expect(chat.page.get_by_role("heading", level=1)).to_have_text("Models")
    await rig.release("a")
    await rig.until_event("held", "a", count=held + 2)
    await chat.page.evaluate("location.hash = '#/playground'")
    await expect(chat.answers).to_contain_text("One two")
    await chat.button("New chat").click()
    await expect(chat.answers).to_have_count(0)
    await rig.release("a")
    await chat.page.get_by_role("complementary", name="Chats").get_by_role("button", name=re.compile("^Count")).click()
    await expect(await chat.ended()).to_contain_text("One two three")


async def test_chats_are_kept_found_renamed_and_deleted(chat: Chat) -> None:
    """After a reload the last one is there, and the list has all."""
    page = chat.page
    chats = page.get_by_role("complementary", name="Chats")
    for title in ("About cats", "About dogs"):
        await chat.button("New chat").click()
        await chat.say(title)
        await chat.ended()
        await expect(kept(chat, title)).to_be_visible()
    await page.reload()
    await expect(chat.questions.locator("p")).to_have_text("About dogs")
    await chats.get_by_role("searchbox").fill("CATS")
    await expect(chats.get_by_role("button", name=re.compile("^About dogs"))).to_have_count(0)
    await chats.get_by_role("button", name=re.compile("^About cats")).click()
    await expect(chat.questions.locator("p")).to_have_text("About cats")
    await chats.get_by_role("button", name="Rename About cats").click()
    await chats.get_by_role("textbox", name="Title").fill("Felines")
    await page.keyboard.press("Enter")
    await chats.get_by_role("searchbox").fill("")
    await expect(chats.get_by_role("button", name=re.compile("^Felines"))).to_be_visible()
    await chats.get_by_role("button", name="Delete About dogs").click()
    await expect(chats.get_by_role("button", name=re.compile("^About dogs"))).to_have_count(0)
    await page.reload()
    await expect(chats.get_by_role("button", name=re.compile("^Felines"))).to_be_visible()
    await expect(chats.get_by_role("button", name=re.compile("^About dogs"))).to_have_count(0)


async def test_a_chat_whose_page_was_closed_keeps_what_came(chat: Chat, rig: Rig) -> None:
    """To the last letter that was shown; the answer that ran is marked as stopped."""
    await script(rig, pieces=["Half ", "whole"], hold=1)
    await chat.say("Go")
    await expect(chat.answers).to_contain_text("Half")
    await expect(kept(chat, "Go")).to_be_visible()
    await chat.page.reload()
    answer = await chat.ended()
    await expect(answer).to_contain_text("Stopped")
    await expect(answer).to_contain_text("Half")


async def test_who_writes_before_the_chats_are_there_is_not_led_away(chat: Chat, rig: Rig) -> None:
    """A slow disk: the last chat is not opened over what was begun, and the list has both."""
    page = chat.page
    await chat.say("Old")
    await chat.ended()
    await expect(kept(chat, "Old")).to_be_visible()
    await page.add_init_script(SLOW_BROWSER)
    await page.reload()
    await chat.box.fill("New")

    async def opened() -> bool:
        return bool(await page.evaluate("Boolean(window.goOn)"))

    await rig.look(opened, "the browser has opened its database")
    await page.evaluate("window.goOn()")
    await expect(kept(chat, "Old")).to_be_visible()
    await expect(chat.box).to_have_value("New")
    await chat.box.press("Enter")
    await chat.ended()
    await expect(kept(chat, "New")).to_be_visible()
    assert [one["content"] for one in (await chat.sent())["messages"]] == ["New"]


async def test_a_second_tab_follows(chat: Chat, rig: Rig) -> None:
    """What is asked in one goes on in the other; a chat that is deleted is gone in both."""
    await chat.say("First")
    await chat.ended()
    await expect(kept(chat, "First")).to_be_visible()
    tab = Tab(await chat.page.context.new_page())
    other = Chat(tab, rig)
    await other.open()
    await expect(other.questions.locator("p")).to_have_text("First")
    await other.say("Second")
    await other.ended(2)
    await expect(chat.questions).to_have_count(2)
    await chat.ended(2)
    await chat.say("Third")
    await chat.ended(3)
    assert [one["content"] for one in (await chat.sent())["messages"][::2]] == ["First", "Second", "Third"]
    await expect(other.questions).to_have_count(3)
    await other.button("Delete First").click()
    await expect(kept(chat, "First")).to_have_count(0)
    await expect(chat.questions).to_have_count(0)
    assert tab.wrong() == []


async def test_an_answer_that_runs_in_another_tab_is_not_called_stopped(chat: Chat, rig: Rig) -> None:
    """It is there once it has ended. What is asked meanwhile is a chat of its own."""
    await script(rig, pieces=["Half ", "whole"], hold=1)
    await chat.say("Go")
    await expect(chat.answers).to_contain_text("Half")
    await expect(kept(chat, "Go")).to_be_visible()
    others = [Chat(Tab(await chat.page.context.new_page()), rig) for _ in range(2)]
    for other in others:
        await other.open()
        await expect(other.answers).to_contain_text("It is being answered in another tab.")
    follows, asks = others
    await script(rig, pieces=["Quick answer"])
    await asks.say("There")
    await asks.ended(2)
    await asks.tab.told("Another tab has gone on with this chat")
    await rig.release("a")
    for one in (chat, follows):
        await expect((await one.ended()).locator(".markdown")).to_have_text("Half whole")
    await expect(kept(chat, "Go")).to_have_count(2)
    assert [other.tab.wrong() for other in others] == [[], []]


async def test_two_tabs_that_ask_at_once_lose_nothing(chat: Chat, rig: Rig) -> None:
    """The second goes on in a chat of its own, and says so; what the first asked stays where it was."""
    await chat.say("First")
    await chat.ended()
    await expect(kept(chat, "First")).to_be_visible()
    tab = Tab(await chat.page.context.new_page())
    other = Chat(tab, rig)
    await other.open()
    await expect(other.questions.locator("p")).to_have_text("First")
    held = len(rig.log.of("held", "a"))
    await script(rig, pieces=["Slow ", "answer"], hold=1)
    await chat.say("Here")
    await rig.until_event("held", "a", count=held + 1)
    await script(rig, pieces=["Quick answer"])
    await other.say("There")
    quick = await other.ended(2)
    await tab.told("Another tab has gone on with this chat")
    await quick.get_by_text("first token after").click()
    await expect(quick.locator(".all p")).not_to_be_empty()  # it is not kept again: the order of the list stays
    await rig.release("a")
    await chat.ended(2)
    await expect(kept(chat, "First")).to_have_count(2)
    found = []
    for number in range(2):
        await chat.page.reload()
        one = kept(chat, "First").nth(number)
        await one.click()
        await expect(one).to_have_attribute("aria-current", "true")
        await expect(chat.answers).to_have_count(2)
        found.append(await chat.questions.locator("p").all_inner_texts() + [await chat.answers.last.inner_text()])
    asked = {(*questions, "Slow" in answer) for *questions, answer in found}
    assert asked == {("First", "Here", True), ("First", "There", False)}
    assert tab.wrong() == []


def kept(chat: Chat, title: str) -> Locator:
    """A chat in the list, which has it once the browser does."""
    return chat.page.get_by_role("complementary", name="Chats").get_by_role("button", name=re.compile(f"^{title}"))


async def test_chats_leave_and_come_as_files(chat: Chat, tmp_path: Path) -> None:
    """Markdown to read, JSON to import, and a sentence about a file that is something else."""
    page = chat.page
    await chat.say("What is a slot?")
    answer = await chat.ended()
    await answer.get_by_text("first token after").click()
    await expect(answer.locator(".all p")).not_to_be_empty()  # nothing more is told of it
    await expect(kept(chat, "What is a slot")).to_be_visible()

    async def export(item: str) -> str:
        await chat.button("Export and import").click()
        async with page.expect_download() as download:
            await page.get_by_role("menuitem", name=item).click()
        path = tmp_path / (await download.value).suggested_filename
        await (await download.value).save_as(path)
        return path.read_text("utf-8")

    markdown = await export("Export this chat as Markdown")
    assert markdown.startswith("# What is a slot?\n")
    assert "## Assistant (a)\n\nword0 word1" in markdown
    text = await export("Export all chats as JSON")
    assert json.loads(await export("Export this chat as JSON"))["chats"] == json.loads(text)["chats"]
    chooser = page.get_by_label("Chats as JSON")
    await chooser.set_input_files({"name": "c.json", "mimeType": "application/json", "buffer": text.encode()})
    titles = page.get_by_role("complementary").get_by_role("button", name=re.compile("^What is a slot"))
    await expect(titles).to_have_count(2)
    await chooser.set_input_files({"name": "c.json", "mimeType": "application/json", "buffer": b"[]"})
    await chat.tab.told("This file has no chats in it")


async def test_a_long_text_gets_a_large_window(chat: Chat) -> None:
    """What is written there is what is sent; Shift+Enter breaks the line; an input method's Enter sends nothing."""
    page = chat.page
    await chat.box.fill("One")
    await chat.box.press("Shift+Enter")
    await chat.box.evaluate(
        "one => one.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true }))"
    )
    await chat.button("Write in a large window").click()
    large = page.get_by_role("dialog").get_by_role("textbox", name="Message")
    await expect(large).to_have_value("One\n")
    await large.fill("One\nTwo")
    await page.get_by_role("dialog").get_by_role("button", name="Send").click()
    await chat.ended()
    assert (await chat.sent())["messages"][0]["content"] == "One\nTwo"


async def test_the_page_follows_the_answer_unless_one_scrolled_up(chat: Chat, rig: Rig) -> None:
    """A button leads back to the end."""
    lines = [f"Line {number}\n\n" for number in range(80)]
    await script(rig, pieces=[*lines, "last\n\n", *lines], hold=81)
    held = len(rig.log.of("held", "a"))
    await chat.say("Much")
    await rig.until_event("held", "a", count=held + 1)
    await expect(chat.answers).to_contain_text("last")

    async def below() -> int:
        """Pixels of the page below the window."""
        return int(await chat.page.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY"))

    async def at_the_end() -> bool:
        return await below() < 80

    async def far_from_it() -> bool:
        return await below() > 500

    await rig.look(at_the_end, "the page is at its end")
    await chat.page.mouse.wheel(0, -2000)
    await rig.look(far_from_it, "somebody scrolled up")
    await rig.release("a")
    await chat.ended()
    assert await far_from_it()
    await chat.button("To the end").click()
    await rig.look(at_the_end, "the page is at its end again")


async def test_the_chat_works_with_a_keyboard_alone(chat: Chat, rig: Rig) -> None:
    """Ask, stop, edit, answer again, and choose a model."""
    tab = chat.tab
    await script(rig, pieces=["Half ", "whole"], hold=1)
    await chat.page.locator("main").focus()
    await tab.tab_to("textarea Message")
    await chat.page.keyboard.type("Hello")
    await tab.press("Enter")
    await expect(chat.answers).to_contain_text("Half")
    await tab.tab_to("button Stop")
    await tab.press("Enter")
    await chat.ended()
    await script(rig)
    await chat.page.locator("main").focus()
    await tab.tab_to("Model")
    await tab.press("ArrowDown", "Escape")
    await tab.tab_to("Edit question")
    await tab.press("Enter")
    await expect(chat.questions.get_by_role("textbox")).to_be_focused()
    await chat.page.keyboard.type(" you")
    await tab.press("Enter")
    await expect(await chat.ended()).to_contain_text("word0")
    await tab.tab_to("Answer again")
    await tab.press("Enter")
    await chat.ended()


@pytest.mark.parametrize("behind", [False, True])
async def test_one_engine_is_asked_where_the_page_came_from(tab: Tab, tmp_path: Path, *, behind: bool) -> None:
    """On the admin port, also where a reverse proxy shows that one alone, below a path."""
    tab.expected(GONE)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    (tmp_path / "code.txt").write_text("You know this code.\n<{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with (
        FakeEngine() as engine,
        running_app(tmp_path, backend_url=engine.url, prefixes=prefixes) as app,
        reverse_proxy(app.admin_port) as before,
    ):
        port, prefix = (before, PREFIX.decode()) if behind else (app.admin_port, "")
        page = await tab.open(port, PLACE, prefix=prefix)
        await expect(page.get_by_role("combobox", name="Model")).not_to_have_value("")
        await page.get_by_role("button", name="Template").click()
        await page.get_by_role("menuitem", name=re.compile("^@code")).click()
        await page.get_by_role("textbox", name="Message").press_sequentially("Why?")
        await page.keyboard.press("Enter")
        answer = page.get_by_role("article", name="Answer")
        await expect(answer).to_contain_text("first token after")
        await expect(answer).to_contain_text(re.compile(r"\d+ generated at [\d,.]+ per second"))
        await expect(answer.get_by_text("Head of the answer")).to_have_count(1)
        (record,) = [
            one for one in (await call(app.admin_port, "GET", "/requests")).json()["requests"] if one["prefix"]
        ]
        await expect(answer.get_by_role("link", name="request")).to_have_attribute("href", f"#/requests/{record['id']}")
        assert [one for one in asked if not one.startswith(f"http://127.0.0.1:{port}{prefix}/")] == []
        await page.close()  # its stream ends before the reverse proxy


@pytest.mark.parametrize("dark", [False, True])
async def test_the_chat_keeps_nobody_out(chat: Chat, rig: Rig, *, dark: bool) -> None:
    """No finding of weight by axe, and nothing beyond the edge of a phone."""
    await chat.tab.dark(on=dark)
    await script(
        rig, pieces=["# Title\n\n| a | b |\n|---|---|\n| 1 | " + "wide" * 60 + " |\n\n```sh\nls\n```\n\n$x^2$\n"]
    )
    await chat.say("Show")
    await chat.ended()
    assert await chat.tab.axe() == []
    await chat.tab.phone()
    assert await chat.tab.spilled() == []
    assert await chat.tab.axe() == []
    await chat.button("Chats").click()
    await expect(
        chat.page.get_by_role("dialog", name="Chats").get_by_role("button", name=re.compile("^Show"))
    ).to_be_visible()
