"""What this engine cannot do for the cache, found out when we attach: sentences with what would mend it (kv-rule 24).

None of it is ever an error to a user: without snapshots requests are served as the engine does by itself.
"""

from __future__ import annotations

from pathlib import PurePath

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import WANTS_KEY
from bioproxy.engines.llama import EngineFacts
from bioproxy.kv.fingerprint import Fingerprint

DRAFT = "a draft model is active, and llama-server does not restore its context; run without one to keep snapshots"


class Findings(msgspec.Struct):
    """What may be done with this engine, and the sentences for `/status` and the log."""

    restores: bool = True
    saves: bool = True
    diverging: bool = True
    notes: tuple[str, ...] = ()

    def deny(self, note: str) -> None:
        """No snapshots at all, because of `note`."""
        self.restores = self.saves = False
        self.notes += (note,)

    def remark(self, note: str) -> None:
        """Something that the operator should know; nothing is forbidden."""
        self.notes += (note,)


def examine(facts: EngineFacts, found: Fingerprint, config: Kv) -> Findings:
    """Judge an engine by what it told and by its launch arguments; the folder is looked at elsewhere."""
    findings = Findings()
    arguments = found.arguments
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
    if config.engine_directory and facts.slot_folder and not same_path(config.engine_directory, facts.slot_folder):
        findings.remark(
            f"kv.engine_directory is {config.engine_directory}, the engine's --slot-save-path is {facts.slot_folder}"
        )
    if found.hidden:
        findings.remark(f"not visible, so not in the fingerprint: {'; '.join(found.hidden)}")
    if config.isolate == "strict" and (arguments.ram_cache or facts.slots > 1):
        findings.remark("kv.isolate: strict needs -np 1 and --cache-ram 0, or the engine keeps what we erase")
    if config.policy == "always" and facts.slots > 1:
        findings.remark("kv.policy: always is for engines with one slot; this one is treated as auto")
    if config.policy == "always" and found.traits.window:
        findings.remark(
            "kv.policy: always saves what was generated too; on sliding-window models such a file may be worth nothing"
        )


def same_path(one: str, other: str) -> bool:
    """Whether two texts name the same folder; nothing is looked up, for one of them may be in a container."""
    return PurePath(one) == PurePath(other)
