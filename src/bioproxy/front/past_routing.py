"""`/upstream/<model>/…` and `/comfyui/…`: an engine asked by its path, past filters and templates.

Never past the gate: a slot action in the middle of somebody's answer corrupts it, whichever way it came, so what might
compute waits its turn here, too. What only looks (`/slots`, `/metrics`, `/props`, `/health`) starts no model and keeps
none loaded: a monitor that asks every ten seconds would swap out what somebody uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bioproxy.errors import RequestError
from bioproxy.front import passthrough, routes, swap_routes, upstream_path
from bioproxy.front.access import Access
from bioproxy.front.exchange import Exchange
from bioproxy.front.form import Asked
from bioproxy.front.seat import seated
from bioproxy.front.upstream_path import Split
from bioproxy.models.state import State
from bioproxy.station import Station
from bioproxy.wire.http1.target import hidden_slash, hides_slash

if TYPE_CHECKING:
    from bioproxy.front.many import ManyModels, Served


async def past_routing(many: ManyModels, exchange: Exchange, access: Access, *, comfyui: bool) -> None:
    """`/upstream/<model>/…` and `/comfyui/…`."""
    request = exchange.request
    if comfyui:
        split = upstream_path.split_comfyui(request.method, request.target, path=request.path, registry=many.registry)
    else:
        split = upstream_path.split_upstream(
            request.method, request.target, path=request.path,
            registry=many.registry, choose=many.choose, ignored=many.ignored,
        )  # fmt: skip
    if isinstance(split, upstream_path.Redirect):
        exchange.responder.send(split.status, split.headers)
        return
    target = split.asked
    access.allow_model(exchange, target.requested, target.name, target.model)
    exchange.target = split.target
    exchange.record.model = target.model
    exchange.record.req_path = split.rest
    if target.peer:
        exchange.body = request.body
        with many.counted(exchange, target):
            await many.to_peer(exchange, target, Asked(), access)
        return
    ready = many.supervisor.schedule.state(target.model) is State.READY
    served = many.models[target.model]
    if hides_slash(split.target) and not (ready and served.engine.other):
        check_guarded(request.method, split)
    if not ready and (refusal := split.refused() or looks(request.method, target.model, split.rest)):
        raise refusal
    exchange.record.metered = swap_routes.recorded(request.method, split.rest)
    if exchange.record.metered and (most := many.captures()):
        exchange.tail.collect(most)
    with many.counted(exchange, target):
        await raw(many, exchange, served, split.rest, access, ready=ready)


def looks(method: str, model: str, rest: str) -> RequestError | None:
    """The answer to a look at a model that is not ready: it starts nothing. None for what may start it."""
    return swap_routes.not_loaded(model, rest) if swap_routes.only_looks(method, rest) else None


def check_guarded(method: str, split: Split) -> None:
    """RequestError if an escaped slash makes up a path that we guard, on what is, or may be, a llama-server.

    It decodes as we do, and what stands between may not. Other engines have names of files in their paths.
    """
    found = routes.ROUTER.find(method, split.rest)
    if found is not None and found[0].gate != "free":
        raise hidden_slash(split.target)


async def raw(many: ManyModels, exchange: Exchange, served: Served, rest: str, access: Access, *, ready: bool) -> None:
    """One request to an engine as it came, through its gate where it might compute."""
    request, engine = exchange.request, served.engine
    headers = many.headers(exchange, access, engine.key)
    if request.upgrade and served.ignore_websockets:
        if not ready:
            said = f"model {served.id} is not loaded; ignored websocket requests cannot start it"
            raise RequestError(said, status=409)
        await passthrough.free(exchange, engine, headers, request.body)
        return
    found = routes.ROUTER.find(request.method, rest)
    gate = found[0].gate if found else ("free" if request.method in {"GET", "HEAD"} else "grant")
    seat = many.seat(exchange, served, Asked(), None)
    body = request.body
    if gate == "slot_action":
        routes.check_action(request)
        passthrough.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(request))
    elif gate == "grant":
        body = passthrough.without_slot(body, known=found is not None)

    async def work(engine: Station) -> None:
        if gate == "shared":
            await passthrough.shared(exchange, engine, path=rest)
        elif gate == "slot_action":
            await passthrough.slot_action(exchange, engine, seat, headers, body)
        elif gate == "grant":
            await passthrough.gated(exchange, engine, seat, headers, body)
        else:
            await passthrough.free(exchange, engine, headers, body)

    if ready and gate != "slot_action" and swap_routes.only_looks(request.method, rest):  # polling keeps none loaded
        await work(engine)
    else:
        await seated(exchange, seat, work)
