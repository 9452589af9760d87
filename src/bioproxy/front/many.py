"""Where requests go when there are many models: by the model that they name.

    the name ─► profile, selector, alias, peer, `model+template` (models/names.py)
        ├─ a peer's ─► its server, with its key
        └─ ours ─► filters ─► templates ─► a seat at the model (started and swapped as needed) ─► gate ─► its engine

Filters come before templates, so that the chain of hashes by which the cache knows a prompt has seen what they set.
What only looks (`/props`, `/slots`) starts nothing. `/upstream/<model>/…` passes by filters and templates, never by the
gate: a slot action in the middle of somebody's answer corrupts it, whichever way it came.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError, NotFound, RequestError
from bioproxy.front import as_model, filters, form, passthrough, swap_routes, upstream_path
from bioproxy.front.access import Access
from bioproxy.front.counted import Busy, Counted
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.front.form import Asked
from bioproxy.front.forward import request_headers
from bioproxy.front.inference import infer, open_body
from bioproxy.front.inflight import Inflight
from bioproxy.front.loading import Loading, Standing
from bioproxy.front.past_routing import past_routing
from bioproxy.front.recent import Recent
from bioproxy.front.routes import MODEL, MODELS, Route, check_action, names_model
from bioproxy.front.seat import OfModel, seated
from bioproxy.front.swap_routes import ModelRoute
from bioproxy.log import access_line
from bioproxy.models.fleet import Fleet
from bioproxy.models.names import Registry, Target
from bioproxy.models.plan import ModelPlan
from bioproxy.models.selectors import Candidate, Selector, choose
from bioproxy.models.state import State
from bioproxy.models.ticket import Ticket
from bioproxy.station import Station
from bioproxy.wire.http1.message import Headers, Request
from bioproxy.wire.http1.router import NotAllowed
from bioproxy.wire.http1.target import check_slashes
from bioproxy.wire.upstream import Pool

UNKNOWN = Route("other", "free")
LIST = Route("/v1/models", "free")
ONE = Route(MODEL, "free")
HEALTH = Route("/health", "free", public=True)
UPSTREAM = Route("/upstream", "free", guard="manage", changes=True)  # a GET of any path may start the model
COMFYUI = Route("/comfyui", "free", changes=True)
OPTIONS = Route("other", "free", public=True)
ENDPOINTS: dict[tuple[str, str], Route] = {
    ("GET", "/v1/models"): LIST,
    ("GET", "/models"): LIST,
    **{("GET", path): HEALTH for path in ("/health", "/v1/health", "/wol-health", "/livez", "/readyz")},
}
log = logging.getLogger(__name__)
LINES = logging.getLogger("bioproxy.access")  # of this level are the lines of the access log
TEXT: Headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
JSON_TYPE = (b"Content-Type", b"application/json")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One model of ours, as the front needs it. `loading`: its streams tell that it is being loaded."""

    id: str
    engine: Station
    filters: filters.Compiled | None = None
    loading: bool = False
    ignore_websockets: bool = False
    priority: int = 0


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another server, as the front needs it."""

    pool: Pool
    key: str
    filters: filters.Compiled | None


class Management(Protocol):
    """The routes that manage models (admin/), as far as they are served on this port."""

    def find(self, request: Request) -> Route | None:
        """The route of a request that manages something."""

    async def serve(self, exchange: Exchange) -> None:
        """Serve it."""


class ManyModels:
    """Dispatch by model."""

    envelope = True

    def __init__(
        self,
        *,
        settings: Settings,
        fleet: Fleet,
        inflight: Inflight,
        management: Management,
        listing: Callable[[bool, str], bytes],
        captures: Callable[[], int] = lambda: 0,
        write_line: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.fleet = fleet
        self.supervisor = fleet.supervisor
        self.inflight = inflight
        self.management = management
        self.listing = listing
        self.captures = captures  # the most bytes of an answer that are kept for inspection; 0: none
        self.write_line = write_line  # takes lines of the access log
        self.recent = Recent()
        self.busy: Busy = Counter()
        self.turns: Counter[str] = Counter()
        fleet.on_change = self.take_over
        self.take_over()

    def take_over(self) -> None:
        """Take over names, models and peers; requests under way keep what they began with."""
        plan = self.fleet.plan
        self.registry: Registry = plan.registry
        self.models: Mapping[str, Served] = {
            name: served(one, self.fleet.stations[name]) for name, one in plan.models.items()
        }
        self.peers: Mapping[str, Peer] = {
            name: Peer(pool=one.pool, key=one.settings.api_key, filters=filters.compile_filters(one.settings.filters))
            for name, one in self.fleet.peers.items()
        }
        self.ignored = upstream_path.Ignored(self.settings.dialect.upstream.ignore_paths)

    @property
    def timeout(self) -> float:
        """Seconds that a request may wait for its model."""
        return self.settings.config.queue_timeout

    # routes

    def find(self, request: Request) -> Route:
        """The route of a request, before anybody was asked for a key."""
        check_slashes(request.target)
        if request.method == "OPTIONS":
            return OPTIONS
        found = swap_routes.EXACT.get((request.method, request.path))
        if found is not None:
            return found.route
        method = "GET" if request.method == "HEAD" else request.method
        known = ENDPOINTS.get((method, request.path)) or self.management.find(request)
        if known is not None:
            return known
        if method == "GET" and names_model(request.path):
            return ONE
        if request.path.startswith(upstream_path.UPSTREAM):
            return UPSTREAM
        if request.path == upstream_path.COMFYUI or request.path.startswith(f"{upstream_path.COMFYUI}/"):
            return COMFYUI
        check_action(request)
        other = swap_routes.find(request)
        return other.route if isinstance(other, ModelRoute) else UNKNOWN

    def preflight(self, access: Access, request: Request) -> Headers:
        """As llama-swap's users know it, for origins that are allowed."""
        return swap_routes.options_headers(access.cors, request)

    def failed(self, exchange: Exchange, reason: str) -> None:
        """A local engine failed: have it looked at."""
        served = self.models.get(exchange.record.model)
        if served is not None and served.engine.attachment.state == "ready":
            served.engine.attachment.suspect(reason)

    def ended(self, exchange: Exchange, client: str) -> None:
        """Write the access log's line, as llama-swap's users know it."""
        if self.write_line is None or not LINES.isEnabledFor(logging.INFO):
            return
        request, record = exchange.request, exchange.record
        line = access_line(
            client=client,
            method=request.method,
            path=record.path,
            status=record.status,
            size=record.bytes_out,
            agent=(request.header(b"user-agent") or b"").decode("latin-1"),
            seconds=record.total,
            protocol="HTTP/1.0" if request.http_10 else "HTTP/1.1",
        )
        if line:
            self.write_line(line)

    async def serve(self, exchange: Exchange, access: Access, *, keepalive: float) -> None:
        """Serve a request by what it asks for."""
        request, route = exchange.request, exchange.route
        if route is OPTIONS:
            exchange.responder.send(204, swap_routes.options_headers(access.cors, request), b"")
        elif route is HEALTH:
            exchange.responder.send(200, TEXT, b"OK")
        elif route is LIST:
            exchange.responder.send(200, [JSON_TYPE], self.listing(request.path == "/models", ""))
        elif route is ONE:
            exchange.responder.send(200, [JSON_TYPE], self.listing(False, request.path.removeprefix(MODELS)))
        elif route is UPSTREAM or route is COMFYUI:
            await past_routing(self, exchange, access, comfyui=route is COMFYUI)
        elif route.guard:
            await self.management.serve(exchange)
        else:
            await self.by_model(exchange, access, keepalive)

    async def by_model(self, exchange: Exchange, access: Access, keepalive: float) -> None:
        """A request that names its model in body or query."""
        request = exchange.request
        route = swap_routes.find(request)
        if not isinstance(route, ModelRoute):
            known = ("GET", request.path) in ENDPOINTS or names_model(request.path)
            raise swap_routes.unserved(
                request.method, request.path, route or (NotAllowed("GET, HEAD") if known else None)
            )
        asked = form.read(request)
        name = asked.model or (swap_routes.look_target("", loaded=self.loaded()) if not route.starts else "")
        if not name:
            raise RequestError(form.UNREADABLE) if asked.unreadable else NotFound("no model id could be identified")
        exchange.record.model, exchange.record.metered = name[:MOST_SHOWN], route.metered
        if route.metered and (most := self.captures()):
            exchange.tail.collect(most)
        try:
            target = self.target(name)
        except NotFound:
            raise  # a row of the activity table: somebody asks for what there is not
        except BioproxyError:
            exchange.record.metered = False
            raise
        access.allow_model(exchange, name, target.name, target.model)
        exchange.target = swap_routes.engine_target(route, request.target)
        exchange.record.model = target.model
        with self.counted(exchange, target):
            if target.peer:
                await self.to_peer(exchange, target, asked, access)
            elif route.starts:
                await self.to_model(exchange, target, asked, route, access, keepalive)
            else:
                await self.look(exchange, target, access)

    def target(self, name: str) -> Target:
        """What a name means now; NotFound where it means nothing."""
        found = self.registry.resolve(name, self.choose)
        if isinstance(found, Target):
            return found
        if found.reason == "unavailable":
            raise BioproxyError(f'selector "{found.name}" has no available spillover targets', status=503)
        raise NotFound("no router for requested model")

    def choose(self, selector: Selector) -> str | None:
        """The target that takes the next request of a selector."""
        turn, self.turns[selector.id] = self.turns[selector.id], self.turns[selector.id] + 1

        def view(name: str) -> Candidate:
            direct = self.registry.direct(name)
            local = direct is not None and not direct[0]
            state = self.supervisor.schedule.state(direct[1]) if direct is not None and local else None
            return Candidate(name, state, self.busy[selector.id, name])

        return choose(selector, view, turn=turn)

    def counted(self, exchange: Exchange, target: Target) -> Counted:
        """The request stands in the table of those under way until the block ends."""
        metadata = exchange.record.metadata
        if target.selector:
            metadata["selector"] = target.selector
        served = self.models.get(target.model)
        if served is not None and not target.peer:
            metadata["fifo_priority"] = str(served.priority)
        return Counted(self.inflight, self.busy, exchange, target)

    def loaded(self) -> list[str]:
        """The models that are ready."""
        return [name for name in self.models if self.supervisor.schedule.state(name) is State.READY]

    # ours

    async def to_model(
        self, exchange: Exchange, target: Target, asked: Asked, route: ModelRoute, access: Access, keepalive: float
    ) -> None:
        """Filter, fill templates in, wait for the model, compute."""
        served = self.models[target.model]
        engine, dialect = served.engine, route.route.dialect
        self.rename(exchange, served.filters, target, asked)
        headers = self.headers(exchange, access, engine.key, asked)
        if dialect is None or asked.kind != "json":
            seat = self.seat(exchange, served, asked, route)
            body = passthrough.without_slot(exchange.body, known=True)
            if route.route.gate == "grant":
                await seated(exchange, seat, lambda engine: passthrough.gated(exchange, engine, seat, headers, body))
            else:
                await seated(exchange, seat, lambda engine: passthrough.free(exchange, engine, headers, body))
            return
        if target.prefix:
            exchange.body = as_model.with_prefix(exchange.body, target.prefix, dialect)
        expanded = open_body(exchange, engine)
        seat = self.seat(exchange, served, asked, route)
        if route.route.gate == "free":
            await seated(exchange, seat, lambda engine: passthrough.free(exchange, engine, headers, expanded.body))
            return
        await infer(exchange, engine, seat, expanded, headers=headers, period=keepalive, recent=self.recent)

    @staticmethod
    def rename(exchange: Exchange, compiled: filters.Compiled | None, target: Target, asked: Asked) -> None:
        """Apply filters, and write the model's name where something changed it."""
        if asked.kind == "json":
            if compiled is not None or target.body:
                exchange.body = filters.apply(exchange.body, compiled, requested=target.name, model_name=target.body)
            return
        wanted = (compiled.name if compiled is not None else "") or target.body
        if wanted:
            exchange.target, exchange.body = form.renamed(exchange.request, asked, wanted, target=exchange.target)

    def seat(self, exchange: Exchange, served: Served, asked: Asked, route: ModelRoute | None) -> OfModel:
        """The request's place at a model; its stream may tell that the model is being loaded."""
        loading = None
        if served.loading and asked.stream and route is not None and route.loading:
            loading = partial(self.begin_loading, exchange, served.id)
        return OfModel(self.supervisor, served.id, exchange, timeout=self.timeout, loading=loading)

    def begin_loading(self, exchange: Exchange, model: str, ticket: Ticket) -> Callable[[bool], None]:
        """Let the stream begin with what this request waits for."""
        loading = Loading(exchange, model=model, look=partial(self.standing, ticket))
        loading.start()
        return lambda ready: loading.stop(ready=ready)

    def standing(self, ticket: Ticket) -> Standing:
        """What one request waits for. Asked by each of them every second, so it looks at nobody else."""
        schedule = self.supervisor.schedule
        part = schedule.waits_for(ticket.model)
        return Standing(part, max(0, schedule.position(ticket) - 1) if part == "in_use" else 0)

    def headers(self, exchange: Exchange, access: Access, key: str, asked: Asked | None = None) -> Headers:
        """The client's headers for an engine; its key stays here."""
        ours = access.keys or access.is_admin(exchange.request)
        found = request_headers(exchange.request, request_id=exchange.id, drop_keys=ours, engine_key=key)
        if exchange.record.metered and exchange.request.header(b"accept-encoding") is not None:
            found = [(name, readable(value) if name.lower() == b"accept-encoding" else value) for name, value in found]
        if asked is not None and asked.untyped:
            found = [pair for pair in found if pair[0].lower() != b"content-type"]
            found.append(JSON_TYPE)
        return found

    async def look(self, exchange: Exchange, target: Target, access: Access) -> None:
        """A request that starts nothing: answered where the model is ready, and it does not keep it from stopping."""
        served = self.models[target.model]
        if self.supervisor.schedule.state(target.model) is not State.READY:
            raise swap_routes.not_loaded(target.model, exchange.request.path)
        engine, gate = served.engine, exchange.route.gate
        headers = self.headers(exchange, access, engine.key)
        if gate == "shared":
            await passthrough.shared(exchange, engine)
        elif gate == "slot_action":
            passthrough.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(exchange.request))
            seat = self.seat(exchange, served, Asked(), None)
            body = exchange.request.body
            await seated(exchange, seat, lambda engine: passthrough.slot_action(exchange, engine, seat, headers, body))
        else:
            await passthrough.free(exchange, engine, headers, exchange.request.body)

    # elsewhere, and past all routing

    async def to_peer(self, exchange: Exchange, target: Target, asked: Asked, access: Access) -> None:
        """Another server's model: pass it on, filtered, with its key."""
        peer = self.peers[target.peer]
        self.rename(exchange, peer.filters, target, asked)
        headers = self.headers(exchange, access, peer.key, asked)
        if peer.key:
            headers.append((b"x-api-key", peer.key.encode()))
        try:
            response = await peer.pool.request(exchange.request.method, exchange.target, headers, exchange.body)
            await passthrough.answer(exchange, response)
        except BioproxyError as error:
            if exchange.responder.started:
                raise
            raise BioproxyError(f"peer proxy error: {error.message}", status=502) from error


def served(one: ModelPlan, station: Station) -> Served:
    """One model for the front."""
    compiled = filters.compile_filters(one.model.filters, use_model_name=one.model.use_model_name)
    for fault in compiled.faults if compiled is not None else ():
        log.warning("models.%s.filters: %s", one.id, fault)
    return Served(
        id=one.id,
        engine=station,
        filters=compiled,
        loading=bool(one.model.send_loading_state),
        ignore_websockets=one.model.compat.ignore_websockets,
        priority=one.settings.priority,
    )


def readable(encodings: bytes) -> bytes:
    """What of `Accept-Encoding` we can read ourselves: answers are metered."""
    kept = [part.strip() for part in encodings.split(b",") if part.strip().lower().startswith((b"gzip", b"deflate"))]
    return b", ".join(kept) or b"identity"
