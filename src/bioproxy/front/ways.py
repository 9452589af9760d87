"""The four ways to an engine, by the route's gate, for every request in which no templates are filled in.

- **free** computes nothing and goes at once.
- **grant** might compute, and waits its turn like any user's request.
- **slot_action**: `POST /slots/…` runs alone, and after it nothing is known of what the slots hold (kv-rule 4).
- **shared**: `/slots` and `/metrics`, of which the engine must not be asked more than once in two seconds, or it stops
  noticing that clients left (facts, 0.7). All clients of two seconds get one answer.

What the engine gets to see of a request: hop-by-hop headers go (RFC 9110, 7.6.1; the pool takes those out), and three
kinds besides: the client's key, because it is for us; `X-Conversation-Id`, because llama-server stops noticing that a
client left when it sees one (facts, section 2); and in answers the engine's own CORS headers, because cors.py decides
who may read. A body that came compressed goes on in plain, whatever the route is: what it asks for is judged in plain
text, and an engine that takes a coding off itself would read what we have not (an `id_slot`, a prefix, another model).
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import ParamSpec, TypeVar

import msgspec

from bioproxy.activity import Record
from bioproxy.engines.refused import refusal
from bioproxy.errors import NOT_JSON, EngineProtocolError, EngineUnavailable, Forbidden, RequestError
from bioproxy.front.exchange import Exchange
from bioproxy.front.routes import OTHER_GRANT, Gate, may_prompt
from bioproxy.gate.gate import Grant
from bioproxy.models.claim import Claim, Recalled
from bioproxy.station import Station
from bioproxy.templates.bodies import Body
from bioproxy.wire import coding
from bioproxy.wire.engine_connection import Response
from bioproxy.wire.http1.message import Headers, Request
from bioproxy.wire.relay import relay, tunnel

P = ParamSpec("P")
T = TypeVar("T")
ALWAYS_TOLD = ("stop", "save", "start", "restore")  # parts of a swap, told even if they took no time
SWAP_NAMES = {"restore": "swap_restore"}  # a restore under the request's own grant is another one
TOOL_CALLS = (b'"finish_reason":"tool_calls"', b'"finish_reason": "tool_calls"', b'"tool_use"')
SLOT_FIELD = frozenset({"id_slot"})
ADAPTERS = "/lora-adapters"
OURS = "bp-"  # how the names of our snapshots begin (kv/files.py)
KEYS = frozenset({b"authorization", b"x-api-key", b"api-key"})
DROPPED = frozenset({b"x-conversation-id", b"x-request-id"})
DROPPED_KEYS = DROPPED | KEYS
CORS_OF_ENGINE = (b"access-control-",)
LENGTHS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
CODED = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest"})  # of coded bytes
LARGE = 256 << 10  # bytes of a body from which on it is worked on in a thread
SMALL = 16 << 10  # bytes of a compressed body that are opened at once
BLOCKS = 4  # of what it becomes; for more it goes into a thread


# what passes


async def apart(size: int, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `work` makes of a body of `size` bytes; of a large one in a thread: streams go on meanwhile."""
    if size > LARGE:
        return await asyncio.to_thread(work, *args, **named)
    return work(*args, **named)


async def unpack(request: Request, *, limit: int, turn: asyncio.Semaphore) -> None:
    """Take the codings off a request's body and the words about them off its head.

    RequestError: 415 for a coding that we do not know, 413 for more than `limit` bytes, 400 for what is broken. A body
    that takes longer waits for its `turn`, and is opened in a thread, so that the others are served.
    """
    if not request.body:
        return
    values = [value for name, value in request.headers if name.lower() == b"content-encoding"]
    if codings := coding.codings_of(values):
        blocks, whole = coding.plain(request.body, codings, limit=limit), io.BytesIO()
        quick = len(request.body) <= SMALL and len(codings) == 1
        if not quick or more(blocks, whole, BLOCKS):
            async with turn:
                while await asyncio.to_thread(more, blocks, whole, 16 * BLOCKS):
                    pass
        request.body = whole.getvalue()
    request.headers[:] = [pair for pair in request.headers if pair[0].lower() not in CODED]
    for name in CODED:
        request.fields.pop(name, None)


def more(blocks: Iterator[bytes], whole: io.BytesIO, most: int) -> bool:
    """Add up to `most` blocks to the whole; whether there may be more."""
    count = 0
    for block in islice(blocks, most):
        whole.write(block)
        count += 1
    return count == most


def request_headers(request: Request, *, request_id: str, drop_keys: bool, engine_key: str) -> Headers:
    """The client's headers for the engine, in their order.

    `drop_keys`: the client's key is for us. `engine_key` replaces it if the engine has a key of its own.
    """
    dropped = DROPPED_KEYS if drop_keys or engine_key else DROPPED
    headers = [pair for pair in request.headers if pair[0].lower() not in dropped]
    headers.append((b"X-Request-Id", request_id.encode("ascii")))
    if engine_key:
        headers.append((b"Authorization", b"Bearer " + engine_key.encode()))
    return headers


def end_to_end(headers: Headers) -> Headers:
    """An answer's headers for an answer that we send whole ourselves: framing and CORS are ours."""
    return [
        pair for pair in headers if (name := pair[0].lower()) not in LENGTHS and not name.startswith(CORS_OF_ENGINE)
    ]


def without_slot(body: bytes, *, known: bool) -> bytes:
    """The body without `id_slot` (kv-rule 3): in a slot that is busy it corrupts or hangs what runs there.

    `known`: a route that would read it; RequestError if it cannot be taken out. The body of an unknown route may be no
    JSON at all, and goes on as it is then.
    """
    if b"id_slot" not in body and b"\\u" not in body:
        return body
    opened = Body(body)
    return body if opened.fields is None and not known else opened.written(drop=SLOT_FIELD)


# the ways


async def acquire(
    exchange: Exchange, engine: Station, claim: Claim, *, key: object = None, exclusive: bool = False
) -> Grant:
    """A grant for this exchange's client; `exclusive`: once nothing else runs. The one place where a client waits.

    An engine that was absent is looked at first: if it is back, it must not get requests before it is attached, for
    they would not find their cache. A wait that was in vain is noted, too: a client that gave up after a minute belongs
    into the histogram of waits. Raises what the gate raises (QueueFull, QueueTimeout, the shutdown's error), Recalled
    if the model was taken back meanwhile, and TokensSpent if the client's key used up its tokens meanwhile.
    """
    record, principal = exchange.record, exchange.principal
    record.gated = True
    started = time.monotonic()
    try:
        if engine.looked_after and engine.attachment.state == "absent":
            await engine.attachment.look_now()
        claim.in_gate = exchange.task
        grant = await engine.gate.acquire(
            work=record.work,
            client=record.client,
            conversation=record.session or record.client,
            priority=principal.priority if principal else 0,
            max_running=principal.max_running if principal else 0,
            owner=principal.name if principal else "",
            key=key,
            exclusive=exclusive,
            body=exchange.json,
            tail=exchange.tail,
        )
    except asyncio.CancelledError:
        if claim.taken_back():
            raise Recalled from None
        raise
    finally:
        claim.in_gate = None
        record.queue += time.monotonic() - started
    if exchange.check is not None:
        try:
            exchange.check(exchange)
        except BaseException:
            grant.release(unsent=True)
            raise
    return grant


async def at_once(
    exchange: Exchange, gate: Gate, engine: Station, *, headers: Headers, body: bytes, path: str = ""
) -> None:
    """One request that computes nothing and waits for nothing. `path` is the engine's, if the client's is another."""
    if gate == "shared":
        await shared(exchange, engine, path=path or exchange.request.path)
    else:
        await free(exchange, engine, headers, body)


async def claimed(
    exchange: Exchange, gate: Gate, claim: Claim, *, headers: Headers, body: bytes, path: str = ""
) -> None:
    """One request the way of its gate, with a claim on a model that may have to be started.

    Once more if the claim was lost before an answer. `path` is the engine's, if the client's is another one.
    """
    lost = 0
    try:
        while True:
            try:
                await claim.take(None)
                claim.sending()
                engine = claim.station
                if gate in {"grant", "slot_action"}:
                    alone = gate == "slot_action"
                    await granted(exchange, engine, claim, headers=headers, body=body, alone=alone)
                else:
                    await at_once(exchange, gate, engine, headers=headers, body=body, path=path)
            except Recalled:
                continue
            except EngineUnavailable as error:
                lost += 1
                await claim.broke_off(error)
                if exchange.responder.started or not claim.lost(error, lost):
                    raise
            else:
                return
    finally:
        leave(exchange, claim)


def leave(exchange: Exchange, claim: Claim) -> None:
    """The request is over, or its client left."""
    tail = exchange.tail.last() if exchange.tail.first is not None else b""
    one, other, third = TOOL_CALLS
    claim.leave(tool_calls=one in tail or other in tail or third in tail)


def swap_timing(record: Record) -> bytes:
    """The part of `Server-Timing` about the wait for a swap, in milliseconds; begins with a comma."""
    parts = {"swap": record.swap, **dict.fromkeys(ALWAYS_TOLD, 0.0), **(record.waits or {})}
    told = ((SWAP_NAMES.get(name, name).encode(), seconds * 1e3) for name, seconds in parts.items())
    return b"".join(b", %b;dur=%.1f" % part for part in told)


async def free(exchange: Exchange, engine: Station, headers: Headers, body: bytes) -> bool:
    """Pass one request on and its answer back, upgrades included; whether the engine ended it, too."""
    response = await engine.pool.request(exchange.request.method, exchange.target, headers, body)
    return await answer(exchange, response)


async def answer(exchange: Exchange, response: Response) -> bool:
    """Relay an answer; the engine's work ends when the client leaves. False if the engine did not end it itself."""
    if response.status in exchange.failing:
        raise refusal(await response.read(), response.status)
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


async def granted(
    exchange: Exchange, engine: Station, claim: Claim, *, headers: Headers, body: bytes, alone: bool
) -> None:
    """One request with a user's grant; what the engine did for it is not what the slot held before.

    `alone`: a slot action.
    """
    request = exchange.request
    path = exchange.record.req_path or request.path
    adapters = request.method == "POST" and path == ADAPTERS
    group = exchange.principal.group if exchange.principal else ""
    prompted = not alone and may_prompt(request.method, path)
    grant = await acquire(exchange, engine, claim, exclusive=alone or adapters)
    whole = sent = False
    try:
        if prompted:
            await engine.keeper.admit(group, grant)
        claim.sending()
        sent = True
        if alone:
            whole = await free(exchange, engine, headers, body)
        else:
            with watched(exchange, engine):
                whole = await free(exchange, engine, headers, body)
    except (EngineUnavailable, EngineProtocolError) as error:
        await claim.broke_off(error)
        raise
    finally:
        if sent:
            engine.keeper.unknown(
                "a client's own slot action" if alone else f"{request.method} {path} may have used a slot",
                group=group if prompted else None,
            )
        if sent and adapters:  # another KV cache from here on: it is met anew, with another fingerprint (kv-rule 2)
            engine.attachment.meet_again("a client changed its LoRA adapters")
        # of an unknown route it is not known whether its answer came out of a slot
        known = not alone and exchange.route.endpoint != OTHER_GRANT.endpoint and exchange.record.status == 200
        grant.release(cut=sent and not whole, unsent=not sent, computed=known)


@contextmanager
def watched(exchange: Exchange, engine: Station) -> Iterator[None]:
    """In the block a request waits for its engine; EngineUnavailable (504) if that shows no sign of life meanwhile.

    Not for slot actions: what is written to a slow disk shows none.
    """
    task, told = asyncio.current_task(), [""]

    def stall(reason: str) -> None:
        told[0] = reason
        if task is not None:
            task.cancel()

    unwatch = engine.attachment.stall.watch(lambda: exchange.tail.total, stall)
    try:
        yield
    except asyncio.CancelledError:
        if told[0] and task is not None and task.uncancel() == 0:
            raise EngineUnavailable(told[0], status=504) from None
        raise
    finally:
        unwatch()


def check_slot_action(exchange: Exchange, *, keys: bool, admin: bool) -> None:
    """Refuse slot actions of those who must not: without the admin key if there are keys, or on our files."""
    if keys and not admin:
        raise Forbidden("slot actions need the admin key: they read and replace what other users have in the cache")
    fields = Body(exchange.request.body or b"{}").fields
    if fields is None:
        raise RequestError("the body of a slot action must be a JSON object with a filename")
    try:
        name = msgspec.json.decode(fields.get("filename", msgspec.Raw(b'""')), type=str)
    except NOT_JSON as error:
        raise RequestError(f"the body of a slot action must be a JSON object with a filename: {error}") from error
    if name.casefold().startswith(OURS):  # some file systems take BP- for the same name
        raise Forbidden(f"{name!r} is a snapshot of bioproxy's own; choose a name that does not begin with {OURS!r}")


async def shared(exchange: Exchange, engine: Station, *, path: str) -> None:
    """Answer `/slots` or `/metrics` from what the engine said within the last two seconds, to every client."""
    look = await engine.attachment.llama.look(canonical(exchange, path))
    exchange.record.status = look.status
    exchange.responder.send(look.status, end_to_end(look.headers), look.body)


def canonical(exchange: Exchange, path: str) -> bytes:
    """The target that stands for this request: any other query would be a way around the pace."""
    wanted = path == "/slots" and any(name == "fail_on_no_slot" for name, _ in exchange.request.query)
    return path.encode() + (b"?fail_on_no_slot=1" if wanted else b"")
