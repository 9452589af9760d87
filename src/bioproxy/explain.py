"""One sentence for why a request took as long as it did, from its record alone.

Nothing here is computed for a request as such: only when `/requests` or a listener of events asks for it.
"""

from __future__ import annotations

import msgspec

from bioproxy.activity import Finding, Record

NOTABLE = 0.05  # seconds below which a part is not worth a word
WAITS = {  # the parts of a wait for a model (models/waits.py)
    "in_use": "waited %s for requests of other models to end",
    "linger": "waited %s because another model was in the middle of tool calls (swap.linger)",
    "min_resident": "waited %s because another model had been loaded a moment before (swap.min_resident)",
    "save": "waited %s for what others held to be saved",
    "stop": "waited %s for others to stop",
    "pause": "waited %s before the second try of a start",
    "start": "waited %s for the model to be loaded",
    "attach": "waited %s for the model's engine to be looked at",
    "restore": "waited %s for the model's cache to be brought back",
    "": "waited %s for the model",
}


def seconds(value: float) -> str:
    """`3 ms`, `0.12 s`, `3.4 s`, `75 s`: as many digits as say something."""
    if value < 0.01:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 60 else f"{value:.0f} s"


def prompt_part(record: Record) -> str:
    """What the engine had to evaluate, and what it had."""
    if record.tokens_evaluated is None or record.tokens_cached is None:
        return (
            "" if record.prefill is None or record.prefill < NOTABLE else f"the prompt took {seconds(record.prefill)}"
        )
    prompt = record.tokens_cached + record.tokens_evaluated
    took = "" if record.prefill is None else f" in {seconds(record.prefill)}"
    if not record.tokens_cached:
        return f"none of {prompt:,} prompt tokens came from the cache, all were evaluated{took}"
    return f"{record.tokens_cached:,} of {prompt:,} prompt tokens came from the cache, the rest was evaluated{took}"


def finding_part(finding: Finding) -> str:
    """What was evaluated again, and why; empty if that is not worth a word. The words of the prompt are not shown."""
    if not finding.tokens:
        return ""
    took = f" in {seconds(finding.seconds)}" if finding.seconds >= NOTABLE else ""
    return f"{finding.tokens:,} of them again{took}, because {reason_of(finding)}"


def reason_of(finding: Finding) -> str:
    """The cause as a clause."""
    place, note = finding.place, finding.note
    where = f"the {place.label} changed at character {place.at:,}" if place is not None else "the prompt changed"
    if finding.cause == "evicted":
        by = finding.by or "something else"
        return f"{by} took its place in the engine" + (f" ({note})" if note else "")
    if finding.cause == "not_saved":
        return "the engine was started again and the conversation was not on disk" + (f" ({note})" if note else "")
    if finding.cause == "not_reused":
        return f"the engine did not use what it had: {note}"
    if finding.cause == "template_edited":
        return f"the {note} was edited"
    if finding.cause in {"arguments_changed", "model_changed"} or (finding.cause == "tools_changed" and note):
        return note or finding.cause.replace("_", " ")
    return f"{where} ({note})" if note else where


def waits_of(record: Record) -> dict[str, float]:
    """The parts of the wait for the model, in the order in which they come; all of it if no part is known."""
    waits = record.waits or {"": record.swap}
    return {name: waits[name] for name in WAITS if name in waits}


def explain(record: Record) -> str:
    """Queue, save, restore, prompt and generation, each if it counted; the error, if there was one."""
    parts = [WAITS[name] % seconds(value) for name, value in waits_of(record).items() if value >= NOTABLE]
    if record.queue >= NOTABLE:
        aside = f", as others go before a side request ({record.side})" if record.side else ""
        parts.append(f"waited {seconds(record.queue)} in the queue{aside}")
    if record.save >= NOTABLE:
        parts.append(f"{seconds(record.save)} to save what was resident")
    if record.restore > 0:
        parts.append(f"{seconds(record.restore)} to restore the cache")
    if part := prompt_part(record):
        parts.append(part)
    if record.finding is not None and (part := finding_part(record.finding)):
        parts.append(part)
    if record.decode is not None and record.tokens_generated:
        parts.append(f"{record.tokens_generated:,} tokens were generated in {seconds(record.decode)}")
    if record.outcome == "client_left":
        parts.append(f"the client left after {seconds(record.total)}")
    if record.error:
        parts.append(record.error)
    return "; ".join(parts) or f"nothing to speak of: {seconds(record.total)}"


def explained(record: Record) -> Record:
    """The record with its sentence, which it keeps."""
    if not record.why:
        record.why = explain(record)
    return record


class Part(msgspec.Struct, frozen=True):
    """A stretch of a request's time: seconds from its arrival to where it begins, and how many it took."""

    name: str
    at: float
    seconds: float


def parts_of(record: Record) -> tuple[Part, ...]:
    """Where a request's time went, in the order in which it went there; the parts add up to all of it.

    First the waits for the model (models/waits.py), then `queue`, `save`, `restore`, `prefill`, `decode`. If the engine
    did not tell its times, `engine` is the wait for its first byte and `answer` the time until the last one. What was
    written before the first byte came (all of it, if the answer is no stream) belongs to `decode`. What is left over is
    `other`.
    """
    before = [*waits_of(record).items(), ("queue", record.queue), ("save", record.save), ("restore", record.restore)]
    first = record.first_byte
    if first is not None:
        left = max(0.0, first - sum(seconds for _, seconds in before))
        prompt = ("engine", left) if record.prefill is None else ("prefill", min(record.prefill, left))
        writing = max(0.0, record.total - first)
        answer, early = ("answer", writing), 0.0
        if record.decode is not None:
            early = max(0.0, min(record.decode - writing, left - prompt[1]))
            answer = ("decode", early + min(record.decode, writing))
        before += [("other", left - prompt[1] - early), prompt, answer]
    before.append(("other", record.total - sum(seconds for _, seconds in before)))
    found, at = [], 0.0
    for name, seconds in before:
        if seconds > 0.0:
            found.append(Part(name, at, seconds))
            at += seconds
    return tuple(found)
