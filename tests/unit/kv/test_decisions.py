"""What to do about a request, given what is resident and what is on disk; no engine, no disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from bioproxy.config.schema import Kv
from bioproxy.events import Bus
from bioproxy.kv.chain import chain, common
from bioproxy.kv.decisions import CANDIDATES, Decisions, Findings
from bioproxy.kv.fingerprint import Traits
from bioproxy.kv.policy import Question, Speeds
from bioproxy.kv.resident import Resident, State, Want
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import DAMAGED, Snapshot, new_id
from bioproxy.prompt import Cut, Piece

FINGERPRINT, BUILD = "f" * 16, "b1"
TOKENS = 1000  # of each piece


def cuts_of(texts: Sequence[str]) -> tuple[Cut, ...]:
    return chain("", [Piece("", text.encode()) for text in texts])


def want(*texts: str, group: str = "", store: bool = True, prefix: str = "") -> Want:
    cuts = cuts_of(texts)
    return Want(cuts, cuts[-1].offset if cuts else 0, group, prefix, "1", store)


def decisions(*, everyone: str | None = "", **config: object) -> Decisions:
    """One token takes a millisecond and a kilobyte; the disk moves a gigabyte a second. `everyone`: who may ask."""
    settings = Kv(**({"min_seconds": 0.5} | config))  # type: ignore[arg-type]
    tenant = Tenant(config=settings, bus=Bus())
    tenant.use(FINGERPRINT, BUILD)
    tenant.knowledge.speeds = Speeds(prefill=0.001, restore=1e9, save=1e9, token_bytes=1000.0)
    made = Decisions(settings, tenant, everyone=lambda: everyone)
    made.findings = Findings()
    return made


def stored(made: Decisions, *texts: str, **more: object) -> Snapshot:
    count = TOKENS * len(texts)
    usual = {"id": new_id(), "fingerprint": FINGERPRINT, "build": BUILD, "size": count * 1000}
    known = {"tokens": count, "prompt": count, "cuts": cuts_of(texts)}
    snapshot = Snapshot(**(usual | known | more))  # type: ignore[arg-type]
    made.tenant.shelf.index.add(snapshot)
    return snapshot


def failed(made: Decisions, *questions: Question) -> None:
    """Restores of these kinds brought nothing back."""
    for question in questions:
        made.tenant.knowledge.tried(question, good=False, now=made.tenant.shelf.wall())


def resident(*texts: str, group: str = "", generated: int = 0) -> Resident:
    place = Resident(0)
    if texts:
        count = TOKENS * len(texts)
        place.fill(cuts_of(texts), prompt=count, tokens=count + generated, group=group, prefix="", version="")
    return place


def restored(made: Decisions, asked: Want, place: Resident) -> str:
    """The id of the snapshot that would be restored; empty: none."""
    plan = made.plan(asked, place, common(asked.cuts, place.digests), restoring=True, saving=False)
    return plan.match.snapshot.id if plan is not None and plan.match is not None else ""


def test_nothing_is_planned_where_nothing_helps() -> None:
    """The usual case: the slot holds the conversation's beginning, and the disk no more of it."""
    made = decisions()
    stored(made, "a")
    assert made.plan(want("a", "b"), resident("a"), 1, restoring=True, saving=True) is None


def test_the_deeper_of_two_snapshots_is_taken() -> None:
    """Rule 19: the longest common beginning spares most."""
    made = decisions()
    stored(made, "a")
    deeper = stored(made, "a", "b")
    assert restored(made, want("a", "b", "c"), resident()) == deeper.id


def test_a_huge_file_that_diverges_loses_against_a_small_one() -> None:
    """Rule 15: what counts is time spared, less the time to read."""
    made = decisions()
    small = stored(made, "a")
    stored(made, "a", "x", size=5_000_000_000)
    assert restored(made, want("a", "b"), resident()) == small.id


def test_only_what_goes_beyond_the_resident_counts() -> None:
    """Rule 15: 2000 of 3000 tokens are there already; the third thousand must pay for the whole file."""
    made = decisions()
    stored(made, "a", "b", "c", size=1_500_000_000)
    assert restored(made, want("a", "b", "c", "d"), resident("a", "b")) == ""
    assert restored(made, want("a", "b", "c", "d"), resident()) != ""


def test_a_model_that_cannot_diverge_uses_what_is_extended() -> None:
    """Rule 19: SWA and hybrid models, once it was seen."""
    made = decisions()
    failed(made, "diverges")
    exact = stored(made, "a")
    stored(made, "a", "b", "x")
    assert restored(made, want("a", "b", "c"), resident()) == exact.id


def test_with_swa_full_only_templates_are_restored() -> None:
    """facts, 0.8: a conversation's file ends in generated text, and leaving it a token early is silently wrong."""
    made = decisions()
    made.findings = Findings(diverging=False)
    template = stored(made, "a", template=True, prefix="@code")
    stored(made, "a", "b")
    assert restored(made, want("a", "b", "c"), resident()) == template.id


def test_a_hopeless_model_gets_no_restore_and_no_save() -> None:
    """Rule 6, of a whole model."""
    made = decisions()
    stored(made, "a")
    failed(made, "templates", "templates")
    assert restored(made, want("a", "b"), resident()) == ""
    assert not made.worth_saving(resident("a"), TOKENS)
    assert not made.worth_keeping(want("a"), TOKENS, 60.0)
    assert "no snapshots" in "".join(made.reasons())
    made.tenant.shelf.wall = lambda: time.time() + 90000
    assert restored(made, want("a", "b"), resident()) != ""
    assert made.reasons() == ()


@pytest.mark.parametrize(("reason", "again"), [("the engine used 3 of 900", False), (f"x.kv {DAMAGED}", True)])
def test_a_damaged_template_is_written_again(reason: str, *, again: bool) -> None:
    """A flipped bit is no verdict on the model; a restore that brought nothing is one, for a day."""
    made = decisions()
    stored(made, "a", template=True, prefix="@code", quarantined=reason, created=time.time())
    assert made.worth_keeping(want("a"), TOKENS, 60.0) is again


def test_a_model_whose_conversations_bring_nothing_keeps_its_templates() -> None:
    """Rule 6: answers that clients send back in other words are no verdict on what ends at a template's boundary."""
    made = decisions()
    template = stored(made, "a", template=True, prefix="@code")
    stored(made, "a", "b")
    failed(made, "extends", "extends")
    assert restored(made, want("a", "b", "c"), resident()) == template.id
    assert not made.worth_saving(resident("a", "b"), TOKENS)
    assert made.worth_keeping(want("a", "x"), TOKENS, 60.0)
    assert "only templates" in made.useless(template=False)
    assert made.reasons() == (made.useless(template=False),)
    assert made.useless(template=True) == ""


def test_a_regeneration_that_brings_nothing_is_not_tried_again_and_going_on_is() -> None:
    """Rule 6: a recurrent model cannot go back into what it generated, and can go on from it."""
    made = decisions()
    conversation = stored(made, "a", "b")
    failed(made, "repeats")
    assert restored(made, want("a", "b"), resident()) == ""
    assert restored(made, want("a", "b", "c"), resident()) == conversation.id
    assert made.worth_saving(resident("x", "y"), TOKENS)
    assert made.reasons() == ()


@pytest.mark.parametrize(
    ("recurrent", "question", "good", "tells"),
    [
        (True, "extends", False, False),
        (True, "extends", True, True),
        (True, "templates", False, True),
        (True, "repeats", False, True),
        (False, "extends", False, True),
    ],
)
def test_a_conversation_that_a_recurrent_model_did_not_use_says_nothing(
    recurrent: bool, question: Question, *, good: bool, tells: bool
) -> None:
    """Rule 6: such a model can always go on, so the client sent the answer back in other words."""
    made = decisions()
    made.traits = Traits(recurrent=recurrent)
    assert made.tells(question, 1000, good=good) is tells
    assert not made.tells(question, 5, good=good)


def test_a_template_wins_over_a_conversation_that_shares_no_more() -> None:
    """Rule 6: what is sure to be used goes before what has to be cut, however long the file's share looks."""
    made = decisions()
    made.traits = Traits(window=False, recurrent=False)
    template = stored(made, "a", template=True, prefix="@code", tokens=TOKENS // 2)
    stored(made, "a", "x", id="0" * 16)
    assert restored(made, want("a", "b"), resident()) == template.id


@pytest.mark.parametrize(
    ("traits", "taken"),
    [
        (Traits(), "template"),
        (Traits(recurrent=True, window=False), "template"),
        (Traits(window=False, recurrent=False), "conversation"),
    ],
)
def test_a_conversation_that_must_be_cut_has_to_promise_more_than_a_template(traits: Traits, taken: str) -> None:
    """Rule 6: unless the model is known to be cut anywhere, twice as much."""
    made = decisions()
    made.traits = traits
    stored(made, "a", "b", id="template", template=True, prefix="@code")
    stored(made, "a", "b", "c", "x", id="conversation")
    assert restored(made, want("a", "b", "c", "d"), resident()) == taken


def test_no_number_of_conversations_hides_a_template() -> None:
    """Many share more of the request than the template does, and this model can use none of them."""
    made = decisions()
    made.tenant.knowledge.tried("diverges", good=False, now=made.tenant.shelf.wall())
    template = stored(made, "a", template=True, prefix="@code")
    for number in range(3 * CANDIDATES):
        stored(made, "a", "b", f"x{number}")
    assert restored(made, want("a", "b", "c"), resident()) == template.id


def test_a_question_to_a_document_on_disk_is_not_written_with_the_document() -> None:
    """Rule 17: of document and question in one message, what is new is the question."""
    made = decisions()
    document = "".join(f"Line {number} of a long document.\n" for number in range(300))
    stored(made, document + "What is it about?", tokens=TOKENS, prompt=TOKENS)
    sibling = resident(document + "And who wrote it?")
    assert made.unsaved(sibling) < TOKENS / 4
    assert not made.worth_saving(sibling, made.unsaved(sibling))
    assert made.worth_saving(sibling, TOKENS)


def test_what_a_days_last_bytes_are_too_good_for_is_not_written() -> None:
    """Rule 18: what is new must be worth its bytes; a template is written as long as any may be."""
    made = decisions()
    place, new = resident("a", "b"), TOKENS
    made.tenant.shelf.least = 0.9 * new * 0.001 / (2 * TOKENS * 1000)
    assert made.worth_saving(place, new)
    made.tenant.shelf.least *= 2
    assert not made.worth_saving(place, new)
    assert made.worth_saving(place, 2 * TOKENS)
    place.shared = True
    assert made.worth_saving(place, new)


def test_what_a_slot_has_from_a_snapshot_counts_as_long_as_its_group_may_use_that() -> None:
    """To the token; cuts alone would say that nothing of it is on disk."""
    made = decisions()
    kept, place = stored(made, "a", group="alice"), resident("other words", group="alice", generated=10)
    place.source = kept.id, TOKENS - 100
    assert made.unsaved(place) == 110
    place.group = "bob"
    assert made.unsaved(place) == TOKENS + 10
    place.group = "alice"
    made.tenant.knowledge.tried("diverges", good=False, now=made.tenant.shelf.wall())
    assert made.unsaved(place) == TOKENS + 10
    place.source = kept.id, TOKENS
    assert made.unsaved(place) == 10
    made.tenant.shelf.index.remove(kept.id)
    assert made.unsaved(place) == TOKENS + 10


def test_what_is_resident_and_what_is_on_disk_are_measured_alike() -> None:
    """A slot that ends at a template's mark holds nearly all that a conversation without marks could bring back."""
    made = decisions()
    text = b"x" * 1000
    stored(made, text.decode(), "talk")
    place = Resident(0)
    warmed = chain("", [Piece("", text[:990])])
    place.fill(warmed, prompt=990, tokens=990, group="", prefix="", version="")
    cuts = chain("", [Piece("", text, (990,)), Piece("", b"question")])
    asked = Want(cuts, cuts[-1].offset)
    assert common(cuts, place.digests) == 1
    assert restored(made, asked, place) == ""
    assert restored(made, asked, resident()) != ""


def test_with_swa_full_no_conversation_is_written() -> None:
    """What can only be used wrongly is not written; a template is."""
    made = decisions()
    made.findings = Findings(diverging=False)
    assert not made.worth_saving(resident("a", "b"), TOKENS)
    assert made.worth_keeping(want("a"), TOKENS, 60.0)
    assert "--swa-full" in made.useless(template=False)


def test_with_swa_full_a_restored_slot_is_erased_before_a_request_that_leaves_it_early() -> None:
    """facts, 0.8: the file holds the last positions of a window only; a slot that was evaluated here is left alone."""
    made = decisions()
    made.findings = Findings(diverging=False)
    erased = []
    for live in (False, True):
        for asked in (want("a", "x"), want("a", "b", "c"), want("y")):
            place = resident("a", "b")
            place.live = live
            plan = made.plan(asked, place, common(asked.cuts, place.digests), restoring=True, saving=True)
            erased.append(plan is not None and plan.erase)
    assert erased == [True, False, True, False, False, False]


def test_unsaved_is_what_no_snapshot_covers() -> None:
    """Rule 17: growth since the last save, by the longest beginning on disk."""
    made = decisions()
    place = resident("a", "b", generated=50)
    assert made.unsaved(place) == 2 * TOKENS + 50
    stored(made, "a")
    assert made.unsaved(place) == TOKENS + 50
    stored(made, "a", "b", tokens=2 * TOKENS + 50)
    assert made.unsaved(place) == 0
    assert made.unsaved(Resident(0)) == -1
    empty = Resident(0)
    empty.clear(empty=True)
    assert made.unsaved(empty) == 0


def test_what_is_saved_counts_until_it_is_lost() -> None:
    """A resident whose snapshot was thrown out is worth saving again."""
    made = decisions()
    place, snapshot = resident("a"), stored(made, "x")
    place.saved = snapshot.id
    assert made.unsaved(place) == 0
    made.tenant.shelf.index.remove(snapshot.id)
    assert made.unsaved(place) == TOKENS


def displaced(made: Decisions, asked: Want, place: Resident) -> bool:
    plan = made.plan(asked, place, common(asked.cuts, place.digests), restoring=False, saving=True)
    return plan is not None and plan.save


def test_a_conversation_is_saved_when_another_displaces_it() -> None:
    """Rule 17: 2 MB in 2 ms against 2 s of prefill."""
    made = decisions()
    assert displaced(made, want("x"), resident("a", "b"))


def test_an_edit_of_the_last_question_displaces_little() -> None:
    """What both share stays in the slot; only the rest would be lost."""
    made = decisions(min_seconds=1.5)
    assert not displaced(made, want("a", "other"), resident("a", "b"))
    assert displaced(made, want("x"), resident("a", "b"))


def test_a_regenerated_answer_displaces_nothing() -> None:
    """The same prompt again: the answer is thrown away, as was asked."""
    made = decisions(min_seconds=0.0)
    assert not displaced(made, want("a", "b"), resident("a", "b", generated=900))


def test_what_must_not_be_stored_or_is_not_known_is_not_saved() -> None:
    """`no-store`, and a slot that a cut-off request left."""
    made = decisions()
    private, torn = resident("a", "b"), resident("a", "b")
    private.store = False
    torn.clip(torn.end)
    assert not displaced(made, want("x"), private)
    assert not displaced(made, want("x"), torn)


def test_nobody_waits_for_a_save_of_unknown_length() -> None:
    """Before anything was measured only the idle save is made; a build's reference is measure enough."""
    made = decisions()
    made.tenant.knowledge.speeds = Speeds(prefill=0.001)
    assert not displaced(made, want("x"), resident("a", "b"))
    made.tenant.knowledge.guess = 1000.0
    assert displaced(made, want("x"), resident("a", "b"))


@pytest.mark.parametrize(
    ("place", "is_foreign"),
    [
        (resident("a", group="alice"), False),
        (resident("a", group="bob"), True),
        (Resident(0), True),
    ],
)
def test_strict_isolation_trusts_only_what_it_knows(place: Resident, *, is_foreign: bool) -> None:
    """Rule 22: an unknown slot may hold anybody's conversation."""
    assert place.foreign("alice") is is_foreign


def test_a_template_and_an_empty_slot_are_nobodys() -> None:
    """Rule 22: templates are shared, and nothing is nothing."""
    template, empty = resident("a"), Resident(0)
    template.shared = True
    empty.clear(empty=True)
    assert [place.foreign("alice") for place in (template, empty)] == [False, False]


@pytest.mark.parametrize("before", ["", "alice", "bob"])
def test_what_a_request_may_have_left_is_its_groups(before: str) -> None:
    """Rule 22: also in a slot that held a template; and it is nobody's for sure after another group's."""
    place = resident("a", group=before)
    place.shared = not before
    place.clip(place.end, "alice")
    assert [place.foreign(group) for group in ("alice", "bob")] == [before == "bob", True]


def test_a_warm_up_restores_whatever_is_read_faster_than_evaluated() -> None:
    """Rule 15 alone: a request needs `kv.min_seconds` as well, but nobody waits for a warm-up."""
    made = decisions(min_seconds=60.0)
    older = stored(made, "a", "old", template=True, prefix="@code", version="0")
    asked = want("a", "new", prefix="@code")
    assert restored(made, asked, resident("foreign")) == ""
    assert restored(made, replace(asked, background=True), resident("foreign")) == older.id
    made.tenant.knowledge.speeds = Speeds(prefill=1e-7, restore=1e9, save=1e9, token_bytes=1000.0)
    assert restored(made, replace(asked, background=True), resident("foreign")) == ""


def test_a_template_is_kept_where_it_pays() -> None:
    """Rules 14 and 15: not below `kv.min_seconds`, not where reading takes longer than computing."""
    made = decisions()
    assert made.worth_keeping(want("a"), TOKENS, 1.0)
    assert not made.worth_keeping(want("a"), TOKENS, 0.4)
    made.tenant.knowledge.speeds = Speeds(prefill=0.001, restore=1e5, token_bytes=1000.0)
    assert not made.worth_keeping(want("a"), TOKENS, 1.0)


def test_policy_always_takes_the_templates_file_whatever_is_resident() -> None:
    """The seed's way: also when the slot holds the same already, never another template's file."""
    made = decisions(policy="always")
    made.literal = True
    stored(made, "a", prefix="@other")
    mine = stored(made, "a", prefix="@code")
    assert restored(made, want("a", "b", prefix="@code"), resident("a", "b")) == mine.id
    assert restored(made, want("a", "b"), resident()) == ""


def test_what_was_worthless_may_be_kept_again_the_next_day() -> None:
    """Rule 6: a chat template with a date in it makes yesterday's file worthless, and today's is another one."""
    made = decisions()
    now = made.tenant.shelf.wall()
    stored(made, "a", template=True, prefix="@code", quarantined="the engine used none of it", created=now - 3600)
    assert not made.worth_keeping(want("a"), TOKENS, 1.0)
    made.tenant.shelf.wall = lambda: now + 86400
    assert made.worth_keeping(want("a"), TOKENS, 1.0)


def test_on_several_slots_a_small_beginning_is_not_restored() -> None:
    """Rule 23: below a tenth of the prompt the server would send the request to another slot."""
    made = decisions()
    snapshot = stored(made, "a" * 50)
    long, short = want("a" * 50, "b" * 5000), want("a" * 50, "b" * 100)
    assert restored(made, long, resident()) == snapshot.id
    made.several = True
    assert restored(made, long, resident()) == ""
    assert restored(made, short, resident()) == snapshot.id


def test_what_cannot_be_restored_covers_nothing() -> None:
    """Rule 19: a branch of the conversation on disk is no help to a model that cannot diverge."""
    made = decisions()
    place = resident("a", "b")
    stored(made, "a", "x")
    assert made.unsaved(place) == TOKENS
    failed(made, "diverges")
    assert made.unsaved(place) == 2 * TOKENS


def test_what_a_request_drives_out_of_other_slots_is_saved() -> None:
    """Rule 17: on slots that share one buffer; what is in memory only, or on disk already, is not."""
    made = decisions()
    other, parked, known = resident("a", "b"), resident("c", "d"), resident("e")
    parked.state = State.PARKED
    stored(made, "e")
    at_risk = [other, parked, known]
    plan = made.plan(want("x"), resident(), 0, restoring=True, saving=True, endangered=at_risk)
    assert plan is not None
    assert plan.saves == (other,)
    assert made.plan(want("x"), resident(), 0, restoring=True, saving=False, endangered=at_risk) is None


def test_a_request_that_goes_on_saves_what_it_drives_out() -> None:
    """Also where nothing happens to its own slot."""
    made = decisions()
    plan = made.plan(want("a", "b"), resident("a"), 1, restoring=True, saving=True, endangered=[resident("x", "y")])
    assert plan is not None
    assert (plan.save, len(plan.saves)) == (False, 1)


def test_without_a_request_what_was_used_last_comes_back() -> None:
    """Rule 21: a template or a conversation of this engine, if it pays."""
    made = decisions()
    assert list(made.likely()) == []
    stored(made, "a", used=1.0)
    last = stored(made, "b", used=3.0)
    stored(made, "c", used=5.0, fingerprint="0" * 16)
    stored(made, "d", used=6.0, quarantined="worthless")
    found = list(made.likely())
    assert [match.snapshot.used for match in found] == [3.0, 1.0]
    assert (found[0].snapshot.id, found[0].exact) == (last.id, True)
    made.tenant.knowledge.speeds = Speeds(prefill=1e-6)
    assert list(made.likely()) == []


@pytest.mark.parametrize(
    ("everyone", "found"),
    [
        pytest.param(None, "template", id="several groups"),
        pytest.param("alice", "alice's", id="one group"),
        pytest.param("", "nobody's", id="no keys"),
    ],
)
def test_without_a_request_no_groups_conversation_comes_back_for_another(everyone: str | None, found: str) -> None:
    """Rule 22: whoever asks next finds the operator's template in the slot, or a conversation of the only group."""
    made = decisions(everyone=everyone)
    stored(made, "a", id="template", used=1.0, template=True, prefix="@code")
    stored(made, "b", id="nobody's", used=2.0)
    stored(made, "c", id="alice's", used=3.0, group="alice")
    stored(made, "d", id="bob's", used=4.0, group="bob")
    assert next(made.likely()).snapshot.id == found


def test_a_warm_up_restores_nobodys_conversation() -> None:
    """Rule 22: it is no group's request, and what it restored would stay in the engine's memory for all."""
    for everyone, found in ((None, False), ("alice", False), ("", True)):
        made = decisions(everyone=everyone)
        stored(made, "a", "b")  # from a time without keys
        assert (restored(made, want("a", prefix="@code"), resident()) != "") is found


def test_what_is_longer_than_the_context_is_not_restored() -> None:
    """The engine came back with a smaller -c and would refuse it, though nothing is wrong with the file."""
    made = decisions()
    stored(made, "a", "b")
    made.context = TOKENS
    assert restored(made, want("a", "b", "c"), resident()) == ""
    made.context = 2 * TOKENS
    assert restored(made, want("a", "b", "c"), resident()) != ""


def test_how_long_a_save_takes_is_estimated() -> None:
    """Before a stop nothing is begun that would not end in time."""
    made = decisions()
    assert made.seconds_to_save(resident("a")) == pytest.approx(TOKENS * 1000.0 / 1e9)
