"""What an engine's chat template makes of a request beside its messages: the date, and fields of the body.

A chain of hashes (chain.py) knows what the client sent. The prompt is what the engine renders of it, and more may stand
in there: gpt-oss, Llama 3 and Granite print the date, some templates look at `reasoning_effort`, most at nothing. That
cannot be told from outside, so the engine is asked: `/apply-template` renders a conversation of a few words, with tools
and without, today and again when the day may have changed, with a field and without it.

What is found gives a `Want` its *reading*: if a prompt depends on the date or on a field, a digest of these is mixed
into all its cuts. Yesterday's conversation, or one with another effort, is then simply another prompt, for slots,
snapshots and templates alike, and nothing has to judge it. A Want is read each time anew, for a request may wait while
its engine comes back, on another day.

**The day.** Only a template that mentions a date or a time is asked about it. What the engine answers decides, in
whatever time zone it runs; since a day begins with a quarter of an hour in all of them, one look in each is enough. A
restore that brings back too little is judged after one look more: what a new date did is no verdict on file or model.
What changes more than once a day is a clock. Nothing that begins with it ever comes again, so it isn't saved.

**Fields.** What was not asked yet counts for nothing in a look-up, so that nothing is restored over what may be better;
but nothing is saved or judged by it before it is known. Asking is done beside the requests, a few fields at once and
then one in `PACE` seconds, whatever clients send. A field that changes only what stands after the last message shapes
nothing that another prompt could share. What was learnt is kept beside the model's speeds, for this build.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineRefused
from bioproxy.kv.engine import limited
from bioproxy.kv.policy import SLACK, FieldKnowledge
from bioproxy.kv.resident import Prepared, Residents, Want
from bioproxy.kv.shelves import Tenant
from bioproxy.prompt import Cut, Doubt, Head

Json = Any
log = logging.getLogger(__name__)

QUARTER = 900.0  # seconds: in every time zone a day begins with one
DAY = 20 * 3600.0  # seconds within which a date does not change twice
LIMIT = 2.0  # seconds for all renderings of one look or question
RETRY = 60.0  # seconds after a look that failed
BURST = 32  # questions about fields that may follow each other at once
PACE = 10.0  # seconds for each one after that
WAITING = 16  # fields that wait for their question
LARGEST = 64 << 10  # bytes of a value, and
LONGEST = 64  # letters of a name, that a question may have; more counts without one
NO_DAY: Doubt = ("", b"")
UNKNOWN = frozenset({"unknown"})  # the days of an engine that does not tell
CLOCK = "the chat template prints the time of day: no two prompts begin alike, so none of them is saved"
LAST = "And what do you say to that?"
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
SHAPES = ("plain", "system", "tools", "system, tools")  # see Head.shape


def conversation(shape: str) -> dict[str, Json]:
    system = [{"role": "system", "content": "Be brief."}] if "system" in shape else []
    talk = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    tools = {"tools": [{"type": "function", "function": TOOL}]} if "tools" in shape else {}
    return {"messages": [*system, *talk, {"role": "user", "content": LAST}], **tools}


class ChatTemplate:
    """The chat template of one engine, and what was found out about it. `wall` is the shelf's: unix time.

    `on_change` is called when the slots turned out to hold other prompts than we thought.
    """

    def __init__(self, engine: Llama, tenant: Tenant, residents: Residents) -> None:
        self.engine = engine
        self.tenant = tenant
        self.residents = residents
        self.on_change: Callable[[], None] = lambda: None
        self.clock = time.monotonic
        self.renders = self.dated = False
        self.days: dict[str, str] = {}  # by shape: a digest of what is rendered today; {}: not known
        self.seen: dict[str, str] = {}  # the last that were known
        self.changed: dict[str, float] = {}  # when they changed (unix time)
        self.clocks: set[str] = set()  # shapes that print the time
        self.quarter = -1
        self.retry_at = 0.0
        self.doubtful: list[tuple[Prepared, Callable[[], None]]] = []
        self.questions: dict[Doubt, bytes] = {}  # fields that were not asked about yet, and their values
        self.asked, self.began, self.rested_at = 0, self.clock(), 0.0
        self.news = asyncio.Event()

    # reading

    def read(self, want: Want) -> Want:
        """The prompt that `want` becomes here and now: nearly always itself."""
        if not want.fields and not (self.dated and want.shape):
            return want
        parts: list[str | bytes] = []
        doubts: set[Doubt] = set()
        day = ""
        if self.dated and want.shape:
            day = "" if want.shape in self.clocks else self.days.get(want.shape, "")
            parts += [day] if day else []
            doubts |= set() if day else {NO_DAY}
        for doubt, value in want.fields.items():
            counts = self.counts(doubt, value)
            if counts is None:
                doubts.add(doubt)
            elif counts:
                parts += doubt
        key = want.background, tuple(parts), frozenset(doubts)
        if (found := want.readings.get(key)) is None:
            found = want.readings[key] = mixed(want, parts, day=day, doubts=key[2])
        return found

    def counts(self, doubt: Doubt, value: bytes) -> bool | None:
        """Whether a field changes what is rendered up to the last message; None: that is being asked."""
        name, _ = doubt
        answer = self.tenant.knowledge.fields.get(name, FieldKnowledge()).answer(doubt[1])
        if answer is not None:
            return answer
        if not self.renders or len(name) > LONGEST or len(value) > LARGEST:
            return True
        if len(self.questions) < WAITING and doubt not in self.questions:
            self.questions[doubt] = value
            self.news.set()
        return None

    def relevant(self, head: Head) -> Head:
        """The head without fields that are known not to matter, so that a warm-up is made once for all clients."""
        kept = {doubt[0]: value for doubt, value in head.fields.items() if self.counts(doubt, value) is not False}
        kwargs = kept.pop("chat_template_kwargs", b"")
        extra = msgspec.json.encode({name: msgspec.Raw(value) for name, value in kept.items()}) if kept else b""
        return msgspec.structs.replace(head, kwargs=kwargs, extra=extra)

    # the day

    async def meet(self, facts: EngineFacts) -> None:
        self.renders, self.dated = facts.capabilities.apply_template, facts.dated
        self.days, self.seen, self.changed = {}, {}, {}
        self.quarter, self.retry_at = -1, 0.0
        self.clocks.clear()
        self.questions.clear()
        self.tenant.know_days(UNKNOWN if self.dated else frozenset())
        await self.refresh()

    @property
    def due(self) -> bool:
        """Whether the day may have changed since the last look."""
        return self.dated and self.quarter != int(self.tenant.shelf.wall() // QUARTER) and self.clock() >= self.retry_at

    async def refresh(self) -> None:
        """Look at the day if it may have changed; called before anything that depends on it."""
        if self.due:
            await self.look()

    async def look(self) -> None:
        """Render anew what may depend on the day. If the engine does not tell, nothing is known of this day."""
        now = self.tenant.shelf.wall()
        try:
            days = await limited(self.render_all(), seconds=LIMIT, what="rendering a few words")
        except BioproxyError as error:
            log.info("what the chat template prints today is not known: %s", error.message)
            self.days, self.retry_at = {}, self.clock() + RETRY
            self.tenant.know_days(UNKNOWN)
            return
        moved = {shape for shape in self.seen if self.seen[shape] != days[shape]}
        again = {shape for shape in moved if now - self.changed.get(shape, 0.0) < DAY} - self.clocks
        if again:
            log.warning(CLOCK)
        self.changed.update(dict.fromkeys(moved, now))
        self.clocks |= again
        self.days = self.seen = days
        self.quarter = int(now // QUARTER)
        self.tenant.know_days(frozenset(days.values()))
        if moved - self.clocks:
            log.info("the chat template prints another date: what was rendered with the last one is another prompt now")
            self.on_change()

    async def render_all(self) -> dict[str, str]:
        """A digest of a conversation of each shape, as it is rendered now."""
        return {shape: digest(await self.render(conversation(shape))) for shape in SHAPES}

    def settle(self, prepared: Prepared, cached: int | None, judge: Callable[[], None]) -> None:
        """`judge` a restore of which the engine used `cached` tokens: after a look at the day, if they are too few."""
        short = cached is not None and cached < prepared.expected - SLACK
        if not (self.dated and short) or prepared.snapshot is None or prepared.unsure:
            judge()
            return
        self.doubtful.append((prepared, judge))
        self.news.set()

    async def look_again(self) -> None:
        """Judge what waits for that; if the day is another one, too few tokens are no fault of file or model."""
        waiting, self.doubtful = self.doubtful, []
        before = self.days
        await self.look()
        for prepared, judge in waiting:
            made = prepared.want.day if prepared.want is not None else ""  # the day may have changed before this look
            prepared.unsure |= before != self.days or bool(made and made not in self.days.values())
            judge()

    # fields

    async def ask(self, name: str, value: bytes) -> bool:
        """Whether a field changes what is rendered up to the last message. Raises what the engine's client raises.

        What the engine refuses in every kind of conversation counts: it is something else in any case.
        """
        told = []
        for shape in ("system", "system, tools"):
            body = conversation(shape)
            without, with_ = await self.render(body), await self.render(body | {name: msgspec.Raw(value)})
            end = without.rfind(LAST) + len(LAST) if LAST in without else len(without)
            told += [without[:end] != with_[:end]] if with_ else []
        return any(told) or not told

    async def render(self, body: Mapping[str, Json]) -> str:
        """What the engine makes of a chat body; empty if it refuses that, and our date if it renders nothing."""
        if not self.renders:
            return time.strftime("%Y-%m-%d", time.localtime(self.tenant.shelf.wall()))
        try:
            return await self.engine.apply_template(msgspec.json.encode(body))
        except EngineRefused:
            return ""

    def learn(self, doubt: Doubt, *, prints: bool) -> None:
        """Take in what a field does. If it shapes prompts, the slots hold other prompts than we thought."""
        name, value = doubt
        log.debug("the field %s %s prompts", name, "shapes" if prints else "does not shape")
        self.tenant.knowledge.know(name, value, prints=prints)
        if prints:
            self.on_change()
        for place in (*self.residents.slots, *self.residents.parked):
            place.doubts -= {doubt}

    # the service

    async def run(self) -> None:
        """Ask what comes up, and look at the day when it may have changed; until cancelled."""
        while True:
            await aio.wait_first(self.news, timeout=self.pause())
            self.news.clear()
            if self.doubtful:
                await self.look_again()
            if time.monotonic() - self.residents.last <= self.residents.sleeps_after:  # asking would wake the engine
                await self.refresh()
            await self.ask_all()

    def pause(self) -> float | None:
        """Seconds until there may be something to do without news."""
        pauses = [self.patience()] if self.questions else []
        if self.dated:
            pauses.append(max(QUARTER - self.tenant.shelf.wall() % QUARTER, self.retry_at - self.clock()))
        return max(0.01, min(pauses)) if pauses else None

    def patience(self) -> float:
        """Seconds until another question may be asked."""
        now = self.clock()
        return max(0.0, self.rested_at - now, (self.asked + 1 - BURST) * PACE - (now - self.began))

    async def ask_all(self) -> None:
        while self.questions and self.patience() == 0.0:
            doubt, value = next(iter(self.questions.items()))
            self.asked += 1
            try:
                prints = await limited(self.ask(doubt[0], value), seconds=LIMIT, what="asking about a field")
            except BioproxyError as error:
                log.debug("what the field %s does is not known: %s", doubt[0], error.message)
                self.rested_at = self.clock() + PACE
                return
            if self.questions.pop(doubt, None) is not None:  # else it was another engine
                self.learn(doubt, prints=prints)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mixed(want: Want, parts: list[str | bytes], *, day: str, doubts: frozenset[Doubt]) -> Want:
    """`want` with a digest of `parts` mixed into all its cuts."""
    cuts = want.cuts
    if parts:
        size = len(cuts[0].digest) if cuts else 0
        salt = int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(parts)).digest()[:size], "big")
        cuts = tuple(Cut((int.from_bytes(cut.digest, "big") ^ salt).to_bytes(size, "big"), cut.offset) for cut in cuts)
    return msgspec.structs.replace(want, cuts=cuts, shape="", fields={}, day=day, doubts=doubts, readings={})
