"""The life of one engine's process: six states, seven events, one table; and what was decided for it (`Aim`).

    STOPPED ──START──► STARTING ──HEALTHY──► READY ──STOP──► STOPPING ──ENDED──► STOPPED
       ▲                  │  └──────STOP───────────────────────▲  ▲
       │                ENDED                                  │  └─ STOP again changes nothing
    FORGIVE               ▼
       └─────────────── FAILED ──START──► STARTING (its back-off is over, or it was asked for explicitly)

1. A process is started from STOPPED or FAILED only. While one is STOPPING no other is started: two processes of one
   model would fight for its port and its memory. Requests wait for ENDED.
2. STARTING lasts until the engine is healthy *and* what it knew is back in its KV cache: READY means that a request may
   go. Saving what is resident belongs to STOPPING.
3. ENDED says that no process is left. What it means depends on where it finds us: a start that failed, a crash, or a
   stop that is complete.
4. A crash is no failure: a model that ran and died is STOPPED, and the next request starts it. If one process after
   the other dies right after it was ready, the third is reported as UNSOUND, and counts as a start that failed.
5. FAILED is STOPPED with a memory, so that a broken model answers at once instead of costing each request a start. In
   the API it reads "stopped", as llama-swap's users expect.
6. SHUTDOWN is the end; every late report is accepted there and changes nothing.
7. HEALTHY may come too late, when the stop was already decided: STOPPING wins.
8. What was decided and has not begun is an aim: COME for a model whose place is being made, also while its own last
   process is STOPPING; LEAVE for one that finishes what it serves. A stop and a start end the aim that they fulfil.

An event in a state that has no cell is a bug in the caller and raises.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class State(Enum):
    """Where a model's process is; `value` is what logs and `bioproxy models` print."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"
    SHUTDOWN = "shutdown"

    @property
    def live(self) -> bool:
        """Whether a process exists or is about to: it has memory that others may need."""
        return self in LIVE

    @property
    def public(self) -> str:
        """The word that `/running` and `modelStatus` use: stopped, starting, ready or stopping."""
        return self.value if self.live else "stopped"


class Event(Enum):
    """What can happen to a process."""

    START = "start"
    HEALTHY = "healthy"
    STOP = "stop"
    ENDED = "ended"
    UNSOUND = "unsound"  # ended right after it was ready, as those before it did
    FORGIVE = "forgive"
    CLOSE = "close"


class Aim(Enum):
    """What was decided for a model beside the state of its process."""

    STAY = "stay"  # nothing
    COME = "come"  # a swap to it: it starts when the models that it displaces are gone
    LEAVE = "leave"  # it stops when nothing runs on it any more, or its time is over


AIMS = MappingProxyType({  # in which states of the process each can be
    Aim.STAY: frozenset(State),
    Aim.COME: frozenset({State.STOPPED, State.FAILED, State.STOPPING}),
    Aim.LEAVE: frozenset({State.STARTING, State.READY}),
})  # fmt: skip

LIVE = frozenset({State.STARTING, State.READY, State.STOPPING})

TABLE = MappingProxyType({
    (State.STOPPED, Event.START): State.STARTING,
    (State.STOPPED, Event.STOP): State.STOPPED,
    (State.STOPPED, Event.FORGIVE): State.STOPPED,
    (State.STOPPED, Event.CLOSE): State.SHUTDOWN,
    (State.STARTING, Event.HEALTHY): State.READY,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.STARTING, Event.ENDED): State.FAILED,
    (State.STARTING, Event.FORGIVE): State.STARTING,
    (State.STARTING, Event.CLOSE): State.SHUTDOWN,
    (State.READY, Event.STOP): State.STOPPING,
    (State.READY, Event.ENDED): State.STOPPED,
    (State.READY, Event.UNSOUND): State.FAILED,
    (State.READY, Event.FORGIVE): State.READY,
    (State.READY, Event.CLOSE): State.SHUTDOWN,
    (State.STOPPING, Event.HEALTHY): State.STOPPING,
    (State.STOPPING, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.ENDED): State.STOPPED,
    (State.STOPPING, Event.FORGIVE): State.STOPPING,
    (State.STOPPING, Event.CLOSE): State.SHUTDOWN,
    (State.FAILED, Event.START): State.STARTING,
    (State.FAILED, Event.STOP): State.FAILED,
    (State.FAILED, Event.FORGIVE): State.STOPPED,
    (State.FAILED, Event.CLOSE): State.SHUTDOWN,
    (State.SHUTDOWN, Event.HEALTHY): State.SHUTDOWN,
    (State.SHUTDOWN, Event.STOP): State.SHUTDOWN,
    (State.SHUTDOWN, Event.ENDED): State.SHUTDOWN,
    (State.SHUTDOWN, Event.FORGIVE): State.SHUTDOWN,
    (State.SHUTDOWN, Event.CLOSE): State.SHUTDOWN,
})  # fmt: skip


class IllegalStep(Exception):
    """An event came in a state in which it cannot; the caller's bookkeeping is wrong."""


def step(state: State, event: Event) -> State:
    """The state after `event`; raises IllegalStep if the table has no cell."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise IllegalStep(f"a process that is {state.value} cannot get the event {event.value!r}") from None
