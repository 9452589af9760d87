"""The breakpoints of one request, while it has its grant: cut where the client marked them (kv/cuts.py says when).

    prepare, evaluate up to the breakpoint, save  …the next one…  then the request itself, which finds all that cached

The engine evaluates no token twice for it. What its client waits for in addition is the save, a question or two about
tokens, and one call. A breakpoint that is there already costs a look-up: what reaches beyond it, in the slot or on the
disk, is never thrown away for it. Nothing that goes wrong here fails a request, but one thing: a long lifetime that
does not fit into what its key may keep is refused with the numbers (400), before it is computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from bioproxy.engines.answers import Timings
from bioproxy.errors import EngineProtocolError, EngineRefused, NotFound, RequestError
from bioproxy.front.caching import beginning
from bioproxy.front.caching.answers import Bill
from bioproxy.front.caching.fields import SECONDS, Place, Wishes, places
from bioproxy.front.ways import apart
from bioproxy.gate.gate import Grant
from bioproxy.kv import cuts, keeping
from bioproxy.kv.folder import FolderError
from bioproxy.kv.resident import Want
from bioproxy.kv.snapshot import Pin, Snapshot
from bioproxy.prompt import Piece, common
from bioproxy.station import Station
from bioproxy.templates.bodies import Body
from bioproxy.templates.expand import Expanded
from bioproxy.warmup.prefix import margin_of

log = logging.getLogger(__name__)

LONG = 3600.0  # seconds of a lifetime from which on it counts against what a key may keep
SHORTEST, TYPICAL, LONGEST = 2, 4, 12  # bytes of a prompt that a token has on average: at least, mostly, at most


class Cutting:
    """The breakpoints of one request; `pieces` have a cut at each."""

    def __init__(
        self, engine: Station, wishes: Wishes, *, expanded: Expanded, pieces: Sequence[Piece], want: Want, bill: Bill
    ) -> None:
        self.engine = engine
        self.keeper = engine.keeper
        self.wishes = wishes
        self.expanded = expanded
        self.pieces = pieces
        self.want = want
        self.bill = bill
        self.seconds = 0.0  # what saves took
        self.working = False  # the engine was asked to evaluate something, and has not answered
        self.spent = Timings(cached=0, evaluated=0, prefill=0.0)

    def begin(self, place: Place) -> tuple[int, Want | None]:
        """Where a breakpoint stands in the prompt, in bytes, and the prompt up to there."""
        offset = sum(len(piece.data) for piece in self.pieces[: place.piece]) + place.offset
        return offset, cuts.beginning(self.want, offset)

    async def run(self, grant: Grant) -> None:
        """Cut what is to be cut. RequestError (400) for a lifetime that does not fit."""
        keeper, held = self.keeper, cuts.reach(self.keeper, self.want)
        for number, place in enumerate(places(self.pieces, self.wishes)):
            offset, want = self.begin(place)
            if want is None:
                continue
            if offset <= held:
                known = keeper.has_snapshot(want)
                self.bill.ends[number].tokens = known.tokens if known is not None else 0
            elif tokens := await self.tried(place, offset, want, grant, held=held):
                self.bill.ends[number].tokens, held = tokens, offset

    async def tried(self, place: Place, offset: int, want: Want, grant: Grant, *, held: int) -> int:
        """One cut; how many tokens it has, 0 if there is none."""
        keeper = self.keeper
        too_long = 0 < keeper.decisions.context < offset // LONGEST
        if too_long or not keeper.actions.saving or not self.may_pay(place, offset, held):
            return 0
        try:
            tokens = await self.tokens(place)
            covered = len(tokens) * held // offset
            return len(tokens) if tokens and await self.one(place, want, tokens, grant, covered=covered) else 0
        except (EngineRefused, EngineProtocolError, FolderError) as error:
            log.info("a breakpoint was not cut: %s", error.message)
            return 0

    def may_pay(self, place: Place, offset: int, held: int) -> bool:
        """Whether what is new could be worth it, before the engine is asked anything."""
        most = (offset - held) // SHORTEST
        return cuts.pays(self.keeper, max(most, offset // TYPICAL), most, insisted=self.insisted(place))

    def insisted(self, place: Place) -> bool:
        """Whether the client gets its cut whatever it has to wait: nothing else would keep what it wants kept."""
        return SECONDS[place.mark.ttl] >= LONG or not self.wishes.kept

    async def one(self, place: Place, want: Want, tokens: Sequence[int], grant: Grant, *, covered: int) -> bool:
        """One cut; False if it does not pay, or could not be made."""
        keeper, count = self.keeper, len(tokens)
        if not cuts.pays(keeper, count, count - covered, insisted=self.insisted(place)):
            return False
        pin = await self.pin(place, count)
        prepared = await keeper.prepare(want, grant)
        complete, timings = False, Timings()
        try:
            self.working = True
            timings = await self.engine.llama.prefill(tokens, lora=self.want.lora)
            self.working, complete = False, True
        finally:
            keeper.served(want, prepared, timings, complete=complete)
        self.note(timings)
        started = time.monotonic()
        written = await cuts.write(keeper, want, count, grant, pin=pin)
        self.seconds += time.monotonic() - started + prepared.save_seconds + prepared.seconds
        return written

    def note(self, timings: Timings) -> None:
        """Add up what was evaluated ahead of the request."""
        spent, evaluated = self.spent, timings.evaluated or 0
        prefill = (spent.prefill or 0.0) + (timings.prefill or 0.0)
        self.spent = msgspec.structs.replace(spent, evaluated=(spent.evaluated or 0) + evaluated, prefill=prefill)
        self.bill.before += evaluated

    async def pin(self, place: Place, count: int) -> Pin | None:
        """What keeps a cut for its time; None for a short time for which there is no room."""
        seconds, group = SECONDS[place.mark.ttl], self.want.group
        try:
            await keeping.demand(self.keeper.tenant, group, tokens=count, seconds=seconds)
        except RequestError:
            if seconds >= LONG:
                raise
            return None
        return Pin(group, self.keeper.tenant.shelf.wall() + seconds)

    async def tokens(self, place: Place) -> tuple[int, ...]:
        """The prompt up to a breakpoint, as exactly as the engine tells it; none if it can't."""
        head, facts = self.expanded.head, self.engine.attachment.facts
        if head is None or facts is None or not (facts.capabilities.apply_template and facts.capabilities.tokenize):
            return ()
        if place.piece == 0:
            pair: tuple[bytes, bytes] | None = beginning.head_bodies(head)
        else:
            pair = await apart(len(self.expanded.body), self.bodies, place)
        if pair is None:
            return ()
        llama = self.engine.llama
        first, second = [await llama.tokenize(await llama.apply_template(body)) for body in pair]
        margin = margin_of(self.keeper.decisions.traits)
        return tuple(first[: max(0, common(first, second) - margin)])

    def bodies(self, place: Place) -> tuple[bytes, bytes] | None:
        """Two conversations that differ after the breakpoint."""
        assert self.expanded.head is not None
        fields, mark = Body(self.expanded.body).fields or {}, place.mark
        first = self.wishes.items - (len(self.pieces) - 1)
        return beginning.bodies(
            self.wishes.form, fields, self.expanded.head, first=first, item=mark.item, part=mark.part
        )

    # after the answer

    async def after(self) -> None:
        """What is there already is kept on; what the client marks no more, and something longer holds, goes."""
        found: list[tuple[Place, Snapshot]] = []
        marked: set[bytes] = set()
        for place in places(self.pieces, self.wishes):
            _, want = self.begin(place)
            if want is not None:
                marked.add(self.keeper.template.read(want).end)
                if (snapshot := self.keeper.has_snapshot(want)) is not None:
                    found.append((place, snapshot))
        for place, snapshot in found:
            try:
                await cuts.prolong(self.keeper, snapshot, group=self.want.group, seconds=SECONDS[place.mark.ttl])
            except (RequestError, NotFound, FolderError) as error:
                log.debug("a snapshot is not kept on: %s", error.message)
        old = cuts.superseded(self.keeper, self.want, after=len(self.pieces[0].data), marked=marked)
        if old:
            await self.keeper.tenant.shelf.drop(old, "replaced")


def as_whole(timings: Timings, spent: Timings) -> Timings:
    """What a request cost with what was evaluated for its breakpoints ahead of it, which it found cached."""
    if timings.cached is None or timings.evaluated is None or not spent.evaluated:
        return timings
    before = min(spent.evaluated, timings.cached)
    cached, evaluated = timings.cached - before, timings.evaluated + before
    prefill = None if timings.prefill is None else timings.prefill + (spent.prefill or 0.0)
    given = evaluated if timings.given == timings.evaluated else timings.given  # Anthropic's: without what was cached
    return msgspec.structs.replace(timings, cached=cached, evaluated=evaluated, prefill=prefill, given=given)
