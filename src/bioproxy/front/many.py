"""Many models: who is meant by the name in a request.

    the name ─► profile, selector, alias, peer, `model+template` (models/names.py)
        ├─ a peer's ─► its server, with its key
        └─ ours ─► the road (dispatch.py); its claim has the model started and swapped as needed

What only looks (`/props`, `/slots`) starts nothing. `/upstream/<model>/…` and `/comfyui/…` name an engine by their
path, and pass by filters and templates. Never past the gate: a slot action in the middle of another answer corrupts it,
whichever way it came, so what might compute waits its turn here, too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial

import msgspec
from msgspec.structs import replace

from bioproxy.config.dialect.schema import Selector
from bioproxy.config.settings import Settings
from bioproxy.doctor.doctor import Doctor
from bioproxy.errors import BioproxyError, Forbidden, NotFound, RequestError
from bioproxy.front import access_log, fallback, routes, upstream_path, ways
from bioproxy.front.access import Access
from bioproxy.front.access_log import LINES
from bioproxy.front.body import filters, model
from bioproxy.front.body.model import Asked
from bioproxy.front.cors import options_headers
from bioproxy.front.dispatch import JSON_TYPE, Dispatch, Served, rename, served, tell_unknown
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.front.fallback import Failed, Try
from bioproxy.front.inflight import Inflight
from bioproxy.front.prefix import outside
from bioproxy.front.routes import Route
from bioproxy.front.waiting import Loading
from bioproxy.log import access_line
from bioproxy.models.claim import Claim
from bioproxy.models.fleet import Fleet
from bioproxy.models.names import Registry, Target
from bioproxy.models.selectors import Candidate, choose
from bioproxy.models.state import State
from bioproxy.models.wish import Wish
from bioproxy.wire.http1.message import Headers, Request
from bioproxy.wire.http1.target import check_slashes, hides_slash
from bioproxy.wire.upstream import Pool

log = logging.getLogger(__name__)
TEXT: Headers = [(b"Content-Type", b"text/plain; charset=utf-8")]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another server, as the front needs it."""

    pool: Pool
    key: str
    filters: filters.Compiled | None


class ManyModels(Dispatch):
    """Dispatch by model."""

    envelope = True

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        *,
        doctor: Doctor,
        inflight: Inflight,
        managing: Callable[[Request], Route | None],
        manage: Callable[[Exchange], Awaitable[None]],
        listing: Callable[[bool, str], bytes],
        captures: Callable[[], int],
        write_line: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(settings, fleet, doctor=doctor, inflight=inflight, captures=captures)
        self.fleet = fleet
        self.supervisor = fleet.supervisor
        self.managing, self.manage = managing, manage  # the routes that manage models, as far as this port has them
        self.listing = listing
        self.write_line = write_line  # takes lines of the access log
        self.busy: Counter[tuple[str, str]] = Counter()  # requests under way by selector and what it chose
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
        tell_unknown(self.settings, self.registry)
        self.ignored = upstream_path.Ignored(self.settings.dialect.upstream.ignore_paths)

    # policies

    def find(self, request: Request) -> Route:
        if b"%" in request.target:
            check_slashes(request.target)
        hot = routes.HOT.get((request.method, request.path))
        return hot or routes.find_for_many(request, self.managing(request))

    def preflight(self, access: Access, request: Request) -> Headers:
        """As llama-swap's users know it, for origins that are allowed."""
        return options_headers(access.cors, request)

    def failed(self, exchange: Exchange, reason: str) -> None:
        served = self.models.get(exchange.record.model)
        if served is not None and served.station.attachment.state == "ready":
            served.station.attachment.suspect(reason)

    def ended(self, exchange: Exchange, client: str) -> None:
        """Write the access log's line, as llama-swap's users know it."""
        if exchange.selected is not None:
            self.busy[exchange.selected] -= 1
        if self.settings.config.log.format == "json":
            access_log.tell(exchange, client, self.show)
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
            times=self.settings.dialect.log_time_format,
        )
        if line:
            self.write_line(line)

    def claim(self, exchange: Exchange, served: Served, *, stream: bool = False) -> Claim:
        tells = served.loading and stream and exchange.route.loading
        loading = partial(self.begin_loading, exchange, served.id) if tells else None
        timeout = self.settings.config.queue_timeout
        return Claim(self.supervisor, served.id, exchange.record, timeout=timeout, loading=loading)

    def begin_loading(self, exchange: Exchange, model: str, _: Wish) -> Callable[[bool], None]:
        """Let the stream begin with what this request waits for."""
        loading = Loading(exchange, model=model, look=self.standings.of)
        loading.start()
        return lambda ready: loading.stop(ready=ready)

    # the road

    async def serve(self, exchange: Exchange, access: Access) -> None:
        request, route, record = exchange.request, exchange.route, exchange.record
        if route.by != "engine" or route.guard:
            await self.answer(exchange, access)
            return
        if route is routes.OTHER_FREE:
            raise routes.unserved(request)
        asked = await ways.apart(len(request.body), model.read, request)
        exchange.json = asked.body
        name = asked.model or self.unnamed(route, asked)
        record.model = name[:MOST_SHOWN]
        if route.metered:
            self.meter(exchange)
        try:
            target = self.target(name)
        except NotFound:
            raise  # a row of the activity table: a client asks for what there is not
        except BioproxyError:
            record.metered = False
            raise
        access.allow_model(exchange, name, target.name, target.model)
        seen = self.recognise(exchange)
        if not seen.settled:
            other = await self.beside(exchange, seen, asked.body)
            if other is None:
                return
            target = self.instead(exchange, access, other, target)
        if route.path:
            exchange.target = routes.engine_target(route, request.target)
        record.model = target.model
        self.enter(exchange, target)
        if target.peer:
            await self.to_peer(exchange, target, asked, access)
        elif not route.starts:
            await self.look(exchange, target, access)
        elif (served := self.models[target.model]).fallback:
            await self.in_turn(exchange, access, asked, target)
        else:
            await self.to_model(exchange, access, served, asked=asked, target=target)

    async def answer(self, exchange: Exchange, access: Access) -> None:
        """What is no request to a model by its name."""
        request, route = exchange.request, exchange.route
        if route.by == "options":
            exchange.responder.send(204, options_headers(access.cors, request), b"")
        elif route.by == "health":
            exchange.responder.send(200, TEXT, b"OK")
        elif route.by == "list":
            exchange.responder.send(200, [JSON_TYPE], self.listing(request.path == "/models", ""))
        elif route.by == "listed":
            exchange.responder.send(200, [JSON_TYPE], self.listing(False, request.path.removeprefix(routes.MODELS)))
        elif route.by == "engine":
            await self.manage(exchange)
        else:
            await self.by_path(exchange, access)

    def unnamed(self, route: Route, asked: Asked) -> str:
        """The model of a request that names none: the only one that is loaded for a look, else the default model."""
        if not route.starts:
            return routes.look_target("", loaded=self.loaded())
        if asked.unreadable:
            raise RequestError(model.UNREADABLE)
        if default := self.settings.config.default_model:
            return default
        raise NotFound("no model id could be identified")

    async def in_turn(self, exchange: Exchange, access: Access, asked: Asked, target: Target) -> None:
        """Ask a model, and those that stand in for it until one can."""
        request, engine = exchange.request, exchange.target
        left = self.stand_ins(exchange, access, target)
        while True:
            one = self.models.get(target.model) if not target.peer else None
            statuses, patience = (one.failing, one.patience) if one is not None else (fallback.STATUSES, 0.0)
            attempt = Try(exchange, statuses=statuses, patience=patience) if left else nullcontext()
            try:
                with attempt:
                    if one is not None:
                        await self.to_model(exchange, access, one, asked=asked, target=target)
                    else:
                        await self.to_peer(exchange, target, asked, access)
            except Failed as failed:
                left = [other for other in left if not (other.peer and exchange.responder.started)]
                if not left:
                    raise failed.error from failed
                log.warning("%s: %s instead of %s: %s", exchange.id, left[0].name, target.name, failed.error.message)
                fallback.note(exchange, target.model, failed)
            else:
                return
            target = left.pop(0)
            fallback.begin_anew(exchange, engine)
            exchange.record.model = target.model
            asked = await ways.apart(len(request.body), model.read, request)
            exchange.json = asked.body

    def stand_ins(self, exchange: Exchange, access: Access, target: Target) -> list[Target]:
        """What may be tried instead of a model: what its client's key, and the active profile, allow."""
        found = {(target.peer, target.model): target}
        for name in self.models[target.model].fallback:
            try:
                other = self.target(name)
                access.allow_model(exchange, name, other.name, other.model)
            except (NotFound, Forbidden):
                continue
            found.setdefault((other.peer, other.model), replace(other, body=other.body or name))
        return [*found.values()][1:]

    def target(self, name: str) -> Target:
        """What a name means now; NotFound if it means nothing."""
        found = self.registry.resolve(name, self.choose)
        if isinstance(found, Target):
            return found
        if found.reason == "unavailable":
            raise BioproxyError(f'selector "{found.name}" has no available spillover targets', status=503)
        raise NotFound("no router for requested model")

    def choose(self, identity: str, selector: Selector) -> str | None:
        """The target that takes the next request of a selector."""
        turn, self.turns[identity] = self.turns[identity], self.turns[identity] + 1

        def view(name: str) -> Candidate:
            local = self.registry.known.real(name)
            return Candidate(name, self.supervisor.schedule.state(local) if local else None, self.busy[identity, name])

        return choose(selector, view, turn=turn)

    def instead(self, exchange: Exchange, access: Access, name: str, target: Target) -> Target:
        """What answers a side request: another model, if its rule names one that there is and that the key may use."""
        if not name:
            return target
        try:
            other = self.target(name)
            access.allow_model(exchange, name, other.name, other.model)
        except BioproxyError as error:
            log.debug("a side request stays with its model: %s", error.message)
            return target
        self.sides[exchange.record.side].rerouted += 1
        return msgspec.structs.replace(other, body=other.body or name)

    def enter(self, exchange: Exchange, target: Target) -> None:
        """The request stands in the table of those under way from here on."""
        metadata = exchange.record.metadata
        if target.selector:
            metadata["selector"] = target.selector
            exchange.selected = target.selector, target.name
            self.busy[exchange.selected] += 1
        served = self.models.get(target.model)
        if served is not None and not target.peer:
            metadata["fifo_priority"] = str(served.priority)
        self.inflight.add(exchange)

    def loaded(self) -> list[str]:
        """The models that are ready."""
        return [name for name in self.models if self.is_ready(name)]

    def is_ready(self, name: str) -> bool:
        """Whether a model's engine may be used at once."""
        return self.supervisor.schedule.state(name) is State.READY

    async def look(self, exchange: Exchange, target: Target, access: Access) -> None:
        """A request that starts nothing: answered if the model is ready, and it does not keep it from stopping."""
        served, request, gate = self.models[target.model], exchange.request, exchange.route.gate
        if not self.is_ready(target.model):
            raise routes.not_loaded(target.model, request.path)
        headers = self.headers(exchange, access, served.station.key)
        if gate == "slot_action":
            ways.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(request))
            claim = exchange.claim = self.claim(exchange, served)
            await ways.claimed(exchange, gate, claim, headers=headers, body=request.body)
        else:
            await ways.at_once(exchange, gate, served.station, headers=headers, body=request.body)

    async def to_peer(self, exchange: Exchange, target: Target, asked: Asked, access: Access) -> None:
        """Another server's model: pass it on, filtered, with its key."""
        peer = self.peers[target.peer]
        rename(exchange, peer.filters, target, asked)
        headers = self.headers(exchange, access, peer.key, untyped=asked.untyped)
        if peer.key:
            headers.append((b"x-api-key", peer.key.encode()))
        try:
            response = await peer.pool.request(
                exchange.request.method, exchange.target, headers, exchange.engine_body()
            )
            await ways.answer(exchange, response)
        except BioproxyError as error:
            if exchange.responder.started:
                raise
            raise BioproxyError(f"peer proxy error: {error.message}", status=502) from error

    # past all routing

    async def by_path(self, exchange: Exchange, access: Access) -> None:
        """`/upstream/<model>/…` and `/comfyui/…`."""
        request, comfyui = exchange.request, exchange.route.by == "comfyui"
        if comfyui:
            split = upstream_path.split_comfyui(
                request.method, request.target, path=request.path, registry=self.registry
            )
        else:
            split = upstream_path.split_upstream(
                request.method, request.target, path=request.path,
                registry=self.registry, choose=self.choose, ignored=self.ignored,
            )  # fmt: skip
        if isinstance(split, upstream_path.Redirect):
            exchange.responder.send(split.status, split.headers(outside(request)))
            return
        target = split.asked
        access.allow_model(exchange, target.requested, target.name, target.model)
        exchange.target, exchange.record.req_path = split.target, split.rest
        exchange.record.model = target.model
        if target.peer:
            if exchange.check is not None and routes.recorded(request.method, split.rest):
                exchange.check(exchange)
            self.enter(exchange, target)
            await self.to_peer(exchange, target, Asked(), access)
            return
        served, ready = self.models[target.model], self.is_ready(target.model)
        if hides_slash(split.target) and not (ready and served.station.other):
            upstream_path.check_guarded(request.method, split)
        if not ready and split.reason:
            raise split.refused()
        if not ready and routes.only_looks(request.method, split.rest):
            raise routes.not_loaded(target.model, split.rest)
        if routes.recorded(request.method, split.rest):
            self.meter(exchange)
        self.enter(exchange, target)
        await self.raw(exchange, access, served, rest=split.rest, ready=ready)

    async def raw(self, exchange: Exchange, access: Access, served: Served, *, rest: str, ready: bool) -> None:
        """One request to an engine as it came, through its gate if it might compute."""
        request, station, body = exchange.request, served.station, exchange.request.body
        headers = self.headers(exchange, access, station.key)
        if request.upgrade and served.ignore_websockets:
            if not ready:
                said = f"model {served.id} is not loaded; ignored websocket requests cannot start it"
                raise RequestError(said, status=409)
            await ways.free(exchange, station, headers, body)
            return
        found = routes.ONE.find(request.method, rest)
        gate = found[0].gate if found else ("free" if request.method in {"GET", "HEAD"} else "grant")
        if gate == "slot_action":
            routes.check_action(request)
            ways.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(request))
        elif gate == "grant":
            if exchange.check is not None:
                exchange.check(exchange)
            body = ways.without_slot(body, known=found is not None)
        if ready and gate != "slot_action" and routes.only_looks(request.method, rest):  # polling keeps none loaded
            await ways.at_once(exchange, gate, station, headers=headers, body=body, path=rest)
        else:
            claim = exchange.claim = self.claim(exchange, served)
            await ways.claimed(exchange, gate, claim, headers=headers, body=body, path=rest)
