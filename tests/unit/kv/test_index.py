"""The table of snapshots: found by any common beginning, and only by those who may."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import chain, common
from bioproxy.kv.index import Index, Scope, ids, unusable
from bioproxy.kv.snapshot import Pin, Snapshot
from bioproxy.prompt import Cut, Piece

SCOPE = Scope("f" * 16, "b1")
prompts = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=5)
numbers = iter(range(1 << 40))


def cuts_of(*texts: bytes) -> tuple[Cut, ...]:
    return chain("", [Piece("", text) for text in texts])


def snapshot(*texts: bytes, **more: object) -> Snapshot:
    values = {"id": f"{next(numbers):016x}", "fingerprint": "f" * 16, "build": "b1", "size": 100, "used": 1.0}
    known = {"tokens": 10 * len(texts), "prompt": 10 * len(texts)}
    return Snapshot(cuts=cuts_of(*texts), **(values | known | more))  # type: ignore[arg-type]


@given(st.lists(st.tuples(prompts, st.sampled_from(["", "g1", "g2"]), st.booleans()), max_size=8), prompts)
def test_the_first_match_shares_the_longest_beginning(
    stored: list[tuple[list[bytes], str, bool]], asked: list[bytes]
) -> None:
    """Rules 19 and 22: like comparing with every snapshot of the group and every template, one by one."""
    index = Index()
    for texts, group, template in stored:
        index.add(snapshot(*texts, group=group, template=template))
    wanted = cuts_of(*asked)
    allowed = [one for one in index.snapshots.values() if one.template or one.group == "g1"]
    lengths = {one.id: common(wanted, {cut.digest for cut in one.cuts}) for one in allowed}
    found = list(index.matches(wanted, scope=SCOPE, group="g1"))
    assert {match.snapshot.id for match in found} == {identity for identity, length in lengths.items() if length}
    assert [lengths[match.snapshot.id] for match in found] == sorted(filter(None, lengths.values()), reverse=True)
    for match in found:
        assert match.digest == wanted[lengths[match.snapshot.id] - 1].digest
        assert match.exact == (len(match.snapshot.cuts) == lengths[match.snapshot.id])


@given(st.lists(prompts, max_size=10), st.data())
def test_what_was_removed_leaves_nothing_behind(stored: list[list[bytes]], draw: st.DataObject) -> None:
    """Sizes add up, and the table of cuts shrinks with the snapshots."""
    index = Index()
    for texts in stored:
        index.add(snapshot(*texts))
    gone = draw.draw(st.lists(st.sampled_from(sorted(index.snapshots)), unique=True)) if stored else []
    for identity in gone:
        assert index.remove(identity) is not None
    assert index.size == 100 * len(index.snapshots)
    tables = [table for each in index.tables.values() for table in (each.cuts, each.ends)]
    assert {identity for table in tables for held in table.values() for identity in ids(held)} == set(index.snapshots)
    assert all(table and all(table.values()) for table in tables)
    assert index.remove("nobody") is None


def test_nothing_above_what_is_resident_is_looked_at() -> None:
    """A slot that holds two pieces is not served by a snapshot of two pieces."""
    index = Index()
    index.add(snapshot(b"a", b"b"))
    assert not list(index.matches(cuts_of(b"a", b"b", b"c"), scope=SCOPE, group="", above=2))


def test_other_engines_and_builds_and_the_quarantined_are_never_matched() -> None:
    """Rule 2: another fingerprint, a build that was not proved, a snapshot that was worthless."""
    index = Index()
    index.add(snapshot(b"a", fingerprint="0" * 16))
    index.add(snapshot(b"a", build="b0"))
    index.add(snapshot(b"a", quarantined="the engine used none of it"))
    assert not list(index.matches(cuts_of(b"a"), scope=SCOPE, group=""))
    assert [bool(unusable(one, SCOPE)) for one in index.snapshots.values()] == [False, True, True]
    assert set(index.foreign_builds(SCOPE)) == {"b0"}


def test_a_newer_snapshot_of_a_conversation_replaces_its_ancestors() -> None:
    """Rule 17: what ends within it goes, other branches, groups and templates stay."""
    index = Index()
    ancestor, same = snapshot(b"a"), snapshot(b"a", b"b")
    others = [
        snapshot(b"a", b"x"),
        snapshot(b"a", group="g2"),
        snapshot(b"a", template=True),
        snapshot(b"a", fingerprint="0" * 16),
    ]
    newest = snapshot(b"a", b"b")
    for one in (ancestor, same, *others, newest):
        index.add(one)
    assert {one.id for one in index.ancestors(newest, 0.0)} == {ancestor.id, same.id}


def test_a_head_and_its_conversations_do_not_replace_each_other() -> None:
    """Each new conversation needs it; a newer snapshot of the same head replaces the older one, in its group."""
    index = Index()
    kept, conversation = snapshot(b"a", head="h", group="g1"), snapshot(b"a", b"b", group="g1")
    for one in (kept, conversation, snapshot(b"a", head="h", group="g2"), snapshot(b"a", group="g1")):
        index.add(one)
    assert kept not in index.ancestors(snapshot(b"a", b"b", b"c", group="g1"), 0.0)
    assert index.ancestors(snapshot(b"a", head="h", group="g1"), 0.0) == [kept]


def test_a_head_is_matched_for_its_group_alone() -> None:
    """Rule 22. What goes on from it asks what a template's request asks: all of it must come back."""
    index = Index()
    index.add(snapshot(b"a", head="h", group="g1"))
    (match,) = index.matches(cuts_of(b"a", b"b"), scope=SCOPE, group="g1")
    assert match.question(cuts_of(b"a", b"b")[-1].digest) == "templates"
    for group in ("", "g2", None):
        assert not list(index.matches(cuts_of(b"a", b"b"), scope=SCOPE, group=group))
        assert not index.bounded(cuts_of(b"a"), SCOPE.fingerprint, group)
    assert index.bounded(cuts_of(b"a"), SCOPE.fingerprint, "g1") == [match.snapshot]


def test_a_template_replaces_only_what_holds_exactly_the_same() -> None:
    """Two templates that begin alike are two templates."""
    index = Index()
    shorter, same, conversation = (
        snapshot(b"a", template=True),
        snapshot(b"a", b"b", template=True),
        snapshot(b"a", b"b"),
    )
    newest = snapshot(b"a", b"b", template=True)
    for one in (shorter, same, conversation, newest):
        index.add(one)
    assert [one.id for one in index.ancestors(newest, 0.0)] == [same.id]


def test_what_a_group_keeps_is_not_replaced() -> None:
    """Others go on from exactly what it holds; when its time is over it is an ancestor like any other."""
    index = Index()
    kept = snapshot(b"a", pins=(Pin("g1", until=5.0),))
    newest = snapshot(b"a", b"b")
    index.add(kept)
    index.add(newest)
    assert index.ancestors(newest, 4.0) == []
    assert index.ancestors(newest, 5.0) == [kept]


def test_what_shall_be_kept_to_a_time_does_not_age_before() -> None:
    """A pin without an end ages as everything does."""
    index = Index()
    index.add(snapshot(b"a", pins=(Pin("", until=8.0),)))
    index.add(snapshot(b"b", pins=(Pin("", name="repo"),)))
    assert [one.pins[0].name for one in index.aged(before=3.0, now=7.0)] == ["repo"]
    assert len(index.aged(before=3.0, now=8.0)) == 2


def test_snapshots_age_by_their_last_use() -> None:
    """What was not used since is old, however late it was written."""
    index = Index()
    index.add(snapshot(b"a", used=5.0, created=1.0))
    index.add(snapshot(b"b", used=1.0, created=5.0))
    assert [one.used for one in index.aged(before=3.0, now=9.0)] == [1.0]


def test_a_look_up_costs_what_the_request_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many snapshots of other models, groups and conversations share its cuts: each is looked at once."""
    index, prompt = Index(), [b"%d" % number for number in range(100)]
    for number in range(50):
        index.add(snapshot(*prompt, b"x%d" % number, group="g1"))
        index.add(snapshot(*prompt, b"x%d" % number, group=f"h{number}"))
        index.add(snapshot(*prompt, b"x%d" % number, group="g1", fingerprint=f"{number:016x}"))
    looked: list[Snapshot] = []

    def look(one: Snapshot, _scope: Scope) -> bool:
        looked.append(one)
        return True

    monkeypatch.setattr("bioproxy.kv.index.usable", look)
    wanted = cuts_of(*prompt, b"y")
    assert len(list(index.matches(wanted, scope=SCOPE, group="g1"))) == len(looked) == 50
    assert not list(index.matches(wanted, scope=SCOPE, group="g1", exact=True))


def test_a_builds_reference_ages_with_what_it_vouches_for() -> None:
    """An upgrade may come months after it was written, and finds nothing to try without it."""
    index = Index()
    reference = snapshot(b"r", template=True, version="reference", used=1.0)
    for one in (
        reference,
        snapshot(b"r", template=True, version="reference", used=1.0, build="b0"),
        snapshot(b"a", used=9.0),
    ):
        index.add(one)
    assert [one.build for one in index.aged(before=5.0, now=9.0)] == ["b0"]
    assert len(index.aged(before=10.0, now=10.0)) == 3


def test_what_is_described_anew_is_found_where_it_was() -> None:
    """Marked, adopted, or with other pins."""
    index = Index()
    one = snapshot(b"a")
    index.add(one)
    index.add(msgspec.structs.replace(one, quarantined="bad", size=300))
    assert (index.size, list(index.matches(cuts_of(b"a"), scope=SCOPE, group=""))) == (300, [])
    index.add(msgspec.structs.replace(one, pins=(Pin("", name="repo"),)))
    assert (index.size, list(index.named), len(index.snapshots)) == (100, [one.end], 1)
    assert index.remove(one.id) is not None
    assert (index.tables, index.named, index.size) == ({}, {}, 0)
