"""Requests that compute: expand, wait for a grant, bring the cache back, relay, remember.

The order matters. The body is read and expanded before the queue, so that a slow sender holds no grant and a broken
template costs no client a wait. The grant is taken before the cache is touched, because a restore in mid-generation
corrupts (kv-rule 4). What the slot holds is noted after the last byte, from the engine's own count (`cache_n`), for
only that tells whether the look-up was right.

What can be cancelled: a client that leaves cancels this task at any await; each `finally` gives back what it
took, and a grant whose answer did not end is given back as *cut*, which keeps slot actions away until the engine is
idle.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from msgspec.structs import replace

from bioproxy.doctor.doctor import Case, Doctor
from bioproxy.engines.answers import Timings
from bioproxy.engines.refused import error_words, refusal
from bioproxy.errors import BioproxyError, EngineProtocolError, EngineUnavailable, QueueTimeout, RequestError
from bioproxy.front.caching import answers, fields
from bioproxy.front.caching.diagnosis import Compared, diagnosis
from bioproxy.front.caching.fields import Wishes
from bioproxy.front.comparing import compared
from bioproxy.front.cutting import Cutting, as_whole
from bioproxy.front.dialects import streamed
from bioproxy.front.exchange import Exchange, unstored
from bioproxy.front.waiting import Keepalive, Look
from bioproxy.front.ways import CORS_OF_ENGINE, SLOT_FIELD, acquire, apart, end_to_end, leave, swap_timing
from bioproxy.gate.gate import Grant
from bioproxy.kv.keeper import Prepared, Want
from bioproxy.models.claim import Claim, Recalled
from bioproxy.prompt import Head, Piece
from bioproxy.station import Station
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import Expanded, expand
from bioproxy.warmup.plain import SHORTEST
from bioproxy.wire import sse
from bioproxy.wire.coding import decoded
from bioproxy.wire.engine_connection import Response
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.relay import EVENTS, relay

LOADING = 3  # answers "loading" in a row, after which a client is told to come back later
TIMING = (
    b"queue;dur=%.1f, restore;dur=%.1f, first_byte;dur=%.1f, prefill;dur=%.1f, displaced_save;dur=%.1f, other;dur=%.1f"
)
LONGEST_WHOLE = 64 << 20  # bytes of a compressed answer, unpacked
LARGEST_AGAIN = 1 << 20  # bytes of a request that may be asked again, until its conversation is on disk
NO_BILL = answers.Bill()
REMEMBERED = 1000  # requests of a model of which it is known what they left: as many as there are records
HIT = 0.9  # share of the prompt that came from the cache, above which it counts as a hit


def expand_body(exchange: Exchange, engine: Station, body: Body) -> Expanded:
    """Fill the templates in and judge the body; RequestError if it must not be passed on."""
    assert exchange.route.dialect is not None
    scope = (exchange.principal.scope if exchange.principal else b"") + engine.scope
    expanded = expand(
        body,
        dialect=exchange.route.dialect,
        catalogue=engine.catalogue,
        pins=engine.pins,
        scope=scope,
        drop=SLOT_FIELD,
    )
    if expanded.prefix and (reason := engine.runner.too_long(expanded.prefix)):
        raise RequestError(f"template {expanded.prefix} is {reason}; start the engine with a larger -c")
    return expanded


def asks(body: Body, dialect: Dialect) -> bool:
    """Whether a request may say anything about its cache (caching/fields.py); of most it costs no more to know."""
    sent = body.fields
    if sent is None or dialect == "completion":
        return False
    raw = body.raw
    if not fields.LOOKED_AT.isdisjoint(sent) or (len(raw) > fields.LONG and fields.mark_search()(raw) is not None):
        return True
    if len(raw) <= fields.LONG and (fields.MARK in raw or fields.BREAKPOINT in raw):
        return True
    return dialect == "anthropic" and "max_tokens" in sent and bytes(sent["max_tokens"]) == b"0"


class Inference:
    """One computing request on one engine.

    Its construction fills the templates in and hashes the prompt: with a large body that takes a while, and is done in
    a thread.
    """

    __slots__ = (
        "bill", "body", "claim", "compare", "cutting", "engine", "exchange", "expanded", "found", "headers",
        "keepalive", "prepared", "remembered", "response", "sent_at", "stalled", "store", "task", "texts", "want",
        "wishes",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        engine: Station,
        claim: Claim,
        *,
        body: Body,
        headers: Headers,
        period: float,
        look: Look,
        shows: bool,
    ) -> None:
        self.exchange = exchange
        self.engine = engine
        self.claim = claim
        self.body = body
        dialect = exchange.route.dialect
        assert dialect is not None
        self.wishes = fields.take(body, dialect) if asks(body, dialect) else None
        self.bill = NO_BILL
        self.cutting: Cutting | None = None
        self.compare: Callable[[Case, str], Awaitable[Compared | None]] | None = None
        self.found: Compared | None = None
        self.expanded = expanded = expand_body(exchange, engine, body)
        self.texts = engine.catalogue, engine.catalogue.changes  # what it was filled in from
        opened = expanded.stream or self.wishes is not None
        coded = opened and b"accept-encoding" in exchange.request.fields
        self.headers = plain(headers) if coded else headers
        self.keepalive = Keepalive(exchange, period if expanded.stream else 0, look=look, shows=shows)
        self.want = self.wish()
        self.prepared = Prepared()
        self.response: Response | None = None
        self.sent_at = 0.0
        self.stalled = ""
        self.task = exchange.task
        exchange.streaming = expanded.stream
        exchange.record.stream = expanded.stream
        exchange.record.prefix = expanded.prefix
        named = exchange.request.fields
        if self.wishes is not None or not fields.NAMING.isdisjoint(named):
            exchange.record.session = exchange.record.session or fields.session_of(named, self.wishes)

    def wish(self) -> Want:
        """What this request would like to find in the slot; nothing if it computes everything anew.

        A good snapshot would be thrown out if it were judged by a request with `cache_prompt: false`, which takes
        nothing from the cache (kv-rule 6): such a request has no pieces.
        """
        request = self.exchange.request
        store = b"cache-control" not in request.fields or not unstored(request)
        principal, body, pieces = self.exchange.principal, self.expanded.body, self.expanded.pieces
        self.store = self.remembered = kept = store
        if self.wishes is not None:
            pieces = fields.marked(pieces, self.wishes)
            self.store, kept = store and self.wishes.stored, store and self.wishes.kept
            self.bill = answers.bill(pieces, self.wishes)
        side = self.exchange.record.work == "side"
        return self.engine.keeper.want(
            pieces,
            group=principal.group if principal else "",
            prefix=self.expanded.prefix,
            version=self.expanded.version,
            store=kept and not side,  # a side prompt does not come again, so no snapshot is made of it
            side=side,
            head=self.expanded.head,
            lora=self.expanded.lora,
            again=(self.exchange.target.decode("latin-1"), body) if len(body) <= LARGEST_AGAIN else None,
        )

    def accepted(self) -> None:
        """The request was granted: what it taught us about its templates is kept from here on."""
        for key, filled in self.expanded.pins:
            self.engine.pins.put(key, filled)
        if self.expanded.head is not None:
            head = self.engine.keeper.template.relevant(self.expanded.head)
            self.engine.heads.note(self.expanded.prefix, head, opening(self.expanded.pieces))

    def began(self, head: Head) -> None:
        """See whether other conversations begin like it, and how much of its prompt will come again."""
        if head.extra or head.kwargs:
            head = self.engine.keeper.template.relevant(head)
        pieces, plain = self.expanded.pieces, not self.expanded.prefix
        if lasts := self.engine.heads.began(self.want.group, self.want.cuts, pieces, head, plain=plain):
            self.want = replace(self.want, lasts=lasts, readings={})

    async def run(self, doctor: Doctor) -> None:
        """Serve the request, or raise what the client shall be told."""
        if self.wishes is not None and self.wishes.asked:
            self.rewrite(self.wishes, doctor)
        self.keepalive.start()
        lost = loading = 0
        try:
            if self.exchange.record.work == "side":
                await self.step_aside()
            while loading < LOADING:
                try:
                    await self.claim.take(self.want)
                    self.engine = self.claim.station
                    if await self.attempt():
                        if self.cutting is not None:
                            await self.cutting.after()
                        return
                    loading += 1
                except Recalled:
                    continue
                except (EngineUnavailable, EngineProtocolError) as error:
                    lost += 1
                    begun = self.exchange.tail.first is not None
                    if begun or isinstance(error, EngineProtocolError) or not self.claim.lost(error, lost):
                        self.claim.raise_cause(error)
                        raise
            raise QueueTimeout("the engine kept loading; try again later", retry_after=10)
        finally:
            self.keepalive.stop()
            leave(self.exchange, self.claim)

    def rewrite(self, wishes: Wishes, doctor: Doctor) -> None:
        """The answer speaks of the cache as the client asked for it."""
        responder, compare = self.exchange.responder, wishes.compare
        self.compare = partial(compared, doctor) if compare else None
        told = (lambda counted: diagnosis(wishes.form, self.found, counted)) if compare else None
        responder.rewriter = answers.rewriting(responder.rewriter, wishes, lambda: self.bill, diagnose=told)

    async def step_aside(self) -> None:
        """Let others go first, before this request has a claim: another model's users do not wait for it."""
        record, started = self.exchange.record, time.monotonic()
        try:
            await self.engine.gate.step_aside(record.session or record.client)
        finally:
            record.queue += time.monotonic() - started

    async def attempt(self) -> bool:
        """One grant, one try; False when the engine said that it is still loading."""
        grant = await acquire(self.exchange, self.engine, self.claim, key=self.want)
        record, prepared = self.exchange.record, Prepared()
        sent = whole = False
        unwatch: Callable[[], None] = nothing
        try:
            if self.expanded.prefix:
                await self.fill_in(waited=grant.waited > 0 or record.swap > 0)
                if self.store:
                    self.accepted()
            if self.want.size >= SHORTEST and self.store and self.expanded.head is not None:
                self.began(self.expanded.head)
            if self.wishes is not None and self.wishes.breakpoints and self.store and self.expanded.pieces:
                await self.cut(grant)
            self.prepared = prepared = await self.engine.keeper.prepare(self.want, grant)
            record.restore += prepared.seconds
            record.save += prepared.save_seconds
            record.kept += prepared.kept
            if self.compare is not None and self.wishes is not None:
                self.found = await self.compare(self.case(), self.wishes.compare or "")
            unwatch = self.engine.attachment.stall.watch(lambda: self.exchange.tail.total, self.stall)
            sent = True
            self.response = None
            self.claim.sending()
            self.sent_at = time.monotonic()
            self.response = response = await self.engine.pool.request(
                "POST", self.exchange.target, self.headers, self.expanded.body
            )
            try:
                done = await self.answer(response)
            except BaseException:
                response.abort()  # which ends the engine's work, too
                raise
            whole = True
            self.settle(prepared, complete=True)
            record.save += await self.engine.keeper.conclude(self.want, grant)
        except (EngineUnavailable, EngineProtocolError) as error:
            await self.claim.broke_off(error)
            raise
        except asyncio.CancelledError:
            self.raise_stalled()
            raise
        else:
            return done
        finally:
            unwatch()
            if not whole:
                self.settle(prepared, complete=False)
            sent = sent or (self.cutting is not None and self.cutting.working)
            cut = sent and not (whole and self.response is not None and self.response.complete)
            grant.release(cut=cut, unsent=not sent, computed=record.status == 200)

    async def cut(self, grant: Grant) -> None:
        """Cut the prompt at its breakpoints, ahead of the rest of it."""
        assert self.wishes is not None
        pieces = fields.marked(self.expanded.pieces, self.wishes)
        self.bill = answers.bill(pieces, self.wishes)
        self.cutting = cutting = Cutting(
            self.engine, self.wishes, expanded=self.expanded, pieces=pieces, want=self.want, bill=self.bill
        )
        unwatch = self.engine.attachment.stall.watch(lambda: self.exchange.tail.total, self.stall)
        self.claim.sending()
        try:
            await cutting.run(grant)
        finally:
            unwatch()
            self.exchange.record.save += cutting.seconds

    async def fill_in(self, *, waited: bool) -> None:
        """Fill the templates in anew if one changed since the request came; if it `waited`, that is looked for."""
        catalogue = self.engine.catalogue
        if waited:
            await catalogue.freshen(self.exchange.since_arrival())
        if self.texts != (catalogue, catalogue.changes):
            self.texts = catalogue, catalogue.changes
            self.expanded = await apart(len(self.body.raw), expand_body, self.exchange, self.engine, self.body)
            self.want = self.wish()

    def raise_stalled(self) -> None:
        """Turn a cancellation that was ours into what the client shall be told; one from outside stays what it is."""
        task = asyncio.current_task()
        if self.stalled and task is not None and task.uncancel() == 0:
            raise EngineUnavailable(self.stalled, status=504) from None

    def stall(self, reason: str) -> None:
        """The engine shows no sign of life: this request ends, with an answer that says so unless it has its own."""
        exchange = self.exchange
        if exchange.responder.finished:
            return  # what goes on is ours: a save, under the same grant
        if self.response is not None and exchange.ended():
            self.response.abort()
            return
        self.stalled = reason
        if self.task is not None:
            self.task.cancel()

    async def answer(self, response: Response) -> bool:
        """Relay the engine's answer; False when it says that it is still loading."""
        exchange, started = self.exchange, self.exchange.responder.started
        events = response.fields.get(b"content-type", b"").lower().startswith(EVENTS)
        if response.status == 503 or (started and not (events and response.status == 200)):
            return self.whole(response, await response.read())
        if response.status in exchange.failing:
            raise refusal(await response.read(), response.status)
        exchange.answered(response.status, response.headers, response.fields)
        exchange.streaming = events
        coded = b"content-encoding" in response.fields and exchange.coded
        if started and coded:
            raise EngineProtocolError("the engine compresses its stream, though it was asked not to")
        if not events or coded or b"content-length" in response.fields:
            self.keepalive.stop()  # a comment cannot stand in there
        await relay(
            response,
            exchange.responder,
            headers=self.timing_headers(),
            drop=CORS_OF_ENGINE,
            tail=exchange.tail,
            started=started,
            ended=exchange.ended,
        )
        return True

    def whole(self, response: Response, body: bytes) -> bool:
        """An answer that was read whole: wait on if it says "loading", else pass it on as it still can be."""
        exchange = self.exchange
        if response.status == 503 and b"oading" in body:
            # its owner closes the gate, and opens it when it has met the engine anew: a gate that we close ourselves
            # would stay closed if the engine is ready again at the very next look
            self.engine.attachment.meet_again("it answered a request with 503, loading its model")
            return False
        if response.status in exchange.failing:
            raise refusal(body, response.status)
        exchange.answered(response.status, response.headers, response.fields)
        if not exchange.responder.started:
            exchange.tail.add(body)
            exchange.responder.send(response.status, end_to_end(response.headers), body)
        else:
            self.into_stream(
                response.status, decoded(body, exchange.replied(b"content-encoding"), limit=LONGEST_WHOLE) or b""
            )
        return True

    def into_stream(self, status: int, body: bytes) -> None:
        """What should have had a status or a form of its own, as the end of a stream that has begun."""
        exchange = self.exchange
        exchange.tail.events = status == 200 and body.lstrip().startswith(sse.OPENINGS)  # it only does not say so
        events = body if exchange.tail.events else streamed(body, exchange.dialect) if status == 200 else b""
        if not events:
            exchange.fail(no_answer(body, status), "client_error" if 400 <= status < 500 else "engine_error")
            return
        exchange.tail.add(body)
        exchange.responder.write(events)
        exchange.responder.finish()

    def timing_headers(self) -> Headers:
        """`Server-Timing` (W3C): where the time before the first byte went, in milliseconds; the parts add up to it."""
        record = self.exchange.record
        now = time.monotonic()
        first, prefill = now - self.exchange.request.arrived, now - self.sent_at
        other = first - record.swap - record.queue - record.save - record.restore - prefill
        save, other = record.save * 1e3, max(0.0, other) * 1e3
        value = TIMING % (record.queue * 1e3, record.restore * 1e3, first * 1e3, prefill * 1e3, save, other)
        return [(b"Server-Timing", value + swap_timing(record) if record.swap else value)]

    def settle(self, prepared: Prepared, *, complete: bool) -> None:
        """After the last byte: tell the keeper what the slot holds now, and the record where the time went."""
        exchange = self.exchange
        timings: Timings | None = None
        told: Timings | None = None
        failed = False
        if exchange.tail.first is not None:
            answer = exchange.answer()
            timings, failed = answer.timings, exchange.streaming and answer.ending == "failed"
            told = timings if self.cutting is None else as_whole(timings, self.cutting.spent)
            if told is not timings:
                exchange.said = replace(answer, timings=told)
            note_timings(exchange, told)
        exchange.record.cache = cache_word(prepared.status, told)
        good = complete and exchange.record.status == 200 and not failed
        if not good or told is None or told.generated is None:
            exchange.guessed = round(self.engine.measured.tokens(self.want.size))
        keeper = self.engine.keeper
        keeper.served(self.want, prepared, timings, complete=good)
        if good and prepared.place is not None:
            keeper.left[exchange.record.id] = prepared.place.end, self.want.group
            if len(keeper.left) > REMEMBERED:
                del keeper.left[next(iter(keeper.left))]
        if good and told is not None and told.cached is not None:
            tokens = told.cached + (told.evaluated or 0)
            self.engine.measured.note(self.want.size, tokens, told.generated, told.decode)

    def case(self) -> Case:
        """The request as the doctor sees it. What was evaluated for its breakpoints is not what it was promised."""
        engine, exchange, dialect, prepared = self.engine, self.exchange, self.exchange.route.dialect, self.prepared
        assert dialect is not None
        if self.bill.before:
            prepared = replace(prepared, expected=max(0, prepared.expected - self.bill.before))
        wishes = self.wishes
        return Case(
            record=exchange.record,
            body=self.body,
            expanded=self.expanded,
            dialect=dialect,
            want=self.want,
            prepared=prepared,
            keeper=engine.keeper,
            tail=exchange.tail,
            life=engine.lives + engine.attachment.generation,
            fingerprint=engine.keeper.decisions.fingerprint.value,
            answer=exchange.said.id if exchange.said is not None else "",
            aside={"prompt_cache_key": wishes.key.encode()} if wishes is not None and wishes.key is not None else {},
        )


def plain(headers: Headers) -> Headers:
    """The headers of a request for a stream: not compressed, for what we say meanwhile goes into the same stream."""
    kept = [pair for pair in headers if pair[0].lower() != b"accept-encoding"]
    return [*kept, (b"Accept-Encoding", b"identity")]


def no_answer(body: bytes, status: int) -> BioproxyError:
    """The error for what the engine sent instead of an answer, whichever status it gave to that."""
    if status >= 400 or error_words(body):
        return refusal(body, status if status >= 400 else EngineProtocolError.default_status)
    return EngineProtocolError(f"the engine answered {status}, with neither events nor a whole answer in JSON")


def nothing() -> None:
    """What ends a watch that has not begun."""


def opening(pieces: tuple[Piece, ...]) -> bytes:
    """What names a conversation from turn to turn: a digest of its head and first message."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces[:2]:
        digest.update(piece.data)
    return digest.digest()


def note_timings(exchange: Exchange, timings: Timings) -> None:
    """Copy the engine's figures; if it gave no seconds, the first byte tells."""
    record = exchange.record
    record.tokens_cached = timings.cached
    record.tokens_evaluated = timings.evaluated
    record.tokens_generated = timings.generated
    record.prefill = timings.prefill
    record.decode = timings.decode
    if timings.prefill is None and exchange.tail.first is not None and exchange.streaming:
        waited = record.swap + record.queue + record.restore + record.save
        record.prefill = max(0.0, exchange.tail.first - exchange.request.arrived - waited)


def cache_word(status: str, timings: Timings | None) -> Literal["", "hit", "restored", "miss"]:
    """`restored`, `hit` or `miss`, from what the engine counted; empty if it did not say."""
    if timings is None or timings.cached is None:
        return ""
    if status == "restored" and timings.cached:
        return "restored"
    prompt = timings.cached + (timings.evaluated or 0)
    return "hit" if prompt and timings.cached >= math.floor(HIT * prompt) else "miss"
