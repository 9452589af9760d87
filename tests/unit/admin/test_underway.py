"""What each request under way waits for, as far as it can be told from counts and the order of arrival."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.activity import InflightRequest
from bioproxy.admin.underway import Waiting, stages_of, under_way


def request(number: int, model: str = "a", *, answered: bool = False) -> InflightRequest:
    """The request that came as number `number`."""
    return InflightRequest(
        id=str(number),
        timestamp=datetime.fromtimestamp(number, UTC),
        model=model,
        req_path="/v1/chat/completions",
        method="POST",
        req_headers={"authorization": "Bearer secret"},
        remote_ip="10.0.0.1",
        resp_headers={"content-type": "application/json"} if answered else {},
        resp_bytes=64 if answered else 0,
        elapsed_ms=1500,
    )


def told(*requests: InflightRequest, **waiting: Waiting) -> list[tuple[str, int]]:
    """Stage and position of each."""
    return [(one.stage, one.position) for one in under_way(requests, waiting)]


def test_the_oldest_is_computed_and_the_newest_wait() -> None:
    """Answered, at its prompt, in the engine's queue, and two that wait for the model."""
    requests = [request(1, answered=True), *(request(number) for number in (2, 3, 4, 5))]
    found = told(*requests, a=Waiting(places=(3, 7), at_gate=1))
    assert found == [("answer", 0), ("prompt", 0), ("queue", 1), ("model", 3), ("model", 7)]


def test_models_do_not_mix() -> None:
    """One waits for a model that another is computed by."""
    found = told(request(1), request(2, "b"), request(3), a=Waiting(), b=Waiting(places=(1,)))
    assert found == [("prompt", 0), ("model", 1), ("prompt", 0)]


def test_a_peers_model_waits_elsewhere() -> None:
    """Nothing is known of its queue; once it answers that is seen."""
    assert told(request(1, "far"), request(2, "far", answered=True)) == [("elsewhere", 0), ("answer", 0)]


def test_figures_go_with_the_request() -> None:
    """And nothing of who asked."""
    [one] = under_way([request(7, answered=True)], {"a": Waiting()})
    assert (one.model, one.path, one.started, one.elapsed, one.bytes) == ("a", "/v1/chat/completions", 7.0, 1.5, 64)
    assert "secret" not in repr(one)
    assert "10.0.0.1" not in repr(one)


@given(
    count=st.integers(0, 20),
    places=st.lists(st.integers(1, 50), max_size=20, unique=True).map(sorted),
    at_gate=st.integers(0, 20),
)
def test_whatever_the_counts_say_each_request_has_a_stage(count: int, places: list[int], at_gate: int) -> None:
    """They are read one after the other, so they need not fit; computed come first, then the queue, then the rest."""
    stages = stages_of(count, Waiting(places=tuple(places), at_gate=at_gate))
    names = [stage for stage, _ in stages]
    assert len(names) == count
    assert names == sorted(names, key=["prompt", "queue", "model"].index)
    waiting = [place for stage, place in stages if stage == "model"]
    assert waiting == places[len(places) - len(waiting) :]
