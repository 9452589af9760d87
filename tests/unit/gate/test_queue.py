"""Who goes next: classes, priority, fairness, affinity, exclusive turns and draining; no loop, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.activity import Work
from bioproxy.gate.fairness import HALF_LIFE, MOST_ACCOUNTS, Account, Shares
from bioproxy.gate.queue import Queue, Ticket


def never(_key: object) -> bool:
    return False


def make(capacity: int = 1) -> Queue:
    return Queue(capacity=capacity)


def run(queue: Queue, client: str = "first", *, now: float = 0.0, work: Work = "user") -> Ticket:
    """A ticket that runs from `now` on."""
    ticket = Ticket(client=client, work=work, arrived=now)
    assert queue.admit(ticket, now)
    return ticket


def wait(
    queue: Queue,
    client: str = "c",
    *,
    now: float = 0.0,
    work: Work = "user",
    priority: int = 0,
    key: object = None,
    bound: int = 0,
    exclusive: bool = False,
) -> Ticket:
    """A ticket that waits since `now`."""
    ticket = Ticket(
        client=client, work=work, priority=priority, key=key, arrived=now, max_running=bound, exclusive=exclusive
    )
    assert not queue.admit(ticket, now)
    queue.push(ticket)
    return ticket


def order(queue: Queue, running: Ticket, *, now: float = 0.0) -> list[Ticket]:
    """The order in which all who wait are granted when each grant takes no time."""
    granted = []
    queue.release(running, now, unsent=True)
    while (ticket := queue.pick(now, never)) is not None:
        granted.append(ticket)
        queue.release(ticket, now, unsent=True)
    return granted


def test_newcomers_wait_for_who_waits_to_be_alone() -> None:
    """After a second, or requests that overlap would keep it out for ever; not while a drain does that anyway."""
    queue = make(capacity=3)
    busy, mine = run(queue), run(queue, "mine")
    queue.unbegun.add(mine)
    newcomer = run(queue, "new", now=0.9)
    queue.release(newcomer, 0.9)
    waits = wait(queue, "new", now=1.0)
    assert queue.pick(1.0, never) is None
    queue.draining = True
    assert queue.pick(1.0, never) is waits
    queue.draining = False
    for running in (waits, busy):
        queue.release(running, 2.0)
    assert queue.try_exclusive(mine)


def test_classes_go_user_side_background() -> None:
    """A user's request overtakes a title, and both overtake a warm-up."""
    queue = make()
    running = run(queue)
    background = wait(queue, "w", work="background")
    side, user = wait(queue, "s", work="side"), wait(queue, "u")
    assert order(queue, running) == [user, side, background]


def test_background_stays_out_while_a_user_waits_who_may_not_run() -> None:
    """A client bound by max_running still counts as waiting: its place is not taken by a warm-up."""
    queue = make(capacity=2)
    first = Ticket(client="a", max_running=1)
    queue.push(first)
    assert queue.pick(0.0, never) is first
    wait(queue, "a", bound=1)
    wait(queue, "w", work="background")
    assert queue.pick(0.0, never) is None


def test_higher_priority_goes_first() -> None:
    """Within a class a key's priority counts before fairness and arrival."""
    queue = make()
    running = run(queue)
    low, high = wait(queue, "low"), wait(queue, "high", priority=1)
    assert order(queue, running) == [high, low]


def test_a_minute_of_waiting_is_one_step_of_priority() -> None:
    """A ticket of low priority that waited for two steps is ahead of a newcomer one step higher."""
    queue = make()
    running = run(queue)
    old = wait(queue, "old", now=0.0)
    new = wait(queue, "new", now=120.0, priority=1)
    assert order(queue, running, now=120.0) == [old, new]


def test_priority_holds_before_the_minute_is_full() -> None:
    """Ageing comes in whole steps: a second short of one, nothing has changed."""
    queue = make()
    running = run(queue)
    old = wait(queue, "old", now=0.0)
    new = wait(queue, "new", now=59.0, priority=1)
    assert order(queue, running, now=59.0) == [new, old]


def test_the_client_that_used_less_goes_first() -> None:
    """After a long answer, the other client's ticket goes first though it came later."""
    queue = make()
    running = run(queue, "heavy")
    heavy, light = wait(queue, "heavy"), wait(queue, "light", now=1.0)
    queue.release(running, 30.0)
    assert queue.pick(30.0, never) is light
    queue.release(light, 31.0)
    assert queue.pick(31.0, never) is heavy


def test_use_is_charged_afterwards() -> None:
    """What still runs costs its client nothing yet: equal accounts go in order of arrival."""
    queue = make(capacity=2)
    run(queue, "a"), run(queue, "b")
    assert [account.used(500.0) for account in queue.shares.accounts.values()] == [0.0, 0.0]


def test_an_answer_that_was_never_asked_for_costs_nothing() -> None:
    """A grant that is given back unsent is neither charged nor measured."""
    queue = make()
    queue.release(run(queue, "a"), 30.0, unsent=True)
    assert queue.shares.account("a").used(30.0) == 0.0
    assert queue.measured is None


def test_equal_clients_share_the_slots() -> None:
    """Where use is equal, the client with less running goes first."""
    queue = make(capacity=3)
    run(queue, "a"), run(queue, "a"), run(queue, "b")
    wait(queue, "a")
    mine = wait(queue, "b")
    queue.capacity = 4
    assert queue.pick(0.0, never) is mine


def test_use_fades_by_half_in_ten_minutes() -> None:
    """Eight engine seconds count as four after a half-life, as two after another."""
    account = Account("a", float("-inf"))
    account.charge(8.0, 1000.0)
    assert account.used(1000.0) == pytest.approx(8.0)
    assert account.used(1000.0 + HALF_LIFE) == pytest.approx(4.0)
    assert account.used(1000.0 + 2 * HALF_LIFE) == pytest.approx(2.0)


@given(
    charges=st.lists(st.tuples(st.floats(0.001, 1e4), st.floats(0.0, 1e5)), min_size=1, max_size=20),
    start=st.floats(0.0, 1e7),
)
def test_a_level_is_the_faded_sum(charges: list[tuple[float, float]], start: float) -> None:
    """However long a machine has been up, an account holds the sum that halving step by step gives."""
    account, total, now = Account("a", float("-inf")), 0.0, start
    for seconds, pause in charges:
        total = total * 2 ** (-pause / HALF_LIFE) + seconds
        now += pause
        account.charge(seconds, now)
    assert account.used(now) == pytest.approx(total, rel=1e-6)


def test_a_newcomer_starts_at_the_minimum_in_use() -> None:
    """A new name is no way past those who wait: it starts level with the client that used least."""
    queue = make()
    queue.release(run(queue, "a"), 10.0)
    running = run(queue, "b", now=10.0)
    old = wait(queue, "a", now=11.0)
    queue.release(running, 15.0)
    new = wait_open(queue, "new", now=15.0)
    assert queue.shares.account("new").level == queue.shares.account("a").level
    assert queue.pick(15.0, never) is old
    assert queue.pick(15.0, never) is None
    assert queue.position(new) == 0


def wait_open(queue: Queue, client: str, *, now: float) -> Ticket:
    """A ticket pushed while a place is free and not yet handed out."""
    ticket = Ticket(client=client, arrived=now)
    queue.push(ticket)
    return ticket


def test_accounts_of_passers_by_are_forgotten() -> None:
    """Any number of addresses may come by: the idle accounts that used least go, the active stay."""
    shares = Shares()
    busy = shares.account("busy")
    busy.running = 1
    for number in range(3 * MOST_ACCOUNTS):
        shares.account(f"10.0.0.{number}").charge(0.001, 0.0)
    assert len(shares.accounts) <= MOST_ACCOUNTS
    assert shares.account("busy") is busy


def test_background_work_is_charged_to_nobody() -> None:
    """A warm-up of an hour does not push back the requests of clients without a key."""
    queue = make()
    queue.release(run(queue, "", work="background"), 3600.0)
    assert queue.shares.account("").used(3600.0) == 0.0


def test_what_extends_the_resident_cache_overtakes_three_times_at_most() -> None:
    """Of one client's waiters the fitting ones go first, but the oldest is not put off for ever."""
    queue = make()
    running = run(queue, "a")
    other = wait(queue, "a", key="cold")
    warm = [wait(queue, "a", key="warm") for _ in range(5)]
    queue.release(running, 1.0)
    granted = []
    while (ticket := queue.pick(1.0, lambda key: key == "warm")) is not None:
        granted.append(ticket)
        queue.release(ticket, 1.0)
    assert granted == [*warm[:3], other, *warm[3:]]


def test_affinity_never_favours_one_client_over_another() -> None:
    """Extending what is resident counts among one client's own tickets only."""
    queue = make()
    running = run(queue, "x")
    plain, fitting = wait(queue, "a", key="cold"), wait(queue, "b", key="warm")
    queue.release(running, 0.0)
    assert queue.pick(0.0, lambda key: key == "warm") is plain
    assert fitting.granted == 0.0


def test_a_key_runs_no_more_than_its_bound() -> None:
    """With max_running 1 and two slots the second request waits, and another client's goes."""
    queue = make(capacity=2)
    tickets = [Ticket(client="a", max_running=1), Ticket(client="a", max_running=1), Ticket(client="b")]
    for ticket in tickets:
        queue.push(ticket)
    assert [queue.pick(0.0, never) for _ in range(3)] == [tickets[0], tickets[2], None]
    queue.release(tickets[0], 1.0)
    assert queue.pick(1.0, never) is tickets[1]


def test_users_behind_one_key_share_its_bound_not_its_account() -> None:
    """`forwards_users`: each user has a share of its own, the key's max_running counts for all together."""
    queue = make(capacity=2)
    for user in ("ann", "ben"):
        queue.push(Ticket(client=f"key/{user}", owner="key", max_running=1))
    assert queue.pick(0.0, never) is not None
    assert queue.pick(0.0, never) is None


def test_an_exclusive_ticket_waits_until_nothing_runs() -> None:
    """A client's slot action lets completions pass while the engine is busy, and then has it alone."""
    queue = make(capacity=2)
    running = run(queue)
    action = wait(queue, "a", exclusive=True)
    other = wait(queue, "b", now=1.0)
    assert queue.pick(1.0, never) is other
    queue.release(running, 2.0)
    assert queue.pick(2.0, never) is None
    queue.release(other, 3.0)
    assert queue.pick(3.0, never) is action
    assert queue.alone is action


def test_an_exclusive_ticket_does_not_starve() -> None:
    """After a minute its turn holds newcomers back until the engine is free."""
    queue = make(capacity=2)
    running = run(queue)
    action = wait(queue, "a", exclusive=True)
    wait(queue, "b", now=61.0)
    assert queue.pick(61.0, never) is None
    queue.release(running, 62.0)
    assert queue.pick(62.0, never) is action


def test_an_exclusive_ticket_beyond_its_bound_holds_nobody_back() -> None:
    """It waits for its own client's other request, and that is no reason to make others wait."""
    queue = make(capacity=2)
    first = Ticket(client="a", max_running=1)
    queue.push(first)
    assert queue.pick(0.0, never) is first
    wait(queue, "a", bound=1, exclusive=True)
    other = wait(queue, "b", now=61.0)
    assert queue.pick(61.0, never) is other


def test_our_own_exclusive_work_never_holds_a_user_back() -> None:
    """A save that waited for an hour lets a user pass at once."""
    queue = make(capacity=2)
    run(queue)
    wait(queue, "w", work="background", exclusive=True)
    user = wait(queue, "u", now=3600.0)
    assert queue.pick(3600.0, never) is user


def test_our_own_exclusive_work_never_holds_a_warm_up_back() -> None:
    """While a client's stream runs for an hour on one slot, a save waits and chunks go on in the other."""
    queue = make(capacity=2)
    run(queue)
    wait(queue, "w", work="background", exclusive=True)
    chunk = wait(queue, "w", now=3600.0, work="background")
    assert queue.pick(3600.0, never) is chunk


def test_exclusive_asks_for_more_than_being_first() -> None:
    """`try_exclusive` says no while another grant runs, and nobody is granted once it said yes."""
    queue = make(capacity=2)
    first, second = run(queue), run(queue, "b")
    assert not queue.try_exclusive(first)
    queue.release(second, 1.0)
    assert queue.try_exclusive(first)
    wait(queue)
    assert queue.pick(1.0, never) is None
    assert queue.share(first)
    assert queue.pick(1.0, never) is not None


def test_a_cut_answer_leaves_the_engine_draining() -> None:
    """After a client left, completions may go and slot actions may not, until a later answer has ended."""
    queue = make()
    queue.release(run(queue), 1.0, cut=True)
    later = run(queue, now=1.0)
    assert queue.draining
    assert not queue.try_exclusive(later)
    queue.release(later, 2.0)
    assert not queue.draining


def test_an_answer_that_began_before_the_cut_proves_nothing() -> None:
    """With two slots, the neighbour that was running already says nothing about the slot that was left."""
    queue = make(capacity=2)
    gone, neighbour = run(queue), run(queue, "b")
    queue.release(gone, 1.0, cut=True)
    queue.release(neighbour, 10.0)
    assert queue.draining


def test_with_several_slots_a_later_answer_counts_when_the_engine_had_time_to_notice() -> None:
    """A quick answer from another slot does not end draining; one after two seconds does."""
    queue = make(capacity=2)
    queue.release(run(queue), 1.0, cut=True)
    queue.release(run(queue, now=1.0), 1.1)
    assert queue.draining
    queue.release(run(queue, now=3.0), 3.1)
    assert not queue.draining


def test_an_unsent_grant_does_not_end_draining() -> None:
    """A request that was cancelled before it was sent proves nothing about the engine."""
    queue = make()
    queue.release(run(queue), 1.0, cut=True)
    queue.release(run(queue, now=1.0), 2.0, unsent=True)
    assert queue.draining


def test_the_newest_grants_count_most() -> None:
    """The measure follows a change of load instead of averaging over the day."""
    queue = make()
    for start in range(0, 1000, 10):
        queue.release(run(queue, now=float(start)), start + 1.0)
    for start in range(1000, 1200, 10):
        queue.release(run(queue, now=float(start)), start + 9.0)
    assert queue.measured == pytest.approx(9.0, abs=0.2)


def test_a_position_counts_who_is_ahead_by_class_and_arrival() -> None:
    """A title that came first stands behind a user that came last."""
    queue = make()
    run(queue)
    side, user = wait(queue, work="side"), wait(queue)
    assert (queue.position(user), queue.position(side)) == (0, 1)


def test_an_answer_that_came_out_of_no_slot_does_not_end_draining() -> None:
    """An error says nothing about the slot in which the work that was left may still run."""
    queue = make()
    queue.release(run(queue), 1.0, cut=True)
    queue.release(run(queue, now=2.0), 3.0, computed=False)
    assert queue.draining
    queue.release(run(queue, now=4.0), 5.0)
    assert not queue.draining
