"""The road of a request from its route to an engine, and its shortest form: one engine.

    route ─► who is meant ─► body: filters, prefix, templates ─► a claim on it ─► its gate ─► cache ─► the engine

`Dispatch` is that road. Who is meant is asked of one of two: `OneEngine`, here, for which every name means its engine,
and `ManyModels` (many.py). They differ in policies, not in the way: one engine gets what we do not know, and its errors
look as its clients know them; many models answer what they know, and errors look as llama-swap's.

Filters come before templates, so that the chain of hashes by which the cache knows a prompt has seen what they set.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bioproxy.activity import Record
from bioproxy.clients.counts import ClientsStatistics, SideCounts
from bioproxy.clients.mend import Memory, mend
from bioproxy.clients.recognition import Found, Seen, find, rules_of
from bioproxy.clients.view import View
from bioproxy.config.settings import Settings
from bioproxy.doctor.doctor import Doctor
from bioproxy.errors import NOT_JSON, EngineUnavailable
from bioproxy.front import access_log, empty, later, routes, traceparent, ways
from bioproxy.front.access import Access
from bioproxy.front.body import filters, model
from bioproxy.front.body.model import Asked
from bioproxy.front.caching import answers
from bioproxy.front.caching.fields import Wishes
from bioproxy.front.dialects import JSON
from bioproxy.front.exchange import Exchange, unstored
from bioproxy.front.inference import Inference
from bioproxy.front.inflight import Inflight
from bioproxy.front.responses import Filling
from bioproxy.front.routes import Route
from bioproxy.front.standing import Standings
from bioproxy.models.claim import Claim
from bioproxy.models.fleet import Fleet
from bioproxy.models.names import NoTarget, Registry, Target
from bioproxy.models.only import ENGINE
from bioproxy.models.plan import ModelPlan
from bioproxy.station import Station
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.wire.http1.message import Headers, Request

if TYPE_CHECKING:
    from bioproxy.front.spans import Spans  # of the extra [otel]

log = logging.getLogger(__name__)
TOKEN = 4  # bytes, about
JSON_TYPE = (b"Content-Type", b"application/json")
ACCEPTED: Headers = [JSON_TYPE, (b"Cache-Control", b"no-store"), (b"Preference-Applied", later.PREFERENCE)]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One model of ours, as the front needs it. `loading`: its streams tell that it is being loaded.

    `fallback` are the names that are tried if it answers with a status of `failing`, does not start, or says nothing
    for `patience` seconds (0: any number).
    """

    id: str
    station: Station
    filters: filters.Compiled | None = None
    loading: bool = False
    ignore_websockets: bool = False
    priority: int = 0
    fallback: tuple[str, ...] = ()
    failing: frozenset[int] = frozenset()
    patience: float = 0.0


class Dispatch(ABC):
    """The road. `envelope`: errors look as llama-swap's do.

    `captures` are the most bytes of an answer that are kept for inspection, 0: none.
    """

    envelope: bool

    def __init__(
        self, settings: Settings, fleet: Fleet, *, doctor: Doctor, inflight: Inflight, captures: Callable[[], int]
    ) -> None:
        self.settings = settings
        self.inflight = inflight
        self.standings = Standings(fleet)
        inflight.standing = self.standings.of
        self.captures = captures
        self.doctor = doctor
        self.show: Callable[[str], None] = lambda _: None  # takes lines of the access log in JSON
        self.spans: Spans | None = None  # if requests are traced
        self.go_on: Callable[[Request], bool] = lambda _: False  # serves a request for nobody, unless there are many
        self.memory = Memory()  # of prompts that rules of `clients` are for
        self.sides: dict[str, SideCounts] = {}  # what was done about side requests, by rule

    @abstractmethod
    def find(self, request: Request) -> Route:
        """The route of a request, before it is asked for a key; RequestError or Unserved if there is none."""

    @abstractmethod
    def preflight(self, access: Access, request: Request) -> Headers:
        """The headers of the 204 that answers a browser's question on behalf of a page."""

    @abstractmethod
    def failed(self, exchange: Exchange, reason: str) -> None:
        """An engine failed this request: have it looked at."""

    @abstractmethod
    def ended(self, exchange: Exchange, client: str) -> None:
        """The request is over; `client` is its address."""

    @abstractmethod
    async def serve(self, exchange: Exchange, access: Access) -> None:
        """Serve it, or raise what the client shall be told."""

    @abstractmethod
    def claim(self, exchange: Exchange, served: Served, *, stream: bool = False) -> Claim:
        """The request's claim on a model; its `stream` may tell that the model is being loaded."""

    def meter(self, exchange: Exchange) -> None:
        """The request becomes a row of the activity page, and its answer is kept for inspection, if that may be."""
        exchange.record.metered = True
        if exchange.check is not None and exchange.route.gate == "grant":
            exchange.check(exchange)
        request, principal = exchange.request, exchange.principal
        wanted = principal is None or principal.captures
        if wanted and (most := self.captures()) and not (b"cache-control" in request.fields and unstored(request)):
            exchange.tail.collect(most)

    def recognise(self, exchange: Exchange) -> Seen:
        """Which rules of `clients` may be for a request: for nearly each of them none."""
        rules = self.settings.known.get(rules_of) or self.settings.made(rules_of)
        request = exchange.request
        agent = request.fields.get(b"user-agent")
        seen: Seen = rules.seen.get((agent, request.path)) or rules.look(agent, request.path)
        exchange.record.app = seen.app
        return seen

    async def beside(self, exchange: Exchange, seen: Seen, body: Body | None) -> str | None:
        """Judge a request by its rules. The model that shall answer it instead, "" for the one that it asks for.

        None if it is a side request that is refused: it was answered.
        """
        record, dialect = exchange.record, exchange.route.dialect
        if body is None or body.fields is None or dialect is None:
            return ""
        view = View(dialect, body)
        found: Found = await ways.apart(len(body.raw), find, seen, exchange.request.fields, view)
        record.app, exchange.mend = found.app, found.mend
        if (rule := found.side) is None:
            return ""
        record.work, record.side = "side", rule.name
        counts = self.sides.setdefault(rule.name, SideCounts())
        counts.matched += 1
        if rule.side == "refuse":
            counts.refused += 1
            counts.spared += len(body.raw) // TOKEN
            empty.send(exchange, model=body.model, stream=body.stream)
            return None
        return rule.model

    def settle_side(self, record: Record) -> None:
        """A side request is over: count what it waited and what was kept for others."""
        counts = self.sides[record.side]
        counts.waited += record.queue
        counts.kept += record.kept

    def statistics(self) -> ClientsStatistics:
        """What the rules of `clients` did."""
        return ClientsStatistics(side=dict(self.sides), stabilize=dict(self.memory.counts))

    async def mend(self, exchange: Exchange, body: Body, dialect: Dialect) -> None:
        """Have the rules change the prompt that are for it."""
        scope = exchange.principal.scope if exchange.principal else b""
        view, exchange.json = View(dialect, body), body
        changed = await ways.apart(len(body.raw), mend, view, exchange.mend, self.memory, scope)
        exchange.record.mended = exchange.record.mended or changed  # another model may be asked the same once more

    async def to_model(
        self, exchange: Exchange, access: Access, served: Served, *, asked: Asked, target: Target | None = None
    ) -> None:
        """Change the body as the configuration says, wait for the model, and go the way of the route."""
        route, station = exchange.route, served.station
        body, dialect = asked.body, route.dialect
        if target is not None and (served.filters is not None or target.body):
            rename(exchange, served.filters, target, asked)
        headers = self.headers(exchange, access, station.key, untyped=asked.untyped)
        if dialect is None or body is None:
            claim = exchange.claim = self.claim(exchange, served, stream=asked.stream)
            plain = exchange.engine_body()
            if route.gate != "slot_action":
                plain = ways.without_slot(plain, known=route is not routes.OTHER_GRANT)
            await ways.claimed(exchange, route.gate, claim, headers=headers, body=plain)
            return
        if exchange.mend:
            await self.mend(exchange, body, dialect)
        if target is not None and target.prefix:
            filters.add_prefix(body, target.prefix, dialect)
        if dialect == "responses" and route.gate != "free" and exchange.responder.rewriter is None:
            now = int(exchange.record.started)
            exchange.responder.rewriter = Filling(body.fields or {}, model=body.model or exchange.record.model, now=now)
        exchange.json = body
        claim = exchange.claim = self.claim(exchange, served, stream=asked.stream)
        period = self.settings.config.stream_keepalive
        inference = await ways.apart(
            len(body.raw), Inference, exchange, station, claim,
            body=body, headers=headers, period=period, look=self.standings.of, shows=served.loading and route.loading,
        )  # fmt: skip
        if route.gate == "free":
            await ways.claimed(exchange, "free", claim, headers=headers, body=inference.expanded.body)
            return
        wishes, request = inference.wishes, exchange.request
        if wishes is not None and wishes.prewarm and later.wanted(request, asked.stream) and self.go_on(request):
            self.accept(exchange, wishes, asked.model)
            return
        try:
            await inference.run(self.doctor)
        finally:
            if exchange.record.side:
                self.settle_side(exchange.record)
        if inference.remembered:
            self.doctor.see(inference.case())

    def accept(self, exchange: Exchange, wishes: Wishes, name: str) -> None:
        """Answer at once: the work goes on, for nobody."""
        now = int(exchange.record.started)
        body = answers.accepted(wishes, model=name or exchange.record.model, identity=exchange.id, now=now)
        exchange.responder.rewriter = None
        exchange.responder.send(202, ACCEPTED, body)

    def headers(self, exchange: Exchange, access: Access, key: str, *, untyped: bool = False) -> Headers:
        """The client's headers for an engine; its key stays here. `untyped`: it did not say that it sends JSON."""
        request = exchange.request
        if self.spans is not None or b"traceparent" in request.fields:
            self.trace(exchange)
        drop = access.keys or (access.admin and access.is_admin(request))
        found = ways.request_headers(request, request_id=exchange.id, drop_keys=drop, engine_key=key)
        if exchange.record.metered and b"accept-encoding" in request.fields:
            found = [(name, readable(value) if name.lower() == b"accept-encoding" else value) for name, value in found]
        if untyped:
            found = [pair for pair in found if pair[0].lower() != b"content-type"]
            found.append(JSON_TYPE)
        return found

    def trace(self, exchange: Exchange) -> None:
        """See to it that what the engine gets as its parent is valid, and is ours if we trace."""
        if exchange.traced is None:
            exchange.record.trace_id = traceparent.settle(exchange.request)
            if self.spans is not None:
                self.spans.begin(exchange)


class OneEngine(Dispatch):
    """A fleet of one: every name means its engine."""

    envelope = False

    def __init__(
        self, settings: Settings, fleet: Fleet, *, doctor: Doctor, inflight: Inflight, captures: Callable[[], int]
    ) -> None:
        super().__init__(settings, fleet, doctor=doctor, inflight=inflight, captures=captures)
        self.supervisor, self.unready = fleet.supervisor, fleet.unready
        self.served = Served(id=ENGINE, station=fleet.stations[ENGINE])

    def find(self, request: Request) -> Route:
        return routes.find_for_one(request)

    def preflight(self, access: Access, request: Request) -> Headers:
        return access.cors.preflight(request)

    def failed(self, exchange: Exchange, reason: str) -> None:  # noqa: ARG002 - there is only one
        self.served.station.attachment.suspect(reason)

    def ended(self, exchange: Exchange, client: str) -> None:
        """The record says it all; as JSON the log says it, too."""
        if self.settings.config.log.format == "json":
            access_log.tell(exchange, client, self.show)

    def claim(self, exchange: Exchange, served: Served, *, stream: bool = False) -> Claim:  # noqa: ARG002 - it is there
        timeout = self.settings.config.queue_timeout
        return Claim(self.supervisor, served.id, exchange.record, timeout=timeout, loading=None)

    async def serve(self, exchange: Exchange, access: Access) -> None:
        request, route, served = exchange.request, exchange.route, self.served
        if route.dialect is not None or route.gate in {"grant", "slot_action"}:
            self.inflight.add(exchange)
            if route.metered:
                self.meter(exchange)
        restricted = exchange.principal is not None and exchange.principal.models and route is not routes.OTHER_GRANT
        if route.gate == "slot_action":
            ways.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(request))
        if route.dialect is not None or (restricted and route.gate == "grant"):
            body = await ways.apart(len(request.body), Body, request.body)
            access.allow_model(exchange, body.model)
            seen = self.recognise(exchange)
            if not seen.settled and await self.beside(exchange, seen, body) is None:
                return
            await self.to_model(exchange, access, served, asked=Asked(body.model, body.stream, "json", body=body))
        elif route.gate in {"grant", "slot_action"}:
            await self.to_model(exchange, access, served, asked=Asked())
        else:
            try:
                await (self.one_model if route.by == "listed" else self.pass_by)(exchange, access)
            except EngineUnavailable as error:
                self.raise_reason(error)
                raise

    def raise_reason(self, error: EngineUnavailable) -> None:
        """Raise why an engine of ours cannot be reached, if that is our doing: paused, unloaded, being started."""
        if not self.served.station.owned:
            return
        if self.supervisor.refusal is not None:
            raise self.supervisor.refusal() from error
        if reason := self.unready():
            raise EngineUnavailable(reason) from error

    async def pass_by(self, exchange: Exchange, access: Access) -> None:
        """What computes nothing waits for nothing."""
        station = self.served.station
        headers = self.headers(exchange, access, station.key)
        await ways.at_once(exchange, exchange.route.gate, station, headers=headers, body=exchange.request.body)

    async def one_model(self, exchange: Exchange, access: Access) -> None:
        """`/v1/models/{id}`, which OpenAI's clients ask for and llama-server has not: as its list shows the model.

        Of a model that is not in the list the engine says itself what it knows.
        """
        station = self.served.station
        headers = self.headers(exchange, access, station.key)
        plain = [pair for pair in headers if pair[0].lower() != b"accept-encoding"]
        response = await station.pool.request("GET", b"/v1/models", plain, b"")
        found = listed(await response.read(), exchange.request.path.removeprefix(routes.MODELS))
        if response.status != 200 or found is None:
            await ways.free(exchange, station, headers, b"")
            return
        exchange.answered(200, [JSON], {})
        exchange.responder.send(200, [JSON], found)


def served(one: ModelPlan, station: Station) -> Served:
    """One model for the front."""
    compiled = filters.compile_filters(one.model.filters, use_model_name=one.model.use_model_name)
    for fault in compiled.faults if compiled is not None else ():
        log.warning("models.%s.filters: %s", one.id, fault)
    return Served(
        id=one.id,
        station=station,
        filters=compiled,
        loading=bool(one.model.send_loading_state),
        ignore_websockets=one.model.compat.ignore_websockets,
        priority=one.settings.priority,
        fallback=one.fallback,
        failing=frozenset(one.model.fallback_status),
        patience=float(one.model.fallback_after),
    )


def tell_unknown(settings: Settings, registry: Registry) -> None:
    """Say which rules of `clients` name a model that there is not: their requests stay with the one they ask for."""
    for rule in settings.made(rules_of).side:
        meant = registry.resolve(rule.model, lambda _name, _selector: None) if rule.model else None
        if isinstance(meant, NoTarget) and meant.reason == "unknown":
            log.warning("clients.side: the rule %s names the model %r, and there is none", rule.name, rule.model)


def rename(exchange: Exchange, compiled: filters.Compiled | None, target: Target, asked: Asked) -> None:
    """Apply filters, and write the model's name if something changed it."""
    if asked.body is not None:
        filters.apply(asked.body, compiled, requested=target.name, model_name=target.body)
        return
    wanted = (compiled.name if compiled is not None else "") or target.body
    if wanted:
        exchange.target, exchange.body = model.renamed(exchange.request, asked, wanted, target=exchange.target)


def readable(encodings: bytes) -> bytes:
    """What of `Accept-Encoding` we can read ourselves: answers are metered."""
    kept = [part.strip() for part in encodings.split(b",") if part.strip().lower().startswith((b"gzip", b"deflate"))]
    return b", ".join(kept) or b"identity"


class Names(msgspec.Struct):
    """What a record of an engine's list of models calls its model."""

    id: str = ""
    aliases: tuple[str, ...] = ()


class Listing(msgspec.Struct):
    """An engine's list of models; each record as it came."""

    data: list[msgspec.Raw] = []


def listed(body: bytes, name: str) -> bytes | None:
    """The record of a model in an engine's list; None if there is none by this name."""
    try:
        for record in msgspec.json.decode(body, type=Listing).data:
            names = msgspec.json.decode(record, type=Names)
            if name == names.id or name in names.aliases:
                return bytes(record)
    except NOT_JSON:
        return None  # no list that we know
    return None
