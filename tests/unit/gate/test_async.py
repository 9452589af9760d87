"""The gate in a running loop: waiting, leaving at every point, time-outs, refusals, idleness."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bioproxy.aio import finish, spawn
from bioproxy.errors import BioproxyError, QueueFull, QueueTimeout
from bioproxy.gate import Gate, Grant
from bioproxy.gate.gate import Owners
from support.config_files import config, settings

MS = 0.001


def make(*, capacity: int = 1, limit: int = 100, timeout: float = 60.0) -> Gate:
    return Gate(settings(queue_limit=limit, queue_timeout=timeout), capacity=capacity)


def waiting(gate: Gate, count: int) -> bool:
    return sum(gate.statistics().waiting.values()) == count


async def settle() -> None:
    """Let every task that can run do so until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def queued(gate: Gate, client: str = "b") -> asyncio.Task[Grant]:
    """A task that waits in the gate."""
    task = spawn(gate.acquire(client=client), name=client)
    await settle()
    assert not task.done()
    return task


def assert_clean(gate: Gate) -> None:
    """Nothing runs, nothing waits, nothing is kept for anyone."""
    now = gate.statistics()
    assert set(now.running.values()) == {0}
    assert set(now.waiting.values()) == {0}
    assert not now.exclusive
    assert not gate.waiters
    assert not gate.queue.owners
    assert all(not lanes for lanes in gate.queue.lanes.values())


async def test_a_free_engine_is_granted_without_a_task_switch() -> None:
    """The coroutine ends at its first step: nothing on the way of every request waits for the loop."""
    gate = make()
    coroutine = gate.acquire(client="a")
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    grant: Grant = ended.value.value
    assert grant.waited == 0.0
    grant.release()
    assert_clean(gate)


async def test_the_next_in_line_is_granted_when_the_engine_is_given_back() -> None:
    """The second request waits exactly as long as the first one runs."""
    gate = make()
    first = await gate.acquire(client="a")
    second = await queued(gate)
    first.release()
    grant = await second
    assert grant.waited > 0.0
    grant.release()
    assert_clean(gate)


async def test_giving_back_twice_grants_once() -> None:
    """A release in an error path after the ordinary one does not let two in."""
    gate = make()
    first = await gate.acquire()
    second, third = await queued(gate, "b"), await queued(gate, "c")
    first.release()
    first.release()
    await settle()
    assert second.done()
    assert not third.done()
    (await second).release()
    (await third).release()
    assert_clean(gate)


async def test_a_client_that_leaves_is_out_of_the_queue_at_once() -> None:
    """Who waited and left takes nobody's turn."""
    gate = make()
    first = await gate.acquire()
    second, third = await queued(gate, "b"), await queued(gate, "c")
    await finish([second])
    assert waiting(gate, 1)
    first.release()
    (await third).release()
    assert_clean(gate)
    assert gate.statistics().left == 1


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_at_any_point_loses_no_grant(steps: int) -> None:
    """However many steps a waiter made since it was granted, cancelling it leaves the engine to the next one."""
    gate = make()
    first = await gate.acquire()
    second = await queued(gate, "b")
    third = await queued(gate, "c")

    async def release_soon() -> None:
        await asyncio.sleep(0)
        first.release()

    releasing = spawn(release_soon(), name="release")
    for _ in range(steps):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    if not second.cancelled():
        second.result().release()
    await releasing
    (await third).release()
    assert_clean(gate)


async def test_cancelled_in_the_very_step_of_the_grant() -> None:
    """The decision was made and the task never saw it: the grant is given back, uncharged."""
    gate = make()
    first = await gate.acquire(client="a")
    second = await queued(gate, "b")
    first.release()
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    assert_clean(gate)
    assert gate.queue.shares.account("b").used(gate.clock()) == 0.0


async def test_granted_between_the_cancel_and_its_arrival() -> None:
    """The order turned round: cancelled first, picked before the task noticed; nothing is lost either."""
    gate = make()
    first = await gate.acquire(client="a")
    second, third = await queued(gate, "b"), await queued(gate, "c")
    second.cancel()
    first.release()
    (await third).release()
    assert second.cancelled()
    assert_clean(gate)


async def test_an_exception_under_a_grant_means_that_the_answer_was_cut() -> None:
    """As a context manager a grant that ends by an exception leaves the engine draining."""
    gate = make()
    with pytest.raises(ValueError, match="broken"):  # noqa: SIM117 - the inner one is what is tested
        with await gate.acquire():
            raise ValueError("broken")
    seen = gate.draining
    gate.settled()
    assert (seen, gate.draining) == (True, False)
    assert_clean(gate)


async def test_a_full_queue_answers_429_with_a_computed_retry() -> None:
    """With two waiting and four seconds a grant, a third is told to come back when those are served."""
    clock = Clock()
    gate = Gate(settings(queue_limit=2, queue_timeout=60.0), clock=clock)
    grant = await gate.acquire()
    clock.now += 4.0
    grant.release()
    running = await gate.acquire()
    tasks = [await queued(gate, "b"), await queued(gate, "c")]
    with pytest.raises(QueueFull, match=r"2 requests wait .*queue_limit.* 12 s") as refused:
        await gate.acquire(client="d")
    assert (refused.value.status, refused.value.retry_after) == (429, 12)
    assert gate.statistics().refused == 1
    await finish(tasks)
    running.release()
    assert_clean(gate)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds, as far as the test has come."""
        return self.now


async def test_the_limit_counts_who_waits_not_who_runs() -> None:
    """With a limit of one, two slots serve two and a third waits."""
    gate = make(capacity=2, limit=1)
    running = [await gate.acquire(), await gate.acquire()]
    third = await queued(gate)
    with pytest.raises(QueueFull):
        await gate.acquire()
    for grant in running:
        grant.release()
    (await third).release()


async def test_background_work_takes_no_place_in_the_queue() -> None:
    """A waiting warm-up neither counts against a client nor is refused itself."""
    gate = make(limit=1)
    running = await gate.acquire()
    ours = [spawn(gate.acquire(work="background"), name="w") for _ in range(3)]
    await settle()
    theirs = await queued(gate)
    running.release()
    for task in (theirs, *ours):
        (await task).release()
    assert_clean(gate)


async def test_waiting_too_long_is_a_503_that_says_why() -> None:
    """The error names queue_timeout, how many were ahead, and when to try again."""
    gate = make(timeout=20 * MS)
    running = await gate.acquire()
    with pytest.raises(QueueTimeout, match=r"queue_timeout.*it was next") as late:
        await gate.acquire(client="b")
    assert late.value.status == 503
    assert late.value.retry_after is not None
    assert late.value.retry_after >= 1
    assert gate.statistics().timed_out == 1
    running.release()
    assert_clean(gate)


async def test_an_engine_that_is_not_ready_makes_everyone_wait() -> None:
    """Closed, the gate grants nobody; opened, it goes on where it stopped."""
    gate = make()
    gate.close("loading")
    task = await queued(gate)
    gate.open()
    (await task).release()
    assert_clean(gate)


async def test_a_time_out_before_an_engine_that_is_not_ready_says_so() -> None:
    """Who waited in vain hears what was wrong with the engine."""
    gate = make(timeout=20 * MS)
    gate.close("the model is loading")
    with pytest.raises(QueueTimeout, match="not ready: the model is loading"):
        await gate.acquire()


async def test_background_work_waits_without_a_time_out() -> None:
    """A warm-up may wait for longer than any client would."""
    gate = make(timeout=10 * MS)
    running = await gate.acquire()
    ours = spawn(gate.acquire(work="background"), name="w")
    with pytest.raises(QueueTimeout):
        await gate.acquire()
    assert not ours.done()
    running.release()
    (await ours).release()


async def test_at_shutdown_waiters_and_newcomers_are_refused() -> None:
    """`refuse` ends every wait with its error; what runs may end."""
    gate = make()
    running = await gate.acquire()
    task = await queued(gate)
    gate.refuse(BioproxyError("shutting down", status=503))
    with pytest.raises(BioproxyError, match="shutting down"):
        await task
    with pytest.raises(BioproxyError, match="shutting down"):
        await gate.acquire()
    running.release()
    assert_clean(gate)


async def test_refused_and_cancelled_at_once_ends_quietly() -> None:
    """A waiter that was turned away and cancelled in one step neither leaks nor complains."""
    gate = make()
    running = await gate.acquire()
    task = await queued(gate)
    gate.refuse(BioproxyError("shutting down"))
    task.cancel()
    await asyncio.wait([task])
    running.release()
    assert_clean(gate)


async def test_more_slots_let_waiters_in() -> None:
    """An engine that comes back with two slots serves two."""
    gate = make()
    first = await gate.acquire()
    second = await queued(gate)
    gate.resize(2)
    (await second).release()
    first.release()
    assert_clean(gate)


async def test_a_slot_action_has_the_engine_alone() -> None:
    """While a grant is exclusive nobody else is let in; sharing lets them in, the grant stays."""
    gate = make(capacity=2)
    grant = await gate.acquire()
    assert grant.try_exclusive()
    assert gate.statistics().exclusive
    other = await queued(gate)
    grant.share()
    (await other).release()
    assert not gate.statistics().exclusive
    grant.release()
    assert_clean(gate)


async def test_releasing_an_exclusive_grant_lets_others_in() -> None:
    """Nothing hangs when the holder forgets to share before it gives back."""
    gate = make(capacity=2)
    grant = await gate.acquire()
    assert grant.try_exclusive()
    other = await queued(gate)
    grant.release()
    assert not grant.try_exclusive()
    (await other).release()
    assert_clean(gate)


async def test_an_exclusive_ticket_is_granted_when_the_engine_settled() -> None:
    """After a client left, a waiting slot action goes as soon as somebody saw the slots idle."""
    gate = make()
    (await gate.acquire()).release(cut=True)
    action = spawn(gate.acquire(exclusive=True), name="slot action")
    await settle()
    assert not action.done()
    gate.settled()
    grant = await action
    assert grant.exclusive
    grant.release()
    assert_clean(gate)


async def test_draining_is_announced() -> None:
    """Who looks after the engine's slots sleeps until there is something to look for."""
    gate = make()
    watcher = spawn(gate.wait_draining(), name="watcher")
    await settle()
    assert not watcher.done()
    (await gate.acquire()).release(cut=True)
    await watcher
    await gate.wait_draining()


async def test_user_waiting_tells_a_warm_up_to_give_way() -> None:
    """Between two chunks a warm-up sees that somebody came."""
    gate = make()
    chunk = await gate.acquire(work="background")
    seen = [gate.user_waiting]
    user = await queued(gate)
    seen.append(gate.user_waiting)
    chunk.release()
    (await user).release()
    assert [*seen, gate.user_waiting] == [False, True, False]


async def test_work_in_chunks_gets_a_new_grant_for_each_while_nobody_waits() -> None:
    """Each chunk counts as a grant of its own: an hour of them is not taken for the time that one grant takes."""
    gate = make()
    grant = await gate.acquire(work="background")
    first = grant.ticket
    assert grant.renew()
    assert (gate.running, gate.statistics().granted) == (1, 2)
    assert grant.ticket.granted >= first.granted
    waiter = await queued(gate)
    assert not grant.renew()
    assert gate.running == 1
    grant.release()
    (await waiter).release()
    assert_clean(gate)


async def test_work_in_chunks_ends_while_the_engine_is_not_ready() -> None:
    """And at a shutdown: the next chunk has to ask like everyone else."""
    gate = make(capacity=2)
    grants = [await gate.acquire(work="background") for _ in range(2)]
    gate.close("loading")
    assert not grants[0].renew()
    gate.open()
    assert grants[0].renew()
    gate.resize(1)
    assert not grants[0].renew()
    grants[1].release()
    assert grants[0].renew()
    gate.refuse(BioproxyError("shutting down", status=503))
    assert not grants[0].renew()
    grants[0].release()
    assert_clean(gate)


async def test_idle_begins_when_the_last_grant_ends() -> None:
    """`wait_idle` outlasts what runs, and a request in between starts the count again."""
    gate = make()
    running = await gate.acquire()
    watcher = spawn(gate.wait_idle(30 * MS), name="idle")
    await settle()
    assert gate.idle_seconds() == 0.0
    running.release()
    (await gate.acquire()).release()
    began = gate.idle_since
    await watcher
    assert gate.idle
    assert gate.clock() - began >= 29 * MS


async def test_settling_does_not_restart_the_idle_clock() -> None:
    """Looking at an idle engine is no request: idle saves are not put off by it."""
    gate = make()
    began = gate.idle_since
    gate.settled()
    assert gate.idle_since == began


async def test_a_cancelled_watcher_leaves_nothing_behind() -> None:
    """It ends at once, and the next one is woken all the same."""
    gate = make()
    running = await gate.acquire()
    watchers = [spawn(gate.wait_idle(1.0), name="idle"), spawn(gate.wait_draining(), name="draining")]
    await settle()
    await finish(watchers)
    assert all(watcher.cancelled() for watcher in watchers)
    again = spawn(gate.wait_idle(0.0), name="idle")
    await settle()
    assert not again.done()
    running.release()
    await again


async def test_a_fault_in_extends_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Whether a request fits is a question of taste; its failure must not break another's release."""
    gate = make()

    def broken(_key: object) -> bool:
        raise RuntimeError("no index")

    gate.extends = broken
    running = await gate.acquire(client="a")
    tasks = [spawn(gate.acquire(client="a", key=number), name="a") for number in range(2)]
    await settle()
    with caplog.at_level(logging.ERROR, logger="bioproxy"):
        running.release()
    for task in tasks:
        (await task).release()
    assert "extends" in caplog.text
    assert_clean(gate)


async def test_a_changed_limit_counts_for_newcomers() -> None:
    """A reload that lowers queue_limit throws nobody out and lets nobody in."""
    gate = make()
    running = await gate.acquire()
    tasks = [await queued(gate, "b"), await queued(gate, "c")]
    gate.settings.take(config(queue_limit=1, queue_timeout=1.0))
    with pytest.raises(QueueFull):
        await gate.acquire()
    running.release()
    for task in tasks:
        (await task).release()


async def test_who_waits_for_others_of_its_key_is_not_held_up() -> None:
    """Nor is background work: an alert about long waits is for what the operator did not ask for."""
    clock = Clock()
    gate = Gate(settings(queue_limit=10), capacity=2, clock=clock)
    build = await gate.acquire(client="build", max_running=1)
    more = spawn(gate.acquire(client="build", max_running=1), name="build")
    await settle()
    ann = await gate.acquire(client="ann")
    clock.now = 7.0
    warm_up = spawn(gate.acquire(client="", work="background"), name="warm-up")
    await settle()
    clock.now = 60.0
    assert (gate.statistics().oldest_wait, gate.statistics().held_up) == (60.0, 0.0)
    ben = await queued(gate, "ben")
    clock.now = 65.0
    assert (gate.statistics().oldest_wait, gate.statistics().held_up) == (65.0, 5.0)
    for grant in (build, ann):
        grant.release()
    for task in (more, ben, warm_up):
        (await task).release()


async def test_statistics_tell_who_uses_the_engine() -> None:
    """Shares, waits and totals in one frozen value, for /status and the metrics."""
    clock = Clock()
    gate = Gate(settings(queue_limit=10), clock=clock)
    grant = await gate.acquire(client="ann")
    clock.now = 3.0
    grant.release()
    running = await gate.acquire(client="ben")
    task = await queued(gate, "ann")
    clock.now = 5.0
    seen = gate.statistics()
    assert (seen.running["user"], seen.waiting["user"], seen.oldest_wait) == (1, 1, 2.0)
    assert seen.measured == pytest.approx(3.0)
    assert seen.estimate == pytest.approx(4.0)  # a second of ben's three, and ann's three
    ann, ben = seen.clients
    assert (ann.client, ann.waiting, ben.client, ben.running) == ("ann", 1, "ben", 1)
    assert ann.used == pytest.approx(3.0, abs=0.01)
    running.release()
    (await task).release()
    assert_clean(gate)


async def test_a_thousand_clients_that_come_and_go_leave_nothing() -> None:
    """Load with leaving clients: never more than the capacity at once, and an empty gate at the end."""
    gate = make(capacity=3, limit=1000)
    running = most = 0

    async def client(number: int) -> None:
        nonlocal running, most
        with await gate.acquire(client=str(number % 7), priority=number % 2):
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0)
            finally:
                running -= 1

    tasks = [spawn(client(number), name=str(number)) for number in range(1000)]
    await settle()
    for task in tasks[::3]:
        task.cancel()
    await asyncio.wait(tasks)
    gate.settled()
    assert most == 3
    assert_clean(gate)


async def test_after_a_refusal_only_the_last_save_gets_the_engine() -> None:
    """At the shutdown a warm-up that comes late is refused, and our own save is not."""
    gate = make()
    gate.refuse(BioproxyError("shutting down", status=503))
    with pytest.raises(BioproxyError, match="shutting down"):
        await gate.acquire(work="background")
    grant = await gate.acquire(work="background", exclusive=True, last=True)
    assert grant.exclusive
    grant.release()


async def test_gate_queue_and_grant_say_what_they_are() -> None:
    """For a debugger and a log: who runs, who waits, and never what a request asked for."""
    gate = make()
    grant = await gate.acquire(work="side", client="key", key="a prompt", exclusive=True)
    task = await queued(gate)
    assert repr(gate) == "<Gate open, 1 of 1 run, 1 wait>"
    assert repr(gate.queue) == "<Queue 1 of 1 run, one alone, waiting: 1 user>"
    assert repr(grant) == "<Grant of <Ticket side running, client 'key'>, alone>"
    grant.release()
    (await task).release()
    assert repr(gate.queue) == "<Queue 0 of 1 run, waiting: none>"


async def test_the_engine_is_had_alone_as_soon_as_it_can_be() -> None:
    """Not by looking again and again: the grant that comes back says so; and not for ever."""
    gate = make(capacity=2)
    mine, other = await gate.acquire(), await gate.acquire()
    assert not await mine.wait_exclusive(MS)
    waiting = spawn(mine.wait_exclusive(60.0), name="alone")
    await settle()
    other.release()
    assert await waiting
    assert mine.exclusive
    mine.release()
    assert_clean(gate)


async def test_an_engine_that_drains_is_had_alone_when_it_was_seen_idle() -> None:
    """A request whose client left may still be at work inside."""
    gate = make()
    (await gate.acquire()).release(cut=True)
    grant = await gate.acquire()
    waiting = spawn(grant.wait_exclusive(60.0), name="alone")
    await settle()
    assert not waiting.done()
    gate.settled()
    assert await waiting
    grant.release()
    assert_clean(gate)


async def test_of_several_that_wait_to_be_alone_one_goes_after_the_other() -> None:
    """None of them has anything in the engine, so they are not in each other's way."""
    gate = make(capacity=2)
    grants = [await gate.acquire(), await gate.acquire()]
    waiting = [spawn(grant.wait_exclusive(60.0), name="alone") for grant in grants]
    await settle()
    first, second = sorted((0, 1), key=lambda number: not waiting[number].done())
    assert await waiting[first]
    assert not waiting[second].done()
    grants[first].share()
    await settle()
    assert not waiting[second].done()
    grants[first].release()
    assert await waiting[second]
    grants[second].release()
    assert not gate.queue.unbegun
    assert_clean(gate)


async def test_what_was_exclusive_before_stays_so() -> None:
    """A warm-up that has the engine alone keeps it; a user's grant is shared again."""
    gate = make(capacity=2)
    user = await gate.acquire()
    async with user.alone() as alone:
        assert (alone, user.exclusive) == (True, True)
    assert (alone, user.exclusive) == (True, False)
    user.release()
    background = await gate.acquire(work="background", exclusive=True)
    async with background.alone() as alone:
        assert alone
    assert background.exclusive
    background.release()
    assert_clean(gate)


async def test_max_running_holds_for_the_engines_together() -> None:
    """What a key runs on one engine counts on the other; there its next request goes as soon as the first has ended."""
    owners = Owners()
    first, second = (Gate(settings(queue_limit=9, queue_timeout=60.0), capacity=4, owners=owners) for _ in range(2))
    grant = await first.acquire(client="a", max_running=1)
    waits = spawn(second.acquire(client="a", max_running=1), name="a")
    (await second.acquire(client="b")).release()  # others are not held up
    assert not waits.done()
    grant.release()
    (await waits).release()
    assert_clean(first)
    assert_clean(second)


async def test_another_max_running_counts_for_what_waits_already() -> None:
    """A reload that raises it lets them go at once: newcomers, which run meanwhile, would keep them for ever."""
    gate = make(capacity=4)
    grants = [await gate.acquire(client="a", max_running=1)]
    waits = [spawn(gate.acquire(client="a", max_running=1), name="a") for _ in range(3)]
    await settle()
    gate.owners.bind({"a": 3})
    await settle()
    assert [one.done() for one in waits] == [True, True, False]
    gate.owners.bind({"a": 0})
    grants += [await one for one in waits]
    gate.owners.bind({"a": 1})
    held = spawn(gate.acquire(client="a", max_running=1), name="a")
    for grant in grants:
        assert not held.done()
        grant.release()
    (await held).release()
    assert_clean(gate)


async def test_what_waits_for_its_own_bound_takes_no_place_in_the_queue() -> None:
    """A key that sends more than it may run fills its own queue; others wait and are served as if it were not there."""
    gate = make(capacity=2, limit=1)
    grant = await gate.acquire(client="a", max_running=1)
    held = spawn(gate.acquire(client="a", max_running=1), name="a")
    await settle()
    with pytest.raises(QueueFull):
        await gate.acquire(client="a", max_running=1)
    other = await gate.acquire(client="b")
    waits = await queued(gate, "c")
    with pytest.raises(QueueFull):
        await gate.acquire(client="d")
    other.release()
    (await waits).release()
    grant.release()
    (await held).release()
    assert_clean(gate)
