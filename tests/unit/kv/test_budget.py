"""What goes when there is too much, whose limits hold, and how much a group may keep."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.schema import Config, Key, Kv
from bioproxy.keys import Keyring
from bioproxy.kv.budget import (
    FOLDER,
    Account,
    Budgets,
    Outlook,
    budgets_of,
    payer,
    refused_by,
    room,
    shares,
    surplus,
    values_of,
)
from bioproxy.kv.chain import chain
from bioproxy.kv.index import Scope
from bioproxy.kv.snapshot import Pin, Snapshot
from bioproxy.prompt import Piece

SCOPE = Scope("f" * 16, "b1")
NOW = 1000.0
OUTLOOK = Outlook(now=NOW, scopes={SCOPE.fingerprint: SCOPE}, current={}, reserved=("main",))
numbers = iter(range(1 << 40))

GROUPS = st.sampled_from(["", "g1", "g2", "g1 user:aa", "g1 user:bb"])
ENDS, NAMES = st.sampled_from([0.0, 500.0, 1500.0]), st.sampled_from(["", "repo"])
SNAPSHOTS = st.lists(
    st.fixed_dictionaries(
        {
            "size": st.integers(1, 100),
            "seconds": st.sampled_from([0.1, 1.0, 9.0]),
            "used": st.floats(0, NOW),
            "model": st.sampled_from(["", "main", "helper"]),
            "group": GROUPS,
            "template": st.booleans(),
            "pinned": st.sampled_from([False, False, False, True]),
            "pins": st.lists(st.builds(Pin, GROUPS, ENDS, NAMES), max_size=2).map(tuple),
            "quarantined": st.sampled_from(["", "", "", "damaged"]),
        }
    ),
    max_size=12,
)
ACCOUNTS = [
    FOLDER,
    Account("model", "main"),
    Account("model", "helper"),
    Account("fingerprint", SCOPE.fingerprint),
    Account("key", "g1"),
    Account("key", ""),
]
LIMITS = st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 500))


def snapshot(*texts: bytes, **more: object) -> Snapshot:
    number = next(numbers)
    values = {"id": f"{number:016x}", "fingerprint": "f" * 16, "build": "b1", "size": 100, "used": 1.0}
    known = {"tokens": 10, "prompt": 10, "cuts": chain("", [Piece("", text) for text in texts or (b"%d" % number,)])}
    return Snapshot(**(values | known | more))  # type: ignore[arg-type]


def size_of(found: list[Snapshot], account: Account) -> int:
    return sum(one.size for one in found if account in OUTLOOK.accounts(one))


@given(SNAPSHOTS, LIMITS)
def test_no_limit_is_passed_as_long_as_something_may_go(
    made: list[dict[str, object]], limits: dict[Account, int]
) -> None:
    """Rule 18: the folder's, a model's, a key's; what is kept stays in any case."""
    found = [snapshot(**one) for one in made]
    gone = {one.id for one in surplus(found, OUTLOOK, limits)}
    left = [one for one in found if one.id not in gone]
    assert not [one for one in found if one.kept(NOW) and one.id in gone]
    for account, limit in limits.items():
        evictable = [one for one in left if account in OUTLOOK.accounts(one) and not one.kept(NOW)]
        assert size_of(left, account) <= limit or not evictable


@given(SNAPSHOTS, LIMITS, st.randoms(use_true_random=False))
def test_what_goes_does_not_depend_on_an_order(
    made: list[dict[str, object]], limits: dict[Account, int], order: random.Random
) -> None:
    """The same snapshots and the same limits, however they are listed."""
    found = [snapshot(**one) for one in made]
    shuffled, turned = list(found), list(limits.items())
    order.shuffle(shuffled)
    order.shuffle(turned)
    first = {one.id for one in surplus(found, OUTLOOK, limits)}
    assert first == {one.id for one in surplus(shuffled, OUTLOOK, dict(turned))}


@given(SNAPSHOTS, LIMITS)
def test_nothing_goes_while_every_limit_holds(made: list[dict[str, object]], limits: dict[Account, int]) -> None:
    """And what is left after one look is left after the next."""
    found = [snapshot(**one) for one in made]
    gone = {one.id for one in surplus(found, OUTLOOK, limits)}
    left = [one for one in found if one.id not in gone]
    assert surplus(left, OUTLOOK, limits) == []
    if all(size_of(found, account) <= limit for account, limit in limits.items()):
        assert not gone


@given(SNAPSHOTS, st.integers(0, 500), st.integers(0, 500))
def test_a_helper_cannot_push_out_what_has_a_budget(made: list[dict[str, object]], folder: int, own: int) -> None:
    """Nothing good of the main model goes for the folder while anything of another one may go."""
    main = Account("model", "main")
    found = [snapshot(**one) for one in made]
    above = {one.id for one in surplus(found, OUTLOOK, {main: own})}
    found = [one for one in found if one.id not in above]
    gone = {one.id for one in surplus(found, OUTLOOK, {FOLDER: folder, main: own})}
    if any(OUTLOOK.model(one) == "main" and not one.quarantined for one in found if one.id in gone):
        left = [one for one in found if one.id not in gone]
        assert not [one for one in left if OUTLOOK.model(one) != "main" and not one.kept(NOW)]


@given(SNAPSHOTS, LIMITS, st.booleans())
def test_what_fits_is_not_thrown_out_at_once(
    made: list[dict[str, object]], limits: dict[Account, int], kept: bool
) -> None:
    """What shall be kept fits only if everything then fits."""
    others = [snapshot(**one) for one in made]
    above = {one.id for one in surplus(others, OUTLOOK, limits)}
    others = [one for one in others if one.id not in above]
    new = snapshot(size=50, seconds=1.0, used=NOW, model="helper", group="g1", pins=(Pin("g1"),) if kept else ())
    account = refused_by(new, others, OUTLOOK, limits, replaced=0)
    gone = {one.id for one in surplus([*others, new], OUTLOOK, limits)}
    if account is not None:
        assert account in limits
        assert account in OUTLOOK.accounts(new)
        return
    assert new.id not in gone
    left = [one for one in (*others, new) if one.id not in gone]
    assert all(size_of(left, each) <= limit for each, limit in limits.items() if each in OUTLOOK.accounts(new))


def test_what_an_older_version_wrote_counts_for_the_model_of_its_engine() -> None:
    """Its description does not say whose it is."""
    outlook = Outlook(now=NOW, scopes={}, current={}, models={"f" * 16: "main"})
    assert Account("model", "main") in outlook.accounts(snapshot())


def test_the_eviction_is_offered_ranks() -> None:
    """Rule 18: the worthless first, a template in use last, what is being read not at all."""
    bad = snapshot(b"a", quarantined="why")
    plain, read = snapshot(b"b"), snapshot(b"c")
    needed = snapshot(b"d", template=True, prefix="@code", version="2")
    outlook = Outlook(
        now=2.0,
        scopes={SCOPE.fingerprint: SCOPE},
        current={SCOPE.fingerprint: {"@code": "2"}},
        spare=frozenset([read.id]),
    )
    values = values_of([bad, plain, read, needed], outlook)
    assert {value.id: value.rank for value in values} == {bad.id: 0, plain.id: 1, needed.id: 2}


def test_what_an_upgrade_has_not_tried_yet_is_not_worthless() -> None:
    """Its build's reference goes last, for it vouches for all of them; once the build was refused, both go first."""
    worth, poor = snapshot(build="b0", seconds=9.0, used=NOW), snapshot(seconds=1.0, used=NOW)
    reference = snapshot(build="b0", template=True, version="reference")
    found = [worth, poor, reference]
    assert surplus(found, OUTLOOK, {FOLDER: 200}) == [poor]
    assert surplus(found, OUTLOOK, {FOLDER: 100}) == [worth, poor]
    refused = Scope(SCOPE.fingerprint, "b1", refused=frozenset({"b0"}))
    known = msgspec.structs.replace(OUTLOOK, scopes={SCOPE.fingerprint: refused})
    assert surplus(found, known, {FOLDER: 100}) == [worth, reference]


def test_of_a_head_and_a_conversation_alike_the_conversation_goes_first() -> None:
    """Rule 18: each new session goes on from the head."""
    conversation, head = snapshot(b"a", b"b", seconds=1.0), snapshot(b"a", head="h", seconds=1.0)
    assert surplus([conversation, head], OUTLOOK, {FOLDER: 100}) == [conversation]


def test_a_template_of_a_model_with_a_budget_goes_last_of_all() -> None:
    """After the conversations of that model, which go after all that is of others."""
    helper, main = (snapshot(template=True, prefix="@code", model=name) for name in ("helper", "main"))
    talk = snapshot(model="main")
    ranks = {value.id: value.rank for value in values_of([helper, talk], OUTLOOK)}
    ranks |= {value.id: value.rank for value in values_of([main], OUTLOOK)}
    assert ranks[helper.id] < ranks[talk.id] < ranks[main.id]


# what groups keep


def test_a_pin_holds_for_its_time_and_no_longer() -> None:
    """Then the snapshot goes like any other."""
    one = snapshot(pins=(Pin("g1", until=NOW + 1),))
    assert values_of([one], OUTLOOK) == []
    later = Outlook(now=NOW + 1, scopes={}, current={})
    assert [value.id for value in values_of([one], later)] == [one.id]
    assert (one.kept_until(NOW), one.kept_until(NOW + 1)) == (NOW + 1, None)


def test_what_is_never_used_again_is_not_kept() -> None:
    """Its bytes count for nobody."""
    bad = snapshot(pins=(Pin("g1", name="repo"),), quarantined="damaged")
    assert (bad.kept_by(NOW), bad.kept_until(NOW)) == (frozenset(), None)
    assert room([bad], "g1", budgets=Budgets(), folder=1000, now=NOW).held == 0


def test_a_key_keeps_no_more_than_its_budget_and_all_no_more_than_theirs() -> None:
    """One snapshot that two keys keep counts for both, and once for all."""
    budgets = Budgets(groups={"g1": 250}, kept=400)
    both, mine = snapshot(pins=(Pin("g1"), Pin("g2"))), snapshot(pins=(Pin("g1"),))
    other = snapshot(pins=(Pin("g2", until=NOW + 9),))
    found = [both, mine, other]
    one = room(found, "g1", budgets=budgets, folder=1000, now=NOW)
    assert (one.held, one.most, one.left) == (200, 250, 50)
    two = room(found, "g2", budgets=budgets, folder=1000, now=NOW)
    assert (two.held, two.most, two.left) == (200, 400, 100)


def test_without_a_budget_keys_keep_half_the_folder() -> None:
    """More than the folder has is never promised."""
    assert room([], "", budgets=Budgets(), folder=1000, now=NOW).left == 500
    assert room([], "", budgets=Budgets(kept=9000), folder=1000, now=NOW).left == 1000


def test_a_key_gets_no_more_by_inventing_users() -> None:
    """They are told apart by a header that the client writes."""
    mine = snapshot(pins=(Pin("g1 user:aa"),), group="g1 user:aa")
    assert room([mine], "g1 user:bb", budgets=Budgets(groups={"g1": 100}), folder=1000, now=NOW).left == 0
    assert Account("key", "g1") in OUTLOOK.accounts(mine)
    assert payer("g1 user:aa") == "g1"


@given(SNAPSHOTS, GROUPS, st.integers(0, 500), st.integers(0, 500))
def test_what_is_left_can_be_kept(made: list[dict[str, object]], group: str, own: int, kept: int) -> None:
    """Taking all of it leaves nothing, and passes no bound."""
    budgets = Budgets(groups={payer(group): own} if own else {}, kept=kept)
    found = [snapshot(**one) for one in made]
    before = room(found, group, budgets=budgets, folder=600, now=NOW)
    if before.left:
        taken = [*found, snapshot(size=before.left, pins=(Pin(group),))]
        after = room(taken, group, budgets=budgets, folder=600, now=NOW)
        assert (after.left, after.held) == (0, before.held + before.left)
        assert after.held <= after.most
        assert sum(one.size for one in taken if one.kept_by(NOW)) <= budgets.most_kept(600)


def test_budgets_are_configured_by_a_keys_name_or_group() -> None:
    """`*` is each key that is not named."""
    keys = (Key(key="a", name="alice", group="team"), Key(key="b", name="bob"), "c")
    kv = Kv(key_budgets={"alice": 10, "bob": 20, "*": 5}, model_budgets={"main": 7}, kept_budget=3)
    found = budgets_of(Config(api_keys=keys, kv=kv))
    bob = next(group for group, name in found.names.items() if name == "bob")
    assert (found.of_group("team"), found.of_group(bob), found.of_group("other")) == (10, 20, 5)
    assert (found.models, found.kept, found.names["team"]) == ({"main": 7}, 3, "alice")
    assert budgets_of(Config(api_keys=keys, kv=Kv(key_budgets={"team": 9}))).of_group("team") == 9


def test_keys_of_one_name_have_one_budget() -> None:
    """An old key and a new one of somebody: what they have, may have and keep counts together, under that name."""
    keys = (Key(key="old", name="ann"), Key(key="b", name="bob"), Key(key="new", name="ann"))
    budgets = budgets_of(Config(api_keys=keys, kv=Kv(key_budgets={"ann": 150, "*": 90})))
    old, bob, new = (principal.group for _, principal in Keyring(keys).principals.values())
    assert [budgets.payer(one) for one in (old, f"{new} user:aa", bob)] == [old, old, bob]
    assert [budgets.of_group(one) for one in (old, new, bob)] == [150, 150, 90]
    outlook = msgspec.structs.replace(OUTLOOK, payers=budgets.payers)
    found = [snapshot(group=old, seconds=1.0), snapshot(group=new, seconds=2.0, pins=(Pin(new),))]
    limits = budgets.limits(1000, bounds={}, groups={budgets.payer(one.group) for one in found})
    assert surplus(found, outlook, limits) == [found[0]]
    assert room(found, old, budgets=budgets, folder=1000, now=NOW).held == 100
    told = [(one.name, one.bytes, one.kept, one.budget) for one in shares(found, outlook, budgets) if one.kind == "key"]
    assert told == [("ann", 200, 100, 150)]


@pytest.mark.parametrize(
    ("account", "part"),
    [(FOLDER, "kv.disk_budget"), (Account("model", "m"), "model m is full"), (Account("key", "team"), "key alice is")],
)
def test_who_is_refused_reads_which_budget_is_full(account: Account, part: str) -> None:
    """By the name that is configured, and what to raise."""
    assert part in Budgets(names={"team": "alice"}).full(account)


# who has what


def test_what_each_model_and_key_has_is_told() -> None:
    """By the names of keys; those with a budget also while they have nothing, and a template is no key's."""
    budgets = Budgets(models={"main": 500, "spare": 5}, groups={"g1": 300}, names={"g1": "alice"})
    found = [
        snapshot(model="main", group="g1", seconds=2.0, used=NOW),
        snapshot(model="helper", group="g1 user:aa", seconds=1.0, used=NOW, pins=(Pin("g1 user:aa"),)),
        snapshot(model="main", template=True, prefix="@code", seconds=4.0, used=NOW),
        snapshot(template=True, used=NOW),
    ]
    told = {(one.kind, one.name): one for one in shares(found, OUTLOOK, budgets)}
    assert set(told) == {("model", "main"), ("model", "helper"), ("model", "spare"), ("key", "alice")}
    main, alice = told["model", "main"], told["key", "alice"]
    assert (main.bytes, main.kept, main.budget, main.worth) == (200, 0, 500, 6.0)
    assert (alice.bytes, alice.kept, alice.budget, alice.worth) == (200, 100, 300, 3.0)
    assert told["model", "spare"].bytes == 0
    assert alice.plus(alice).bytes == 400
