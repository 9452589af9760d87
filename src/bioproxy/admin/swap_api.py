"""llama-swap's management API: what runs, unload, load, profiles, version; and the same by llama.cpp's router's names.

Dashboards and scripts of two programs call these, so the answers keep their shapes: `OK` as text where llama-swap says
so, `{"success": true}` where the router does. What they show and do comes from a protocol that the composition root
fills, so that this package knows no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from bioproxy.admin.admin import ALWAYS, Question, answer
from bioproxy.build import this_build
from bioproxy.errors import NotFound, RequestError

Json: TypeAlias = Any
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")


MOST_BODY = 64 << 10  # bytes of JSON that names a model or a profile


class Models(Protocol):
    """What there is to show and to ask of the models."""

    def running(self) -> Json:
        """The body of `/running`."""

    def profiles(self) -> Json:
        """The body of `/api/profiles`."""

    def activate(self, profile: str) -> None:
        """Let a profile be active, "" for none. NotFound where there is none of that name."""

    async def load(self, name: str) -> None:
        """Have a model loaded, by any of its names; returns when it is ready. Raises what the client shall be told."""

    async def unload(self, name: str) -> None:
        """Stop a model by any of its names; returns when it is stopped. NotFound."""

    async def unload_all(self) -> None:
        """Stop every model."""

    async def overview(self, *, own: bool) -> Json:
        """All models with what is known of each, for people; `own`: nothing of the requests of others."""


class SwapApi:
    """The handlers."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def running(self, question: Question) -> None:
        """What runs."""
        answer(question.responder, self.models.running())

    async def unload_all(self, question: Question) -> None:
        """`GET /unload`."""
        await self.models.unload_all()
        question.responder.send(200, [TEXT, *ALWAYS], b"OK")

    async def api_unload_all(self, question: Question) -> None:
        """`POST /api/models/unload`."""
        await self.models.unload_all()
        answer(question.responder, {"msg": "ok"})

    async def api_unload(self, question: Question) -> None:
        """`POST /api/models/unload/{model...}`."""
        await self.models.unload(question.parameters["model"])
        question.responder.send(200, [TEXT, *ALWAYS], b"OK")

    async def api_load(self, question: Question) -> None:
        """`POST /api/models/load/{model...}`: ours; llama-swap's page loads by asking for a page of the engine."""
        await self.models.load(question.parameters["model"])
        question.responder.send(200, [TEXT, *ALWAYS], b"OK")

    async def router_load(self, question: Question) -> None:
        """`POST /models/load` of llama.cpp's router, with `{"model": …}`."""
        await self.models.load(named(question))
        answer(question.responder, {"success": True})

    async def router_unload(self, question: Question) -> None:
        """`POST /models/unload` of llama.cpp's router."""
        await self.models.unload(named(question))
        answer(question.responder, {"success": True})

    async def overview(self, question: Question) -> None:
        """`GET /api/models`: everything that `bioproxy models` prints."""
        answer(question.responder, await self.models.overview(own=question.own))

    async def profiles(self, question: Question) -> None:
        """`GET /api/profiles`."""
        answer(question.responder, self.models.profiles())

    async def activate(self, question: Question) -> None:
        """`PUT /api/profiles/active`."""
        body = opened(question, "invalid profile request")
        if "name" not in body:
            raise RequestError("profile name is required")
        name = body["name"]
        if name is not None and not isinstance(name, str):
            raise RequestError("profile name must be a string or null")
        self.models.activate(name or "")
        answer(question.responder, {"active": name or None})

    async def version(self, question: Question) -> None:
        """`GET /api/version`."""
        answer(question.responder, await asyncio.to_thread(this_build))


def opened(question: Question, complaint: str) -> Mapping[str, Json]:
    """The body as a JSON object; RequestError with the complaint otherwise."""
    if len(question.request.body) > MOST_BODY:
        raise RequestError(complaint)
    try:
        return msgspec.json.decode(question.request.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(complaint) from error


def named(question: Question) -> str:
    """The model in a body `{"model": "…"}`."""
    name = opened(question, 'the body must be JSON, as in {"model": "qwen"}').get("model")
    if not isinstance(name, str) or not name:
        raise NotFound("no model id could be identified")
    return name
