"""What a stream says while its model is being loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from bioproxy.activity import Standing
from bioproxy.front.exchange import Exchange
from bioproxy.front.routes import OTHER_GRANT
from bioproxy.front.waiting import Chunk, Keepalive, Loading, Said, closing, opening, proceed, sentence
from bioproxy.models.waits import Part
from bioproxy.wire.http1.message import Request, Responder, Source

LOADING = Standing(part="start")


def told(*steps: tuple[Standing, float]) -> str:
    """All words for a row of looks."""
    said, words = Said(), ""
    for standing, seconds in steps:
        text, said = proceed(said, standing, seconds)
        words += text
    return words


def test_a_line_begins_when_something_changes() -> None:
    """Else a dot is a sign of life."""
    words = told(
        (Standing(part="in_use", place=3), 0.0),
        (Standing(part="in_use", place=3), 1.0),
        (Standing(part="in_use", place=2), 2.1),
        (Standing(part="in_use", place=1), 3.0),
        (Standing(part="stop"), 4.9),
        (LOADING, 6.0),
        (LOADING, 7.0),
    )
    assert words == (
        "2 requests are ahead, 0 s .\n1 request is ahead, 2 s \nnext in the queue, 3 s \nstopping others, 4 s \n"
        "loading, 6 s ."
    )


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("linger", "another model is in the middle of tool calls"),
        ("min_resident", "another model was loaded a moment ago"),
        ("save", "saving what others hold"),
        ("pause", "trying again in a moment"),
        ("attach", "loading"),
        ("restore", "bringing its cache back"),
    ],
)
def test_a_swap_that_is_held_back_says_why(part: Part, words: str) -> None:
    """Nobody should think that a model loads for half a minute when it has not begun."""
    assert told((Standing(part=part), 0.0)) == f"{words}, 0 s "


def test_a_line_begins_every_ten_seconds() -> None:
    """So that the seconds can be read."""
    words = told(*((LOADING, float(second)) for second in range(22)))
    assert words == f"loading, 0 s {'.' * 9}\nloading, 10 s {'.' * 9}\nloading, 20 s ."


def test_it_says_how_long_still() -> None:
    """If that is known; it is no reason for another line."""
    words = told(*((Standing(part="start", left=12.2 - second), float(second)) for second in range(3)))
    assert words == "loading, 0 s, about 13 s more .."


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (Standing(), ""),
        (
            Standing(stage="queue", place=2, reason="waits for a slot", left=11.1),
            "place 2, waits for a slot, about 12 s",
        ),
        (Standing(stage="model", place=1, reason="waits for m to load"), "place 1, waits for m to load"),
        (Standing(stage="prompt", reason="is being read", left=300.0), "is being read, about 5 min"),
    ],
)
def test_a_standing_in_one_line(standing: Standing, words: str) -> None:
    """Place, reason, estimate, as far as they are known."""
    assert sentence(standing) == words


def test_the_first_and_the_last_words() -> None:
    """Between two rules, as llama-swap's users know it."""
    assert opening("org/m") == "━━━━━\nloading model: org/m\n"
    assert closing(1.234) == "\nDone! (1.23s)\n━━━━━\n \n"


def test_an_event_is_a_whole_chunk_of_reasoning() -> None:
    """Strict SDKs read every key."""
    sent = Chunk("m", "c1", 7).event("a\n━", "openai")
    assert sent.startswith(b"data: ")
    assert sent.endswith(b"\n\n")
    assert sent.count(b"\n") == 2
    choice = {"index": 0, "delta": {"reasoning_content": "a\n━"}, "finish_reason": None}
    assert json.loads(sent[6:]) == {
        "id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]
    }  # fmt: skip


def test_other_dialects_get_their_sign_of_life() -> None:
    """Nothing may stand before the engine's own first event."""
    assert Chunk("m", "c1", 7).event("a", "anthropic") == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert Chunk("m", "c1", 7).event("a", "llama").startswith(b": ")


class Client:
    """Stands for the connection: what it reads, and waiting for a text in it."""

    def __init__(self) -> None:
        self.keep = True
        self.sent = b""
        self.more = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.sent += data
        self.more.set()

    async def until(self, text: bytes, times: int = 1) -> None:
        """Return when `text` was sent so many times."""
        while self.sent.count(text) < times:
            self.more.clear()
            await self.more.wait()

    async def drain(self) -> None: ...

    def cut(self, *, reset: bool = False) -> None: ...

    def take_from(self, source: Source | None) -> None: ...

    def tunnel_to(self, receive: Callable[[bytes], None]) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Rig:
    """One exchange that waits for its model."""

    def __init__(self) -> None:
        self.client = Client()
        request = Request("POST", b"/v1/chat/completions", path="/v1/chat/completions", headers=[], fields={})
        self.exchange = Exchange(request, Responder(self.client, request), OTHER_GRANT)
        self.standing = Standing(part="in_use", place=2)
        self.loading = Loading(self.exchange, model="m", look=lambda _: self.standing, period=0.002)

    def words(self) -> str:
        """All reasoning so far."""
        lines = [line for line in self.client.sent.splitlines() if line.startswith(b"data: ")]
        return "".join(json.loads(line[6:])["choices"][0]["delta"]["reasoning_content"] for line in lines)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_the_stream_begins_at_once_and_goes_on(rig: Rig) -> None:
    """Head, first words, where the request stands, and dots on the timer."""
    rig.loading.start()
    assert rig.client.sent.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert rig.words() == "━━━━━\nloading model: m\n1 request is ahead, 0 s "
    assert rig.exchange.opened
    assert rig.exchange.streaming
    await rig.client.until(b'"."', times=2)
    rig.standing = LOADING
    await rig.client.until(b"loading, 0 s")
    rig.loading.stop(ready=True)
    assert "Done! (0." in rig.words()
    assert rig.words().endswith("s)\n━━━━━\n \n")


async def test_the_first_words_name_the_model_each_time(rig: Rig) -> None:
    """A request that waits again, for the next process of its model, says so again."""
    for times in (1, 2):
        rig.loading.start()
        assert rig.words().count("━━━━━\nloading model: m\n") == times
        rig.loading.stop(ready=True)
    assert rig.client.sent.count(b"HTTP/1.1 200 OK") == 1


async def test_nothing_is_said_after_the_end(rig: Rig) -> None:
    """A second stop changes nothing."""
    rig.loading.start()
    rig.loading.stop(ready=True)
    sent = rig.client.sent
    rig.loading.stop(ready=True)
    assert rig.loading.timer is None
    assert rig.client.sent == sent


async def test_a_load_that_failed_is_not_done(rig: Rig) -> None:
    """An error event follows."""
    rig.loading.start()
    rig.loading.stop(ready=False)
    assert "Done" not in rig.words()


async def test_nothing_is_said_once_the_engine_has_spoken(rig: Rig) -> None:
    """Reasoning in the middle of an answer would be taken for the model's."""
    rig.loading.start()
    rig.exchange.tail.first = 1.0
    sent = rig.client.sent
    rig.loading.tick()
    rig.loading.stop(ready=True)
    assert rig.client.sent == sent


async def test_a_stop_before_the_start_says_nothing(rig: Rig) -> None:
    """A model that was ready needs no words."""
    rig.loading.stop(ready=True)
    assert rig.client.sent == b""


@pytest.mark.parametrize("shows", [False, True])
async def test_a_sign_of_life_says_what_is_waited_for(rig: Rig, *, shows: bool) -> None:
    """In a comment, whatever a model is called; as reasoning if clients shall be shown that."""
    rig.exchange.record.model = "m"
    rig.standing = Standing(stage="queue", place=2, reason="waits for the one slot of a\nb", left=3.0)
    keepalive = Keepalive(rig.exchange, 0.002, look=lambda _: rig.standing, shows=shows)
    keepalive.start()
    await rig.client.until(b"place 2", times=2)
    keepalive.stop()
    if shows:
        assert rig.words().startswith("place 2, waits for the one slot of a\nb, about 3 s\nplace 2, ")
    else:
        said = b"\r\n: bioproxy keeps this open: place 2, waits for the one slot of a b, about 3 s\n\n"
        assert said in rig.client.sent
