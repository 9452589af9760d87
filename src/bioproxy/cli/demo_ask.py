"""One request of the demo, as any client sends it: a streamed chat over HTTP, and what its answer tells about itself.

Standard library only, and blocking (the demo calls it in a thread): what is measured is measured from outside, on a
connection of its own, from the request to the first token.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
PATIENCE = 120.0  # seconds for anything in the demo
TOKENS = 4  # of each answer: random words are read back as other tokens, which no real model's answer is


SOURCES = ("errors.py", "aio.py", "events.py", "logbook.py")  # of this package: what the demo's prompts are about
PART = 4000  # characters of each, which are about 1100 tokens


def excerpts() -> dict[str, str]:
    """The beginning of each source by its name, in whole lines: as long as it is today, whatever the files grow to."""
    package = Path(__file__).parents[1]
    texts = {name: (package / name).read_text("utf-8") for name in SOURCES}
    return {name: text[: text.rindex("\n", 0, PART) + 1] for name, text in texts.items()}


class Asked(msgspec.Struct, frozen=True):
    """One answer: seconds to its first token, prompt tokens from the cache and evaluated, its text.

    `parts` are the seconds in `Server-Timing`, by name.
    """

    first: float
    cached: int
    evaluated: int
    text: str
    parts: dict[str, float]


def ask(port: int, messages: Sequence[Json], *, model: str = "demo") -> Asked:
    """Send `messages` and read the answer's stream to its end. BioproxyError if it is refused."""
    body: Json = {
        "model": model,
        "messages": messages,
        "max_tokens": TOKENS,
        "temperature": 0,  # each run says the same
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        started = time.monotonic()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", msgspec.json.encode(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise BioproxyError(f"the demo's request was answered {response.status}: {response.read(500)!r}")
        first: float | None = None
        timings: dict[str, Json] = {}
        words: list[str] = []
        for line in response:
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - started
                event = msgspec.json.decode(line[6:])
                timings = event.get("timings") or timings
                words += [choice["delta"].get("content") or "" for choice in event["choices"]]
    if first is None or not timings:
        raise BioproxyError("the demo's request got an answer without tokens or timings")
    parts = read_timing(response.getheader("Server-Timing") or "")
    return Asked(first, int(timings["cache_n"]), int(timings["prompt_n"]), "".join(words), parts)


def read_timing(header: str) -> dict[str, float]:
    """`queue;dur=1.5, swap;dur=300` as seconds by name."""
    found = {}
    for part in header.split(","):
        name, _, milliseconds = part.strip().partition(";dur=")
        with contextlib.suppress(ValueError):
            found[name] = float(milliseconds) / 1e3
    return found


def sooner(first: float, cold: float) -> str:
    """How many times sooner than cold a first token came."""
    return f"{cold / first:.0f}x sooner" if first > 0 else ""
