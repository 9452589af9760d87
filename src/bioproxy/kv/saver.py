"""Saving what a slot holds: the engine writes under the grant, everything slow happens after it.

The part that a user may have to wait for is one slot action and one stat. What makes the file a snapshot (fsync,
sidecar, rename) runs in a task of its own once the grant can go back; `commits` holds these tasks, and `settle` waits
for them before the program ends. What ends a save half-way leaves a temporary file, which the next start removes.

Nothing is written that is not known for sure: the count of tokens that the engine saved must be the count that its last
answer left in the slot; if it is not, a request that is not ours was there.

If the disk, the model's file or the engine is in the way, saving stops, says so once, and goes on by itself (`Pause`);
requests are served all the while. A pause has a kind (the metric's label) and a sentence with what would mend it; it is
logged once as a warning, however often it is tried again, until a save has really worked. A disk that has room again is
noticed within a minute: looking costs a small file. Only a save that hung is tried again later and later, because each
try may hold a user up until its time is out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy.engines.facts import Saved
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineRefused, in_words
from bioproxy.events import SavingPaused
from bioproxy.files import Stuck, away, touching
from bioproxy.kv import files
from bioproxy.kv.engine import AT_LEAST, SlotActionTimeout, limited, time_limit
from bioproxy.kv.fingerprint import Watch
from bioproxy.kv.folder import FolderError
from bioproxy.kv.policy import Refusal, mib
from bioproxy.kv.resident import OFF_BY, Resident
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Pin, Snapshot, new_id, temporary_name

log = logging.getLogger(__name__)

KINDS = ("disk", "engine", "folder", "min_free", "model", "short", "timeout", "write_budget")
OF_PROCESS = ("timeout", "model")  # kinds that are a process's fault and not the disk's
COMMITS = 3.0  # seconds that a start or an unload may wait until what was saved is a snapshot
FIRST_RETRY = 20.0  # seconds until a paused save is tried again, and at most from then on
LAST_RETRY = 600.0  # the same after saves that hung, doubling in between
UNKNOWN = 60.0  # seconds for a save of unknown size
OF_CONTENT = (400, 413, 422, 501)  # how an engine refuses what is in the slot (older builds: images), and no other


class Pause:
    """Whether saving is paused. `tenant` and `model` say whose snapshots, and where; `clock` is monotonic, in seconds.

    `watchers` are called when saving goes on.
    """

    def __init__(
        self,
        tenant: Tenant,
        clock: Callable[[], float] = time.monotonic,
        *,
        model: str = "",
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self.tenant = tenant
        self.clock = clock
        self.whose = f"{model}: " if model else ""  # what begins a line of the log
        self.model = model
        self.watchers: set[Callable[[], None]] = set()
        self.first_retry = first_retry
        self.kind = self.reason = ""
        self.warned: set[str] = set()
        self.retry_at = 0.0
        self.delay = first_retry
        self.troubles = 0  # so far

    def __bool__(self) -> bool:
        """True while saving is paused, whether or not it is time to try again."""
        return bool(self.kind)

    @property
    def due(self) -> bool:
        """Whether a save may be tried: not paused, or paused for long enough."""
        return not self.kind or self.clock() >= self.retry_at

    def enter(self, kind: str, reason: str) -> None:
        longest = LAST_RETRY if kind == "timeout" else FIRST_RETRY
        self.delay = min(longest, self.delay * 2) if self.kind == kind else self.first_retry
        self.retry_at = self.clock() + self.delay
        self.troubles += 1
        if kind not in self.warned:
            self.warned.add(kind)
            log.warning("%ssaving snapshots is paused: %s", self.whose, reason)
        before, self.kind, self.reason = self.kind, kind, reason
        if before != kind:
            self.tell(kind, reason, paused=True)

    def tell(self, kind: str, reason: str, *, paused: bool) -> None:
        folder = str(self.tenant.path or "")
        event = SavingPaused(paused=paused, kind=kind, reason=reason, model=self.model, folder=folder)
        self.tenant.bus.publish(event)

    def resumed(self, kind: str) -> None:
        """Saving goes on: what is warm and could not be saved can be saved now."""
        self.tell(kind, "", paused=False)
        for watcher in tuple(self.watchers):
            watcher()

    def renewed(self) -> None:
        """The engine is another process now: what was wrong with the one before is over."""
        if self.kind in OF_PROCESS:
            self.leave(proved=False)

    def leave(self, *, proved: bool) -> None:
        """Nothing is in the way any more. `proved`: a save worked, so that the next trouble is news again."""
        before, self.kind, self.reason = self.kind, "", ""
        if proved:
            self.warned.clear()
            self.delay = self.first_retry
        if before:
            log.info("%ssaving snapshots goes on: %s is over", self.whose, before)
            self.resumed(before)


def counted(kinds: Iterable[str]) -> dict[str, int]:
    """How many are paused of each kind, those of which there is none included; "" is not paused."""
    found = Counter(filter(None, kinds))
    return {**dict.fromkeys(KINDS, 0), **found}


class Saver:
    """Writes snapshots of one engine into its folder."""

    def __init__(self, engine: Llama, tenant: Tenant, pause: Pause) -> None:
        self.engine = engine
        self.tenant = tenant
        self.pause = pause
        self.watch = Watch()
        self.commits: set[asyncio.Task[bool]] = set()
        self.refused: Counter[str] = Counter()
        self.said: set[str] = set()
        self.uncertain = ""  # why what the slots hold is unknown after the last save; empty: it is not

    async def save(
        self,
        resident: Resident,
        slot: int,
        *,
        template: bool = False,
        limit: float = 0.0,
        pins: tuple[Pin, ...] = (),
    ) -> bool:
        """Let the engine write `resident` from `slot`; False if that failed or must not be (logged, counted).

        Under an exclusive grant. `limit`: seconds that it may take (0: by measure). True: the file has the right size
        and its commit is under way. Raises nothing of the engine's; `uncertain` is set if what the slots hold is not
        known any more.
        """
        self.uncertain, troubles = "", self.pause.troubles
        snapshot = self.describe(resident, template=template, pins=pins)
        shelf, folder = self.tenant.shelf, self.tenant.shelf.folder  # this engine may have another one when it ends
        if folder is None or not self.pause.due or self.tenant.unsavable(snapshot.cuts):
            return False
        if (refusal := await self.check(snapshot)) is not None:
            self.refuse(refusal)
            return False
        temporary = temporary_name(snapshot.id)
        rate = self.tenant.knowledge.speeds.save
        seconds = limit or (time_limit(snapshot.size, rate) if snapshot.size else UNKNOWN)
        shelf.pending.add(temporary)
        try:
            saved = await limited(self.engine.save(slot, temporary), seconds=seconds, what=f"saving slot {slot}")
            await shelf.on_disk(files.measured, folder.path / temporary, saved.bytes)
            snapshot = self.accept(saved, snapshot, resident)
        except BaseException as error:
            shelf.pending.discard(temporary)
            self.give_up(error, snapshot)
            await asyncio.shield(discard(folder.path / temporary))
            if not isinstance(error, Exception):
                raise
            return False
        resident.saved = snapshot.id
        resident.again = None
        resident.source = snapshot.id, snapshot.tokens
        shelf.committing[snapshot.id] = snapshot
        work = self.commit(shelf, temporary, snapshot, saved.seconds, troubles)
        task = aio.spawn(work, name=f"commit {snapshot.name}")
        self.commits.add(task)
        task.add_done_callback(self.commits.discard)
        return True

    def describe(self, resident: Resident, *, template: bool, pins: tuple[Pin, ...] = ()) -> Snapshot:
        """The snapshot that `resident` would be; its size is an estimate until it is written."""
        knowledge, scope = self.tenant.knowledge, self.tenant.scope
        now = self.tenant.shelf.wall()
        return Snapshot(
            id=new_id(),
            fingerprint=scope.fingerprint,
            build=knowledge.build,
            cuts=resident.cuts,
            tokens=resident.tokens,
            prompt=resident.prompt,
            size=round(resident.tokens * knowledge.speeds.token_bytes),
            template=template,
            group="" if template else resident.group,
            prefix=resident.prefix,
            version=resident.version,
            head=resident.head,
            day=resident.day,
            lora=resident.lora or b"",
            seconds=resident.tokens * knowledge.speeds.prefill,
            created=now,
            used=now,
            model=self.tenant.model,
            pins=pins,
        )

    # may it be

    async def check(self, snapshot: Snapshot) -> Refusal | None:
        """The reason against it, from the outside world. A file system that does not answer is one, too."""
        try:
            async with asyncio.timeout(AT_LEAST):
                changed = await self.tenant.shelf.measure(self.watch.changed)
        except (FolderError, Stuck) as error:
            return Refusal("folder", error.message)
        except TimeoutError:
            return Refusal("folder", f"the disk of the model or of the snapshots did not answer in {AT_LEAST:.0f} s")
        return Refusal("model", changed) if changed else self.tenant.shelf.refusal(snapshot)

    def refuse(self, refusal: Refusal) -> None:
        """Count a save that is not made; pause all saves if the reason is not in this one."""
        self.refused[refusal.kind] += 1
        if refusal.pauses:
            self.pause.enter(refusal.kind, refusal.reason)
        elif refusal.kind not in self.said:
            self.said.add(refusal.kind)
            log.warning("a snapshot was not saved: %s", refusal.reason)

    async def try_again(self) -> None:
        """While paused: see whether what was in the way is gone; if so, the next save is tried."""
        nothing = self.describe(Resident(), template=False)
        try:
            await self.tenant.shelf.reopen()
            refusal = await self.check(nothing)
        except FolderError as error:
            refusal = Refusal("folder", error.message)
        if refusal is not None and refusal.pauses:
            self.pause.enter(refusal.kind, refusal.reason)
        else:
            self.pause.leave(proved=False)

    # under the grant

    def accept(self, saved: Saved, snapshot: Snapshot, resident: Resident) -> Snapshot:
        """Compare what was written with what must be in it; Mistaken, TooLarge if it is something else."""
        if abs(saved.tokens - resident.tokens) > (0 if snapshot.bounded else OFF_BY):
            expected = resident.tokens
            resident.clear(empty=False)
            raise Mistaken(f"the slot holds {saved.tokens} tokens instead of {expected}: something else used it")
        knowledge = self.tenant.knowledge
        knowledge.moved(save=True, size=saved.bytes, tokens=saved.tokens, seconds=saved.seconds)
        if saved.bytes > self.tenant.budget:
            raise TooLarge(f"{mib(saved.bytes)} are more than the disk budget of {mib(self.tenant.budget)}")
        seconds = saved.tokens * knowledge.speeds.prefill
        return msgspec.structs.replace(snapshot, size=saved.bytes, tokens=saved.tokens, seconds=seconds)

    def give_up(self, error: BaseException, snapshot: Snapshot) -> None:
        """A save did not come to its end: say so in the right place."""
        if isinstance(error, Mistaken):
            log.info("not saved: %s", error.message)
        elif isinstance(error, TooLarge):
            self.refuse(Refusal("too_large", error.message, pauses=False))
        elif isinstance(error, SlotActionTimeout):
            self.uncertain = error.message
            self.pause.enter("timeout", error.message)
        elif isinstance(error, EngineRefused) and error.status in OF_CONTENT:
            self.tenant.deny(snapshot.cuts, error.message)
            reason = f"the engine does not save this content ({error.message}); others are saved"
            self.refuse(Refusal("content", reason, pauses=False))
        elif isinstance(error, EngineRefused):
            self.pause.enter("engine", f"the engine could not write its slot file ({error.message}); is the disk full?")
        elif isinstance(error, FolderError):
            self.pause.enter("folder", error.message)
        elif isinstance(error, files.Unverified):
            self.pause.enter("short", f"the engine's slot file is not what it said: {error.message}")
        elif isinstance(error, BioproxyError):
            self.uncertain = f"the engine went away in a save: {error.message}"
        elif isinstance(error, Exception):
            log.error("a save failed in an unexpected way", exc_info=error)
            self.uncertain = f"a save failed unexpectedly: {in_words(error)}"

    # after the grant

    async def commit(self, shelf: Shelf, temporary: str, snapshot: Snapshot, seconds: float, troubles: int) -> bool:
        """Make the written file a snapshot; a disk that refuses pauses saving.

        `troubles`: those before it was written. It proves nothing about one that came after.
        """
        try:
            kept = await shelf.commit(temporary, snapshot, seconds=seconds, step=self.tenant.step)
        except files.Unverified as error:
            self.pause.enter("short", f"a slot file changed under our hands: {error.message}")
        except OSError as error:
            self.pause.enter("disk", f"cannot keep a snapshot: {error.strerror or error}; is the disk full?")
        else:
            if kept is not None and troubles == self.pause.troubles:
                self.pause.leave(proved=True)
            return kept is not None and kept.id in shelf.index.snapshots
        finally:
            shelf.committing.pop(snapshot.id, None)
        return False

    async def settle(self, deadline: float = COMMITS) -> None:
        """Wait until every commit is done, `deadline` seconds at most."""
        if self.commits:
            await asyncio.wait(self.commits, timeout=deadline)


async def discard(path: Path) -> None:

    def remove() -> None:
        with touching(path.parent):
            path.unlink(missing_ok=True)

    with contextlib.suppress(OSError, Stuck):  # what is left is removed at the next look at the folder
        await away(remove)


class TooLarge(BioproxyError):
    """The file alone is larger than the disk budget."""

    code = "snapshot_too_large"


class Mistaken(BioproxyError):
    """The slot holds something else than we thought."""

    code = "slot_changed"
