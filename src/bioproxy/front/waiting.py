"""What a stream says while it waits: signs of life, and that its model is being loaded.

**Signs of life.** Proxies and SDKs close a connection that says nothing for a minute, and llama-server says nothing
before a slot starts (facts, section 2). So after `stream_keepalive` seconds without a byte, in the queue, while a model
loads or a long prompt is evaluated, we send the head of a 200 and a comment line, and again every so many seconds until
the engine's first byte. The price: a later error can only be an event in the stream.

**Loading** (`sendLoadingState`). A model of forty gigabytes takes a minute to load, and a chat page that shows nothing
for a minute looks broken. So the stream begins at once and says what is going on, as *reasoning*: pages show it folded
away, and no client takes it for the answer. Then the engine's own stream follows in the same response.

    ━━━━━
    loading model: qwen
    2 requests are ahead, 3 s ...
    stopping others, 5 s ..
    loading, 7 s ....
    Done! (12.40s)
    ━━━━━

A line begins when what we wait for changes, or every ten seconds; between them a dot each second. Nothing is said once
the engine has spoken. Other dialects have no reasoning that could stand before the engine's own first event: they get
a sign of life at the same pace.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import msgspec

from bioproxy.front.dialects import Dialect, keepalive
from bioproxy.front.exchange import Exchange
from bioproxy.models.waits import Part

RULE = "━━━━━\n"
PERIOD = 1.0  # seconds between two signs of life
SECONDS_PER_LINE = 10
WORDS: dict[Part, str] = {  # what is waited for; everything else is "loading"
    "linger": "another model is in the middle of tool calls",
    "min_resident": "another model was loaded a moment ago",
    "save": "saving what others hold",
    "stop": "stopping others",
    "pause": "trying again in a moment",
    "restore": "bringing its cache back",
}


class Keepalive:
    """One timer for one exchange."""

    __slots__ = ("exchange", "period", "timer")

    def __init__(self, exchange: Exchange, period: float) -> None:
        self.exchange = exchange
        self.period = period
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count; does nothing for a period of 0."""
        if self.period > 0:
            self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)

    def stop(self) -> None:
        """No further comment will be sent."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def tick(self) -> None:
        """Send the head if it is not out, then a comment, unless the engine has spoken."""
        exchange = self.exchange
        if exchange.tail.first is not None:
            self.timer = None
            return
        exchange.open_stream()
        exchange.responder.write(keepalive(exchange.dialect))
        self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)


class Standing(msgspec.Struct, frozen=True):
    """What a request waits for (models/waits.py); `in_use` is a turn, and `ahead` others go first."""

    part: Part
    ahead: int = 0


class Said(msgspec.Struct, frozen=True):
    """What was said last: where the request stood, and the second in which that line began."""

    standing: Standing | None = None
    second: int = 0


def opening(model: str) -> str:
    """The first words."""
    return f"{RULE}loading model: {model}\n"


def closing(seconds: float) -> str:
    """The last words, once the model is ready after so many seconds."""
    return f"\nDone! ({seconds:.2f}s)\n{RULE} \n"


def proceed(said: Said, standing: Standing, seconds: float) -> tuple[str, Said]:
    """The next words and what is said then: a new line if something changed or ten seconds went by, else a dot."""
    second = math.floor(seconds)
    if standing == said.standing and second - said.second < SECONDS_PER_LINE:
        return ".", said
    line = f"{described(standing)}, {second} s "
    return line if said.standing is None else "\n" + line, Said(standing, second)


def described(standing: Standing) -> str:
    """Where a request stands, in words."""
    if standing.part == "in_use":
        if standing.ahead == 1:
            return "1 request is ahead"
        return f"{standing.ahead} requests are ahead" if standing.ahead else "next in the queue"
    return WORDS.get(standing.part, "loading")


class Chunk(msgspec.Struct, frozen=True):
    """What all events of one stream have in common; SDKs read these keys of every chunk."""

    model: str
    id: str
    created: int

    def event(self, text: str, dialect: Dialect) -> bytes:
        """The words as one event of the stream."""
        if dialect != "openai":
            return keepalive(dialect)
        choice = {"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}
        body = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
        }
        return b"data: " + msgspec.json.encode(body) + b"\n\n"


class Loading:
    """One timer for one exchange; `look` tells where the request stands now."""

    __slots__ = ("chunk", "exchange", "look", "period", "said", "started", "timer")

    def __init__(self, exchange: Exchange, *, model: str, look: Callable[[], Standing], period: float = PERIOD) -> None:
        self.exchange = exchange
        self.look = look
        self.period = period
        self.chunk = Chunk(model, f"loading-{exchange.id}", int(time.time()))
        self.said = Said()
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send the head and the first words, and go on until `stop`; from here on errors are events."""
        self.started = asyncio.get_running_loop().time()
        self.exchange.open_stream()
        self.exchange.streaming = True
        self.say(opening(self.chunk.model))
        self.tick()

    def stop(self, *, ready: bool) -> None:
        """Say nothing more, after the last words if the model is `ready`; does nothing the second time."""
        if self.timer is None:
            return
        self.timer.cancel()
        self.timer = None
        if ready and self.exchange.tail.first is None:
            self.say(closing(self.elapsed()))

    def elapsed(self) -> float:
        """Seconds since `start`."""
        return asyncio.get_running_loop().time() - self.started

    def say(self, text: str) -> None:
        """Send words; the stream is not part of the engine's answer, whose bytes the exchange's tail counts."""
        self.exchange.responder.write(self.chunk.event(text, self.exchange.dialect))

    def tick(self) -> None:
        """Say where the request stands, unless the engine has spoken."""
        self.timer = None
        if self.exchange.tail.first is not None:
            return
        text, self.said = proceed(self.said, self.look(), self.elapsed())
        self.say(text)
        self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)
