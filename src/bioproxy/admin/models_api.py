"""What runs, load, unload, profiles: llama-swap's management API, and the same by the names of llama.cpp's router.

Dashboards and scripts of two programs call these, so the answers keep their shapes: `OK` as text where llama-swap says
so, `{"success": true}` where the router does. Of the only engine there are the list, load and unload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from bioproxy.admin import listing
from bioproxy.admin.overview import SpeedBook, overview_of
from bioproxy.admin.routes import Entry, Json, Question, answer, ok
from bioproxy.build import this_build
from bioproxy.errors import NOT_JSON, NotFound, RequestError
from bioproxy.front.inflight import Inflight
from bioproxy.models.fleet import Fleet

MOST_BODY = 64 << 10  # bytes of JSON that names a model or a profile


class ModelsApi:
    def __init__(self, fleet: Fleet, speeds: SpeedBook, inflight: Inflight) -> None:
        self.fleet, self.speeds, self.inflight = fleet, speeds, inflight

    def entries(self) -> tuple[Entry, ...]:
        def entry(method: str, path: str, about: str, serve: Any, *, changes: bool = False) -> Entry:
            return Entry(method, path, about, serve, guard="manage", changes=changes, forms=True)

        return (
            entry("GET", "/running", "The models that run.", self.running),
            entry("GET", "/unload", "Stop every model.", self.unload_all, changes=True),
            entry("POST", "/api/models/unload", "Stop every model.", self.api_unload_all),
            entry("POST", "/api/models/unload/{model...}", "Stop one model.", self.unload),
            entry("POST", "/api/models/load/{model...}", "Load one model.", self.load),
            entry("POST", "/models/load", "Load one model (llama.cpp's router).", self.router_load),
            entry("POST", "/models/unload", "Stop one model (llama.cpp's router).", self.router_unload),
            entry("GET", "/api/models", "All models, and what is known of each.", self.overview),
            entry("GET", "/api/profiles", "The profiles, and which is active.", self.profiles),
            entry("PUT", "/api/profiles/active", "Choose the active profile.", self.activate),
            entry("GET", "/api/version", "The version.", self.version),
        )

    def of_only(self) -> tuple[Entry, ...]:
        """The routes of the only engine."""
        stop = "Save and stop the engine, if it is ours."
        return (
            Entry("GET", "/api/models", "The engine, and what is known of it.", self.overview),
            Entry("POST", "/api/models/load/{model...}", "Start the engine, if it is ours.", self.load, forms=True),
            Entry("POST", "/api/models/unload/{model...}", stop, self.unload, forms=True),
            Entry("POST", "/api/models/unload", stop, self.unload, forms=True),
        )

    async def load(self, question: Question) -> None:
        """`POST /api/models/load/{model...}`: ours; llama-swap's page loads by asking for a page of the engine."""
        await self.fleet.load(question.parameters["model"])
        ok(question.responder)

    async def unload(self, question: Question) -> None:
        """`POST /api/models/unload/{model...}`: returns when it is stopped; of the only engine no name is needed."""
        await self.fleet.unload(question.parameters.get("model", ""))
        ok(question.responder)

    async def running(self, question: Question) -> None:
        answer(question.responder, listing.running(self.fleet.dialect, listing.look_at(self.fleet)))

    async def unload_all(self, question: Question) -> None:
        """`GET /unload`."""
        await self.fleet.unload_all()
        ok(question.responder)

    async def api_unload_all(self, question: Question) -> None:
        """`POST /api/models/unload`."""
        await self.fleet.unload_all()
        answer(question.responder, {"msg": "ok"})

    async def router_load(self, question: Question) -> None:
        """`POST /models/load` of llama.cpp's router, with `{"model": …}`."""
        await self.fleet.load(named(question))
        answer(question.responder, {"success": True})

    async def router_unload(self, question: Question) -> None:
        """`POST /models/unload` of llama.cpp's router."""
        await self.fleet.unload(named(question))
        answer(question.responder, {"success": True})

    async def overview(self, question: Question) -> None:
        """`GET /api/models`: the requests under way only if none of these may be another key's."""
        found = await overview_of(self.fleet, self.inflight, self.speeds)
        answer(question.responder, msgspec.structs.replace(found, requests=()) if question.own else found)

    async def profiles(self, question: Question) -> None:
        answer(question.responder, listing.profiles(self.fleet.dialect, self.fleet.plan.registry.profile))

    async def activate(self, question: Question) -> None:
        """`PUT /api/profiles/active`."""
        body = opened(question, "invalid profile request")
        if "name" not in body:
            raise RequestError("profile name is required")
        name = body["name"]
        if name is not None and not isinstance(name, str):
            raise RequestError("profile name must be a string or null")
        self.fleet.activate(name or "")
        answer(question.responder, {"active": name or None})

    async def version(self, question: Question) -> None:
        answer(question.responder, await asyncio.to_thread(this_build))


def opened(question: Question, complaint: str) -> Mapping[str, Json]:
    """The body as a JSON object; else a RequestError with the complaint."""
    if len(question.request.body) > MOST_BODY:
        raise RequestError(complaint)
    try:
        return msgspec.json.decode(question.request.body, type=dict[str, Any])
    except NOT_JSON as error:
        raise RequestError(complaint) from error


def named(question: Question) -> str:
    """The model in a body `{"model": "…"}`."""
    name = opened(question, 'the body must be JSON, as in {"model": "qwen"}').get("model")
    if not isinstance(name, str) or not name:
        raise NotFound("no model id could be identified")
    return name
