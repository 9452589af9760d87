"""Meeting an engine: what it is, where its slot files lie, and whether all of that works.

Runs once for each engine process, before a request of ours reaches it. Whatever is missing becomes a note for `/status`
and one line in the log; nothing here may fail the attach, for an engine without snapshots still serves. The engine is
asked to save its (empty) slot into the folder: only that shows that its folder is the one we look into.

While a model is swapped in, a user waits for this. So what cannot have changed since the last process of the same
command is not found out again: what the model's files are (identities.py), what lies in a folder that stayed ours, and
that the engine writes into it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path

from bioproxy.config.schema import Kv
from bioproxy.engines import gguf
from bioproxy.engines.llama import EngineFacts
from bioproxy.errors import BioproxyError, EngineRefused
from bioproxy.files import Stuck, away
from bioproxy.kv import files
from bioproxy.kv.builds import Builds
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.engine import AT_LEAST, EngineClient, limited, poke
from bioproxy.kv.fingerprint import Fingerprint, Identify, fingerprint
from bioproxy.kv.folder import FolderError
from bioproxy.kv.identities import Identities
from bioproxy.kv.notes import DRAFT, Findings, examine
from bioproxy.kv.resident import Residents
from bioproxy.kv.restorer import Restorer
from bioproxy.kv.saver import Saver, discard
from bioproxy.kv.snapshot import new_id, temporary_name
from bioproxy.kv.store import Store

log = logging.getLogger(__name__)


class Attaching:
    """What is known of the engine; `facts` is None while there is none."""

    def __init__(
        self,
        *,
        config: Kv,
        engine: EngineClient,
        store: Store,
        saver: Saver,
        restorer: Restorer,
        decisions: Decisions,
        residents: Residents,
        identify: Identify = gguf.identity,
        model: str = "",
    ) -> None:
        self.config = config
        self.model = model  # stands before what is logged; "" if there is only one
        self.engine = engine
        self.store = store
        self.saver = saver
        self.restorer = restorer
        self.decisions = decisions
        self.residents = residents
        self.identities = Identities(identify)
        self.proved: set[tuple[object, ...]] = set()  # commands that were seen to write into the folder
        self.builds = Builds(engine, store, saver)
        self.facts: EngineFacts | None = None
        self.fingerprint = Fingerprint()
        self.sleeps_after = math.inf
        self.fault = ""  # why the folder cannot be used at present
        self.said: set[str] = set()

    async def run(self, facts: EngineFacts, *, alone: bool = True) -> None:
        """Learn everything about this engine; never raises. `alone`: nobody can use it meanwhile through us."""
        self.facts = facts
        self.fault = ""
        self.store.use("", facts.build)
        self.store.denied.clear()  # another build may save what this one did not
        self.residents.resize(facts.slots)
        try:
            self.fingerprint, self.saver.watch = await away(
                fingerprint, facts, extra=self.config.fingerprint, known=self.identities
            )
        except Stuck as error:
            self.decisions.findings = Findings(restores=False, saves=False, notes=(error.message,))
            self.say()
            return
        arguments = self.fingerprint.arguments
        self.sleeps_after = arguments.sleeps_after
        self.restorer.pokes = arguments.ram_cache and self.config.isolate == "off"
        self.residents.memory = arguments.ram_bytes if self.restorer.pokes else 0.0
        self.decisions.findings = examine(facts, self.fingerprint, self.config)
        self.decisions.traits = self.fingerprint.traits
        self.decisions.literal = self.config.policy == "always" and facts.slots == 1
        self.decisions.several = facts.slots > 1
        self.decisions.context = facts.context
        self.decisions.room = (facts.context or math.inf) if arguments.unified else math.inf
        self.residents.parks = facts.slots > 1 and bool(facts.command) and arguments.clears_idle_slots
        if self.decisions.findings.restores:
            await self.open_folder(facts, alone=alone)
        self.say()

    def say(self) -> None:
        """Log each note once, however often the engine comes back."""
        for note in (*self.decisions.findings.notes, *self.decisions.reasons()):
            if note not in self.said:
                self.said.add(note)
                log.warning("%s%s", f"{self.model}: " if self.model else "", note)

    # the folder

    async def open_folder(self, facts: EngineFacts, *, alone: bool) -> None:
        """Own the folder, see that the engine writes into the same one, and try what another build left."""
        findings = self.decisions.findings
        path = self.config.directory or facts.slot_folder
        if not path:
            findings.deny(
                "the engine's slot folder is not known: set kv.directory to what the engine got as --slot-save-path"
            )
            return
        if not await self.occupy(expanded(path), facts):
            findings.deny(self.fault)
            return
        try:
            await self.meet(facts, alone=alone)
        except BioproxyError as error:
            log.info("the engine could not be tried out: %s", error.message)

    async def occupy(self, path: Path, facts: EngineFacts) -> bool:
        """Open the folder for this engine; False, and the reason in `fault`, where that cannot be."""
        try:
            await self.store.open(path)
        except FolderError as error:
            self.fault = error.message
            return False
        self.fault = ""
        self.store.use(self.fingerprint.value, facts.build)
        knowledge = self.store.knowledge
        knowledge.guess = knowledge.guess or float(self.fingerprint.traits.token_bytes)
        return True

    async def retry(self) -> None:
        """Try a folder again that could not be used: its holder may be gone, or the disk back."""
        facts, findings = self.facts, self.decisions.findings
        if not self.fault or facts is None:
            return
        before = self.fault
        path = expanded(self.config.directory or facts.slot_folder)
        if await self.occupy(path, facts):
            findings.restores = findings.saves = True
            findings.notes = tuple(note for note in findings.notes if note != before)
            log.info("the snapshot folder %s is in use now", path)

    async def meet(self, facts: EngineFacts, *, alone: bool) -> None:
        """Ask the engine itself, as long as nobody else is using it. Raises what its client raises."""
        views = await self.engine.slots() if facts.capabilities.slots_route else []
        if any(view.speculative for view in views):
            self.decisions.findings.deny(DRAFT)
            return
        fresh = alone and bool(views) and not any(view.n_prompt_tokens or view.is_processing for view in views)
        self.residents.clear(empty=fresh)
        if fresh and await self.writes_there(facts):
            await self.try_builds(fresh=True)
        # else somebody may be using it past us: a slot action would queue up behind that (facts, 0.4)

    async def writes_there(self, facts: EngineFacts) -> bool:
        """Whether the engine's slot files appear in our folder: seen once for each command and folder."""
        proof = (facts.command, facts.environment, facts.folder, self.store.shelf, self.store.shelf.tenure)
        if facts.command and proof in self.proved:
            return True
        if await self.same_folder():
            self.proved.add(proof)
        return self.decisions.findings.saves

    async def same_folder(self) -> bool:
        """Let the engine save an empty slot, and look whether the file appears where we look; else deny."""
        assert self.store.folder is not None
        folder = self.store.folder.path
        name = temporary_name(new_id())
        findings = self.decisions.findings
        try:
            saved = await limited(self.engine.save(0, name), seconds=AT_LEAST, what="saving an empty slot")
            await asyncio.to_thread(files.measured, folder / name, saved.bytes)
            await asyncio.to_thread(files.make_folder_private, folder, folder / name)
        except EngineRefused as error:
            findings.deny(f"the engine cannot write into its slot folder: {error.message}")
        except (files.Unverified, OSError):
            findings.deny(
                f"the engine's slot files do not appear in {folder}; set kv.directory to the folder that the engine "
                "calls --slot-save-path"
            )
        finally:
            await asyncio.to_thread(discard, folder / name)
        return findings.saves

    async def try_builds(self, *, fresh: bool) -> None:
        """Try what other builds wrote, and leave a reference of this one, on engines with one slot.

        Alone on the engine: before it is declared ready (`fresh`: its slot is empty), or under an exclusive grant.
        """
        tokenizes = self.facts is not None and self.facts.capabilities.tokenize
        if not self.untried:
            return
        if not fresh:
            await poke(self.engine, self.store.knowledge.speeds)
        self.residents.clear(empty=False)
        if self.builds.to_try():
            await self.builds.try_all(0, tokenizes=tokenizes)
        if self.builds.reference(self.store.scope.build) is None:
            await self.builds.leave_reference(0, tokenizes=tokenizes)
        await limited(self.engine.erase(0), seconds=AT_LEAST, what="erasing the slot")
        self.residents.clear(empty=True)

    @property
    def untried(self) -> bool:
        """Whether something about the build is still to be found out, and can be: nothing may be lost by it."""
        findings = self.decisions.findings
        if self.residents.numbers() != [0] or not (findings.restores and self.facts and self.store.folder):
            return False
        empty = self.residents.slots[0].empty
        if self.builds.to_try():
            return empty or self.restorer.pokes
        return empty and self.builds.reference(self.store.scope.build) is None


def expanded(path: str) -> Path:
    """A folder's path with `~` filled in."""
    return Path(path).expanduser()
