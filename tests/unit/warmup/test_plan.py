"""What to warm next, and in what chunks: pure decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bioproxy.prompt import common
from bioproxy.warmup import plan
from bioproxy.warmup.plan import Target

PHASES: tuple[plan.Phase, ...] = ("waiting", "warming", "warm", "saved", "too long", "failed", "off")


def target(prefix: str = "@code", **fields: object) -> Target:
    return replace(Target(prefix=prefix, head="bare", version="1"), **fields)


def test_the_first_chunk_is_modest_until_a_speed_is_known() -> None:
    """An unknown engine may be slow: the first chunk is a small one."""
    assert plan.chunk(left=5000, speed=None, seconds=0.25) == plan.FIRST_CHUNK


def test_a_chunk_fits_into_its_seconds() -> None:
    """At 1000 tokens a second and a quarter of a second, fewer than 250 tokens go at once."""
    assert 64 <= plan.chunk(left=5000, speed=1000.0, seconds=0.25) <= 250


def test_a_slow_engine_still_gets_64_tokens() -> None:
    """Below 64 tokens the calls cost more than the work."""
    assert plan.chunk(left=5000, speed=10.0, seconds=0.25) == plan.SHORTEST_CHUNK


def test_a_short_rest_is_taken_along() -> None:
    """No call of its own for a few tokens at the end."""
    assert plan.chunk(left=plan.FIRST_CHUNK + 20, speed=None, seconds=0.25) == plan.FIRST_CHUNK + 20


@given(st.integers(0, 200_000), st.floats(0.1, 1e6), st.floats(0.0, 2.0))
def test_chunks_end_and_never_overlap(total: int, speed: float, seconds: float) -> None:
    """Whatever the speed, chunks add up to the whole, each at least 64 tokens or all that is left."""
    done = 0
    while done < total:
        length = plan.chunk(left=total - done, speed=speed, seconds=seconds)
        assert length >= min(plan.SHORTEST_CHUNK, total - done)
        assert length <= max(plan.SHORTEST_CHUNK, speed * seconds) + plan.SHORTEST_CHUNK
        done += length
    assert done == total


def test_speed_follows_the_newest_chunks() -> None:
    """Prefill slows down as the context grows, and the chunk with it."""
    speed = plan.measured(None, tokens=500, seconds=0.5)
    assert speed == 1000
    assert plan.measured(speed, tokens=500, seconds=1.0) == 750


def test_a_chunk_that_was_cached_says_nothing_about_speed() -> None:
    """One evaluated token in a millisecond is no measurement."""
    assert plan.measured(400.0, tokens=1, seconds=0.001) == 400.0


def test_a_foreign_request_costs_nothing_where_the_engine_remembers() -> None:
    """With the RAM cache on, a warm-up that yielded goes on where it stopped."""
    assert plan.resume_at(done=1500, remembers=True) == 1500


def test_an_engine_that_forgets_is_warmed_from_the_start() -> None:
    """Without a RAM cache the first chunk must be short again, or a user would wait for all of it."""
    assert plan.resume_at(done=1500, remembers=False) == 0


def test_back_off_doubles_up_to_a_minute() -> None:
    """Attempts after faults come at 1, 2, 4 ... 60 seconds."""
    assert [plan.delay(n) for n in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]


def test_begun_work_goes_before_waiting_work() -> None:
    """What yielded is finished first."""
    begun = target("@b", phase="warming")
    assert plan.pick([target("@a"), begun], now=0.0) is begun


def test_what_was_asked_for_goes_first() -> None:
    """POST /warmup/@c overtakes the rest, and works where warm-up is off."""
    asked = target("@c", asked=True)
    assert plan.pick([target("@a", phase="warming"), asked], now=0.0) is asked
    assert plan.pick([target("@a"), asked], now=0.0, enabled=False) is asked


def test_nothing_to_do_is_none() -> None:
    """What is warm, saved, too long or in back-off is left alone; so is everything where warm-up is off."""
    done = [target(p, phase=phase) for p, phase in (("@a", "warm"), ("@b", "saved"), ("@c", "too long"))]
    assert plan.pick([*done, target("@d", phase="failed", retry_at=9.0)], now=8.0) is None
    assert plan.pick([target()], now=0.0, enabled=False) is None


def test_a_failed_target_is_tried_again_when_its_time_comes() -> None:
    """The pause ends with the shortest back-off."""
    failed = plan.failed(target(), reason="it died", now=10.0)
    assert plan.describe(failed) == "failed: it died"
    assert plan.pause([failed], now=10.25, longest=60.0) == 0.75
    assert plan.pick([failed], now=11.0) is failed


def test_a_new_version_waits_anew_and_an_old_state_stays() -> None:
    """A changed text is warmed again; what did not change keeps its state; what is not wanted is gone."""
    known = {t.key: t for t in (target("@a", phase="saved"), target("@b", phase="warm"), target("@c"))}
    merged = plan.merge(known, [target("@b", version="2"), target("@a")])
    assert [(t.prefix, t.version, t.phase) for t in merged.values()] == [("@b", "2", "waiting"), ("@a", "1", "saved")]


def test_another_engine_means_that_nothing_is_known() -> None:
    """After a restart of the engine every target is looked at again, what was asked for still first."""
    known = {
        t.key: t for t in (target("@a", phase="saved", done=10, total=10), target("@b", phase="failed", asked=True))
    }
    assert [(t.phase, t.done, t.asked) for t in plan.forgotten(known).values()] == [
        ("waiting", 0, False), ("waiting", 0, True),
    ]  # fmt: skip


def test_states_in_words() -> None:
    """`/status` shows figures with thousands separators."""
    assert plan.describe(target(phase="warming", done=1024, total=3310)) == "warming 1,024 of 3,310 tokens"
    assert plan.describe(target(phase="too long", total=61_233, limit=32_768)) == "too long: 61,233 of 32,768 tokens"
    assert plan.describe(target(phase="saved")) == "saved"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(PHASES), st.booleans(), st.floats(0, 100))))
def test_pick_never_returns_what_is_not_due(rows: list[tuple[str, plan.Phase, bool, float]]) -> None:
    """Whatever the table, only due targets come out, and one does if there is any."""
    rows_ = [target(p, phase=phase, asked=asked, retry_at=retry) for p, phase, asked, retry in rows]
    picked = plan.pick(rows_, now=50.0)
    due = [t for t in rows_ if t.phase in ("waiting", "warming") or (t.phase == "failed" and t.retry_at <= 50)]
    assert (picked is None) == (not due)
    assert picked is None or picked in due


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_the_common_beginning_is_exact(first: list[int], second: list[int]) -> None:
    """Bisecting finds the same as looking one by one."""
    expected = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        expected += 1
    assert common(first, second) == expected
