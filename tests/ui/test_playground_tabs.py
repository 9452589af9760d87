"""The Playground beside its chat: load test, rerank, images, speech and transcription, and everything one can press."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from support.browser import GONE, Tab
from support.playground import PLACE, script
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc00000030101"
        "0018dd8db00000000049454e44ae426082"
    )
).decode()
WAV = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 836, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", 800)
SOUND: Json = {"base64": base64.b64encode(WAV + bytes([128] * 800)).decode(), "kind": "audio/wav"}
CAN: Json = {
    "draw": {"in": ["text"], "out": ["image"]},
    "speak": {"in": ["text"], "out": ["audio"]},
    "hear": {"in": ["audio"], "out": ["text"]},
    "rank": {"in": ["text"], "out": ["text"], "reranker": True},
}
CONTROLS = {  # of llama-swap's Playground: the test, here or of the chat, that presses it
    "tabs; each remembers its model": "test_each_tab_offers_fitting_models_first_and_remembers_its_own",
    "a running chat survives navigation": "test_an_answer_goes_on_while_one_looks_elsewhere",
    "the sidebar moves while anything runs": "test_a_job_goes_on_while_one_looks_elsewhere",
    "X-Session-ID": "test_a_request_carries_a_session_and_an_id_that_finds_it",
    "model box with groups, aliases, search": "test_the_model_is_searched_and_remembered",
    "chat: endpoint": "test_each_endpoint_answers",
    "chat: system prompt, temperature, max tokens, statistics on and off": "test_parameters_are_sent_and_kept",
    "chat: new, and kept": "test_chats_are_kept_found_renamed_and_deleted",
    "chat: streaming Markdown, cursor": "test_an_answer_is_shown_piece_by_piece",
    "chat: code with copy, answer with copy, raw and rendered": "test_an_answer_is_copied_and_shown_as_it_came",
    "chat: reasoning folded, with characters and seconds": "test_reasoning_is_folded_away_once_the_answer_comes",
    "chat: images by button, paste and drop, preview, remove, full size": "test_images_are_picked_pasted_dropped_"
    "looked_at_and_removed",
    "chat: edit by Enter and Esc, and run from there": "test_a_question_is_edited_and_asked_again_from_there",
    "chat: regenerate": "test_an_answer_is_given_again",
    "chat: follows unless scrolled up": "test_the_page_follows_the_answer_unless_one_scrolled_up",
    "chat: expand dialog, Shift+Enter, input methods": "test_a_long_text_gets_a_large_window",
    "chat: cancel keeps what came": "test_stop_keeps_what_came",
    "chat: errors inside the answer": "test_errors_stand_in_the_answer",
    "images: size, generate, clear, fullscreen, download": "test_an_image_is_drawn_looked_at_and_saved",
    "images: cancel": "test_a_drawing_is_cancelled",
    "images: all of sdapi": "test_stable_diffusion_has_its_own_settings",
    "speech: voices, refresh, auto-play, player, download": "test_a_text_is_spoken_played_and_saved",
    "speech: default voices, cancel, clear": "test_a_server_without_voices_has_the_usual_ones",
    "transcription: drop, browse, transcribe, copy, clear": "test_a_recording_is_written_down",
    "transcription: cancel": "test_a_transcription_is_cancelled",
    "rerank: scores, order, tokens": "test_documents_are_ranked",
    "rerank: table and JSON, sample, empty row, remove, clear": "test_documents_are_written_as_rows_and_as_json",
    "rerank: cancel, errors": "test_a_ranking_is_cancelled_or_fails",
    "load test: queue, prompt, tokens, go, time line, fold, cards, clear": "test_a_load_test_sends_all_at_once",
    "load test: stop": "test_a_load_test_is_stopped",
    "load test: error, loading text": "test_a_load_test_tells_errors_and_what_loads",
    "load test: reorder, remove, defaults": "test_queued_requests_are_moved_and_removed",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a model for each kind of question; none makes room for another."""
    folder = tmp_path_factory.mktemp("play")
    models = fakes("a b") | {name: fake(capabilities=what) for name, what in CAN.items()}
    models |= {"broken": fake("--exit 3"), "slow": fake(f"--wait_for {folder / 'go'}", sendLoadingState=True)}
    async with swap_rig(folder, models, groups=apart(" ".join(models))) as running:
        yield running


async def at(tab: Tab, rig: Rig, name: str) -> Page:
    """One of the tabs."""
    page = await tab.open(rig.port, f"{PLACE}?tab={name}")
    await expect(page.get_by_role("tab", selected=True)).to_have_attribute("data-value", name)
    return page


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


async def sent(rig: Rig, model: str) -> Json:
    """The body of the newest request as the engine got it."""
    return json.loads((await rig.last(model))["body"])


async def test_every_control_is_pressed() -> None:
    """What people know from llama-swap's Playground, each line with its test."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_playground*.py"))
    assert [name for name in CONTROLS.values() if f"async def {name}(" not in text] == []


async def test_the_tabs_are_moved_between_by_arrows(tab: Tab, rig: Rig) -> None:
    """Also through Chat, whose field takes the focus otherwise. The last one is opened again."""
    page = await at(tab, rig, "chat")
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    await page.get_by_role("tab", name="Chat").focus()
    await tab.press("ArrowRight", "ArrowLeft")
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    assert await tab.focused() == "tab Chat"
    for name in ("Images", "Speech", "Transcription", "Rerank", "Load test"):
        await tab.press("ArrowRight")
        await expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    await page.goto(page.url.partition("?")[0])
    await page.reload()
    await expect(page.get_by_role("tab", name="Load test")).to_have_attribute("aria-selected", "true")


async def test_each_tab_offers_fitting_models_first_and_remembers_its_own(tab: Tab, rig: Rig) -> None:
    """By what the configuration says that they can do."""
    for name, model in {"images": "draw", "speech": "speak", "transcription": "hear", "rerank": "rank"}.items():
        page = await at(tab, rig, name)
        box = page.get_by_role("combobox", name="Model")
        await expect(box).to_have_value(model)
        await box.click()
        fitting = page.get_by_role("group", name="Fitting")
        await expect(fitting.get_by_role("option")).to_have_count(1)
        await box.fill("b")
        await (
            page.get_by_role("option", name="ready b").or_(page.get_by_role("option", name="unloaded b")).first.click()
        )
        await page.reload()
        await expect(box).not_to_have_value("")
        await box.fill(model)
        await box.press("Enter")


async def test_models_come_and_go_with_the_configuration(tab: Tab, tmp_path: Path) -> None:
    """While the page is open; one that was chosen and is gone keeps its name, and asking it is told to be in vain."""
    tab.expected(f"{GONE}|404")
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        page = await at(tab, rig, "load")
        names = page.get_by_role("button", name=re.compile("^(ready|unloaded) ?[abc]$"))
        await expect(names).to_have_text([re.compile(r"a\s*$"), re.compile(r"b\s*$")])
        await names.first.click()
        await rig.reload(fakes("b c"))
        await expect(names).to_have_text([re.compile(r"b\s*$"), re.compile(r"c\s*$")])
        await button(page, "Go").click()
        card = page.get_by_role("list", name="Requests").get_by_role("article")
        await expect(card).to_contain_text("no router for requested model")
        none = page.get_by_text("No model is listed: models and peers of the configuration would be.")
        await expect(none).to_have_count(0)
        await rig.reload({})
        await expect(none).to_be_visible()


# load test


async def test_a_load_test_sends_all_at_once(tab: Tab, rig: Rig) -> None:
    """The same model twice and another one: they run together, and the time line and the cards say how each got on."""
    for model in ("a", "b"):
        await script(rig, model, hold=1, pieces=["One ", "two."])
    held = {model: len(rig.log.of("held", model)) for model in ("a", "b")}
    page = await at(tab, rig, "load")
    for name in ("a", "a", "b"):
        await page.get_by_role("button", name=re.compile(rf"^(ready|unloaded) ?{name}\b")).click()
    await expect(button(page, "Clear (3)")).to_be_enabled()
    await page.get_by_role("textbox", name="Prompt").fill("Count.")
    await page.get_by_role("spinbutton", name="Max tokens").fill("7")
    await button(page, "Go").click()
    for model, count in (("a", 2), ("b", 1)):
        await rig.until_event("held", model, count=held[model] + count)
    body = await sent(rig, "b")
    assert (body["max_tokens"], body["messages"]) == (7, [{"role": "user", "content": "Count."}])
    cards = page.get_by_role("list", name="Requests").get_by_role("article")
    await expect(cards.filter(has_text="streaming")).to_have_count(3)
    await expect(page.get_by_role("img", name=re.compile("^a: .*streaming"))).to_have_count(2)
    for model in ("a", "b"):
        await rig.release(model)
    await expect(cards.filter(has_text="done").filter(has_text="One two.")).to_have_count(3)
    await expect(page.get_by_text(re.compile("3 of 3 done, .* tokens, .* per second together"))).to_be_visible()
    await expect(cards.first.get_by_role("link", name="request")).to_have_attribute(
        "href", re.compile("#/requests/pg-")
    )
    await page.get_by_role("heading", name="Time line").click()
    await expect(page.get_by_role("img", name=re.compile("^a: "))).to_have_count(0)
    await button(page, "Clear (3)").click()
    await expect(cards).to_have_count(0)


async def test_a_load_test_is_stopped(tab: Tab, rig: Rig) -> None:
    """What came stays."""
    await script(rig, "a", hold=1, pieces=["One ", "two."])
    page = await at(tab, rig, "load")
    await page.get_by_role("button", name=re.compile(r"^(ready|unloaded) ?a\b")).click()
    await button(page, "Go").click()
    card = page.get_by_role("list", name="Requests").get_by_role("article")
    await expect(card).to_contain_text("One")
    await button(page, "Stop").click()
    await expect(card).to_contain_text("stopped")
    await expect(button(page, "Go")).to_be_enabled()


async def test_a_load_test_tells_errors_and_what_loads(tab: Tab, rig: Rig) -> None:
    """Each on its card, and in the time line; what the program says of a load is no reasoning."""
    tab.expected("status of 50")
    page = await at(tab, rig, "load")
    for name in ("broken", "slow"):
        await page.get_by_role("button", name=re.compile(rf"^(ready|unloaded) ?{name}\b")).click()
    await button(page, "Go").click()
    cards = page.get_by_role("list", name="Requests").get_by_role("article")
    await expect(cards.first).to_contain_text("failed")
    await expect(cards.first.locator(".error")).not_to_be_empty()
    await expect(cards.last).to_contain_text("loading model: slow")
    (rig.folder / "go").touch()
    await expect(cards.last).to_contain_text("done")
    await expect(page.get_by_role("img", name=re.compile("^slow: .*loading .*streaming"))).to_have_count(1)


async def test_queued_requests_are_moved_and_removed(tab: Tab, rig: Rig) -> None:
    """With buttons, and by dragging; the defaults come back."""
    page = await at(tab, rig, "load")
    for name in ("a", "b", "slow"):
        await page.get_by_role("button", name=re.compile(rf"^(ready|unloaded) ?{name}\b")).click()
    cards = page.get_by_role("list", name="Requests").get_by_role("article")

    async def order() -> list[str]:
        return [(await one.get_attribute("aria-label") or "").split(": ")[1] for one in await cards.all()]

    await button(page, "Move slow forward").click()
    assert await order() == ["a", "slow", "b"]
    await button(page, "Move a back").click()
    assert await order() == ["slow", "a", "b"]
    await page.get_by_role("list", name="Requests").get_by_role("listitem").last.drag_to(cards.first)
    assert await order() == ["b", "slow", "a"]
    await button(page, "Remove slow").click()
    assert await order() == ["b", "a"]
    await page.get_by_role("textbox", name="Prompt").fill("Other")
    await button(page, "Defaults").click()
    await expect(page.get_by_role("textbox", name="Prompt")).to_have_value(re.compile("lighthouse"))
    await expect(page.get_by_role("spinbutton", name="Max tokens")).to_have_value("256")


# rerank


async def test_documents_are_ranked(tab: Tab, rig: Rig) -> None:
    """Scores beside them, best first; a click on the head turns the order; tokens in all."""
    results = [{"index": index, "relevance_score": score} for index, score in ((0, 0.25), (2, 0.75))]
    await script(rig, "rank", answers={"/v1/rerank": {"results": results, "usage": {"total_tokens": 1234}}})
    page = await at(tab, rig, "rerank")
    first = page.get_by_role("textbox", name="Document 1", exact=True)
    before = await first.input_value()
    await button(page, "Rerank").click()
    await expect(page.get_by_text("1,234 tokens in all.")).to_be_visible()
    await expect(page.get_by_role("row").nth(1)).to_contain_text("0.7500")
    await expect(page.get_by_role("row").nth(2)).to_contain_text("0.2500")
    body = await sent(rig, "rank")
    assert (body["query"], len(body["documents"]), body["documents"][0]) == ("How does a cache save time?", 9, before)
    head = page.get_by_role("columnheader", name="Score")
    for order, score in {"ascending": "0.2500", "none": "0.2500", "descending": "0.7500"}.items():
        await head.get_by_role("button").click()
        await expect(head).to_have_attribute("aria-sort", order)
        await expect(page.get_by_role("row").nth(1)).to_contain_text(score)


async def test_documents_are_written_as_rows_and_as_json(tab: Tab, rig: Rig) -> None:
    """The same in both; an empty row is always there; what is wrong with the JSON is said."""
    page = await at(tab, rig, "rerank")
    await button(page, "Clear").click()
    boxes = page.get_by_role("textbox", name=re.compile("^Document"))
    await expect(boxes).to_have_count(1)
    await page.get_by_role("textbox", name="Query").fill("q")
    await boxes.last.fill("one")
    await expect(boxes).to_have_count(2)
    await boxes.last.fill("two")
    await button(page, "JSON").click()
    text = page.get_by_role("textbox", name="Query and documents as JSON")
    assert json.loads(await text.input_value()) == {"query": "q", "documents": ["one", "two"]}
    await text.fill('{"query": "q", "documents": [1]}')
    await expect(page.get_by_role("alert")).to_have_text("Document 1 is not a string.")
    await expect(button(page, "Rerank")).to_be_disabled()
    await text.fill('{"query": "other", "documents": ["two", "three", "four"]}')
    await button(page, "Table").click()
    await expect(page.get_by_role("textbox", name="Query")).to_have_value("other")
    await button(page, "Remove document 2").click()
    assert [await one.input_value() for one in await boxes.all()] == ["two", "four", ""]
    await button(page, "Sample").click()
    await expect(boxes).to_have_count(10)


async def test_a_ranking_is_cancelled_or_fails(tab: Tab, rig: Rig) -> None:
    """Its error is the program's own sentence."""
    tab.expected("status of 500")
    await script(rig, "rank", hold=0)
    page = await at(tab, rig, "rerank")
    await button(page, "Rerank").click()
    await expect(page.get_by_text("Ranking, ")).to_be_visible()
    await button(page, "Cancel").click()
    await script(rig, "rank", status=500)
    await button(page, "Rerank").click()
    await expect(page.get_by_role("alert")).to_have_text(re.compile("the fake was asked for 500"))


# images


async def test_an_image_is_drawn_looked_at_and_saved(tab: Tab, rig: Rig) -> None:
    """By OpenAI's API, in one of eight sizes; a picture elsewhere is not loaded."""
    path = "/v1/images/generations"
    await script(rig, "draw", answers={path: {"data": [{"b64_json": PNG}, {"url": "https://pictures.example/1.png"}]}})
    page = await at(tab, rig, "images")
    await expect(page.get_by_role("combobox", name="Size", exact=True).locator("option")).to_have_count(8)
    await page.get_by_role("combobox", name="Size", exact=True).select_option("1280x720")
    await page.get_by_role("textbox", name="Prompt").fill("A cat")
    await page.get_by_role("textbox", name="Prompt").press("Enter")
    await button(page, "View image-1.png").click()
    dialog = page.get_by_role("dialog", name="image-1.png")
    async with page.expect_download() as download:
        await button(dialog, "Download").click()
    assert (await download.value).suggested_filename == "image-1.png"
    assert Path(await (await download.value).path()).read_bytes() == base64.b64decode(PNG)
    await page.keyboard.press("Escape")
    link = page.get_by_role("link", name="open it from pictures.example")
    await expect(link).to_have_attribute("rel", "noreferrer noopener")
    body = await sent(rig, "draw")
    assert (body["prompt"], body["size"]) == ("A cat", "1280x720")
    await button(page, "Clear").click()
    await expect(button(page, "View image-1.png")).to_have_count(0)


async def test_stable_diffusion_has_its_own_settings(tab: Tab, rig: Rig) -> None:
    """Steps, CFG, seed, batch size, sampler, scheduler, negative prompt and LoRAs; the answer is a grid."""
    loras = [{"name": "pixel", "path": "p.safetensors"}, {"name": "oil", "path": "o.safetensors"}]
    await script(rig, "draw", answers={"/sdapi/v1/txt2img": {"images": [PNG, PNG]}, "/sdapi/v1/loras": loras})
    page = await at(tab, rig, "images")
    await page.get_by_label("API").select_option("sdapi")
    await page.get_by_role("combobox", name="Size", exact=True).select_option("512x512")
    for name, value in {"Steps": "8", "CFG": "3.5", "Seed": "42", "Batch size": "2"}.items():
        await page.get_by_role("spinbutton", name=name).fill(value)
    for name, count in {"Sampler": 14, "Scheduler": 7}.items():  # the server's own, and those with a name
        await expect(page.get_by_label(name).locator("option")).to_have_count(count)
    await page.get_by_label("Sampler").select_option("euler_a")
    await page.get_by_label("Scheduler").select_option("karras")
    await page.get_by_label("Negative prompt").fill("dogs")
    await button(page, "Load").click()
    for path in ("p.safetensors", "o.safetensors"):
        await page.get_by_label("Add a LoRA").select_option(path)
    await page.get_by_role("slider", name="Weight of pixel").fill("0.5")
    await button(page, "Remove oil").click()
    await expect(button(page, "Reload")).to_be_enabled()
    await page.get_by_role("textbox", name="Prompt", exact=True).fill("A cat")
    await button(page, "Generate").click()
    await expect(page.get_by_role("button", name=re.compile("^View image-"))).to_have_count(2)
    assert await sent(rig, "draw") == {
        "model": "draw", "prompt": "A cat", "negative_prompt": "dogs", "width": 512, "height": 512, "steps": 8,
        "cfg_scale": 3.5, "seed": 42, "batch_size": 2, "sampler_name": "euler_a", "scheduler": "karras",
        "lora": [{"path": "p.safetensors", "multiplier": 0.5}],
    }  # fmt: skip


async def test_a_drawing_is_cancelled(tab: Tab, rig: Rig) -> None:
    """And the engine sees that its client has left."""
    await script(rig, "draw", hold=0)
    ended = len(rig.log.of("end", "draw"))
    held = len(rig.log.of("held", "draw"))
    page = await at(tab, rig, "images")
    await page.get_by_role("textbox", name="Prompt").fill("A cat")
    await button(page, "Generate").click()
    await rig.until_event("held", "draw", count=held + 1)
    await button(page, "Cancel").click()
    assert (await rig.until_event("end", "draw", count=ended + 1)).how == "gone"
    await expect(button(page, "Generate")).to_be_enabled()


# speech


async def test_a_text_is_spoken_played_and_saved(tab: Tab, rig: Rig) -> None:
    """By a voice of the server's list, which is read when one asks, and kept."""
    voices = {"voices": ["anna", "bert"]}
    await script(rig, "speak", answers={"/v1/audio/speech": SOUND, "/v1/audio/voices": voices})
    page = await at(tab, rig, "speech")
    await expect(page.get_by_role("combobox", name="Voice", exact=True).locator("option")).to_have_count(7)
    await button(page, "Ask the server for its voices").click()
    await expect(page.get_by_role("combobox", name="Voice", exact=True).locator("option")).to_have_text(
        ["anna", "bert"]
    )
    await page.get_by_role("combobox", name="Voice", exact=True).select_option("bert")
    await page.get_by_label("Play at once").uncheck()
    await page.get_by_role("textbox", name="Text").fill("Hello")
    await button(page, "Generate").click()
    player = page.locator("audio")
    await expect(player).to_have_js_property("autoplay", value=False)
    await expect(player).to_have_attribute("src", re.compile("^blob:"))
    assert await player.evaluate(
        "one => new Promise(done => { one.onloadedmetadata = () => done(one.duration); one.load() })"
    ) == pytest.approx(0.1)
    await expect(page.get_by_text(re.compile("bert, (just now|.* ago)"))).to_be_visible()
    async with page.expect_download() as download:
        await button(page, "Download").click()
    assert (await download.value).suggested_filename == "speech.wav"
    body = await sent(rig, "speak")
    assert (body["input"], body["voice"]) == ("Hello", "bert")
    await page.reload()
    await expect(page.get_by_role("combobox", name="Voice", exact=True)).to_have_value("bert")
    await expect(page.get_by_label("Play at once")).not_to_be_checked()


async def test_a_server_without_voices_has_the_usual_ones(tab: Tab, rig: Rig) -> None:
    """Cancel and Clear do what they say."""
    tab.expected("status of 500")
    await script(rig, "speak", status=500)
    page = await at(tab, rig, "speech")
    await button(page, "Ask the server for its voices").click()
    await expect(button(page, "Ask the server for its voices")).to_be_enabled()
    await expect(page.get_by_role("combobox", name="Voice", exact=True).locator("option")).to_have_count(7)
    await script(rig, "speak", hold=0)
    await page.get_by_role("textbox", name="Text").fill("Hello")
    await button(page, "Generate").click()
    await button(page, "Cancel").click()
    await button(page, "Clear").click()
    await expect(page.get_by_role("textbox", name="Text")).to_have_value("")


# transcription


async def test_a_recording_is_written_down(tab: Tab, rig: Rig) -> None:
    """Picked or dropped; the text can be copied; a file of another kind is refused."""
    path = "/v1/audio/transcriptions"
    await script(rig, "hear", answers={path: {"text": "Hello there."}})
    page = await at(tab, rig, "transcription")
    chooser = page.locator("input[type=file]")
    await chooser.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    await expect(page.get_by_role("alert")).to_have_text("a.txt is not an MP3, WAV or OGG file.")
    await chooser.set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": WAV})
    await expect(page.get_by_text("a.wav")).to_be_visible()
    await page.get_by_role("group", name="Recording").evaluate(
        """zone => { const data = new DataTransfer();
        data.items.add(new File(["x"], "dropped.mp3", { type: "audio/mpeg" }));
        zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true })) }"""
    )
    await expect(page.get_by_text("dropped.mp3")).to_be_visible()
    await button(page, "Transcribe").click()
    await expect(page.get_by_text("Hello there.")).to_be_visible()
    assert await tab.copied(button(page, "Copy text")) == "Hello there."
    form = (await rig.last("hear"))["body"]
    assert 'name="model"\r\n\r\nhear' in form
    assert 'filename="dropped.mp3"' in form
    await button(page, "Clear").click()
    await expect(page.get_by_text("Hello there.")).to_have_count(0)


async def test_a_transcription_is_cancelled(tab: Tab, rig: Rig) -> None:
    """The recording stays."""
    await script(rig, "hear", hold=0)
    page = await at(tab, rig, "transcription")
    await page.locator("input[type=file]").set_input_files({"name": "a.ogg", "mimeType": "audio/ogg", "buffer": WAV})
    await button(page, "Transcribe").click()
    await button(page, "Cancel").click()
    await expect(button(page, "Transcribe")).to_be_enabled()
    await expect(page.get_by_text("a.ogg")).to_be_visible()


async def test_a_job_goes_on_while_one_looks_elsewhere(tab: Tab, rig: Rig) -> None:
    """The sidebar tells that something runs."""
    await script(rig, "rank", hold=0, answers={"/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}]}})
    held = len(rig.log.of("held", "rank"))
    page = await at(tab, rig, "rerank")
    await button(page, "Rerank").click()
    await rig.until_event("held", "rank", count=held + 1)
    await page.get_by_role("tab", name="Speech").click()
    await expect(page.get_by_role("link", name=re.compile("^Playground"))).to_contain_text("running")
    await rig.release("rank")
    await expect(page.get_by_role("link", name=re.compile("^Playground"))).not_to_contain_text("running")
    await page.get_by_role("tab", name="Rerank").click()
    await expect(page.get_by_text("0.5000")).to_be_visible()


@pytest.mark.parametrize("name", ["load", "rerank", "images", "speech", "transcription"])
async def test_no_tab_keeps_anybody_out(tab: Tab, rig: Rig, name: str) -> None:
    """No finding of weight by axe in either theme, and nothing beyond the edge of a phone."""
    await script(rig, "draw", answers={"/v1/images/generations": {"data": [{"b64_json": PNG}]}})
    page = await at(tab, rig, name)
    if name == "load":
        for model in ("a", "b"):
            await page.get_by_role("button", name=re.compile(rf"^(ready|unloaded) ?{model}\b")).click()
    if name == "images":
        await page.get_by_label("API").select_option("sdapi")
    for dark in (False, True):
        await tab.dark(on=dark)
        assert await tab.axe() == []
    await tab.phone()
    assert await tab.spilled() == []
    assert await tab.axe() == []
