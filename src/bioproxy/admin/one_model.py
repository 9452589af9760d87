"""The one engine as a model: what `bioproxy models`, `load`, `unload`, `top` and `logs` show of it and do with it.

The same routes as many models have, on the admin port only, with one row. An engine that we started is stopped by
`unload`, what it holds is saved before, and the next request or `load` starts it again. One that we only attach to is
somebody else's: it can be looked at, and that is said.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path

from bioproxy.admin.admin import Mounted, Question, answer
from bioproxy.admin.logs import Logs
from bioproxy.admin.overview import ModelRow, Overview, SpeedBook, Speeds
from bioproxy.config.masking import masked_words
from bioproxy.engines.listener import resident
from bioproxy.errors import EngineUnavailable, NotFound
from bioproxy.events import Bus, RequestEnded
from bioproxy.logbook import Logbook
from bioproxy.models.single import Single
from bioproxy.wire.http1.message import Headers

TEXT: Headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
ENGINE = "engine"  # a name that it always has
NOT_OURS = 409


class OneModel:
    """The routes. `start` and `stop` of the engine are the side's; `logbook` holds what it and we wrote."""

    def __init__(self, side: Single, *, logbook: Logbook, bus: Bus) -> None:
        self.side = side
        self.speeds = SpeedBook()
        self.logs = Logs(logbook, resolve=lambda name: ENGINE if name in self.names else None)
        self.last_used = 0.0
        bus.subscribe(RequestEnded, self.ended)

    def ended(self, event: RequestEnded) -> None:
        """A request has ended."""
        self.last_used = event.record.started + event.record.total
        prefill, decode = event.record.prefill, event.record.decode
        prompt = (event.record.tokens_evaluated or 0) / prefill if prefill else None
        tokens = (event.record.tokens_generated or 0) / decode if decode else None
        before = self.speeds.of(ENGINE)
        self.speeds.known[ENGINE] = Speeds(prompt or before.prompt, tokens or before.tokens)

    @property
    def names(self) -> list[str]:
        """What it is called: by its own alias, its file, and always `engine`; the first is shown."""
        facts = self.side.station.attachment.facts
        path = self.side.settings.config.model or (facts.model_path if facts is not None else "")
        found = [facts.alias if facts is not None else "", Path(path).stem, Path(path).name, ENGINE]
        return list(dict.fromkeys(name for name in found if name))

    def mounted(self) -> list[Mounted]:
        """The routes for the admin port."""
        return [
            Mounted("GET", "/api/models", "The engine, and what is known of it.", self.overview),
            Mounted("POST", "/api/models/load/{model...}", "Start the engine, if it is ours.", self.load),
            Mounted("POST", "/api/models/unload/{model...}", "Save and stop the engine, if it is ours.", self.unload),
            Mounted("POST", "/api/models/unload", "Save and stop the engine, if it is ours.", self.unload),
            Mounted("GET", "/logs", "The log.", self.log_history),
            Mounted("GET", "/logs/stream", "The log, live.", self.log_stream),
            Mounted("GET", "/logs/stream/{id...}", "One log, live.", self.log_stream),
        ]

    async def overview(self, question: Question) -> None:
        """`GET /api/models`: one row, and no requests under way: the list of these is many models'."""
        pid = self.side.launched.pid if self.side.launched is not None else None
        memory = await asyncio.to_thread(resident, pid) if pid is not None else None
        row = self.row(pid, memory)
        name = self.side.state.name
        answer(
            question.responder, Overview(pid=os.getpid(), configuration=name, profile="", models=(row,), requests=())
        )

    def row(self, pid: int | None, memory: int | None) -> ModelRow:
        """What is known of it."""
        station, launched = self.side.station, self.side.launched
        engine, gate, kv = station.attachment.statistics(), station.gate.statistics(), station.keeper.statistics()
        process = launched.process.statistics() if launched is not None else None
        name, *aliases = self.names
        speeds = self.speeds.of(ENGINE)
        ready = engine.state == "ready"
        return ModelRow(
            model=name,
            aliases=tuple(aliases),
            state="stopped" if self.side.unloaded else engine.state,
            since=engine.since,
            pid=pid if launched is not None else (engine.facts.pid if engine.facts is not None else None),
            memory=memory,
            running=sum(count for work, count in gate.running.items() if work != "background"),
            waiting=sum(count for work, count in gate.waiting.items() if work != "background"),
            starts=process.starts if process is not None else engine.generation,
            load_seconds=None,
            last_used=self.last_used or engine.since,
            unload_in=None,
            retry_in=None,
            reason="" if ready or self.side.unloaded else engine.reason,
            tokens=sum(slot.tokens for slot in kv.slots) if ready else 0,
            snapshots=kv.snapshots,
            snapshot_bytes=kv.bytes,
            prompt_per_second=speeds.prompt,
            tokens_per_second=speeds.tokens,
            command=shlex.join(masked_words(launched.plan.command)) if launched is not None else "",
        )

    def check(self, question: Question) -> None:
        """NotFound for a name that it does not have."""
        name = question.parameters.get("model", "")
        if name and name not in self.names:
            raise NotFound(f"there is no model {name}; this bioproxy serves one engine: {', '.join(self.names)}")

    async def load(self, question: Question) -> None:
        """`POST /api/models/load/{model...}`: returns when it is ready."""
        self.check(question)
        await self.side.load()
        question.responder.send(200, TEXT, b"OK")

    async def unload(self, question: Question) -> None:
        """`POST /api/models/unload[/{model...}]`: returns when it is stopped."""
        self.check(question)
        if self.side.launched is None:
            url = self.side.station.pool.origin
            sentence = f"the engine at {url} was not started by this bioproxy, so it cannot stop it either"
            raise EngineUnavailable(f"{sentence}: stop it where it was started", status=NOT_OURS)
        await self.side.unload()
        question.responder.send(200, TEXT, b"OK")

    async def log_history(self, question: Question) -> None:
        """`GET /logs`."""
        await self.logs.history(question.request, question.responder)

    async def log_stream(self, question: Question) -> None:
        """`GET /logs/stream[/id]`."""
        await self.logs.stream(question.request, question.responder, question.parameters.get("id", ""))
