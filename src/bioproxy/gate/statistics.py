"""What the gate tells about itself: `/status`, the metrics and the tests read this and nothing else."""

from __future__ import annotations

import msgspec

from bioproxy.activity import Work
from bioproxy.gate.queue import Queue

STILL_COUNTS = 0.01  # engine seconds below which an idle client is not worth a line


class ClientStatistics(msgspec.Struct, frozen=True):
    """One client's share: engine seconds that still count, and its tickets."""

    client: str
    used: float
    running: int
    waiting: int


class GateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The gate at one moment. Times are seconds; `waiting` and `running` are counts by class; totals since start."""

    capacity: int
    limit: int
    open: bool
    reason: str  # why it is closed, else ""
    exclusive: bool
    draining: bool
    running: dict[Work, int]
    waiting: dict[Work, int]
    oldest_wait: float
    estimate: float  # until a newcomer of class user would be granted
    measured: float | None  # how long a grant takes
    idle: float
    granted: int
    refused: int
    timed_out: int
    left: int
    clients: tuple[ClientStatistics, ...]  # who runs, waits or used something that still counts


def measure(
    queue: Queue, now: float, *, reason: str, idle: float, refused: int, timed_out: int, left: int
) -> GateStatistics:
    """Read `queue` at `now` (seconds of its clock); the rest is what the gate counts itself."""
    waiting = queue.tickets()
    running: dict[Work, int] = {"user": 0, "side": 0, "background": 0}
    for ticket in queue.running:
        running[ticket.work] += 1
    return GateStatistics(
        capacity=queue.capacity,
        limit=queue.limit,
        open=queue.open,
        reason=reason,
        exclusive=queue.alone is not None,
        draining=queue.draining,
        running=running,
        waiting=dict(queue.waiting),
        oldest_wait=max((now - ticket.arrived for ticket in waiting), default=0.0),
        estimate=0.0 if queue.free() and not waiting else queue.estimate(len(waiting), now),
        measured=queue.measured,
        idle=idle,
        granted=queue.grants,
        refused=refused,
        timed_out=timed_out,
        left=left,
        clients=clients(queue, now),
    )


def clients(queue: Queue, now: float) -> tuple[ClientStatistics, ...]:
    """Who runs, waits or used something that still counts; most used first."""
    accounts = sorted(queue.shares.accounts.values(), key=lambda account: account.level, reverse=True)
    return tuple(
        ClientStatistics(account.client, round(account.used(now), 3), account.running, account.waiting)
        for account in accounts
        if account.running or account.waiting or account.used(now) >= STILL_COUNTS
    )
