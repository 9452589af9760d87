"""What the findings add up to: by client, cause and place, and the three changes that would save most.

For the operator alone: the rows name clients, and an example shows a few of their words. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from bioproxy.activity import Cause, Finding, Place, Record

MOST = 512  # rows; what comes after that counts as one client,
OTHERS = "others"
THREE = 3
MENDS: Mapping[Cause, str] = {
    "system_changed": "move what changes to the end of the last message, take it out, or let clients.stabilize pin it",
    "tools_changed": "send the same tools in the same order with each turn, or let clients.stabilize sort them",
    "arguments_changed": "send the same template arguments with each turn",
    "message_changed": "let the client send earlier messages as it sent them before",
    "template_edited": "move what is edited often to the end of the template",
    "model_changed": "stay with one model and one set of LoRA scales in a conversation",
    "group_changed": "give keys that go on with each other's conversations one `group`",
    "evicted": "give the engine more slots (-np) or a larger --cache-ram, or kv.disk_budget more room",
    "not_saved": "lower kv.save_after, and see in `bioproxy status` whether snapshots are saved",
    "not_reused": "see in docs/doctor.md what this family of models can reuse",
}


class Total(msgspec.Struct, kw_only=True):
    """Misses of one client on one model for one cause, at one place; `place` and `note` are the last one's.

    `client` is the key's name or the address, `app` the program, if it is one that we know.
    """

    client: str
    app: str
    model: str
    cause: Cause
    where: str = ""
    misses: int = 0
    tokens: int = 0
    seconds: float = 0.0
    place: Place | None = None
    note: str = ""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One change, what it would have saved until now, and the words around the place that it is about."""

    sentence: str
    seconds: float
    tokens: int
    place: Place | None = None


class Totals:
    """The misses since the start."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str, Cause, str], Total] = {}

    def add(self, record: Record, finding: Finding) -> None:
        where = where_of(finding)
        key = record.client, record.app, record.model, finding.cause, where
        if key not in self.rows and len(self.rows) >= MOST:
            key = OTHERS, "", "", finding.cause, ""
        client, app, model, cause, where = key
        row = self.rows.setdefault(key, Total(client=client, app=app, model=model, cause=cause, where=where))
        row.misses += 1
        row.tokens += finding.tokens
        row.seconds += finding.seconds
        row.place, row.note = finding.place, finding.note

    def worst(self) -> list[Total]:
        """What cost most comes first."""
        return sorted(self.rows.values(), key=lambda row: (-row.seconds, -row.misses, row.client))


def where_of(finding: Finding) -> str:
    """The place as far as it is the same in each turn: which message it is changes with every one."""
    place = finding.place
    if place is None:
        return ""
    return "an earlier message" if place.label.startswith("message ") else place.label


def advice(rows: Iterable[Total]) -> list[Advice]:
    """The three changes that would save most, each with the seconds that it would have saved."""
    costly = [row for row in rows if row.seconds > 0 and row.cause in MENDS]
    return [
        Advice(sentence=sentence(row), seconds=row.seconds, tokens=row.tokens, place=row.place)
        for row in sorted(costly, key=lambda row: -row.seconds)[:THREE]
    ]


def sentence(row: Total) -> str:
    """What to do, for whom, and why."""
    client = f"{row.app} ({row.client})" if row.app and row.client else row.app or row.client or "a client"
    who = f"{client} on {row.model}" if row.model else client
    what = f"{row.cause.replace('_', ' ')}{f' ({row.where})' if row.where else ''}"
    often = f"{row.misses} request{'' if row.misses == 1 else 's'}"
    note = f"; {row.note}" if row.note else ""
    return f"{who}: {what} in {often}{note}: {MENDS[row.cause]}"
