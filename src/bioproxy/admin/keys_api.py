"""`GET /api/keys`: what each API key used today, and has left. A key is told of itself alone."""

from __future__ import annotations

import msgspec

from bioproxy.admin.routes import Entry, Question, answer
from bioproxy.front.allowance import Allowances, KeyStatistics


class KeyList(msgspec.Struct, frozen=True):
    """The keys of the configuration, in its order."""

    keys: tuple[KeyStatistics, ...]


class KeysApi:
    """The one route."""

    def __init__(self, allowances: Allowances) -> None:
        self.allowances = allowances

    def entries(self) -> tuple[Entry, ...]:
        return (Entry("GET", "/api/keys", "What each API key used today, and has left.", self.list, guard="own"),)

    async def list(self, question: Question) -> None:
        """On the proxy port a key sees itself, also if it is the only one; the admin sees all."""
        me = question.principal
        found = self.allowances.statistics()
        answer(question.responder, KeyList(tuple(one for one in found if me is None or one.key == me.name)))
