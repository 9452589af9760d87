"""What each request under way is waiting for, or doing: for `bioproxy top`.

The table of requests under way (front/inflight.py) knows that an engine answered, and how much; the schedule and the
gates know how many wait, and in which order. Who waits is worked out from the order of arrival: of a model's requests
that got no answer yet, the newest are those that wait for the model, those before them wait at its gate, the oldest
are being computed. A fair gate may let another one go first all the same; for people who look this is near enough, and
it costs a request nothing.

No ids, keys or addresses stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from bioproxy.activity import InflightRequest

Stage = Literal["model", "queue", "prompt", "answer", "elsewhere"]


class Underway(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Seconds, bytes, unix time; `position` is its place among those who wait, 1 is next, 0: it does not.

    `stage`: it waits for its `model`, in the engine's `queue`, the engine is at its `prompt`, or the `answer` comes;
    `elsewhere` is a peer's model that has not answered yet.
    """

    model: str
    path: str
    stage: Stage
    position: int
    started: float
    elapsed: float
    bytes: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits for one model: places in the whole schedule, in order of arrival; and how many wait at its gate."""

    places: tuple[int, ...] = ()
    at_gate: int = 0


def under_way(requests: Iterable[InflightRequest], waiting: Mapping[str, Waiting]) -> tuple[Underway, ...]:
    """`requests` (the oldest first) with what each does; `waiting` by local model."""
    requests = tuple(requests)
    stages: dict[int, tuple[Stage, int]] = {}
    for model in {request.model for request in requests}:
        silent = [
            index for index, request in enumerate(requests) if request.model == model and not request.resp_headers
        ]
        stages |= dict(zip(silent, stages_of(len(silent), waiting.get(model)), strict=True))
    return tuple(
        Underway(
            model=request.model,
            path=request.req_path,
            stage=stages.get(index, ("answer", 0))[0],
            position=stages.get(index, ("answer", 0))[1],
            started=request.timestamp.timestamp(),
            elapsed=request.elapsed_ms / 1000,
            bytes=request.resp_bytes,
        )
        for index, request in enumerate(requests)
    )


def stages_of(count: int, waiting: Waiting | None) -> Sequence[tuple[Stage, int]]:
    """Stage and position of a model's `count` requests without an answer, the oldest first."""
    if waiting is None:
        return [("elsewhere", 0)] * count
    places = waiting.places[len(waiting.places) - min(count, len(waiting.places)) :]
    at_gate = min(waiting.at_gate, count - len(places))
    computed: list[tuple[Stage, int]] = [("prompt", 0)] * (count - at_gate - len(places))
    queued: list[tuple[Stage, int]] = [("queue", place) for place in range(1, at_gate + 1)]
    return [*computed, *queued, *(("model", place) for place in places)]
