"""`POST /api/pause` and `/api/resume`: everything rests, and goes on.

Whoever may unload models may do this, too, but for one of several keys without an admin: it would stop the others.
"""

from __future__ import annotations

import msgspec

from bioproxy.admin.routes import Entry, Question, answer, asked
from bioproxy.config.schema import DECADE
from bioproxy.config.settings import Settings, among_strangers
from bioproxy.config.units import read_seconds
from bioproxy.errors import Forbidden, RequestError
from bioproxy.models.pause import Pause, PauseStatus

OF_OTHERS = "one of several keys may not pause the program for all: that wants admin_key, or the admin port"


class PauseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was done; `pause` is None when the program serves."""

    pause: PauseStatus | None


class Length(msgspec.Struct, frozen=True, rename={"text": "for"}):
    """The query: `?for=1h`; without it, until somebody resumes."""

    text: str = ""


class PauseApi:
    def __init__(self, pause: Pause, settings: Settings) -> None:
        self.pause, self.settings = pause, settings

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("POST", "/api/pause", "Save, stop every engine of ours, refuse requests; ?for=1h bounds it.",
                  self.begin, guard="manage"),
            Entry("POST", "/api/resume", "Serve again.", self.end, guard="manage"),
        )  # fmt: skip

    async def begin(self, question: Question) -> None:
        """Returns when all is stopped."""
        self.check(question)
        await self.pause.begin(seconds_of(asked(question.request, Length).text))
        answer(question.responder, PauseAnswer(pause=self.pause.status))

    async def end(self, question: Question) -> None:
        self.check(question)
        await self.pause.end()
        answer(question.responder, PauseAnswer(pause=None))

    def check(self, question: Question) -> None:
        if question.proxy and among_strangers(self.settings.config):
            raise Forbidden(OF_OTHERS)


def seconds_of(text: str) -> float | None:
    """How long a pause shall be; None if no text says so. RequestError for a text that is no time."""
    if not text:
        return None
    try:
        seconds = read_seconds(text)
    except ValueError as error:
        raise RequestError(f"for: {error}, got {text!r}") from None
    if not 0 < seconds <= DECADE:
        raise RequestError(f"for: expected a time of more than nothing and of at most ten years, got {text!r}")
    return seconds
