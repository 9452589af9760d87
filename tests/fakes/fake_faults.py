"""What can be made to go wrong in the fake engine, at start and at run time.

Each field is one fault, off by default. `paths` narrows `answer` to some routes, and `times` counts how often it still
strikes (-1: always). Everything is plain JSON: `POST /fake/faults` and `--faults` take the same object.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Json = Any
KILL = 9  # SIGKILL, which Windows does not have


@dataclass
class Faults:
    """The faults that are on now."""

    answer: str = ""  # hang, status, garbage, half_head, wrong_length, half_chunk, close: instead of an answer
    status: int = 500  # what `answer: status` answers
    message: str = "fault"  # and what it says
    paths: list[str] = field(default_factory=list)  # where `answer` strikes; empty: everywhere
    times: int = -1
    loading: float = 0.0  # seconds from now on in which everything is 503 "Loading model"
    die: str = ""  # now, stream, prefill, save, restore: end the process there
    die_after: int = 1  # `stream`: after so many tokens; `prefill`: after so many batches
    die_signal: int = KILL
    save: str = ""  # full: 500, a cut file; short: 200, n_written larger than the file; lost: no file; media: 501
    save_seconds: float = 0.0
    restore_seconds: float = 0.0
    worthless: bool = False  # restore answers 200, and the next request finds nothing in the cache
    slot_actions: bool = True  # False: 501, as without --slot-save-path
    error_event: int = 0  # a stream's later error: after so many tokens an error event instead of the rest
    hold_end: bool = False  # an answer's last chunk is held back until this is off, or its client is gone
    coding: str = ""  # gzip: streams are compressed, event by event
    kind: str = ""  # another Content-Type of streams
    early_head: bool = False  # a stream's head goes out before its slot starts, as vLLM does it
    no_stream: bool = False  # `stream: true` is answered with plain JSON
    stuck: bool = False  # the inference thread stands still, everything else answers
    lost_wakeup: bool = True  # the real server's: a deferred slot action consumes the only wake-up
    model: str = ""  # another model_path in /props
    build: str = ""  # another build_info in /props
    alias: str = ""
    chat_template: str = ""
    today: str = ""  # the chat template prints this date
    prints: list[str] = field(default_factory=list)  # and these fields of the body
    context: int = 0
    slots: int = 0  # another total_slots in /props; what runs is not changed
    sleeping: bool = False
    media: bool = False
    adapters: list[Json] = field(default_factory=list)  # LoRA adapters in /lora-adapters: [{"id": 0, "scale": 1.0}]
    loading_until: float = 0.0

    def update(self, change: Json) -> None:
        """Take over what `change` names; ValueError names what does not exist."""
        known = {each.name for each in fields(self)}
        if unknown := set(change) - known:
            raise ValueError(f"no such fault: {sorted(unknown)}; known: {sorted(known)}")
        for name, value in change.items():
            setattr(self, name, value)
        if "loading" in change:
            self.loading_until = asyncio.get_running_loop().time() + self.loading
        if self.die == "now":
            self.end_process()

    def view(self) -> Json:
        """All of them as JSON."""
        return asdict(self)

    def is_loading(self) -> bool:
        """Whether the model is still being loaded."""
        return asyncio.get_running_loop().time() < self.loading_until

    def strikes(self, path: str) -> str:
        """The broken answer that `path` gets now, or an empty text; counts `times` down."""
        if not self.answer or self.times == 0 or (self.paths and path not in self.paths):
            return ""
        self.times -= self.times > 0
        return self.answer

    def dies_in(self, place: str) -> None:
        """End the process if that is what was asked for here."""
        if self.die == place:
            self.end_process()

    def end_process(self) -> None:
        """End at once, as a kill -9, an out-of-memory killer or an assertion does."""
        end_process(self.die_signal)


def end_process(number: int) -> None:
    """End by signal `number`, without a core file."""
    if sys.platform == "win32":
        os._exit(number)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL) if number != KILL else None
    os.kill(os.getpid(), number)
