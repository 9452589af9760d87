"""What a route of ours is, on the admin port and, for many models, on the proxy port; and what all handlers share.

There is one table for both ports: `Admin` lists what only its port has (admin.py), `Management` what shows and manages
models (management.py). Everything is JSON but the metrics, the logs and the event streams. Nothing may be cached,
because all of it is about now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from bioproxy.admin.guard import Access
from bioproxy.errors import BioproxyError, ConfigError, RequestError, Unauthorized
from bioproxy.keys import Principal
from bioproxy.wire.http1.message import Headers, Request, Responder
from bioproxy.wire.http1.router import Parameters

Json: TypeAlias = Any
Query = TypeVar("Query", bound=msgspec.Struct)
LONGEST_SHOWN = 100  # characters of a query parameter's name
NOT_ALLOWED, UNREADY, ACCEPTED, BROKEN_CONFIG, NO_FORM = 405, 503, 202, 422, 415
ALWAYS: Headers = [(b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff")]
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")


class Question(msgspec.Struct, frozen=True):
    """One request, and where its answer goes. `own`: it shows nothing of what others ask.

    `principal` is whose key the proxy port was shown; None on the admin port, for the admin, and without keys.
    `proxy`: it came to the proxy port.
    """

    request: Request
    responder: Responder
    parameters: Parameters
    own: bool = False
    principal: Principal | None = None
    proxy: bool = False

    @property
    def only(self) -> str | None:
        """The name of the key that sees its own requests only; None if everything may be shown."""
        return self.principal.name if self.own and self.principal is not None else None

    def shows(self, client: str) -> bool:
        """Whether a request of this client may be shown: a key may have users behind it (`key/user`)."""
        return self.only is None or client == self.only or client.startswith(f"{self.only}/")


class Entry(msgspec.Struct, frozen=True):
    """One route; `about` is a sentence for `GET /` and the docs, `changes`: its GET changes something.

    What is no GET wants JSON, or a header of its own, so that no form of a foreign page can send it; `forms`: scripts
    send this one without either.

    `access` is what the admin port asks for (guard.py), None: it has no such route. `guard` is what the proxy port asks
    for, where llama-swap's users look (front/access.py), None: it has no such route. `manage` is for each key that may
    use the models, or for the admin if there is one; `own` is the same, and a key for certain models may change what is
    its own; `private` shows what others asked and got, and is refused to one of several keys; `client` is for every
    key, as the list of models is; `public` wants no key.
    """

    method: str
    path: str
    about: str
    serve: Callable[[Question], Awaitable[None]]
    access: Access | None = "admin"
    guard: Literal["manage", "own", "private", "client", "public"] | None = None
    changes: bool = False
    forms: bool = False

    async def run(self, question: Question) -> None:
        """Serve a request that may ask."""
        if self.method != "GET" and not self.forms:
            check_form(question.request)
        await self.serve(question)


def asked(request: Request, query: type[Query]) -> Query:
    """The query of a request; RequestError names the parameter that is wrong, or that is none of the route's."""
    check_query(request, [field.encode_name for field in msgspec.structs.fields(query)])
    try:
        return msgspec.convert(dict(request.query), query, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(f"the query of {request.path} cannot be read: {error}") from error


def check_query(request: Request, known: Collection[str]) -> None:
    """RequestError for a parameter that is none of `known`: one that is mistyped would ask for something else.

    Routes that are llama-swap's leave out what they do not know, as they do there.
    """
    for name, _ in request.query:
        if name not in known:
            shown = f"{name[:LONGEST_SHOWN]}…" if len(name) > LONGEST_SHOWN else name
            raise RequestError(f'{request.path} has no query parameter "{shown}"; it has {", ".join(known)}')


def answer(responder: Responder, value: Json, *, status: int = 200, pretty: bool = False) -> None:
    """Send `value` as JSON; `pretty` for what people read with curl."""
    body = msgspec.json.encode(value)
    body = msgspec.json.format(body, indent=2) + b"\n" if pretty else body
    responder.send(status, [(b"Content-Type", b"application/json"), *ALWAYS], body)


def ok(responder: Responder) -> None:
    """Send the plain `OK` of llama-swap."""
    responder.send(200, [TEXT, *ALWAYS], b"OK")


def wrong_method(request: Request, allow: str) -> RequestError:
    """The path is known, with another method."""
    return RequestError(f"{request.path} takes {allow}, not {request.method}", status=NOT_ALLOWED)


def check_form(request: Request) -> None:
    """RequestError (415) for what a form of a foreign page could send; a program says JSON, or a header of its own."""
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and request.header(b"x-requested-with") != b"bioproxy":
        said = f"{request.method} {request.path} wants `Content-Type: application/json` or `X-Requested-With: bioproxy`"
        raise RequestError(f"{said}, so that no form of a web page can send it", status=NO_FORM)


def refuse(responder: Responder, error: BioproxyError, *more: tuple[bytes, bytes]) -> None:
    """Send an error as JSON, with what HTTP wants beside it."""
    told: dict[str, Json] = {"message": error.message, "type": error.code, "code": error.status}
    status = error.status
    if isinstance(error, ConfigError):
        told["problems"] = error.problems
        status = told["code"] = BROKEN_CONFIG
    headers: Headers = [(b"Content-Type", b"application/json"), *ALWAYS, *more]
    if isinstance(error, Unauthorized):
        headers.append((b"WWW-Authenticate", b'Basic realm="bioproxy"'))
    if error.retry_after is not None:
        headers.append((b"Retry-After", str(error.retry_after).encode()))
    responder.send(status, headers, msgspec.json.encode({"error": told}))
