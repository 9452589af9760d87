"""What a stream says while it waits: signs of life, and that its model is being loaded.

**Signs of life.** Proxies and SDKs close a connection that says nothing for a minute, and llama-server says nothing
before a slot starts (facts, section 2). So after `stream_keepalive` seconds without a byte, in the queue, while a model
loads or a long prompt is evaluated, we send the head of a 200 and a comment line, and again every so many seconds until
the engine's first byte. The comment says what is waited for, its place, and how long still. The price: a later error
can only be an event in the stream.

**Loading** (`sendLoadingState`). A model of forty gigabytes takes a minute to load, and a chat page that shows nothing
for a minute looks broken. So the stream begins at once and says what is going on, as *reasoning*: pages show it folded
away, and no client takes it for the answer. Then the engine's own stream follows in the same response.

    ━━━━━
    loading model: qwen
    2 requests are ahead, 3 s, about 9 s more ...
    stopping others, 5 s, about 7 s more ..
    loading, 7 s, about 5 s more ....
    Done! (12.40s)
    ━━━━━

What the model is busy with after that, if its answer does not begin, stands there as well, at the pace of the comments.
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

from bioproxy.activity import Standing
from bioproxy.front.dialects import Dialect, keepalive
from bioproxy.front.exchange import Exchange
from bioproxy.gate.gate import counted

RULE = "━━━━━\n"
PERIOD = 1.0  # seconds between two signs of life
SECONDS_PER_LINE = 10
WORDS = {  # what is waited for; everything else is "loading"
    "linger": "another model is in the middle of tool calls",
    "min_resident": "another model was loaded a moment ago",
    "save": "saving what others hold",
    "stop": "stopping others",
    "pause": "trying again in a moment",
    "restore": "bringing its cache back",
}


Look = Callable[[Exchange], Standing]


class Keepalive:
    """One timer for one exchange; `look` tells where it stands, which is said as reasoning if it `shows` that."""

    __slots__ = ("exchange", "look", "period", "shows", "timer")

    def __init__(self, exchange: Exchange, period: float, *, look: Look, shows: bool = False) -> None:
        self.exchange = exchange
        self.period = period
        self.look = look
        self.shows = shows
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
        said = sentence(self.look(exchange))
        if self.shows:
            chunk = Chunk(exchange.record.model, f"loading-{exchange.id}", int(time.time()))
            exchange.responder.write(chunk.event(f"{said}\n", exchange.dialect))
        else:
            exchange.responder.write(keepalive(exchange.dialect, said))
        self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)


class Said(msgspec.Struct, frozen=True):
    """What was said last: what was waited for, and the second in which that line began."""

    words: str = ""
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
    now = described(standing)
    if now == said.words and second - said.second < SECONDS_PER_LINE:
        return ".", said
    left = "" if standing.left is None else f", about {about(standing.left)} more"
    line = f"{now}, {second} s{left} "
    return "\n" + line if said.words else line, Said(now, second)


def described(standing: Standing) -> str:
    """What a request waits for its model for, in words."""
    if standing.part == "in_use":
        ahead = standing.place - 1
        return counted(ahead, "request is ahead", "requests are ahead") if ahead > 0 else "next in the queue"
    return WORDS.get(standing.part, "loading")


def sentence(standing: Standing) -> str:
    """Where a request stands, in one line; "" if that is not known."""
    place = f"place {standing.place}" if standing.place else ""
    left = f"about {about(standing.left)}" if standing.left is not None else ""
    return ", ".join(filter(None, (place, standing.reason, left)))


def about(seconds: float) -> str:
    """As exact as an estimate is: `3 s`, `2 min`."""
    return f"{max(1, math.ceil(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


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
    """One timer for one exchange; `look` tells where it stands."""

    __slots__ = ("chunk", "exchange", "look", "period", "said", "started", "timer")

    def __init__(self, exchange: Exchange, *, model: str, look: Look, period: float = PERIOD) -> None:
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
        text, self.said = proceed(self.said, self.look(self.exchange), self.elapsed())
        self.say(text)
        self.timer = asyncio.get_running_loop().call_later(self.period, self.tick)
