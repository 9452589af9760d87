"""`GET /api/templates/{prefix}` and `POST /warmup/{prefix}`: what stands behind a prefix, and warming it up.

The text that is shown is the operator's, with the files that it includes; whoever may manage may read it. It is
compared with what each model's engine read last, as long as this program ran (`Runner.warmed`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from bioproxy.admin.routes import ACCEPTED, Entry, Json, Question, answer, asked
from bioproxy.errors import NotFound
from bioproxy.station import Station
from bioproxy.templates.catalogue import Estimate, TemplateStatistics
from bioproxy.templates.difference import Difference, difference_of
from bioproxy.templates.reading import Reading
from bioproxy.warmup.runner import Runner, TargetStatistics

MOST_TEXT = 1 << 20  # characters of a template that are sent


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of the filled text and the file that it is from; `message`: the place of the user's message."""

    file: str
    text: str
    message: bool = False


class TextChange(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was read at the unix time `since` became another one, read at `until` (0: it is not read yet)."""

    since: float
    until: float
    difference: Difference


class TemplateOnModel(msgspec.Struct, frozen=True, kw_only=True):
    """The template on one model ("": the only engine). `ready`: the engine is there, and can be warmed up.

    `estimate` is what the engine taught about it. `change`: from what the engine read last to the newest text, or if
    that is the same, from what it read before; None: it read no other text since the program started.
    """

    model: str
    ready: bool
    targets: tuple[TargetStatistics, ...]
    estimate: Estimate
    change: TextChange | None


class TemplateDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One template: its text without the last `left_off` characters, and how it is on each model that has it.

    `newest`: the text is one that has not settled yet; requests still get the one before.
    """

    template: TemplateStatistics
    newest: bool
    text: tuple[Stretch, ...]
    left_off: int
    models: tuple[TemplateOnModel, ...]


class Whose(msgspec.Struct, frozen=True):
    """The query of a template: the model that has one of its own."""

    model: str | None = None


class TemplatesApi:
    """`stations` are those of all models; `warm` looks at a template now and returns its states (NotFound)."""

    def __init__(self, stations: Callable[[], Iterable[Station]], *, warm: Callable[[str], Awaitable[Json]]) -> None:
        self.stations = stations
        self.warm_up = warm

    def entries(self) -> tuple[Entry, ...]:
        about = "A template's text, what changed in it, and how warm it is; ?model= if a model has its own."
        return (
            Entry("GET", "/api/templates/{prefix...}", about, self.detail, guard="manage"),
            Entry("POST", "/warmup/{prefix...}", "Warm a template up now.", self.warm, guard="manage", forms=True),
        )

    async def warm(self, question: Question) -> None:
        """Ask for a warm-up; it runs when no user waits."""
        prefix = self.meant(question.parameters["prefix"])
        answer(question.responder, {"prefix": prefix, "warmup": await self.warm_up(prefix)}, status=ACCEPTED)

    async def detail(self, question: Question) -> None:
        prefix = self.meant(question.parameters["prefix"])
        model = asked(question.request, Whose).model
        having = [one for one in self.stations() if prefix in one.catalogue.prefixes]
        chosen = next((one for one in having if model in (None, one.model)), None)
        if chosen is None:
            known = ", ".join(dict.fromkeys(name for one in self.stations() for name in one.catalogue.prefixes))
            raise NotFound(f"there is no prefix {prefix}{f' on {model}' if model else ''}; known: {known or 'none'}")
        template = chosen.catalogue.templates[prefix]
        newest = template.pending or template.reading
        text, left_off = await asyncio.to_thread(stretches, newest)
        answer(
            question.responder,
            TemplateDetail(
                template=template.statistics(),
                newest=template.pending is not None,
                text=text,
                left_off=left_off,
                models=tuple(
                    [await on_model(one, prefix, newest) for one in having if one.catalogue is chosen.catalogue]
                ),
            ),
        )

    def meant(self, name: str) -> str:
        """The prefix that a path names; one that begins with a slash is written without it."""
        known = {prefix for one in self.stations() for prefix in one.catalogue.prefixes}
        return f"/{name}" if name not in known and f"/{name}" in known else name


async def on_model(station: Station, prefix: str, newest: Reading) -> TemplateOnModel:
    runner = station.runner
    return TemplateOnModel(
        model=station.model,
        ready=runner.facts is not None,
        targets=tuple(runner.described(target) for target in runner.of(prefix)),
        estimate=runner.estimate(prefix),
        change=await change_of(runner, prefix, newest),
    )


async def change_of(runner: Runner, prefix: str, newest: Reading) -> TextChange | None:
    """What changed since the engine read the template, or with what it read last; compared in a thread."""
    warmed = runner.warmed.get(prefix, ())
    if not warmed:
        return None
    last = warmed[-1]
    read = last.reading.key == newest.key
    if read and len(warmed) == 1:
        return None
    before = warmed[0] if read else last
    difference = await asyncio.to_thread(difference_of, before.reading, newest, runner.estimate(prefix))
    return TextChange(since=before.at, until=last.at if read else 0.0, difference=difference)


def stretches(reading: Reading) -> tuple[tuple[Stretch, ...], int]:
    """The filled text by the files that it is from, with the places of messages; how many characters were left off.

    Sources say where they begin in the bytes of all parts together, in their order, so a part ends where the next one's
    bytes begin.
    """
    assert reading.filled is not None
    found: list[Stretch] = []
    sources = deque(reading.sources)
    left, start = MOST_TEXT, 0
    for number, part in enumerate(reading.filled.parts):
        if number:
            found.append(Stretch("", "", message=True))
        data = part.encode()
        while sources and sources[0].start < start + len(data):
            source = sources.popleft()
            text = data[source.start - start : source.start - start + source.size].decode()
            found.append(Stretch(source.name, text[:left]))
            left -= min(left, len(text))
        start += len(data)
    return tuple(one for one in found if one.text or one.message), sum(map(len, reading.filled.parts)) - (
        MOST_TEXT - left
    )
