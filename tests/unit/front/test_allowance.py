"""What keys used, as values: days, words, headers, and the file that a restart reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from bioproxy.config.schema import Config, Key
from bioproxy.config.settings import Settings
from bioproxy.errors import QueueFull, TokensSpent
from bioproxy.front.allowance import FILE, HOUR, Allowances, Used, in_words, midnight, principals, tokens_of, told
from bioproxy.front.exchange import Exchange
from bioproxy.front.fallback import Failed, Try
from bioproxy.front.routes import OTHER_GRANT
from bioproxy.wire.http1.message import Carrier, Request, Responder

BERLIN = ZoneInfo("Europe/Berlin")
KEYS = (Key(key="k1", name="ann", tokens_per_day=100), Key(key="k2", name="bob"))
NOON = datetime(2026, 11, 29, 12, tzinfo=BERLIN).timestamp()


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place with summer time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def book(folder: Path | None = None, clock: Clock | None = None) -> Allowances:
    return Allowances(Settings(Config(api_keys=KEYS)), folder, clock=clock or Clock())


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 11, 29), 24), ((2026, 10, 25), 25), ((2026, 3, 29), 23), ((2026, 12, 31), 24)]
)
def test_a_day_ends_at_local_midnight(day: tuple[int, int, int], hours: int) -> None:
    """Also on the days on which clocks are changed, and at the end of a year."""
    noon = datetime(*day, 12, tzinfo=BERLIN).timestamp()
    begins = midnight(noon)
    assert begins == datetime(*day, tzinfo=BERLIN).timestamp()
    assert midnight(noon, days=1) - begins == hours * HOUR
    assert midnight(begins) == begins


def test_a_day_that_has_two_midnights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Havana it is midnight twice when summer time ends, and the hour between them is of the new day."""
    monkeypatch.setenv("TZ", "America/Havana")
    time.tzset()
    first = datetime(2026, 11, 1, tzinfo=ZoneInfo("America/Havana")).timestamp()
    assert [midnight(first + 30 * 60), midnight(first + HOUR), midnight(first - 1, days=1)] == [first] * 3
    clock = Clock(first + 30 * 60)
    keys = book(clock=clock)
    keys.now()
    keys.note("ann", Used(60, 20, requests=1))
    keys.now()
    assert keys.today["ann"].tokens == 80


def test_what_was_used_counts_until_the_day_ends() -> None:
    """At midnight the key has all its tokens again; what it used since the start stays known."""
    clock = Clock()
    keys = book(clock=clock)
    keys.now()
    keys.note("ann", Used(60, 20, requests=1))
    ann, bob = keys.statistics()
    assert (ann.key, ann.left, ann.today.tokens, ann.resets) == ("ann", 20, 80, NOON + 12 * HOUR)
    assert (bob.key, bob.left, bob.today.tokens) == ("bob", None, 0)
    clock.now = ann.resets
    ann = keys.statistics()[0]
    assert (ann.left, ann.today.tokens, ann.total.tokens) == (100, 0, 80)


def test_a_clock_that_was_wrong_locks_no_key_out() -> None:
    """One that was years ahead is put right: that begins a day, whatever was used on the wrong one."""
    clock = Clock(NOON + 1e8)
    keys = book(clock=clock)
    keys.now()
    keys.note("ann", Used(100))
    clock.now = NOON
    assert keys.statistics()[0].left == 100


async def test_a_restart_finds_what_was_used_today(tmp_path: Path) -> None:
    """Not what was used on another day; nobody else reads the file."""
    clock = Clock()
    keys = book(tmp_path, clock)
    keys.now()
    keys.note("ann", Used(60, 20, requests=1, refused=2))
    await keys.flush()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    again = book(tmp_path, clock)
    await again.load()
    assert again.statistics()[0].today == Used(60, 20, requests=1, refused=2)
    clock.now += 24 * HOUR
    later = book(tmp_path, clock)
    await later.load()
    assert later.statistics()[0].left == 100


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"date": 1}'])
async def test_a_broken_file_stops_nothing(text: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and counting begins anew."""
    (tmp_path / FILE).write_bytes(text)
    keys = book(tmp_path)
    await keys.load()
    assert keys.statistics()[0].left == 100
    assert "it counts anew" in caplog.text


async def test_a_disk_that_takes_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on, and once it takes something again all is written, also if no key used more since."""
    keys = book(tmp_path / "gone")
    for _ in range(2):
        keys.note("ann", Used(1))
        await keys.flush()
    assert caplog.text.count("cannot be kept") == 1
    (tmp_path / "gone").mkdir()
    await keys.flush()
    assert (tmp_path / "gone" / FILE).exists()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 s"), (59, "59 s"), (60, "1 min"), (61, "2 min"), (3600, "1 h 0 min"), (9 * 3600 + 1, "9 h 1 min")],
)
def test_a_time_in_words(seconds: int, words: str) -> None:
    """For the sentence that a person reads."""
    assert in_words(seconds) == words


def test_headers_are_those_that_the_dialects_clients_know() -> None:
    """A length for OpenAI's, a time for Anthropic's."""
    ends = midnight(NOON, days=1)
    assert told(100, 20, NOON, ends, "openai") == [
        (b"X-Ratelimit-Limit-Tokens", b"100"),
        (b"X-Ratelimit-Remaining-Tokens", b"20"),
        (b"X-Ratelimit-Reset-Tokens", b"12h0m0s"),
    ]
    assert told(100, 20, NOON, ends, "anthropic")[2] == (b"Anthropic-Ratelimit-Tokens-Reset", b"2026-11-29T23:00:00Z")


def chat() -> Exchange:
    """A request for a chat."""
    request = Request("POST", b"/v1/chat/completions", "/v1/chat/completions", [], {})
    return Exchange(request, Responder(cast("Carrier", None), request), OTHER_GRANT)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_a_stream_whose_engine_does_not_say_what_it_cost_is_not_free(end: bytes) -> None:
    """As of vLLM, which tells it to who asks only: each event counts, and the prompt by its length."""
    exchange = chat()
    exchange.answered(200, [], {b"content-type": b"text/event-stream"})
    exchange.guessed = 7
    for text in (b'{"choices": [{"delta": {"content": "a"}}]}', b'{"choices": [{"finish_reason": "stop"}]}', b"[DONE]"):
        exchange.tail.add(b"data: " + text + end)
    assert exchange.record.outcome == "ok"
    assert tokens_of(exchange) == (7, 3)


async def test_a_request_that_is_judged_twice_says_once_what_is_left() -> None:
    """What is left when it is its turn, not what was left when it came."""
    keys = book()
    exchange = chat()
    exchange.principal = principals(Config(api_keys=KEYS))["ann"]
    keys.check(exchange)
    keys.note("ann", Used(100))
    with pytest.raises(TokensSpent, match="it may again at 00:00 CET, in 12 h 0 min") as caught:
        keys.check(exchange)
    assert caught.value.retry_after == 12 * HOUR
    said = [value for name, value in exchange.responder.extra if name == b"X-Ratelimit-Remaining-Tokens"]
    assert said == [b"0"]
    assert (b"X-Should-Retry", b"false") in exchange.responder.extra


async def test_a_key_without_tokens_goes_to_no_other_model() -> None:
    """Not to one that answers instead of a model that is busy (`fallbackStatus: [429]`): that may cost money."""
    with pytest.raises(TokensSpent), Try(chat(), statuses=frozenset({429}), patience=0.0):
        raise TokensSpent("none left", retry_after=100)
    with pytest.raises(Failed), Try(chat(), statuses=frozenset({429}), patience=0.0):
        raise QueueFull("too many wait")
