"""The list of requests that the web page shows, and one request with its parts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.activity import Record
from bioproxy.admin.requests_api import KEPT, Requests
from bioproxy.admin.routes import Question
from bioproxy.errors import NotFound, RequestError
from bioproxy.events import RequestEnded
from bioproxy.keys import Principal
from bioproxy.wire.http1.message import Request, Responder

Json = Any


class Carrier:
    """What was sent."""

    keep = True

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None: ...
    def cut(self, *, reset: bool = False) -> None: ...
    def take_from(self, source: object) -> None: ...
    def tunnel_to(self, receive: object) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def ended(number: int, **fields: Any) -> RequestEnded:
    known: dict[str, Any] = {
        "id": f"r{number}", "started": float(number), "method": "POST", "path": "/x", "endpoint": "/x", "model": "m",
    }  # fmt: skip
    return RequestEnded(record=Record(**(known | fields)))


def kept(*events: RequestEnded) -> Requests:
    requests = Requests()
    for event in events:
        requests.keep(event)
    return requests


async def asked(requests: Requests, query: str = "", *, identity: str = "", key: str = "") -> Json:
    """What is answered; with a `key` to one of several."""
    path = "/api/requests"
    request = Request(method="GET", target=f"{path}?{query}".encode(), path=path, headers=[], fields={})
    carrier = Carrier()
    principal = Principal(name=key, group=key) if key else None
    question = Question(
        request, Responder(carrier, request), {"id": identity}, own=bool(key), principal=principal
    )  # fmt: skip
    await (requests.detail(question) if identity else requests.list(question))
    return json.loads(carrier.sent.partition(b"\r\n\r\n")[2])


def ids(answer: Json) -> list[str]:
    return [one["id"] for one in answer["requests"]]


async def test_the_newest_come_first_page_by_page() -> None:
    """A page that is asked for later goes on where the one before ended, whatever came meanwhile."""
    requests = kept(*(ended(number) for number in range(5)))
    first = await asked(requests, "limit=2")
    requests.keep(ended(5))
    second = await asked(requests, f"limit=2&before={first['before']}")
    third = await asked(requests, f"limit=2&before={second['before']}")
    assert [ids(first), ids(second), ids(third)] == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    assert third["before"] == ""


async def test_a_page_goes_on_when_the_oldest_are_gone() -> None:
    """The last thousand are kept."""
    requests = kept(*(ended(number) for number in range(KEPT + 10)))
    assert ids(await asked(requests, "before=12")) == ["r11", "r10"]
    assert (await asked(requests, "before=5"))["requests"] == []
    assert len(requests.to_models) == KEPT


async def test_the_pages_own_questions_are_not_shown_to_it() -> None:
    """They are in the list of all requests."""
    requests = kept(ended(1), ended(2, model=""), ended(3, model="", gated=True), ended(4, model="", metered=True))
    assert ids(await asked(requests)) == ["r4", "r3", "r1"]
    assert len(requests.records) == 4
    assert [record.for_model for record in requests.records] == [True, False, True, True]


async def test_one_request_comes_with_its_parts() -> None:
    """And the sentence that says why it took as long."""
    answer = await asked(kept(ended(1, queue=2.0, total=2.0)), identity="r1")
    assert answer["request"]["why"] == "waited 2.0 s in the queue"
    assert answer["parts"] == [{"name": "queue", "at": 0.0, "seconds": 2.0}]


async def test_of_two_requests_with_one_id_the_newer_is_meant() -> None:
    """Clients choose ids, and may choose one twice."""
    requests = kept(ended(1), ended(2, id="r1"))
    assert (await asked(requests, identity="r1"))["request"]["started"] == 2.0


async def test_the_number_of_its_row_finds_a_request_too() -> None:
    """It goes before an id, which a client may choose to look like one."""
    requests = kept(ended(1, activity=7), ended(2, id="7"), ended(3, id="8"))
    assert (await asked(requests, identity="7"))["request"]["id"] == "r1"
    assert (await asked(requests, identity="8"))["request"]["id"] == "8"
    assert (await asked(requests, identity="r1"))["request"]["activity"] == 7


async def test_an_old_row_brings_its_own_record() -> None:
    """To who may see it; a number that no table can have is not asked for."""
    requests = kept()
    looked: list[int] = []

    async def of_row(number: int) -> Record | None:
        looked.append(number)
        return ended(1, client="ann", activity=number, total=1.0).record if number == 7 else None

    requests.of_row = of_row
    assert (await asked(requests, identity="7"))["parts"] == [{"name": "other", "at": 0.0, "seconds": 1.0}]
    assert (await asked(requests, identity="7", key="ann"))["request"]["activity"] == 7
    for identity, key in (("7", "bob"), ("8", ""), ("0", ""), ("9" * 30, ""), ("²", "")):
        with pytest.raises(NotFound):
            await asked(requests, identity=identity, key=key)
    assert looked == [7, 7, 7, 8]


async def test_a_request_keeps_its_id_as_long_as_its_row() -> None:
    """Of several with one id the newest that may be shown is meant."""
    requests = kept()

    async def of_id(identity: str) -> list[Record]:
        rows = [ended(2, client="bob", id="r1").record, ended(1, client="ann").record]
        return [one for one in rows if one.id == identity]

    requests.of_id = of_id
    assert (await asked(requests, identity="r1"))["request"]["started"] == 2.0
    assert (await asked(requests, identity="r1", key="ann"))["request"]["started"] == 1.0
    with pytest.raises(NotFound, match=r"store\.path"):
        await asked(requests, identity="r2")


async def test_one_of_several_keys_sees_its_own() -> None:
    """Another's request is none for it."""
    requests = kept(ended(1, client="ann"), ended(2, client="bob"), ended(3, client="ann/u1"), ended(4, client="anna"))
    assert ids(await asked(requests, key="ann")) == ["r3", "r1"]
    assert ids(await asked(requests, "limit=1", key="ann")) == ["r3"]
    with pytest.raises(NotFound):
        await asked(requests, identity="r2", key="ann")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=x", "before=-1"])
async def test_a_query_that_is_none_is_refused(query: str) -> None:
    """With the parameter's name."""
    with pytest.raises(RequestError, match=query.partition("=")[0]):
        await asked(kept(), query)
