"""What models there are, as Ollama's clients list and choose them: `/api/tags`, `/api/ps`, `/api/show`.

Clients hide what they are told too little of: some want a family and a quantisation, some `capabilities`, some a length
of the context. A model that runs has told all that; of one that does not run, the head of its file is read, if the
command names it, and read again only when the file changes. No engine is asked, and none is started.

`size_vram` is the model's size, because no engine tells how much of it is on a card. Ollama's clients write a tag after
each name: a name without a colon is listed as `name:latest`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bioproxy.admin import listing
from bioproxy.config.dialect.schema import Capabilities
from bioproxy.engines import gguf
from bioproxy.engines.commands import option
from bioproxy.engines.facts import EngineFacts
from bioproxy.errors import BioproxyError
from bioproxy.files import opened
from bioproxy.models.fleet import Fleet
from bioproxy.models.only import ENGINE
from bioproxy.models.state import State

Json: TypeAlias = Any
Record: TypeAlias = dict[str, Json]

NEVER = "2999-01-01T00:00:00Z"  # when a model is unloaded that stays
THINKS = ("enable_thinking", "reasoning_effort", "<think>", "reasoning_content")  # words of a chat template
EMBEDS = frozenset({"--embedding", "--embeddings"})  # flags of an engine that does nothing else
FILLS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")  # it can fill a gap in a text


class File(msgspec.Struct, frozen=True):
    """A model's file: bytes of all its parts, unix time, and what stands at its head."""

    size: int = 0
    changed: float = 0.0
    keys: Mapping[str, gguf.Scalar] = {}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model, whether it runs or not."""

    name: str
    file: File
    words: tuple[str, ...] = ()
    facts: EngineFacts | None = None
    configured: Capabilities | None = None

    @property
    def architecture(self) -> str:
        return str(self.file.keys.get("general.architecture") or "unknown")

    def figure(self, name: str, told: str = "") -> int:
        """A number: the engine's word `told`, or the architecture's key in the file; 0 if nobody says."""
        value = dict(self.facts.described).get(told) if self.facts is not None and told else None
        found = value if isinstance(value, int) else self.file.keys.get(f"{self.architecture}.{name}")
        return found if isinstance(found, int) else 0

    @property
    def context(self) -> int:
        """Tokens that one request may have."""
        given = option(self.words, "-c", "--ctx-size")
        told = self.facts.context if self.facts is not None else 0
        configured = self.configured.context if self.configured is not None else 0
        asked = int(given) if given.isdecimal() else 0
        return told or configured or asked or self.figure("context_length", "n_ctx_train")

    @property
    def size(self) -> int:
        return self.file.size or self.figure("", "size")

    @property
    def parameters(self) -> int:
        counted = self.file.keys.get("general.parameter_count")
        return counted if isinstance(counted, int) else self.figure("", "n_params")

    @property
    def quantisation(self) -> str:
        return gguf.quantisation(self.file.keys) or "unknown"

    @property
    def template(self) -> str:
        """The chat template; Continue asks for gaps to be filled only if it finds Ollama's own word for them there."""
        text = self.facts.chat_template if self.facts is not None else ""
        text = text or str(self.file.keys.get("tokenizer.chat_template") or "")
        return f"{{{{- /* .Suffix is served by /infill */}}}}\n{text}" if self.fills else text

    @property
    def fills(self) -> bool:
        return any(name in self.file.keys for name in FILLS)

    @property
    def capabilities(self) -> list[str]:
        """In Ollama's words. What the configuration says counts; llama-server calls tools with every model."""
        can, words = self.configured, self.words
        if f"{self.architecture}.pooling_type" in self.file.keys or not EMBEDS.isdisjoint(words):
            return ["embedding"]
        sees = "image" in can.inputs if can is not None else self.facts is not None and self.facts.media
        found = {
            "completion": can is None or not can.reranker,
            "tools": can is None or can.tools,
            "insert": self.fills,
            "vision": sees or bool(option(words, "--mmproj", "-mm")),
            "thinking": any(word in self.template for word in THINKS),
        }
        return [name for name, able in found.items() if able]

    @property
    def details(self) -> Record:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.architecture,
            "families": [self.architecture],
            "parameter_size": str(self.file.keys.get("general.size_label") or shortly(self.parameters)),
            "quantization_level": self.quantisation,
            "context_length": self.context,
            "embedding_length": self.figure("embedding_length", "n_embd"),
        }

    @property
    def entry(self) -> Record:
        """What `/api/tags` and `/api/ps` have in common."""
        told = f"{self.name}\0{self.size}\0{self.file.changed}"
        return {
            "name": tagged(self.name),
            "model": tagged(self.name),
            "size": self.size,
            "digest": hashlib.sha256(told.encode()).hexdigest(),
            "details": self.details,
        }


class OllamaModels:
    """The models of this program. `files` are those that were read, by path."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.started = time.time()
        self.files: dict[str, File] = {}

    async def describe(self, what: str, name: str) -> Json:
        """The body of `tags` or `ps`, or of `show` for a name; None if there is no model by that name."""
        names = dict(self.names(every=what == "show"))
        if what == "show" and self.fleet.only is not None:
            names = {name: ENGINE}
        wanted = {name: names[name]} if name in names else {} if what == "show" else names
        paths = {path for model in wanted.values() if (path := self.path(model))}
        self.files = {**self.files, **await asyncio.to_thread(read, paths, self.files)}
        known = [self.known(one, model) for one, model in wanted.items()]
        if what == "tags":
            return {"models": [self.tag(one) for one in known]}
        if what == "ps":
            return {"models": list(self.running(names))}
        return self.show(known[0]) if known else None

    def names(self, *, every: bool) -> Iterator[tuple[str, str]]:
        """Each name that is listed, and whose it is ("": a peer's, or one of several)."""
        if self.fleet.only is not None:
            yield self.fleet.only.names[0], ENGINE
            return
        for record in listing.records(self.fleet.dialect, listing.look_at(self.fleet), every=every):
            yield str(record["id"]), record["status"] if isinstance(record["status"], str) else ""

    def words(self, model: str) -> tuple[str, ...]:
        """The command line of a model's engine, as far as it is known."""
        one = self.fleet.plan.models.get(model)
        if one is not None:
            return one.launch.words
        facts = self.facts(model)
        return facts.command if facts is not None else ()

    def facts(self, model: str) -> EngineFacts | None:
        station = self.fleet.stations.get(model)
        return station.attachment.facts if station is not None else None

    def path(self, model: str) -> str:
        """A model's file; "" if it is not known."""
        facts, only = self.facts(model), self.fleet.only
        told = facts.model_path if facts is not None else ""
        file = self.fleet.config.model if only is not None else ""
        return told or file or option(self.words(model), "-m", "--model")

    def known(self, name: str, model: str) -> Known:
        one = self.fleet.dialect.models.get(model)
        return Known(
            name=name,
            file=self.files.get(self.path(model), File()),
            words=self.words(model),
            facts=self.facts(model),
            configured=one.capabilities if one is not None else None,
        )

    def tag(self, one: Known) -> Record:
        """An entry of `/api/tags`."""
        return {**one.entry, "modified_at": self.changed(one), "capabilities": one.capabilities}

    def changed(self, one: Known) -> str:
        """When a model's file changed last, else when this program started: clients want a time."""
        return written(one.file.changed or self.started)

    def running(self, names: Mapping[str, str]) -> Iterator[Record]:
        """The entries of `/api/ps`: models by their own name."""
        for one in self.fleet.supervisor.statistics().models:
            station = self.fleet.stations.get(one.model)
            alone = self.fleet.only is not None
            ready = station is not None and station.attachment.state == "ready" if alone else one.state is State.READY
            name = next((name for name, model in names.items() if model == one.model), "")
            if not ready or not name:
                continue
            known = self.known(name, one.model)
            until = written(self.fleet.supervisor.unix_time(one.unload_at)) if one.unload_at else NEVER
            yield {**known.entry, "size_vram": known.size, "expires_at": until, "context_length": known.context}

    def show(self, one: Known) -> Record:
        """The body of `/api/show`."""
        family = one.architecture
        figures = {
            "general.architecture": family,
            "general.basename": one.name,  # Copilot shows it
            "general.parameter_count": one.parameters,
            "general.file_type": one.file.keys.get("general.file_type"),
            f"{family}.context_length": one.context,
            f"{family}.embedding_length": one.details["embedding_length"],
        }
        return {
            "modelfile": f"FROM {one.name}\n",
            "parameters": f"num_ctx {one.context}" if one.context else "",
            "template": one.template,
            "details": one.details,
            "model_info": {key: value for key, value in figures.items() if value},
            "capabilities": one.capabilities,
            "modified_at": self.changed(one),
        }


def read(paths: set[str], before: Mapping[str, File]) -> dict[str, File]:
    """What stands at the heads of these files; of those that did not change, what is known. Blocks."""
    found: dict[str, File] = {}
    for path in paths:
        try:
            parts = [part.stat() for part in gguf.parts(path)]
            size, changed = sum(part.st_size for part in parts), max(part.st_mtime for part in parts)
            known = before.get(path, File())
            if (known.size, known.changed) == (size, changed):
                continue
            with opened(Path(path)) as file:
                found[path] = File(size, changed, gguf.read_header(file).keys)
        except (OSError, BioproxyError):
            found[path] = File()  # it lies elsewhere, as in a container, or is no GGUF: less is known of the model
    return found


def tagged(name: str) -> str:
    """A name as Ollama's clients write it."""
    return name if ":" in name else f"{name}:latest"


def shortly(count: int) -> str:
    """A number of parameters as people say it: 8.0B."""
    if not count:
        return "unknown"
    size, letter = (count / 1e9, "B") if count >= 1e9 else (count / 1e6, "M")
    return f"{size:.1f}{letter}"


def written(moment: float) -> str:
    """Unix time as Ollama writes it."""
    return f"{datetime.fromtimestamp(moment, UTC).replace(tzinfo=None, microsecond=0).isoformat()}Z"
