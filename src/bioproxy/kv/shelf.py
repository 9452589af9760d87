"""One snapshot folder: the table and the disk kept in step, for all engines that write into it.

The models of one program share a folder by default, or because the operator gave several engines the same
`--slot-save-path`. So what belongs to the folder is here, once: the lock, the table, the ledger, the budget, what is
being written or read. What belongs to one engine (its fingerprint, what was learnt about it) is its `Tenant`'s
(shelves.py). An engine that is stopped is still a user of its folder: its snapshots are what it will come back to.

The table (index.py) is only touched on the loop's thread, and never across an await: what is decided over it (what must
go, whether something fits) is decided and done in one go, and only then is the disk told. Threads get values. So
reading needs no lock, and neither does taking something out: it leaves the table first and the disk afterwards. A
snapshot comes in when it is whole on the disk.

Two locks are left. `lock` is held by the task that opens the folder or gives it back, `writing` by the task that brings
something to the disk and waits for it (commits, one after the other, so that a newer snapshot of a conversation is
never overtaken by the one it replaces; the ledger). A disk may take its time for gigabytes, so no user ever waits for
`writing`: a failed restore is noted at once and brought to the disk later. Nothing here talks to an engine.

The budget is the folder's: whose snapshot goes is decided over all of them (budget.py). Which templates are in use is
asked of each model that the program has, for one that is swapped out at present needs its template all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.events import Bus, SnapshotDropped, SnapshotSaved
from bioproxy.files import Stuck, away
from bioproxy.kv import files, policy
from bioproxy.kv.budget import FOLDER, Account, Budgets, Limits, Outlook, refused_by, surplus
from bioproxy.kv.folder import Folder, FolderError, Found, out_of_reach
from bioproxy.kv.index import Index, Scope
from bioproxy.kv.ledger import Ledger, Use
from bioproxy.kv.policy import Refusal
from bioproxy.kv.snapshot import Snapshot

T = TypeVar("T")
P = ParamSpec("P")
log = logging.getLogger(__name__)

TOUCHED = 600.0  # seconds in which it is noted once that a snapshot was of use
LEFT_OVER = 600.0  # seconds without a byte after which a temporary file of no save is removed
FEW = 256  # descriptions that are read one by one as quickly as from a file of copies
MOST_READ = 16  # at a start after a crash, at most this part of all is read one by one
SPARED = "half of kv.write_budget is used: until midnight UTC conversations are saved only if enough in them is new"
LAST_WORDS = 5.0  # seconds that the disk has for the ledger when the folder is given back

Versions = Callable[[], Mapping[str, str]]  # tells what version each template has now, by prefix


class Shelf:
    """The snapshots in the folder at `path` (None: there is no folder). `budgets`: what models and keys may take."""

    def __init__(self, path: Path | None, *, config: Kv, bus: Bus, budgets: Callable[[], Budgets] = Budgets) -> None:
        self.path = path
        self.config = config
        self.budgets = budgets
        self.bus = bus
        self.wall = time.time
        self.users: set[object] = set()
        self.folder: Folder | None = None
        self.place = Folder(path or Path())  # `folder` while it is ours: a lock that came late is found again
        self.tenure = 0  # how often the folder was taken and read
        self.index = Index()
        self.ledger = Ledger()
        self.lock = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.pending: set[str] = set()  # temporary files that wait for their commit
        self.committing: dict[str, Snapshot] = {}  # written by an engine, not yet verified for good
        self.reading: Counter[str] = Counter()  # snapshots that are being read, and by how many
        self.verifying = asyncio.Lock()  # one check at a time: it reads gigabytes
        self.proved: dict[str, files.Stamp] = {}  # how a file looked when all of it was read and was good
        self.scopes: dict[str, Scope] = {}  # of every engine that was seen, by fingerprint
        self.versions: defaultdict[str, dict[object, Versions]] = defaultdict(dict)  # by fingerprint and user
        self.bounds: dict[str, int] = {}  # by fingerprint: bytes that this model's own `kv.disk_budget` allows
        self.models: dict[str, str] = {}  # by fingerprint, the model that had it last
        self.least = 0.0  # seconds of prefill per byte that a save must preserve at present (policy.py)
        self.budget = config.disk_budget
        self.free = 0
        self.dropped: Counter[tuple[str, str]] = Counter()  # by fingerprint and reason
        self.dirty: set[str] = set()  # quarantined or adopted, and the sidecar does not say so yet
        self.flushed = b""
        self.copied = 0  # changes of the index that the copies in the folder have

    # the folder

    async def open(self) -> None:
        """Own the folder and know what is in it; does nothing while it is ours. FolderError: the table is empty then.

        What was learnt in this run goes on, also if the folder was replaced by another one.
        """
        assert self.path is not None
        if await self.ours():  # asked without the lock: a start must not wait for another engine's fsync
            return
        async with self.lock:
            if await self.ours():
                return
            folder = self.place
            try:
                await self.on_disk(folder.occupy)
                found, index = await self.on_disk(taken_in, folder, self.under_way())
            except FolderError:
                await self.give_back()
                self.index = Index()
                raise
            self.folder = folder
            self.tenure += 1
            self.flushed = b""
            found.ledger.engines.update(self.ledger.engines)
            self.ledger, self.index = found.ledger, index
            self.copied = index.changes - found.read
            self.today()
            self.spare()
            self.proved.clear()
        for name, reason in found.removed:
            log.info("removed %s: %s", name, reason)
        if found.newer:
            log.warning("%d snapshots of a newer bioproxy in %s are neither used nor removed", found.newer, self.path)

    async def reopen(self) -> None:
        """See that the folder is still ours and can be written; read it anew if it was replaced. FolderError."""
        if self.path is not None:
            await self.open()
            await self.probe()

    async def probe(self) -> None:
        """See that we can write into the folder. FolderError; what is in there stays usable."""
        if self.folder is not None:
            await self.on_disk(self.folder.probe)

    async def ours(self) -> bool:
        """Whether the folder is open, and still the one that we locked."""
        return self.folder is not None and await self.on_disk(self.folder.holds)

    def opened(self) -> Folder:
        """The folder; FolderError while it is not ours."""
        if self.folder is None:
            raise FolderError(f"the snapshot folder {self.path} cannot be used")
        return self.folder

    async def on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in a thread. FolderError if the folder does not answer; what `work` raises, else."""
        try:
            return await away(work, *args, **kwargs)
        except Stuck as error:
            raise out_of_reach(error) from error

    async def leave(self, user: object) -> None:
        """`user` does not need the folder any more; the last one gives it back."""
        self.users.discard(user)
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """Write the ledger and give the folder back, also if it is used. A disk that hangs is not waited for."""
        async with self.lock:
            try:
                async with asyncio.timeout(LAST_WORDS), self.writing:
                    await self.write_down()
                    await self.write_copies(after=1)
            except (TimeoutError, FolderError):
                log.warning("what was learnt last is not kept: %s did not answer within %.0f s", self.path, LAST_WORDS)
            await self.give_back()

    async def give_back(self) -> None:
        """Let go of the lock, as far as the disk answers."""
        self.folder = None
        try:
            await self.on_disk(self.place.leave)
        except FolderError as error:
            log.warning("the lock is not given back: %s", error.message)

    def under_way(self) -> frozenset[str]:
        return frozenset({*self.pending, *(one.sidecar for one in self.committing.values())})

    def dropped_of(self, fingerprint: str | None) -> dict[str, int]:
        """How many snapshots left the folder, by reason: those of one model, or (None) all."""
        found: Counter[str] = Counter()
        for (whose, reason), count in self.dropped.items():
            if fingerprint in (None, whose):
                found[reason] += count
        return dict(found)

    def has(self, identity: str) -> bool:
        return identity in self.index.snapshots or identity in self.committing

    # what may be written

    def today(self) -> int:
        """Bytes written on the present day (UTC)."""
        day = datetime.fromtimestamp(self.wall(), UTC).date().isoformat()
        if self.ledger.day != day:
            self.ledger.turn(day)
            self.least = 0.0
        return self.ledger.written

    def spare(self) -> None:
        """Raise the bar for what may still be written today."""
        least = policy.least_worth(self.ledger.written, self.ledger.preserved, self.config.write_budget)
        if least and not self.least:
            log.info("%s", SPARED)
        self.least = least

    async def measure(self, also: Callable[[], str] = str) -> str:
        """Look how much is free, and how much of it is ours; what `also` says, which looks in the same thread.

        Raises FolderError; Stuck if `also` hangs at another file.
        """
        folder = self.opened()
        try:
            said, self.free = await away(lambda: (also(), folder.free()))
        except Stuck as error:
            if error.path != str(folder.path):
                raise
            raise out_of_reach(error) from error
        self.budget = policy.disk_budget(self.config.disk_budget, ours=self.index.size, free=self.free)
        return said

    def allowed(self, fingerprint: str) -> int:
        """Bytes that one snapshot of this model may have at most."""
        own = self.budgets().models.get(self.models.get(fingerprint, ""), self.budget)
        return min(self.budget, self.bounds.get(fingerprint, self.budget), own)

    def refusal(self, snapshot: Snapshot) -> Refusal | None:
        """Whether the disk and the budgets allow a file like `snapshot` (its size is an estimate); after `measure`."""
        refused = policy.refuses(
            snapshot.size,
            budget=self.allowed(snapshot.fingerprint),
            free=self.free,
            min_free=self.config.min_free,
            written=self.today(),
            write_budget=self.config.write_budget,
        )
        if refused is not None or (full := self.crowded(snapshot)) is None:
            return refused
        return Refusal("budget", self.budgets().full(full), pauses=False)

    def crowded(self, snapshot: Snapshot) -> Account | None:
        """The account in which room for `snapshot` would cost what is worth more; None: it fits."""
        limits = self.limits(snapshot)
        if len(limits) == 1 and self.index.size + snapshot.size <= limits[FOLDER]:
            return None
        replaced = sum(one.size for one in self.index.ancestors(snapshot, self.wall()))
        return refused_by(snapshot, self.index.snapshots.values(), self.outlook(), limits, replaced=replaced)

    def limits(self, *more: Snapshot) -> Limits:
        """What each account may have; keys' of which there are snapshots, with `more` of them."""
        budgets, all_ = self.budgets(), (*more, *self.index.snapshots.values())
        groups = {budgets.payer(one.group) for one in all_} if budgets.keys else ()
        return budgets.limits(self.budget, bounds=self.bounds, groups=groups)

    def outlook(self) -> Outlook:
        current = {
            fingerprint: {prefix: version for ask in users.values() for prefix, version in ask().items()}
            for fingerprint, users in self.versions.items()
        }
        budgets, spare = self.budgets(), frozenset(self.reading)
        own, payers = budgets.models, budgets.payers
        return Outlook(self.wall(), self.scopes, current, spare=spare, models=self.models, reserved=own, payers=payers)

    # using

    async def prove(self, snapshot: Snapshot) -> None:
        """See that a file is what was written: by its stamp each time, by all its bytes the first time in this run.

        Raises Unverified, FolderError. A snapshot of an older version has a checksum from then on.
        """
        path = self.opened().path
        if self.proved.get(snapshot.id) == await self.on_disk(files.unchanged, path, snapshot):
            return
        good, stamp = await self.on_disk(files.proved, path, snapshot)
        self.proved[snapshot.id] = stamp
        self.ledger.verified[snapshot.id] = self.wall()
        known = self.index.snapshots.get(snapshot.id)
        if known is not None and known.checksum is None:
            self.index.add(msgspec.structs.replace(known, checksum=good.checksum))
            self.dirty.add(snapshot.id)

    async def vet(self, snapshot: Snapshot, prove: Callable[[Snapshot], Awaitable[None]] | None = None) -> str:
        """What is wrong with a file; empty if it is what was written. Raises FolderError if that is not known.

        `prove`: another way to find out than `self.prove`.

        One that was touched leaves the index. One whose bytes are wrong although it was not touched is quarantined, so
        that the list shows what happened.
        """
        try:
            await (prove or self.prove)(snapshot)
        except files.Damaged as error:
            await self.quarantine(snapshot, error.message)
            return error.message
        except files.Unverified as error:
            log.warning("a snapshot is not used any more: %s", error.message)
            await self.drop([snapshot], "missing" if isinstance(error, files.Missing) else "changed")
            return error.message
        return ""

    @contextlib.contextmanager
    def held(self, snapshot: Snapshot) -> Iterator[None]:
        """While it is being read neither the budget nor a person takes it away."""
        self.reading[snapshot.id] += 1
        try:
            yield
        finally:
            self.reading -= Counter([snapshot.id])

    # changes

    async def commit(
        self, temporary: str, snapshot: Snapshot, *, seconds: float, step: Callable[[str], None] = files.quiet
    ) -> Snapshot | None:
        """Make the engine's temporary file a snapshot, and room for it. None (and a log line) if that failed.

        `seconds`: what the engine took to write it; `step` hears the steps. Raises OSError if the disk refuses,
        Unverified for a bad file.
        """
        try:
            async with self.writing:
                folder = self.folder
                if folder is None:
                    return None
                kept = await asyncio.to_thread(files.commit, folder.path, temporary, snapshot, step=step)
        finally:
            self.pending.discard(temporary)
        if folder is not self.folder:  # it was given back meanwhile: the next to open it finds the file
            return None
        self.index.add(kept)
        replaced = self.index.ancestors(kept, self.wall())
        older = max((one.tokens for one in replaced), default=0)
        self.today()
        self.ledger.written += kept.size
        self.ledger.preserved += kept.seconds * max(0, kept.tokens - older) / max(1, kept.tokens)
        self.spare()
        for old in replaced:
            self.forget(old, "replaced")
        if any(old.pinned for old in replaced):
            kept = msgspec.structs.replace(kept, pinned=True)
            self.index.add(kept)
        gone = [*replaced, *self.surplus()]
        if kept.pinned:
            await self.describe(kept)  # before the older file goes
        await self.remove(gone)
        if not kept.reference:
            self.bus.publish(SnapshotSaved(prefix=kept.prefix, tokens=kept.tokens, bytes=kept.size, seconds=seconds))
        return kept

    def surplus(self) -> list[Snapshot]:
        """Take the least valuable out of the table until every budget holds; what was taken."""
        limits = self.limits()
        if len(limits) == 1 and self.index.size <= limits[FOLDER]:
            return []
        gone = surplus(self.index.snapshots.values(), self.outlook(), limits)
        for one in gone:
            self.forget(one, "budget")
        return gone

    async def drop(self, snapshots: Iterable[Snapshot], reason: str) -> None:
        """Remove snapshots from table and disk; `reason` as in events.SnapshotDropped."""
        await self.remove([one for one in snapshots if self.forget(one, reason)])

    def forget(self, snapshot: Snapshot, reason: str) -> bool:
        """Take one out of the table, for good; False if it is not in there."""
        if self.index.remove(snapshot.id) is None:
            return False
        self.ledger.uses.pop(snapshot.id, None)
        self.ledger.verified.pop(snapshot.id, None)
        self.proved.pop(snapshot.id, None)
        if not snapshot.reference:
            self.dropped[snapshot.fingerprint, reason] += 1
            self.bus.publish(SnapshotDropped(prefix=snapshot.prefix, reason=reason, bytes=snapshot.size))
        return True

    async def remove(self, snapshots: Iterable[Snapshot]) -> None:
        """Remove the files of snapshots that were forgotten. One that cannot be removed is never used all the same."""
        folder = self.folder
        if folder is None:
            return
        for snapshot in snapshots:
            try:
                await asyncio.to_thread(files.remove, folder.path, snapshot)
            except OSError as error:
                log.warning("cannot remove %s: %s", snapshot.name, error.strerror)

    def mark(self, snapshot: Snapshot, reason: str) -> None:
        """Never use `snapshot` again, and say why in the list; its file goes when room is needed.

        The sidecar hears of it at the next `look_after`.
        """
        known = self.index.snapshots.get(snapshot.id)
        if known is None or known.quarantined:
            return
        self.index.add(msgspec.structs.replace(known, quarantined=reason, pinned=False))
        self.dirty.add(snapshot.id)
        self.dropped[snapshot.fingerprint, "quarantined"] += 1
        log.warning("snapshot %s is not used any more: %s", snapshot.name, reason)
        self.bus.publish(SnapshotDropped(prefix=snapshot.prefix, reason="quarantined", bytes=snapshot.size))

    async def quarantine(self, snapshot: Snapshot, reason: str) -> None:
        """The same, and written when this returns: what may have killed the engine must not be tried by the next run.

        The disk is not waited for, because a user may be waiting here. The next `look_after` does that.
        """
        self.mark(snapshot, reason)
        known = self.index.snapshots.get(snapshot.id)
        if known is not None:
            await self.describe(known, durable=False)

    def used(self, snapshot: Snapshot, *, gained: float = 0.0, times: int = 1) -> None:
        """`snapshot` served a request and spared `gained` seconds of prefill."""
        known = self.index.snapshots.get(snapshot.id)
        if known is not None:
            use = Use(self.wall(), known.uses + times, known.gained + max(0.0, gained))
            self.ledger.uses[known.id] = use
            self.index.snapshots[known.id] = self.ledger.used(known)

    def touch(self, snapshot: Snapshot) -> None:
        """A request went on from what `snapshot` holds without a restore. Noted now and then: the ledger is a file."""
        if self.wall() - snapshot.used > TOUCHED:
            self.used(snapshot, times=0)

    # housekeeping

    async def look_after(self) -> None:
        """Age out, make room, remove leftovers, keep the ledger. Raises FolderError."""
        folder = self.folder
        if folder is None:
            return
        self.today()
        old = self.index.aged(before=self.wall() - self.config.max_age, now=self.wall())
        await self.drop([one for one in old if one.id not in self.reading], "aged")
        await self.measure()
        await self.on_disk(folder.sweep, self.under_way(), LEFT_OVER)
        await self.remove(self.surplus())
        async with self.writing:
            await self.write_down()
            await self.write_copies(after=max(FEW, len(self.index.snapshots) // MOST_READ))

    async def write_down(self) -> None:
        """Bring marks and ledger to the disk, if they changed; `writing` is held."""
        while self.dirty:
            snapshot = self.index.snapshots.get(self.dirty.pop())
            if snapshot is not None:  # after an upgrade there may be thousands, which a power cut may cost
                await self.describe(snapshot, durable=bool(snapshot.quarantined))
        await self.write_ledger()

    async def describe(self, snapshot: Snapshot, *, durable: bool = True) -> None:
        """Write the sidecar of a quarantined or adopted snapshot anew, as far as the disk lets us."""
        try:
            await self.put_down(snapshot, durable=durable)
        except (OSError, FolderError) as error:
            log.warning("cannot describe %s anew: %s", snapshot.name, error)

    async def put_down(self, snapshot: Snapshot, *, durable: bool = True) -> None:
        """Write a sidecar anew; if its snapshot went meanwhile, it does not stay behind. OSError, FolderError."""
        folder = self.folder
        if folder is None:
            return
        await self.on_disk(folder.describe, snapshot, durable=durable)
        if not self.has(snapshot.id):
            await self.on_disk(files.remove, folder.path, snapshot)

    async def write_ledger(self) -> None:
        """Keep the ledger if it changed; `writing` is held. A full disk only costs what was learnt since."""
        data = msgspec.json.encode(self.ledger)
        if self.folder is not None and data != self.flushed:
            with contextlib.suppress(OSError):
                await self.on_disk(self.folder.write_ledger, data)
                self.flushed = data

    async def write_copies(self, *, after: int) -> None:
        """Keep copies of all descriptions for the next start, after so many changes; a few are read one by one."""
        index, folder = self.index, self.folder
        if folder is None or len(index.snapshots) < FEW or index.changes - self.copied < after:
            return
        with contextlib.suppress(OSError):
            sidecars = await self.on_disk(folder.sidecars)
            changes, snapshots = index.changes, list(index.snapshots.values())
            await self.on_disk(folder.write_copies, snapshots, sidecars)
            self.copied = changes


def taken_in(folder: Folder, spare: frozenset[str]) -> tuple[Found, Index]:
    """What is in a folder, and the table of it: made here, in a thread, for there may be ten thousand. FolderError."""
    found = folder.load(spare)
    found.ledger.prune(one.id for one in found.snapshots)
    return found, Index(map(found.ledger.used, found.snapshots))
