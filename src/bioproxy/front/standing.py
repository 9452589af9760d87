"""Where a request stands that is under way, why it waits, and how long still: the one source for all who show it.

The comment in a stream that waits, the words about a load (waiting.py), `GET /api/queue`, the web page, `bioproxy top`:
all of them ask here, and nobody asks while nobody looks. The schedule knows why a model does not come yet, the gate who
goes before whom, the station what a prompt and an answer take; a forecast is made once for all that wait.

How far a prompt is, llama-server tells by `/slots`, of which it must not be asked more than once in two seconds
(kv-rule 5): whoever looks at a request whose prompt takes longer has the next look begun. (It can say so in the stream
as well, `return_progress`. That would have to be taken out again for clients that did not ask; a look changes no
stream.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from bioproxy import aio
from bioproxy.activity import Standing
from bioproxy.errors import BioproxyError
from bioproxy.front.exchange import Exchange
from bioproxy.gate.forecast import rest
from bioproxy.kv.keeper import Want
from bioproxy.models.claim import Claim
from bioproxy.models.fleet import Fleet
from bioproxy.models.state import State
from bioproxy.models.wish import Place, Wish
from bioproxy.station import Station

CLOSE = 0.05  # of a prompt: what is left of it at the least, for the look is two seconds old
LONG = 2.0  # seconds of a prompt after which the engine is asked how far it is
PARTS = {
    "stop": "waits for {model} to swap in: {others} stops",
    "save": "waits for {model} to swap in: what {others} holds is saved",
    "linger": "waits because {others} is in the middle of tool calls (swap.linger); then {model} swaps in",
    "min_resident": "waits because {others} was loaded a moment ago (swap.min_resident); then {model} swaps in",
    "in_use": "waits for requests of {others} to end; then {model} swaps in",
    "pause": "waits for the second try to start {model}",
    "attach": "waits for {model} to load: its engine is looked at",
    "restore": "waits for {model} to load: its cache is brought back",
}
ELSEWHERE = Standing(stage="elsewhere", reason="another server is at it")
ASIDE = Standing(stage="aside", reason="lets other requests go first")
OWN = "waits for another request of its key to end (max_running)"
READING = "the engine reads its prompt"
WHOLE = f"{READING} or writes its answer, which comes in one piece"


class Standings:
    """Tells where requests stand."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.supervisor = fleet.supervisor
        self.looking: set[Station] = set()
        self.looked: WeakKeyDictionary[Station, float] = WeakKeyDictionary()
        # tokens of the one prompt that it is at, and when that was
        self.read: WeakKeyDictionary[Station, tuple[int, float]] = WeakKeyDictionary()

    def of(self, exchange: Exchange) -> Standing:
        """One request now."""
        claim = exchange.claim
        if exchange.tail.first is not None:
            return Standing(stage="answer", reason="is being answered")
        if claim is None:
            return ELSEWHERE if exchange.record.model else Standing()
        if claim.place is Place.WAITING:
            return self.for_model(claim)
        if claim.in_gate is not None:
            return self.in_queue(exchange, claim)
        if claim.place is Place.RUNNING and claim.unit is not None:
            return self.at_prompt(exchange, claim, claim.unit.station)
        return ASIDE if exchange.record.side else Standing()

    def at_work(self, exchanges: Iterable[Exchange], model: str) -> list[str]:
        """The ids of the requests that a model's engine works for, as far as one can tell."""
        claims = ((exchange.id, exchange.claim) for exchange in exchanges)
        return [
            identity
            for identity, claim in claims
            if claim is not None and claim.model == model and claim.place is Place.RUNNING and claim.in_gate is None
        ]

    def for_model(self, claim: Claim) -> Standing:
        """It waits for its model, and then for those of its model that came before it."""
        model, schedule = claim.model, self.supervisor.schedule
        part, served = schedule.waits_for(model), self.supervisor.until_served(claim, self.needs)
        return Standing(
            stage="model",
            part=part,
            place=schedule.position(claim),
            reason=self.why(model, part),
            left=None if served is None else served + prefill(self.fleet.stations.get(model), claim),
        )

    def why(self, model: str, part: str) -> str:
        """What those wait for who wait for a model."""
        record = self.supervisor.schedule.book.records.get(model)
        others = listed(sorted(record.displaces)) if record is not None else ""
        if part == "in_use" and record is not None and record.state is State.READY:
            return f"waits behind a request that has waited longer for {others or 'another model'}"
        return PARTS.get(part, "waits for {model} to load").format(model=model, others=others or "another model")

    def needs(self, wish: Wish) -> float:
        """Seconds that a request needs of its engine, as a part of all that it can do at once."""
        station = self.fleet.stations.get(wish.model)
        if not wish.needs and station is not None:
            wish.needs = (prefill(station, wish) + station.answer()) / station.gate.queue.capacity
        return wish.needs

    def in_queue(self, exchange: Exchange, claim: Claim) -> Standing:
        """It waits for a slot of its engine."""
        station, model = claim.station, name_of(self.fleet, claim)
        place, seconds = station.gate.standing(exchange.tail)
        principal = exchange.principal
        if principal is not None and station.gate.queue.full(principal.name, principal.max_running):
            return Standing(stage="queue", place=place, reason=OWN)
        if not place:
            return ASIDE
        if not station.gate.queue.open:
            reason = f"waits because the queue of {model} is closed: {station.gate.reason}"
            return Standing(stage="queue", place=place, reason=reason)
        count = station.gate.queue.capacity
        slots = "the one slot" if count == 1 else f"one of the {count} slots"
        reason = f"waits for {slots} of {model}"
        return Standing(stage="queue", place=place, reason=reason, left=seconds + prefill(station, claim))

    def at_prompt(self, exchange: Exchange, claim: Claim, station: Station) -> Standing:
        """The engine is at its prompt, as far as one can tell, or will be as soon as the request's task goes on."""
        record = exchange.record
        elapsed = exchange.since_arrival() - record.queue - record.swap
        needs = prefill(station, claim)
        after = 0.0 if record.stream else station.answer()  # of what is no stream nobody sees where the answer begins
        read = self.progress(station) if elapsed > LONG else None
        if read is None or not isinstance(claim.key, Want):
            return Standing(stage="prompt", reason=WHOLE if after else READING, left=rest(needs + after, elapsed))
        tokens = max(read, round(station.measured.tokens(station.keeper.missing(claim.key))))
        ago = time.monotonic() - self.read[station][1]
        whole = max(0.0, elapsed - ago) * tokens / read
        reason = f"{READING}: {read:,} of about {tokens:,} tokens"
        return Standing(stage="prompt", reason=reason, left=max(whole - elapsed, CLOSE * whole) + after, read=read)

    # how far a prompt is

    def progress(self, station: Station) -> int | None:
        """Tokens that the engine has read of the one prompt that it is at; the next look at it begins."""
        facts, now = station.attachment.facts, time.monotonic()
        tells = facts is not None and facts.capabilities.slots_route
        if tells and station not in self.looking and now - self.looked.get(station, 0.0) >= LONG:
            self.looking.add(station)
            self.looked[station] = now
            aio.spawn(self.look(station), name="look at a prompt")
        read, at = self.read.get(station, (0, 0.0))
        return read if read and now - at < 3 * LONG else None

    async def look(self, station: Station) -> None:
        """One look at the slots: if exactly one of them is at a prompt, that is the request's."""
        try:
            slots, at = await station.llama.slots_at()
        except BioproxyError:
            return  # it tells nothing
        finally:
            self.looking.discard(station)
        busy = [slot for slot in slots if slot.is_processing]
        at_prompt = [slot for slot in busy if not any(each.get("n_decoded") for each in slot.next_token)]
        self.read.pop(station, None)
        if len(at_prompt) == 1 and at_prompt[0].n_prompt_tokens_processed:
            self.read[station] = at_prompt[0].n_prompt_tokens_processed, at


def prefill(station: Station | None, wish: object) -> float:
    """Seconds for the prompt of a request."""
    key = getattr(wish, "key", None)
    return station.prefill(key) if station is not None and isinstance(key, Want) else 0.0


def name_of(fleet: Fleet, claim: Claim) -> str:
    """The model's name for people."""
    return fleet.only.names[0] if fleet.only is not None else claim.model


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
