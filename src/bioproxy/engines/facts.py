"""What is known about one engine, and what its answers say: values that cross package borders.

`EngineFacts` is taken when an engine becomes ready (discover.py) and does not change while it runs; another process or
another model is another value. `Capabilities` is a value and no class tree: what an engine can do is asked of it, not
concluded from its name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bioproxy.engines.answers import Timings

Json = Any
WANTS_KEY = "the engine wants an API key that it did not get: set backend_key to the one that it was started with"


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do, found out by asking; `notes` says in sentences what is missing and what would mend it.

    `locked`: it refused slot actions, or everything, for want of its API key (401, 403).
    """

    slot_actions: bool = False
    tokenize: bool = False
    apply_template: bool = False
    slots_route: bool = False
    locked: bool = False
    notes: tuple[str, ...] = ()


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One engine as it was found when it became ready.

    `build` is empty for what is no llama-server; `slots` is then 0: it does not say. `context`: tokens per slot. `pid`,
    `started` (unix time), `command`, `environment` (`LLAMA_…` variables) and `folder` (its working folder) are known
    only for a process on this machine whose command line is known to be llama-server's; `command` is () otherwise.
    `hidden`: environment and folder cannot be read. `volumes` and `launched`: as listener.Listener has them.
    `model_path` and `slot_folder` are absolute if `folder` is known. `media`: it takes images or sound. `adapters`:
    LoRA numbers and scales in use; `adapter_files` their paths (None: the engine does not tell). `described`: what it
    tells of its weights (parameters, bytes, vocabulary).
    """

    url: str
    build: str = ""
    model_path: str = ""
    alias: str = ""
    slots: int = 1
    context: int = 0
    chat_template: str = ""
    pid: int | None = None
    started: float | None = None
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    folder: str = ""
    hidden: bool = False
    volumes: tuple[tuple[str, str], ...] | None = None
    launched: tuple[str, ...] = ()
    slot_folder: str = ""
    capabilities: Capabilities = Capabilities()
    sleeping: bool = False
    media: bool = False
    dated: bool = False
    adapters: tuple[tuple[int, float], ...] = ()
    adapter_files: tuple[str, ...] | None = ()
    described: tuple[tuple[str, Json], ...] = ()


class SlotView(msgspec.Struct, frozen=True):
    """One entry of `GET /slots`. `n_prompt_tokens` (what the slot holds) is None until a task ran in this process.

    `speculative`: a draft model is active.
    """

    id: int
    is_processing: bool = False
    speculative: bool = False
    id_task: int | None = None
    n_prompt_tokens: int | None = None
    n_prompt_tokens_processed: int | None = None
    next_token: list[dict[str, Json]] = []

    @property
    def progress(self) -> tuple[Json, ...]:
        """A value that changes whenever this slot gets on with its work."""
        decoded = [each.get("n_decoded") for each in self.next_token]
        return (self.is_processing, self.id_task, self.n_prompt_tokens, self.n_prompt_tokens_processed, *decoded)


class Saved(msgspec.Struct, frozen=True):
    """A slot file as the engine says that it wrote it; seconds as we saw them."""

    tokens: int
    bytes: int
    seconds: float


class Restored(msgspec.Struct, frozen=True):
    """A slot file as the engine says that it read it; seconds as we saw them."""

    tokens: int
    bytes: int
    seconds: float


class Probe(msgspec.Struct, frozen=True):
    """What an engine would say next: the likeliest token, and the likeliest few with their log-probabilities."""

    token: int
    logprobs: tuple[tuple[int, float], ...]
    timings: Timings = Timings()
