"""Meeting an engine: what it is, where its slot files lie, and whether all of that works.

Runs once for each engine process, before a request of ours reaches it. What is missing is written down as a note for
`/status` and one line in the log; nothing here may fail the attach, for an engine without snapshots still serves. The
engine is asked to save its (empty) slot into the folder: only that shows that its folder is the one we look into.

What was in the way then may be gone later: a disk was full, a folder not mounted yet or in another process's hands, a
model file not readable. So all that may pass is looked at again with each housekeeping (`retry`, `try_out`), and what a
note claims holds while it stands there. An engine that cannot write is a pause of saving like a later one (saver.py).

While a model is swapped in, a user waits for this. So what cannot have changed since the last process of the same
command is not found out again: what the model's files are (fingerprint.py), what lies in a folder that stayed ours, and
that the engine writes into it.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePath

from bioproxy.config.schema import Kv
from bioproxy.engines import gguf
from bioproxy.engines.facts import WANTS_KEY, EngineFacts
from bioproxy.errors import BioproxyError, EngineRefused
from bioproxy.files import Stuck, away
from bioproxy.kv import files
from bioproxy.kv.actions import Actions
from bioproxy.kv.builds import Builds
from bioproxy.kv.decisions import Findings
from bioproxy.kv.engine import AT_LEAST, limited, poke
from bioproxy.kv.fingerprint import Fingerprint, Identify, Identities, fingerprint
from bioproxy.kv.folder import FolderError
from bioproxy.kv.saver import OF_CONTENT, discard
from bioproxy.kv.snapshot import new_id, temporary_name

log = logging.getLogger(__name__)

REFUSED = "engine"  # the kind of a pause because the engine does not write
UNEMPTIED = "kv.isolate: strict does not hold here: what is no llama-server cannot be emptied"
DRAFT = "a draft model is active, and llama-server does not restore its context; run without one to keep snapshots"


class Attaching:
    """What the engine is, as far as it can be found out: the results stand in `decisions`."""

    def __init__(self, actions: Actions, *, identify: Identify = gguf.identity) -> None:
        self.actions = actions
        self.engine, self.saver, self.restorer = actions.engine, actions.saver, actions.restorer
        self.residents, self.decisions = actions.residents, actions.decisions
        self.config, self.tenant = actions.decisions.config, actions.decisions.tenant
        self.identities = Identities(identify)
        self.proved: set[tuple[object, ...]] = set()  # commands that were seen to write into the folder
        self.builds = Builds(self.engine, self.tenant, self.saver)
        self.refusal = ""  # the engine could not write into its folder when it was met

    async def run(self, facts: EngineFacts, *, alone: bool = True) -> None:
        """Learn everything about this engine; never raises. `alone`: no request can reach it through us meanwhile."""
        decisions = self.decisions
        decisions.facts = facts
        decisions.fault = decisions.elsewhere = self.refusal = ""
        decisions.findings = Findings(restores=False, saves=False)
        self.tenant.use("", facts.build)
        self.tenant.denied.clear()  # another build may save what this one did not
        self.residents.meet(facts)
        await self.learn(facts)
        if self.decisions.findings.restores and not self.decisions.fault:
            try:
                await self.meet(facts, alone=alone)
            except BioproxyError as error:
                log.info("the engine could not be tried out: %s", error.message)
        self.decisions.say()

    def met_other(self) -> None:
        """What runs is no llama-server, so nothing is known of its slots, and nobody empties them."""
        self.decisions.findings = Findings(notes=(UNEMPTIED,) if self.config.isolate == "strict" else ())
        self.decisions.say()

    async def learn(self, facts: EngineFacts) -> None:
        """What the engine is, and whether its folder can be ours; the engine itself is not asked for anything."""
        try:
            self.decisions.fingerprint, self.saver.watch = await away(
                fingerprint, facts, extra=self.config.fingerprint, known=self.identities
            )
        except Stuck as error:
            self.decisions.fault = error.message
            return
        arguments = self.decisions.fingerprint.arguments
        self.residents.sleeps_after = arguments.sleeps_after
        self.restorer.pokes = arguments.ram_cache and self.config.isolate == "off"
        self.residents.memory = arguments.ram_bytes if self.restorer.pokes else 0.0
        self.decisions.meet(facts)
        self.residents.parks = facts.slots > 1 and bool(facts.command) and arguments.clears_idle_slots
        findings = examine(facts, self.decisions.fingerprint, self.config)
        self.decisions.fault = await self.occupy(facts) if findings.restores else ""
        self.decisions.findings = findings

    @property
    def troubles(self) -> tuple[str, ...]:
        refusal = self.refusal if self.saver.pause.reason == self.refusal else ""
        return tuple(filter(None, (self.decisions.fault, self.decisions.elsewhere, refusal)))

    # the folder

    async def occupy(self, facts: EngineFacts) -> str:
        """Open the folder for this engine; the reason why that cannot be, empty if it is ours."""
        path = self.config.directory or facts.slot_folder
        if not path:
            return "the engine's slot folder is not known: set kv.directory to what the engine got as --slot-save-path"
        try:
            await self.tenant.open(expanded(path))
        except FolderError as error:
            return error.message
        try:
            await self.tenant.shelf.probe()
        except FolderError as error:  # what is in there can be restored all the same
            self.saver.pause.enter("folder", error.message)
        self.tenant.use(self.decisions.fingerprint.value, facts.build)
        knowledge = self.tenant.knowledge
        knowledge.guess = knowledge.guess or float(self.decisions.fingerprint.traits.token_bytes)
        return ""

    async def retry(self) -> None:
        """Look again at what was in the way and may be gone: a folder's holder, a disk, a file that was not there."""
        facts = self.decisions.facts
        if facts is None or not (self.decisions.fault or self.decisions.fingerprint.may_pass):
            return
        try:
            await self.learn(facts)
        except Exception:
            log.exception("the engine is served without snapshots still")
            return
        self.decisions.say()
        if self.decisions.findings.restores and not self.decisions.fault:
            log.info("the snapshot folder %s is in use now", self.tenant.path)
            self.saver.pause.resumed("folder")

    async def meet(self, facts: EngineFacts, *, alone: bool) -> None:
        """Ask the engine itself, as long as no other client is using it. Raises what `Llama` raises."""
        views = await self.engine.slots() if facts.capabilities.slots_route else []
        if any(view.speculative for view in views):
            self.decisions.findings.deny(DRAFT)
            return
        fresh = alone and bool(views) and not any(view.n_prompt_tokens or view.is_processing for view in views)
        self.residents.clear(empty=fresh)
        if fresh and await self.writes_there(facts):
            await self.try_out(fresh=True)
        elif not fresh:
            self.builds.wait()
        # else a client may be using it past us, and a slot action would wait for that inside the server (facts, 0.4)

    async def writes_there(self, facts: EngineFacts) -> bool:
        """Whether the engine's slot files appear in our folder: seen once for each command and folder."""
        proof = (facts.command, facts.environment, facts.folder, self.tenant.shelf, self.tenant.shelf.tenure)
        if facts.command and proof in self.proved:
            return True
        if await self.same_folder():
            self.proved.add(proof)
        return not (self.decisions.elsewhere or self.refusal)

    async def same_folder(self) -> bool:
        """Let the engine save an empty slot, and look whether the file appears in our folder."""
        assert self.tenant.shelf.folder is not None
        folder = self.tenant.shelf.folder.path
        name = temporary_name(new_id())
        self.decisions.elsewhere = self.refusal = ""
        try:
            saved = await limited(self.engine.save(0, name), seconds=AT_LEAST, what="saving an empty slot")
            await self.tenant.shelf.on_disk(files.measured, folder / name, saved.bytes)
            await self.tenant.shelf.on_disk(files.make_folder_private, folder, folder / name)
        except EngineRefused as error:
            self.refused(error)
            return False
        except (files.Unverified, OSError):
            self.decisions.elsewhere = (
                f"the engine's slot files do not appear in {folder}; set kv.directory to the folder that the engine "
                "calls --slot-save-path"
            )
            return False
        finally:
            await discard(folder / name)
        return True

    def refused(self, error: EngineRefused) -> None:
        """The engine does not save at all, or its disk is in the way: then saving pauses, as it does later."""
        reason = f"the engine cannot write into its slot folder: {error.message}"
        if error.status in OF_CONTENT:
            self.decisions.findings.deny(reason)
        else:
            self.refusal = reason
            self.saver.pause.enter(REFUSED, reason)

    async def try_out(self, *, fresh: bool) -> None:
        """Look again whether the engine writes here; try what other builds wrote, and leave a reference of this one.

        Alone on the engine: before it is declared ready (`fresh`: its slot is empty), or under an exclusive grant.
        """
        if self.decisions.facts is None or not self.to_try_out:
            return
        untried, several = self.untried, len(self.residents.slots) > 1
        used: tuple[int, ...] = (0,)
        if not fresh and not self.residents.slots[0].empty:
            await poke(self.engine, self.tenant.knowledge.speeds)
        self.residents.clear(empty=False)
        if (self.decisions.elsewhere or self.refusal) and await self.appears(self.decisions.facts):
            log.info("the engine writes its slot files into %s now", self.tenant.path)
            if self.saver.pause:
                self.saver.pause.leave(proved=False)
            else:
                self.saver.pause.resumed("folder")
        if untried and not (self.decisions.elsewhere or self.refusal):
            tokenizes = self.decisions.facts.capabilities.tokenize
            used = await self.builds.run(tokenizes=tokenizes, several=several)
        for slot in used:
            await limited(self.engine.erase(slot), seconds=AT_LEAST, what="erasing the slot")
        self.residents.clear(empty=True)

    async def appears(self, facts: EngineFacts) -> bool:
        """Whether the engine's slot files appear in our folder by now, which may be another one under the same name."""
        fault = await self.occupy(facts)
        if fault:
            self.decisions.fault, self.decisions.elsewhere = fault, ""
        return not fault and await self.writes_there(facts)

    @property
    def to_try_out(self) -> bool:
        """Whether something is still to be found out with the slot, and can be: nothing may be lost by it."""
        due = self.decisions.elsewhere or (self.refusal and self.saver.pause.due)
        if due and len(self.residents.slots) == 1:
            return self.residents.slots[0].empty or self.restorer.pokes
        return self.untried and not self.saver.pause

    @property
    def untried(self) -> bool:
        """Whether something about the build is still to be found out, and can be: nothing may be lost by it."""
        slots, findings = self.residents.slots, self.decisions.findings
        if not (findings.restores and self.decisions.facts and self.tenant.shelf.folder):
            return False
        empty = all(slot.empty for slot in slots)
        if self.builds.to_try():
            return empty or (len(slots) == 1 and self.restorer.pokes)
        return empty and self.builds.reference(self.tenant.scope.build) is None


def expanded(path: str) -> Path:
    return Path(path).expanduser()


def examine(facts: EngineFacts, found: Fingerprint, config: Kv) -> Findings:
    """Judge an engine by what it told and by its launch arguments; the folder is looked at elsewhere."""
    findings = Findings()
    arguments = found.arguments
    if config.isolate == "strict" and arguments.ram_cache:
        findings.remark("kv.isolate: strict needs --cache-ram 0, or the engine keeps a copy of what we erase")
    if config.isolate == "strict" and not facts.build:
        findings.remark(UNEMPTIED)
    if config.isolate == "strict" and facts.slots > 1:
        findings.remark(
            "kv.isolate: strict erases all slots when another group asks, so groups wait for each other; run with -np 1"
        )
    if config.policy == "off":
        findings.restores = findings.saves = False
        return findings
    if facts.capabilities.locked:
        findings.deny(WANTS_KEY)
    elif not facts.capabilities.slot_actions:
        findings.deny("the engine answers no slot actions; start it with --slot-save-path FOLDER to keep its KV cache")
    if not found.value:
        findings.deny(found.reason)
    if arguments.draft:
        findings.deny(DRAFT)
    if findings.restores:
        examine_details(facts, found, config, findings)
    return findings


def examine_details(facts: EngineFacts, found: Fingerprint, config: Kv, findings: Findings) -> None:
    """What limits an engine that can restore."""
    arguments = found.arguments
    if arguments.has("--swa-full") and found.traits.window is not False:
        findings.diverging = False
        if facts.slots > 1:
            findings.deny(
                "--swa-full with sliding-window attention on several slots: a restored slot gives wrong answers to "
                "requests that leave it early; run with -np 1, or without the flag on a build that stores checkpoints"
            )
            return
        findings.remark(
            "--swa-full with sliding-window attention: a restore is wrong unless the request extends the snapshot "
            "exactly, so only templates are restored, and only they are written; leave the flag out with a build that "
            "stores checkpoints"
        )
    if facts.slots > 1 and arguments.clears_idle_slots and facts.command:
        findings.remark(
            "idle slots are cleared by other requests; start the engine with -np 1 or --no-cache-idle-slots"
        )
    ours, theirs = PurePath(config.engine_directory), PurePath(facts.slot_folder)  # one may be in a container
    if config.engine_directory and facts.slot_folder and ours != theirs:
        findings.remark(
            f"kv.engine_directory is {config.engine_directory}, the engine's --slot-save-path is {facts.slot_folder}"
        )
    if found.hidden:
        findings.remark(f"not visible, so not in the fingerprint: {'; '.join(found.hidden)}")
    if config.policy == "always" and facts.slots > 1:
        findings.remark("kv.policy: always is for engines with one slot; this one is treated as auto")
    if config.policy == "always" and found.traits.window:
        findings.remark(
            "kv.policy: always saves what was generated too; on sliding-window models such a file may be worth nothing"
        )
