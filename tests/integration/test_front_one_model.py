"""One engine: its model by name, and paths with an escaped slash."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.clients import Line, fake_line
from support.http import call

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """An engine whose model has a slash in its name."""
    folder = tmp_path_factory.mktemp("line")
    async with fake_line(folder, engine={"alias": "org/m", "slot_folder": folder / "slots"}) as running:
        yield running


@pytest.mark.parametrize("name", ["org/m", "org%2Fm"])
async def test_the_model_by_its_name(name: str, line: Line) -> None:
    """llama-server has no such route, its list has the record; it comes plain whatever the client takes."""
    headers = {"Accept-Encoding": "gzip"}
    answer = await call(line.app.proxy_port, "GET", f"/v1/models/{name}", headers=headers)
    listed = (await call(line.app.proxy_port, "GET", "/v1/models")).json()["data"]
    assert answer.status == 200, answer.text
    assert answer.json() == listed[0]
    assert (await call(line.app.proxy_port, "HEAD", f"/v1/models/{name}")).status == 200


async def test_a_trace_goes_on_in_the_engine(line: Line) -> None:
    """Its headers arrive as the client sent them."""
    trace = {"traceparent": f"00-{'4b' * 16}-{'f0' * 8}-01", "tracestate": "vendor=1,other=2"}
    answer = await call(line.app.proxy_port, "POST", "/v1/chat/completions", data={"messages": []}, headers=trace)
    assert answer.status == 200, answer.text
    seen = (await line.engine.requests("/v1/chat/completions"))[-1]
    assert {name: seen.header(name) for name in trace} == trace


async def test_of_another_name_the_engine_knows_best(line: Line) -> None:
    """Some have models that they do not list."""
    answer = await call(line.app.proxy_port, "GET", "/v1/models/nobody")
    assert answer.json()["path"] == "/v1/models/nobody"


async def test_an_unknown_path_may_have_an_escaped_slash(line: Line) -> None:
    """It passes as it came; one that makes up a route that we know does not."""
    answer = await call(line.app.proxy_port, "GET", "/userdata/workflows%2Fa.json")
    assert answer.json()["target"] == "/userdata/workflows%2Fa.json"
    for path in ("/v1/chat%2Fcompletions", "/slots%2f0?action=erase", "/v1%2fmodels/x/../y"):
        assert (await call(line.app.proxy_port, "POST", path, data={})).status == 400
    assert not [one for one in await line.engine.requests() if one.method == "POST" and "%2" in one.target]
