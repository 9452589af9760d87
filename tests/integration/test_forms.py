"""No form of a web page changes anything by a route that scripts never sent without a header."""

from __future__ import annotations

from typing import Any

import pytest

from support.http import call
from support.page import app_of
from support.swap_api import program
from support.swap_models import fakes
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
rig = program(fakes("a"))
SCRIPTED = {  # by users of llama-swap and llama.cpp's router, and by ours, before there was a page
    "/warmup/{prefix...}", "/reload", "/api/models/unload", "/api/models/unload/{model...}", "/models/load",
    "/api/models/load/{model...}", "/models/unload", "/api/profiles/active", "/api/inflight/{id}/cancel",
}  # fmt: skip


async def test_only_routes_that_scripts_know_take_a_form(rig: Rig) -> None:
    """A new route is not among them unless somebody says so."""
    assert {one.path for one in app_of(rig).admin.entries if one.method != "GET" and one.forms} == SCRIPTED


@pytest.mark.parametrize("port", ["proxy", "admin"])
@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, True),
        ({"Content-Type": "text/plain"}, True),
        ({"Content-Type": "application/x-www-form-urlencoded"}, True),
        ({"X-Requested-With": "XMLHttpRequest"}, True),
        ({"Content-Type": "application/json; charset=utf-8"}, False),
        ({"X-Requested-With": "bioproxy", "Content-Type": "text/plain"}, False),
    ],
)
async def test_a_form_is_refused_with_what_to_send(headers: Json, refused: bool, port: str, rig: Rig) -> None:
    """415 on both ports; no foreign page can send either without a preflight."""
    answer = await call(getattr(rig.ports, port), "POST", "/api/config/check", body=b"{}", headers=headers)
    assert (answer.status == 415) is refused
    assert ("X-Requested-With: bioproxy" in answer.text) is refused


async def test_what_scripts_send_needs_no_header(rig: Rig) -> None:
    """`curl -X POST` does."""
    assert (await call(rig.port, "POST", "/api/models/unload/a")).text == "OK"
