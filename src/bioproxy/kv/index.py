"""All snapshots of one folder, in memory, found by any cut of their chain.

A look-up costs a dictionary access or two per cut of the request, no file and no engine. There is a table for each
owner: a model's templates, and each group's conversations with that model. A cut takes some
300 bytes of memory, and stands for some 200 tokens, which take ten thousand times that on disk.

What stands here was verified when it was written; whether the file is still the same is looked at again before a
restore (files.py). No disk in here: this is only the table and what matches, so that its rules can be tested by the
thousand. A thread never sees it. What goes when there is too much is decided in budget.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

import msgspec

from bioproxy.kv import policy
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut


class Scope(msgspec.Struct, frozen=True):
    """Which snapshots an engine may use: those of its fingerprint, written by its build (or adopted from another).

    `days`: what its chat template prints today; others can't be asked for any more. Empty: it prints nothing like that.
    `refused`: builds whose files this one was seen to misread; those of others may still be adopted.
    """

    fingerprint: str = ""
    build: str = ""
    days: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


class Match(msgspec.Struct, frozen=True):
    """A snapshot that shares a request's beginning up to the cut `digest`. `exact`: the request extends all of it."""

    snapshot: Snapshot
    digest: bytes
    exact: bool

    @property
    def tokens(self) -> int:
        """About how many tokens of the request it holds."""
        return self.snapshot.tokens_at(self.digest)

    def question(self, end: bytes) -> policy.Question:
        """What a request whose prompt ends at the digest `end` does with it."""
        if not self.exact:
            return "diverges"
        if self.snapshot.bounded:
            return "templates"
        return "repeats" if end == self.snapshot.end else "extends"


Ids = str | set[str]  # nearly each cut is in one snapshot alone, and a set takes five times as much as a name


class Table:
    """The snapshots of one owner: ids by each cut that they have, and by the one that they end with."""

    def __init__(self) -> None:
        self.cuts: dict[bytes, Ids] = {}
        self.ends: dict[bytes, Ids] = {}

    def add(self, snapshot: Snapshot) -> None:
        identity = snapshot.id
        for table, cuts in ((self.cuts, snapshot.cuts), (self.ends, snapshot.cuts[-1:])):
            for cut in cuts:
                held = table.setdefault(cut.digest, identity)
                if held is identity:
                    continue
                if isinstance(held, set):
                    held.add(identity)
                else:
                    table[cut.digest] = {held, identity}

    def remove(self, snapshot: Snapshot) -> None:
        for table, cuts in ((self.cuts, snapshot.cuts), (self.ends, snapshot.cuts[-1:])):
            for cut in cuts:
                held = table.get(cut.digest)
                if isinstance(held, set):
                    held.discard(snapshot.id)
                if not held or held == snapshot.id:
                    table.pop(cut.digest, None)


def ids(held: Ids | None) -> Collection[str]:
    """What stands at a cut, as a collection."""
    return (held,) if isinstance(held, str) else held or ()


DIGEST = attrgetter("digest")
Owner = tuple[str, str | None]  # a fingerprint, and whose conversations; None: the templates


def owner(snapshot: Snapshot) -> Owner:
    """Who may use it."""
    return snapshot.fingerprint, None if snapshot.template else snapshot.group


def found_by(snapshot: Snapshot) -> tuple[object, ...]:
    """All that the tables know of it."""
    return owner(snapshot), snapshot.cuts, snapshot.pins


class Index:
    """Snapshots by id and by cut."""

    def __init__(self, snapshots: Iterable[Snapshot] = ()) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.tables: dict[Owner, Table] = {}
        self.named: dict[bytes, set[str]] = {}  # ids of contexts' snapshots by where they end
        self.size = 0
        self.changes = 0  # snapshots that came, went or were described anew
        for one in snapshots:
            self.add(one)

    def add(self, snapshot: Snapshot) -> None:
        """Take a snapshot in; one with the same id is replaced."""
        known = self.snapshots.get(snapshot.id)
        if known is not None and found_by(known) == found_by(snapshot):  # described anew
            self.changes += 1
            self.size += snapshot.size - known.size
            self.snapshots[snapshot.id] = snapshot
            return
        self.remove(snapshot.id)
        self.changes += 1
        self.snapshots[snapshot.id] = snapshot
        self.size += snapshot.size
        table = self.tables.get(owner(snapshot))
        if table is None:
            table = self.tables[owner(snapshot)] = Table()
        table.add(snapshot)
        if snapshot.pins and any(pin.name for pin in snapshot.pins):
            self.named.setdefault(snapshot.end, set()).add(snapshot.id)

    def remove(self, identity: str) -> Snapshot | None:
        snapshot = self.snapshots.pop(identity, None)
        if snapshot is None:
            return None
        self.changes += 1
        self.size -= snapshot.size
        if snapshot.pins and identity in self.named.get(snapshot.end, ()):
            self.named[snapshot.end].discard(identity)
            if not self.named[snapshot.end]:
                del self.named[snapshot.end]
        table = self.tables[owner(snapshot)]
        table.remove(snapshot)
        if not table.ends:
            del self.tables[owner(snapshot)]
        return snapshot

    def matches(
        self, cuts: Sequence[Cut], *, scope: Scope, group: str | None, above: int = 0, exact: bool = False
    ) -> Iterator[Match]:
        """Good snapshots that share more than `above` cuts with a request of `group`, the longest beginning first.

        Another group's conversations are never among them (rule 22); templates are for all groups, and if the request
        is of none (`group` None), there is nothing else. Each comes once, at the deepest cut that it shares. `exact`:
        only those that the request extends.
        """
        owners = dict.fromkeys([(scope.fingerprint, None), (scope.fingerprint, group)])
        tables = [self.tables[one] for one in owners if one in self.tables]
        seen: set[str] = set()
        for position in range(len(cuts), above, -1):
            digest = cuts[position - 1].digest
            for table in tables:
                held = (table.ends if exact else table.cuts).get(digest)
                for identity in sorted({*ids(held)} - seen) if held else ():
                    seen.add(identity)
                    snapshot = self.snapshots[identity]
                    if usable(snapshot, scope):
                        yield Match(snapshot, digest, snapshot.end == digest)

    def has_more(self, cuts: Sequence[Cut], above: int, fingerprint: str, group: str | None) -> bool:
        """Whether any snapshot that a request of `group` may use, good or not, shares more than `above` cuts."""
        for key in ((fingerprint, None), (fingerprint, group)):
            table = self.tables.get(key)
            if table is not None and not table.cuts.keys().isdisjoint(map(DIGEST, cuts[above:])):
                return True
        return False

    def bounded(self, cuts: Sequence[Cut], fingerprint: str, group: str | None) -> list[Snapshot]:
        """Every template's snapshot, good or not, of whatever build, that holds exactly this prompt.

        With a `group` it is that of a head without a prefix.
        """
        table = self.tables.get((fingerprint, group))
        if not cuts or table is None:
            return []
        found = (self.snapshots[identity] for identity in sorted(ids(table.ends.get(cuts[-1].digest))))
        return [one for one in found if one.bounded]

    def ending(self, end: bytes, fingerprint: str, group: str) -> list[Snapshot]:
        """A group's conversations, good or not, whose prompt ends with the digest `end`."""
        table = self.tables.get((fingerprint, group))
        return [self.snapshots[identity] for identity in sorted(ids(table.ends.get(end)))] if table else []

    def ancestors(self, snapshot: Snapshot, now: float) -> list[Snapshot]:
        """Snapshots that `snapshot` makes superfluous: of the same conversation, ending within or where it ends.

        A template or head is never an ancestor, for every conversation begins with one. Its own successor is one that
        holds exactly the same. What a group keeps at the unix time `now` stays as it is: others go on from it.
        """
        table = self.tables.get(owner(snapshot))
        if table is None:
            return []
        cuts = snapshot.cuts[-1:] if snapshot.bounded else snapshot.cuts
        known = {identity for cut in cuts for identity in ids(table.ends.get(cut.digest))} - {snapshot.id}
        found = [self.snapshots[identity] for identity in sorted(known)]
        return [one for one in found if one.bounded == snapshot.bounded and not one.kept_by(now)]

    def foreign_builds(self, scope: Scope) -> dict[str, list[Snapshot]]:
        """Good snapshots of this fingerprint that another build wrote, by build."""
        found: defaultdict[str, list[Snapshot]] = defaultdict(list)
        for one in self.snapshots.values():
            if one.fingerprint == scope.fingerprint and one.build != scope.build and not one.quarantined:
                found[one.build].append(one)
        return dict(found)

    def aged(self, *, before: float, now: float) -> list[Snapshot]:
        """Snapshots last used before the unix time `before`, without those that shall be kept to a time.

        A build's reference goes with the last snapshot that it vouches for.
        """
        old = [one for one in self.snapshots.values() if one.used < before]
        if not old:
            return []
        vouched = {(one.fingerprint, one.build) for one in self.snapshots.values() if one.used >= before}
        old = [one for one in old if not (one.reference and (one.fingerprint, one.build) in vouched)]
        return [one for one in old if not any(pin.until > now for pin in one.pins)]


def unusable(snapshot: Snapshot, scope: Scope) -> str:
    """Why this snapshot will never be restored as things are; empty for a good one and for another engine's."""
    if snapshot.quarantined:
        return snapshot.quarantined
    if snapshot.fingerprint == scope.fingerprint and snapshot.build != scope.build:
        proof = "misreads" if snapshot.build in scope.refused else "was not proved to read yet"
        return f"written by build {snapshot.build or 'unknown'}, which the present build {proof}"
    if snapshot.fingerprint == scope.fingerprint and snapshot.day and scope.days and snapshot.day not in scope.days:
        return "written on another day: the chat template prints the date"
    return ""


def untried(snapshot: Snapshot, scope: Scope) -> bool:
    """Whether another build wrote it, and may be proved to have written what this one reads."""
    other = snapshot.fingerprint == scope.fingerprint and snapshot.build != scope.build
    return other and snapshot.build not in scope.refused and not snapshot.quarantined


def usable(snapshot: Snapshot, scope: Scope) -> bool:
    """Whether it belongs to this engine and nothing speaks against it."""
    return snapshot.fingerprint == scope.fingerprint and not unusable(snapshot, scope)
