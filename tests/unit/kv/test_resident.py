"""What the slots hold, kept as an account that never claims too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.facts import EngineFacts
from bioproxy.kv.chain import chain, common
from bioproxy.kv.resident import Resident, Residents, State
from bioproxy.prompt import Cut, Piece


def cuts_of(*texts: str) -> tuple[Cut, ...]:
    return chain("", [Piece("", text.encode()) for text in texts])


def filled(*texts: str, tokens: int = 0) -> Resident:
    resident = Resident(0)
    prompt = 10 * len(texts)
    resident.fill(cuts_of(*texts), prompt=prompt, tokens=tokens or prompt, group="g", prefix="", version="")
    return resident


ADAPTERS = ((0, 1.0), (1, 0.5))


def facts(**more: object) -> EngineFacts:
    return EngineFacts(**({"url": "here", "pid": 7, "started": 1.0, "adapters": ADAPTERS} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (b'[{"id": 0, "scale": 0.0}]', b"[[0,0.0]]"),
        (b'[ {"scale":2,"id":1},{"id":0,"scale":0} ]', b"[[0,0.0],[1,2.0]]"),
        (b'[{"id":1,"scale":0.5},{"id":0,"scale":1}]', b""),
        (b"[]", b""),
        (b'"strange"', b'"strange"'),
    ],
)
def test_lora_scales_can_be_compared(asked: bytes, found: bytes) -> None:
    """One list may be written in many ways, and may say what is the case anyway."""
    residents = Residents()
    residents.meet(facts())
    assert residents.scales(asked) == (found, bool(found))


def test_only_who_was_seen_to_ask_for_scales_makes_scales_count() -> None:
    """An engine with adapters that nobody changes is like any other; afterwards each slot's last ones matter."""
    residents = Residents()
    residents.meet(facts())
    residents.clear(empty=False)
    assert residents.scales(b"") == (b"", False)
    mine, crossing = residents.scales(b'[{"id":0,"scale":0}]')
    assert crossing
    residents.slots[0].lora = mine
    assert residents.scales(b'[{"id":0,"scale":0}]') == (mine, False)
    assert residents.scales(b"") == (b"", True)


def test_scales_that_were_changed_are_in_the_memory_of_this_process() -> None:
    """Another process has none of it."""
    residents = Residents()
    residents.meet(facts())
    residents.meet(facts(adapters=((0, 0.5), (1, 0.5))))
    assert residents.scales(b"") == (b"", True)
    residents.meet(facts(pid=8))
    assert residents.scales(b"") == (b"", False)


def test_a_process_that_is_seen_at_last_is_the_one_that_was_there() -> None:
    """A look may miss it, and what a request asked for is in its memory all the same."""
    residents = Residents()
    residents.meet(facts(pid=None, started=None))
    residents.scales(b'[{"id":0,"scale":0}]')
    residents.meet(facts())
    assert residents.scales(b"") == (b"", True)


def test_a_new_account_knows_nothing() -> None:
    """A slot that nobody told us about may hold anything."""
    resident = Residents().slots[0]
    assert not resident.empty
    assert not resident.whole
    assert resident.end == b""


def test_what_was_generated_counts_as_content_not_as_prompt() -> None:
    """The answer is in the slot, but no request is known by it yet."""
    resident = filled("a", "b", tokens=33)
    assert (resident.prompt, resident.tokens, resident.whole) == (20, 33, True)
    assert resident.tokens_at(resident.end) == 20


def test_a_request_under_way_leaves_only_what_it_shares() -> None:
    """Of [a, b, c] a request that goes on from [a] keeps [a], and nothing may be saved meanwhile."""
    resident = filled("a", "b", "c")
    resident.clip(cuts_of("a")[0].digest)
    assert resident.cuts == cuts_of("a")
    assert (resident.tokens, resident.whole) == (10, False)


def test_a_request_that_shares_nothing_leaves_nothing() -> None:
    """And that is not the same as empty: something is in the slot."""
    resident = filled("a", "b")
    resident.clip(b"")
    assert resident.cuts == ()
    assert not resident.empty


def test_the_same_prompt_again_loses_the_answer() -> None:
    """A regenerated answer replaces the first one; the prompt stays."""
    resident = filled("a", "b", tokens=33)
    resident.clip(resident.end)
    assert (resident.prompt, resident.tokens, resident.whole) == (20, 20, False)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=6), st.lists(st.sampled_from("abc")))
def test_a_slot_never_claims_what_a_request_may_have_overwritten(stored: list[list[str]], asked: list[str]) -> None:
    """After any row of requests, cut off or not, the account is a beginning of the last one."""
    residents = Residents()
    for texts in [*stored, asked]:
        cuts = cuts_of(*texts)
        place, position = residents.choose(cuts, 100)
        before = set(place.digests)
        residents.take(place, cuts[position - 1].digest if position else b"")
        assert place.digests <= before
        assert place.digests <= {cut.digest for cut in cuts}
        place.fill(cuts, prompt=1, tokens=1, group="", prefix="", version="")
    assert residents.choose(cuts_of(*asked), 1)[1] == len(asked)


def test_several_slots_follow_the_servers_choice() -> None:
    """The longest common beginning above a tenth of the prompt, else the slot that was used least recently."""
    residents = Residents(2)
    first, _ = residents.choose(cuts_of("a" * 100), 100)
    residents.take(first, b"")
    first.fill(cuts_of("a" * 100), prompt=1, tokens=1, group="", prefix="", version="")
    other, position = residents.choose(cuts_of("b" * 100), 100)
    assert (other is first, position) == (False, 0)
    again, position = residents.choose(cuts_of("a" * 100, "more"), 104)
    assert (again is first, position) == (True, 1)
    short_share, _ = residents.choose(cuts_of("a" * 100, "b" * 2000), 2100)
    assert short_share is not first


def test_a_busy_slot_is_not_chosen() -> None:
    """The server takes an idle one, even if the busy one holds the conversation."""
    residents = Residents(2)
    first, _ = residents.choose(cuts_of("a"), 1)
    first.fill(cuts_of("a"), prompt=1, tokens=1, group="", prefix="", version="")
    residents.take(first, first.end)
    assert residents.choose(cuts_of("a", "b"), 2)[0] is not first


def test_a_slot_of_an_engine_that_came_back_meanwhile_is_none_of_its_slots() -> None:
    """A request chose it, waited for a slot action, and another process was met in the meantime."""
    residents = Residents(2)
    place, _ = residents.choose(cuts_of("a"), 1)
    residents.resize(2)
    residents.take(place, b"")
    place.fill(cuts_of("a"), prompt=1, tokens=1, group="", prefix="", version="")
    assert residents.choose(cuts_of("a"), 1)[1] == 0
    assert list(residents.order) == residents.slots


def test_the_least_recently_used_slot_is_taken_for_a_new_prompt() -> None:
    """Whatever was used since goes to the end of the order; a busy one is passed over."""
    residents = Residents(3)
    for number in (1, 0, 2):
        residents.take(residents.slots[number], b"")
        residents.slots[number].fill(cuts_of(str(number)), prompt=1, tokens=1, group="", prefix="", version="")
    residents.take(residents.slots[1], residents.slots[1].end)
    assert residents.choose(cuts_of("x"), 1) == (residents.slots[0], 0)


def test_of_slots_that_share_as_much_the_first_idle_one_is_taken() -> None:
    """Found by the digest, not by trying all slots; a busy one counts only if all are busy."""
    residents = Residents(3)
    for slot in residents.slots[:2]:
        slot.fill(cuts_of("a"), prompt=1, tokens=1, group="", prefix="", version="")
    assert residents.choose(cuts_of("a", "b"), 2) == (residents.slots[0], 1)
    residents.take(residents.slots[0], residents.slots[0].end)
    assert residents.choose(cuts_of("a", "b"), 2) == (residents.slots[1], 1)
    for slot in residents.slots[1:]:
        residents.take(slot, slot.end)
    assert residents.choose(cuts_of("a", "b"), 2) == (residents.slots[0], 1)
    residents.clear(empty=True)
    assert residents.where == {}


def test_extending_means_going_on_from_all_that_is_there() -> None:
    """For the gate's order: [a, b] extends [a], [b] does not, and nothing extends the unknown."""
    residents = Residents()
    assert not residents.extends(cuts_of("a"))
    residents.slots[0].fill(cuts_of("a"), prompt=1, tokens=1, group="", prefix="", version="")
    assert residents.extends(cuts_of("a", "b"))
    assert not residents.extends(cuts_of("b"))
    assert common(cuts_of("a", "b"), residents.slots[0].digests) == 1


def parking() -> Residents:
    """Three slots on one buffer, as the server starts them."""
    residents = Residents(3)
    residents.parks = True
    residents.clear(empty=True)
    return residents


def fill(residents: Residents, number: int, text: str) -> Resident:
    """A request that was answered."""
    place = residents.slots[number]
    residents.take(place, b"")
    place.fill(cuts_of(text), prompt=10, tokens=12, group="", prefix="", version="")
    return place


def test_a_request_drives_idle_slots_into_the_servers_memory() -> None:
    """facts, 0.10: it is found again from there, and cannot be saved any more."""
    residents = parking()
    first = fill(residents, 0, "a")
    assert first.savable
    assert residents.endangered(residents.slots[1]) == [first, residents.slots[2]]
    second = fill(residents, 1, "b")
    assert (first.parked, first.savable, first.slot) == (True, False, None)
    assert (second.parked, second.savable) == (False, True)
    assert residents.choose(cuts_of("a", "more"), 5) == (first, 1)


def test_what_a_slot_held_before_is_parked() -> None:
    """It keeps what it was, in no slot, and can be had again only if its request is known."""
    residents = Residents()
    place = residents.slots[0]
    place.fill(cuts_of("a"), prompt=10, tokens=12, group="g", prefix="", version="")
    residents.park(place)
    (parked,) = residents.parked
    assert (parked.tokens, parked.group, parked.parked, parked.slot) == (12, "g", True, None)
    assert (parked.recallable, place.parked) == (False, False)
    parked.again = ("/completion", b"{}")
    assert parked.recallable
    residents.goes_on(frozenset([cut.digest for cut in cuts_of("b")]))
    assert residents.parked == [parked]
    residents.goes_on(frozenset([cut.digest for cut in cuts_of("a", "more")]))
    assert residents.parked == []


def test_how_much_the_server_moved_into_memory_is_counted() -> None:
    """Its least recently used entries go when that is more than fits; what a request goes on from is not moved."""
    residents = Residents()
    moved = []
    for texts in (("a",), ("a", "b"), ("c",)):
        place, position = residents.choose(cuts_of(*texts), 100)
        residents.take(place, cuts_of(*texts)[position - 1].digest if position else b"")
        moved.append(residents.moved)
        place.fill(cuts_of(*texts), prompt=10, tokens=12, group="", prefix="", version="")
    assert moved == [0, 0, 12]


def test_what_runs_stays_in_its_slot() -> None:
    """Only idle slots are cleared."""
    residents = parking()
    first = fill(residents, 0, "a")
    first.state = State.CHANGING
    fill(residents, 1, "b")
    assert not first.parked


def test_what_comes_back_is_in_a_slot_again() -> None:
    """The server brings it back for the request that goes on from it."""
    residents = parking()
    first = fill(residents, 0, "a")
    second = fill(residents, 1, "b")
    residents.take(first, first.end)
    assert (first.parked, second.parked) == (False, True)


def test_slots_with_buffers_of_their_own_are_not_touched() -> None:
    """`-np 4` alone, or --no-cache-idle-slots."""
    residents = parking()
    residents.parks = False
    first = fill(residents, 0, "a")
    fill(residents, 1, "b")
    assert first.savable
    assert residents.endangered(first) == []


def test_empty_slots_are_known_until_the_server_takes_one() -> None:
    """Which of them a request went into only the server knows."""
    residents = Residents(3)
    residents.clear(empty=True)
    residents.settle(residents.slots[0], 0)
    assert [slot.slot for slot in residents.slots] == [0, 1, 2]
    residents.somewhere(residents.slots[1])
    assert residents.slots[1].slot is residents.slots[2].slot is None
    residents.clear(empty=False)
    assert [slot.slot for slot in residents.slots] == [None] * 3
