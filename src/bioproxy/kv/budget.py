"""What goes when the folder is full, and who may take how much of it (kv-rule 18). Pure.

Snapshots are counted in accounts: the folder's, which has all of them, one for each model and one for each key's group,
which has its conversations. An account may have a limit. `surplus` says without which snapshots every limit holds: of
each account that has too much the least valuable go, and what goes counts in all its accounts. So no limit is passed as
long as something is left that may go; what is pinned, or being read, never does.

A model's budget (`kv.model_budgets`) is a bound, and the same number of bytes is its own: what it has goes after
everything of models without a budget, whatever that is worth. So a helper model cannot push out the main one's.
A key's budget is a bound only.

Beside what an account may have there is what a group may *keep* (snapshots that the budget must leave alone, for a time
or by name): no more than its own budget, and all groups together no more than `kv.kept_budget`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from bioproxy.config.schema import Config
from bioproxy.keys import USER, Keyring, Principal
from bioproxy.kv import policy
from bioproxy.kv.index import Scope, untried, unusable, usable
from bioproxy.kv.snapshot import Snapshot

OTHERS = "*"  # in `kv.key_budgets`: each key that is not named there
KEPT_SHARE = 2  # all that groups keep is at most the budget divided by this, if `kv.kept_budget` does not say


class Account(NamedTuple):
    """Whose snapshots are counted together: the `folder`, a `fingerprint`, a `model` or a `key` (its group)."""

    kind: str
    name: str = ""


FOLDER = Account("folder")
FULL = {
    "folder": "the disk budget is full of snapshots that are worth more; raise kv.disk_budget",
    "fingerprint": "the model's disk budget is full of snapshots that are worth more; raise its kv.disk_budget",
    "model": "the budget of model {} is full of snapshots that are worth more; raise kv.model_budgets",
    "key": "the budget of key {} is full of snapshots that are worth more; raise kv.key_budgets",
}


Limits = Mapping[Account, int]  # bytes; an account that is not in there has none


class Budgets(msgspec.Struct, frozen=True):
    """What the configuration says, in bytes: by model, by group, for `each` other group (0: no bound), and `kept`.

    `names`: what a group is called where people look. `payers`: keys of one name count as one, so of several groups one
    stands for the others.
    """

    models: Mapping[str, int] = {}
    groups: Mapping[str, int] = {}
    each: int = 0
    kept: int = 0
    names: Mapping[str, str] = {}
    payers: Mapping[str, str] = {}

    def payer(self, group: str) -> str:
        """The group that stands for this one: for a key's users, and for all keys of its name."""
        own = payer(group)
        return self.payers.get(own, own)

    def of_group(self, group: str) -> int:
        """Bytes that a group's snapshots may take; 0: no bound of its own."""
        return self.groups.get(self.payer(group), self.each)

    @property
    def keys(self) -> bool:
        """Whether any key has a bound."""
        return bool(self.groups or self.each)

    def limits(self, folder: int, *, bounds: Mapping[str, int], groups: Collection[str]) -> Limits:
        """What the accounts may have of a folder with this budget; `bounds`: those of single fingerprints."""
        found = {FOLDER: folder}
        if bounds:
            found |= {Account("fingerprint", name): limit for name, limit in bounds.items()}
        if self.models:
            found |= {Account("model", name): limit for name, limit in self.models.items()}
        if groups:
            found |= {Account("key", name): limit for name in groups if (limit := self.of_group(name))}
        return found

    def full(self, account: Account) -> str:
        """The sentence for what does not fit into an account."""
        name = self.names.get(account.name, account.name) if account.kind == "key" else account.name
        return FULL[account.kind].format(name)

    def most_kept(self, folder: int) -> int:
        """Bytes that all groups together may keep, in a folder with this budget."""
        return min(folder, self.kept or folder // KEPT_SHARE)


def budgets_of(config: Config) -> Budgets:
    """The budgets of a configuration; its keys are named there by name or by group."""
    kv, groups, names = config.kv, dict[str, int](), defaultdict[str, list[str]](list)
    keys = [principal for _, principal in Keyring(config.api_keys).principals.values()]
    payers = payers_of(keys)
    for principal in keys:
        group = payers.get(principal.group, principal.group)
        names[group].append(principal.name)
        for name in (principal.name, principal.group):
            if name in kv.key_budgets:
                groups[group] = kv.key_budgets[name]
    told = {group: ", ".join(dict.fromkeys(found)) for group, found in names.items()}
    return Budgets(kv.model_budgets, groups, kv.key_budgets.get(OTHERS, 0), kv.kept_budget, told, payers)


def payers_of(keys: Iterable[Principal]) -> dict[str, str]:
    """Each group beside the one that stands for it, if that is another: the first of a key with the same name."""
    first, payers = dict[str, str](), dict[str, str]()

    def root(group: str) -> str:
        while group in payers:
            group = payers[group]
        return group

    for one in keys:
        known, own = root(first.setdefault(one.name, one.group)), root(one.group)
        if known != own:
            payers[own] = known
    return {group: root(group) for group in payers}


def payer(group: str) -> str:
    """The group that stands for a key: its users are told apart by a header, which anybody can invent."""
    return group.partition(USER)[0]


class Outlook(msgspec.Struct, frozen=True):
    """What the eviction is decided by: unix time, the known engines by fingerprint, what is in use and being read.

    `current`: of each engine the version of each template, by prefix; `spare`: snapshots that are being read. `models`:
    the model with a fingerprint, for snapshots that do not say theirs; `reserved`: models with a budget. `payers`: as
    `Budgets` has them.
    """

    now: float
    scopes: Mapping[str, Scope]
    current: Mapping[str, Mapping[str, str]]
    spare: frozenset[str] = frozenset()
    models: Mapping[str, str] = {}
    reserved: Collection[str] = frozenset()
    payers: Mapping[str, str] = {}

    def model(self, snapshot: Snapshot) -> str:
        return snapshot.model or self.models.get(snapshot.fingerprint, "")

    def accounts(self, snapshot: Snapshot) -> tuple[Account, ...]:
        """Where a snapshot counts; a template is nobody's."""
        found = (
            FOLDER,
            Account("fingerprint", snapshot.fingerprint),
            Account("model", self.model(snapshot)),
        )
        own = payer(snapshot.group)
        return found if snapshot.template else (*found, Account("key", self.payers.get(own, own)))


def surplus(snapshots: Iterable[Snapshot], outlook: Outlook, limits: Limits) -> list[Snapshot]:
    """The least valuable snapshots, without which every limit holds, or nothing is left that may go."""
    everything = list(snapshots)
    left = {one.id: one for one in everything}
    for account in narrow_first(limits):
        held = held_in(account, left.values(), outlook)
        excess = sum(one.size for one in held) - limits[account]
        for identity in policy.evict(values_of(held, outlook), excess) if excess > 0 else ():
            del left[identity]
    return [one for one in everything if one.id not in left]


def held_in(account: Account, snapshots: Iterable[Snapshot], outlook: Outlook) -> list[Snapshot]:
    """Those that count in an account; in the folder's all do, and there may be ten thousand."""
    if account == FOLDER:
        return list(snapshots)
    return [one for one in snapshots if account in outlook.accounts(one)]


def narrow_first(limits: Limits) -> list[Account]:
    """The folder last: what has gone for another account is not taken from it again."""
    return sorted(limits, key=lambda account: (account == FOLDER, account))


def refused_by(
    snapshot: Snapshot, others: Collection[Snapshot], outlook: Outlook, limits: Limits, *, replaced: int
) -> Account | None:
    """The account in which no room can be made for `snapshot` without throwing out what is worth more; None: it fits.

    `replaced`: bytes that go because it comes. What somebody keeps may throw out whatever may go.
    """
    for account in outlook.accounts(snapshot):
        if account not in limits:
            continue
        held = held_in(account, others, outlook)
        excess = sum(one.size for one in held) + snapshot.size - replaced - limits[account]
        if excess <= 0:
            continue
        values = {value.id: value for value in values_of([*held, snapshot], outlook)}
        gone = policy.evict(values.values(), excess)
        if snapshot.id in gone or sum(values[identity].size for identity in gone) < excess:
            return account
    return None


def values_of(snapshots: Collection[Snapshot], outlook: Outlook) -> list[policy.Value]:
    """What the eviction needs to know of these snapshots, without those that are kept or being read."""
    needed = needed_of(snapshots, outlook)
    return [
        policy.Value(
            id=one.id,
            size=one.size,
            seconds=one.seconds * (policy.HEAD if one.head else 1.0),
            age=outlook.now - one.used,
            rank=rank(one, outlook, needed=one.id in needed),
        )
        for one in snapshots
        if one.id not in outlook.spare and not one.kept(outlook.now)
    ]


def rank(snapshot: Snapshot, outlook: Outlook, *, needed: bool) -> int:
    """0: worthless; then what is of no model with a budget, and of such a model; of each what is needed goes last."""
    if worthless(snapshot, outlook.scopes):
        return 0
    return 1 + needed + 2 * (outlook.model(snapshot) in outlook.reserved)


def worthless(snapshot: Snapshot, scopes: Mapping[str, Scope]) -> bool:
    """Whether no engine that is known will ever restore it.

    One of an engine that was not seen yet may be needed, and so may one of a build that was not tried yet.
    """
    scope = scopes.get(snapshot.fingerprint)
    if scope is None or untried(snapshot, scope):
        return bool(snapshot.quarantined)
    return bool(unusable(snapshot, scope))


def needed_of(snapshots: Iterable[Snapshot], outlook: Outlook) -> set[str]:
    """The template snapshots that go last: one for each prefix of each known engine, running or not.

    So does the reference of a build that was not tried yet: without it all that this build wrote is worth nothing.
    """
    found: set[str] = set()
    templates: defaultdict[str, list[policy.Template]] = defaultdict(list)
    for one in snapshots:
        scope = outlook.scopes.get(one.fingerprint)
        if scope is None or not one.template:
            continue
        if one.reference and untried(one, scope):
            found.add(one.id)
        elif usable(one, scope):
            templates[one.fingerprint].append(policy.Template(one.id, one.prefix, one.version, one.used))
    for fingerprint, theirs in templates.items():
        found |= policy.needed(theirs, outlook.current.get(fingerprint, {}))
    return found


# what groups keep


class Room(msgspec.Struct, frozen=True):
    """What a group keeps, what it may keep in all, and how much more that is at present. Bytes."""

    held: int
    most: int
    left: int


def room(snapshots: Iterable[Snapshot], group: str, *, budgets: Budgets, folder: int, now: float) -> Room:
    """How much more a group may have kept, in a folder with the budget `folder`.

    A snapshot that several groups keep counts for each of them, and once for all together. One key's users count
    together.
    """
    mine = budgets.payer(group)
    held = together = 0
    for one in snapshots:
        groups = one.kept_by(now)
        together += one.size if groups else 0
        held += one.size if any(budgets.payer(each) == mine for each in groups) else 0
    most = budgets.most_kept(folder)
    own = min(most, budgets.of_group(group) or most)
    return Room(held, own, max(0, min(own - held, most - together)))


# who has what, for people


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a `model` or a `key` has in a folder. Bytes: in all, of them `kept` for a key, and its `budget` (0: none).

    `worth`: seconds of prefill in it, each halved for each week without use.
    """

    kind: Literal["model", "key"]
    name: str
    bytes: int
    kept: int
    budget: int
    worth: float

    def plus(self, other: Share) -> Share:
        """Both together, in two folders."""
        return msgspec.structs.replace(
            self, bytes=self.bytes + other.bytes, kept=self.kept + other.kept, worth=self.worth + other.worth
        )


def shares(snapshots: Iterable[Snapshot], outlook: Outlook, budgets: Budgets) -> tuple[Share, ...]:
    """What each model has, and each key if there are any, the most first; those with a budget in any case."""
    found: defaultdict[Account, list[Snapshot]] = defaultdict(list)
    for account in (*(Account("model", name) for name in budgets.models), *(Account("key", g) for g in budgets.groups)):
        found[account] = []
    for one in snapshots:
        for account in outlook.accounts(one):
            if account.name and account.kind in ("model", "key") and not one.reference:
                found[account].append(one)
        for group in {budgets.payer(group) for group in one.kept_by(outlook.now)} - {budgets.payer(one.group)}:
            if group:
                found[Account("key", group)].append(one)
    made = (share(account, theirs, outlook, budgets) for account, theirs in found.items())
    return tuple(sorted(made, key=lambda one: (one.kind, -one.bytes, one.name)))


def share(account: Account, theirs: Iterable[Snapshot], outlook: Outlook, budgets: Budgets) -> Share:
    key, now = account.kind == "key", outlook.now
    own = [(one, any(not key or budgets.payer(group) == account.name for group in one.kept_by(now))) for one in theirs]
    return Share(
        kind="key" if key else "model",
        name=budgets.names.get(account.name, account.name) if key else account.name,
        bytes=sum(one.size for one, _ in own),
        kept=sum(one.size for one, kept in own if kept),
        budget=budgets.of_group(account.name) if key else budgets.models.get(account.name, 0),
        worth=sum(policy.worth(one.seconds, 1, now - one.used) for one, _ in own),
    )
