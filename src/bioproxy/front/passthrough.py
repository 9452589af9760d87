"""Requests that are passed on as they came: unknown routes, reading routes, slot actions, upgrades.

Four ways, by the route's `gate`:
- free: computes nothing, goes at once;
- grant: might compute, waits its turn like any user's request;
- slot_action: `POST /slots/…` runs alone, and afterwards nobody knows what the slots hold (kv-rule 4);
- shared: `/slots` and `/metrics`, of which the engine must not be asked more than once in two seconds, or it stops
  noticing that clients left (facts, 0.7). All clients of two seconds get one answer.
"""

from __future__ import annotations

import msgspec

from bioproxy.errors import EngineProtocolError, EngineUnavailable, Forbidden, RequestError
from bioproxy.front.exchange import Exchange
from bioproxy.front.forward import CORS_OF_ENGINE, end_to_end
from bioproxy.front.routes import OTHER_GRANT
from bioproxy.front.seat import Seat
from bioproxy.front.turn import acquire
from bioproxy.station import Station
from bioproxy.templates.bodies import open_body, refuse_unreadable, write_body
from bioproxy.wire.engine_connection import Response
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.relay import relay, tunnel

SLOT_FIELD = frozenset({"id_slot"})
ADAPTERS = "/lora-adapters"
OURS = "bp-"  # how the names of our snapshots begin (kv/files.py)


async def free(exchange: Exchange, engine: Station, headers: Headers, body: bytes) -> bool:
    """Pass one request on and its answer back, upgrades included; whether the engine ended it, too."""
    request = exchange.request
    response = await engine.pool.request(request.method, exchange.target, headers, body)
    return await answer(exchange, response)


async def answer(exchange: Exchange, response: Response) -> bool:
    """Relay an answer; the engine's work ends when the client leaves. False if the engine did not end it itself."""
    exchange.answered(response.status, response.headers, response.fields)
    try:
        if response.status == 101:
            await tunnel(response, exchange.responder)
        else:
            exchange.streaming = exchange.tail.events
            await relay(
                response,
                exchange.responder,
                headers=[],
                drop=CORS_OF_ENGINE,
                tail=exchange.tail,
                ended=exchange.ended,
            )
    except BaseException:
        response.abort()
        raise
    return response.complete


def without_slot(body: bytes, *, known: bool) -> bytes:
    """The body without `id_slot` (kv-rule 3): in a slot that is busy it corrupts or hangs what runs there.

    `known`: a route that would read it; RequestError where it cannot be taken out. The body of an unknown route may be
    no JSON at all, and goes on as it is then.
    """
    if b"id_slot" not in body and b"\\u" not in body:
        return body
    opened = open_body(body)
    if opened.fields is not None:
        return body if SLOT_FIELD.isdisjoint(opened.fields) else write_body(opened.fields, {}, SLOT_FIELD)
    if known:
        refuse_unreadable(opened, body, SLOT_FIELD)
    return body


async def gated(exchange: Exchange, engine: Station, seat: Seat, headers: Headers, body: bytes) -> None:
    """The same with a user's grant; what the engine computed for it is not what the slot held before."""
    path = exchange.record.req_path or exchange.request.path
    adapters = exchange.request.method == "POST" and path == ADAPTERS
    grant = await acquire(exchange, engine, seat, exclusive=adapters)
    whole = False
    try:
        seat.sending()
        whole = await free(exchange, engine, headers, body)
    except (EngineUnavailable, EngineProtocolError) as error:
        await seat.broke_off(error)
        raise
    finally:
        engine.keeper.unknown(f"{exchange.request.method} {path} may have used a slot")
        if adapters:  # another KV cache from here on: the engine is met anew, with another fingerprint (kv-rule 2)
            engine.attachment.lose("loading", "a client changed its LoRA adapters")
            engine.attachment.suspect("its LoRA adapters were changed")
        # of an unknown route nobody knows whether its answer came out of a slot
        known = exchange.route.endpoint != OTHER_GRANT.endpoint and exchange.record.status == 200
        grant.release(cut=not whole, computed=known)


def check_slot_action(exchange: Exchange, *, keys: bool, admin: bool) -> None:
    """Refuse slot actions of those who must not: without the admin key where there are keys, or on our files."""
    if keys and not admin:
        raise Forbidden("slot actions need the admin key: they read and replace what other users have in the cache")
    try:
        fields = open_body(exchange.request.body or b"{}").fields
        if fields is None:
            raise RequestError("the body of a slot action must be a JSON object with a filename")
        name = msgspec.json.decode(fields.get("filename", msgspec.Raw(b'""')), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the body of a slot action must be a JSON object with a filename: {error}") from error
    if name.casefold().startswith(OURS):  # some file systems take BP- for the same name
        raise Forbidden(f"{name!r} is a snapshot of bioproxy's own; choose a name that does not begin with {OURS!r}")


async def slot_action(exchange: Exchange, engine: Station, seat: Seat, headers: Headers, body: bytes) -> None:
    """Run a client's slot action alone on the engine."""
    grant = await acquire(exchange, engine, seat, exclusive=True)
    whole = False
    try:
        seat.sending()
        whole = await free(exchange, engine, headers, body)
    except (EngineUnavailable, EngineProtocolError) as error:
        await seat.broke_off(error)
        raise
    finally:
        engine.keeper.unknown("a client's own slot action")
        grant.release(cut=not whole)


async def shared(exchange: Exchange, engine: Station, *, path: str = "") -> None:
    """Answer `/slots` or `/metrics` from what the engine said within the last two seconds, to whomever.

    `path` is the engine's, where the client's is another one.
    """
    look = await engine.attachment.llama.look(canonical(exchange, path or exchange.request.path))
    exchange.record.status = look.status
    exchange.responder.send(look.status, end_to_end(look.headers), look.body)


def canonical(exchange: Exchange, path: str) -> bytes:
    """The target that stands for this request: any other query would be a way around the pace."""
    wanted = path == "/slots" and any(name == "fail_on_no_slot" for name, _ in exchange.request.query)
    return path.encode() + (b"?fail_on_no_slot=1" if wanted else b"")
