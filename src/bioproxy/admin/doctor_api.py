"""`/api/doctor`: why prompts were evaluated anew, added up since the start, and what would save most.

It names clients and shows a few words of their prompts, so one of several keys does not see it; what the doctor found
about a request stands in that request's record.
"""

from __future__ import annotations

import msgspec

from bioproxy.admin.routes import Entry, Question, answer
from bioproxy.doctor.doctor import Doctor, DoctorStatistics
from bioproxy.doctor.totals import Advice, Total, advice


class DoctorReport(msgspec.Struct, frozen=True):
    """Misses by client, model, cause and place, the costliest first, and the changes that would save most."""

    doctor: DoctorStatistics
    totals: tuple[Total, ...]
    advice: tuple[Advice, ...]


class DoctorApi:
    """What the admin port says of the doctor."""

    def __init__(self, doctor: Doctor) -> None:
        self.doctor = doctor

    def entries(self) -> tuple[Entry, ...]:
        about = "Why prompts were evaluated anew, and what would save most."
        return (Entry("GET", "/api/doctor", about, self.report, guard="private"),)

    async def report(self, question: Question) -> None:
        rows = self.doctor.totals.worst()
        answer(question.responder, DoctorReport(self.doctor.statistics(), tuple(rows), tuple(advice(rows))))
