"""Who is served when: admission, collation, patience, and what may hold a swap back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.http import Answer
from support.swap_client import message, server
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig

BUSY = {
    "src": "llama-swap",
    "error": {
        "message": "Too many requests",
        "type": "rate_limit_error",
        "param": None,
        "code": "concurrency_limit",
    },
}


async def served(tasks: list[asyncio.Task[Answer]]) -> list[str]:
    """Whose engines answered."""
    return [server(await task) for task in tasks]


async def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """404, in llama-swap's words."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        answer = await rig.chat("x")
    assert (answer.status, message(answer)) == (404, "no router for requested model")


async def test_more_than_a_models_own_limit_are_refused(tmp_path: Path) -> None:
    """`concurrencyLimit` counts who runs and who waits; the body is the one that clients match on."""
    async with swap_rig(tmp_path, {"a": fake(concurrencyLimit=1)}) as rig:
        held = await rig.ask_held("a")
        answer = await rig.chat("a")
        text = await rig.chat("a", headers={"Accept": "text/plain"})
        await rig.release("a")
        assert server(await held) == "a"
        assert server(await rig.chat("a")) == "a"
    assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
    assert answer.json() == text.json() == BUSY


async def test_without_a_limit_everybody_is_served(tmp_path: Path) -> None:
    """llama-swap refuses the eleventh request."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        answers = await asyncio.gather(*(rig.chat("a", delay=0.05) for _ in range(15)))
    assert {answer.status for answer in answers} == {200}


async def test_requests_are_collated_by_model(tmp_path: Path) -> None:
    """A B C B C: two swaps, not four."""
    async with swap_rig(tmp_path, fakes("a b c")) as rig:
        held = await rig.ask_held("a")
        queued = [await rig.ask_queued(name) for name in "bcbc"]
        await rig.release("a")
        assert await served([held, *queued]) == ["a", "b", "c", "b", "c"]
    assert rig.log.starts() == ["a", "b", "c"]
    assert rig.log.served() == ["a", "b", "b", "c", "c"]


async def test_what_runs_is_never_interrupted_for_another_model(tmp_path: Path) -> None:
    """The stream comes to its end, however long it takes, and then the swap begins."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        async with rig.stream("a", events=4, hold=2) as stream:
            await stream.head()
            await stream.event()
            queued = await rig.ask_queued("b")
            await rig.until_event("held", "a")
            assert not rig.log.of("sigterm", "a")
            await rig.release("a")
            assert (await stream.rest())[-1] == "[DONE]"
        assert server(await queued) == "b"
    assert [told.how for told in rig.log.of("end", "a")] == ["ok"]
    assert rig.log.of("sigterm", "a")


async def test_who_leaves_the_queue_starts_nothing(tmp_path: Path) -> None:
    """The model stays that was there."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        queued = await rig.ask_queued("b")
        queued.cancel()
        await rig.until_waiting(0)
        await rig.release("a")
        assert server(await held) == server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]


async def test_a_priority_orders_the_queue(tmp_path: Path) -> None:
    """The model that matters more is loaded first, though it was asked for later."""
    routing = {"scheduler": {"settings": {"fifo": {"priority": {"c": 5}}}}}
    async with swap_rig(tmp_path, fakes("a b c"), routing=routing) as rig:
        held = await rig.ask_held("a")
        queued = [await rig.ask_queued(name) for name in "bc"]
        await rig.release("a")
        await served([held, *queued])
    assert rig.log.served() == ["a", "c", "b"]


async def keep_busy(rig: Rig, model: str) -> None:
    """One request after the other, for ever."""
    while True:
        assert server(await rig.chat(model, delay=0.05)) == model


async def test_a_busy_model_does_not_starve_the_others(tmp_path: Path) -> None:
    """Two clients leave no gap between their requests; after `max_wait` the third gets its turn all the same."""
    swap = {"min_resident": 0, "max_wait": 0.5}
    async with swap_rig(tmp_path, fakes("a b"), swap=swap) as rig:
        await rig.chat("a")
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(keep_busy(rig, "a")) for _ in range(2)]
            assert server(await rig.chat("b")) == "b"
            for client in clients:
                client.cancel()
    assert not rig.log.overlap("a", "b")


async def test_a_model_whose_answer_ended_in_tool_calls_stays_for_the_next_request(tmp_path: Path) -> None:
    """That request is certain to come, and then the other model has its turn."""
    swap = {"min_resident": 0, "linger": 30, "max_wait": 30}
    async with swap_rig(tmp_path, fakes("a b"), swap=swap) as rig:
        await rig.chat("a", tool_calls=True)
        queued = await rig.ask_queued("b")
        await rig.chat("a", tool_calls=True, stream=True)
        assert await rig.running() == {"a": "ready"}
        assert not queued.done()
        queued.cancel()
    assert rig.log.starts() == ["a"]


async def test_an_agent_does_not_keep_a_model_for_ever(tmp_path: Path) -> None:
    """`max_wait` ends what tool calls hold back."""
    swap = {"min_resident": 0, "linger": 600, "max_wait": 0.3}
    async with swap_rig(tmp_path, fakes("a b"), swap=swap) as rig:
        await rig.chat("a", tool_calls=True)
        assert server(await rig.chat("b")) == "b"


async def test_a_full_queue_refuses_newcomers(tmp_path: Path) -> None:
    """`queue_limit` counts who waits, for whichever model."""
    async with swap_rig(tmp_path, fakes("a b c"), queue_limit=1) as rig:
        held = await rig.ask_held("a")
        queued = await rig.ask_queued("b")
        answer = await rig.chat("c")
        await rig.release("a")
        assert await served([held, queued]) == ["a", "b"]
    assert answer.status == 429
    assert "queue_limit" in message(answer)


async def test_waiting_for_a_model_has_an_end(tmp_path: Path) -> None:
    """`queue_timeout`: 503 in JSON, and the queue is empty again. A start counts, so it is set when one runs."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        await rig.reload(fakes("a b"), queue_timeout=0.3)
        answer = await rig.chat("b")
        assert await rig.waiting() == 0
        await rig.release("a")
        assert server(await held) == "a"
    assert answer.status == 503
    assert "queue_timeout" in message(answer)
    assert int(answer.headers["retry-after"]) >= 1
