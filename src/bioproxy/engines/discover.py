"""What an engine is: asked of itself, and of the kernel if it runs on this machine.

An engine counts as llama-server by what it answers, whatever its program is called: `/props` with `build_info`. Each
capability is tried without effect: a slot action that does not exist is 400 if slot actions are on, 501 if
`--slot-save-path` is missing; an empty text is tokenized; one word is rendered. What is missing becomes a sentence
that says what would mend it, for `/status`.

Its command line is believed only if it is llama-server's own (commands.py) and names the model that `/props` tells.

A model that is swapped in again is another process of the same command: what its capabilities are was found out the
first time, and `Discovery` remembers it, so that nothing but what may differ is asked while a user waits.

An engine that is something else, or that will not tell us (its API key is not ours), is served all the same: requests
are passed on, and everything that needs to know more stays off.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec

from bioproxy.engines import listener
from bioproxy.engines.commands import MODULES, option
from bioproxy.engines.facts import WANTS_KEY, Capabilities, EngineFacts
from bioproxy.engines.listener import Listener
from bioproxy.engines.llama import Llama
from bioproxy.errors import NOT_JSON, EngineProtocolError, EngineRefused
from bioproxy.wire.upstream import Origin

Json = Any
NO_SLOT_ACTIONS = "no slot files: start the engine with --slot-save-path FOLDER, then its KV cache survives restarts"
NOT_LLAMA = "this is no llama-server ({reason}): templates are filled in, its KV cache is its own business"
DATED = re.compile(r"strftime|date|today|\bnow\b|\btime", re.IGNORECASE)  # of a chat template that may print the day
TELLING = ("build_info", "model_path", "model_alias", "total_slots", "endpoint_slots", "chat_template")
IDENTIFYING = ("build_info", "model_path", "model_alias", "total_slots", "chat_template", "media_marker", "modalities")
NO_KEY = (401, 403)  # how an engine refuses who has not its key


class Identity(msgspec.Struct, frozen=True):
    """What must stay the same for an engine to be the same one: its process, and what it tells about itself."""

    pid: int | None
    ticks: int | None
    told: tuple[str, ...]


class Adapter(msgspec.Struct, frozen=True):
    """One entry of `GET /lora-adapters`."""

    id: int
    scale: float
    path: str = ""


class Answers(msgspec.Struct, frozen=True):
    """What an engine answered when it was asked one by one; `adapters` is None if it did not tell."""

    capabilities: Capabilities
    alias: str
    described: tuple[tuple[str, Json], ...]
    adapters: tuple[Adapter, ...] | None


class Discovery:
    """What an engine of one command answered, kept over the lives of its process.

    It counts for another process of the same command, environment, build and model only: the one that was asked may
    have been told something else meanwhile (`POST /lora-adapters`). What is missing is asked for again each time, for
    it may have been a moment's trouble; and if there are adapters, their scales are.
    """

    def __init__(self) -> None:
        self.asked: Listener | None = None
        self.told: tuple[Json, ...] = ()
        self.answers: Answers | None = None

    def recall(self, process: Listener | None, props: dict[str, Json]) -> Answers | None:
        """The answers of an earlier process of the same command; None if this one must be asked."""
        before = self.asked
        if before is None or process is None or (before.pid, before.ticks) == (process.pid, process.ticks):
            return None
        same = bool(process.command) and words_of(before) == words_of(process)
        return self.answers if same and self.told == telling(props) else None

    def keep(self, process: Listener | None, props: dict[str, Json], answers: Answers) -> None:
        """Remember what `process` answered, if nothing was missing."""
        whole = not answers.capabilities.notes
        self.asked, self.told, self.answers = process, telling(props), answers if whole else None


def words_of(process: Listener) -> tuple[object, ...]:
    """Everything that a process was started with."""
    return (process.command, process.environment, process.folder, process.launched)


def telling(props: dict[str, Json]) -> tuple[Json, ...]:
    """What must be the same in `/props` for an engine to answer as another one did."""
    return tuple(props.get(name) for name in TELLING)


async def discover(
    llama: Llama, props: dict[str, Json], *, process: Listener | None, known: Discovery | None = None
) -> EngineFacts:
    """Everything about the engine that `llama` talks to, whose `/props` were just read ({} if it gave none).

    `known`: what earlier processes of this engine answered; it is read and kept up.
    """
    if process is not None and not names_model(process, props):
        process = listener.stripped(process, llama.pool.origin.port)
    answers = await answers_of(llama, props, process=process, known=known or Discovery())
    folder, command = (process.folder, process.command) if process else ("", ())
    visible = process if command else None
    settings = props.get("default_generation_settings")
    modalities = props.get("modalities")
    adapters = answers.adapters
    return EngineFacts(
        url=str(llama.pool.origin),
        build=build_of(props, command),
        model_path=absolute(str(props.get("model_path") or ""), folder),
        alias=answers.alias,
        slots=number(props.get("total_slots")),
        context=number(settings.get("n_ctx")) if isinstance(settings, dict) else 0,
        chat_template=str(props.get("chat_template") or ""),
        pid=visible.pid if visible and visible.volumes is None else None,
        started=visible.started if visible else None,
        command=command,
        environment=visible.environment if visible else (),
        folder=folder,
        hidden=visible.hidden if visible else False,
        volumes=visible.volumes if visible else None,
        launched=process.launched if process else (),
        slot_folder=absolute(option(command, "--slot-save-path"), folder),
        capabilities=answers.capabilities,
        sleeping=bool(props.get("is_sleeping")),
        dated=any(DATED.search(str(text)) for name, text in props.items() if name.startswith("chat_template")),
        media=isinstance(modalities, dict) and any(modalities.values()),
        adapters=tuple((one.id, one.scale) for one in adapters or ()),
        adapter_files=None if adapters is None else tuple(one.path for one in adapters if one.path),
        described=answers.described,
    )


def names_model(process: Listener, props: dict[str, Json]) -> bool:
    """Whether a process's own words are this engine's: they name the model that it tells, or none."""
    told = str(props.get("model_path") or "")
    variables = [entry.partition("=")[2] for entry in process.environment if entry.startswith("LLAMA_ARG_MODEL=")]
    words = [word for word in process.command if word not in MODULES]
    named = option(words, "-m", "--model") or next(iter(variables), "")
    return not named or not told or named == told


async def answers_of(llama: Llama, props: dict[str, Json], *, process: Listener | None, known: Discovery) -> Answers:
    """What the engine answers one by one; of an earlier process of its kind what cannot have changed since."""
    answers = known.recall(process, props)
    if answers is None:
        can = await capabilities(llama, props)
        adapters = await adapters_of(llama) if can.slot_actions else ()
        name, described = await card_of(llama, props)
        answers = Answers(can, name, described, adapters)
    elif answers.adapters:
        answers = msgspec.structs.replace(answers, adapters=await adapters_of(llama))
    known.keep(process, props, answers)
    return answers


async def adapters_of(llama: Llama) -> tuple[Adapter, ...] | None:
    """Each LoRA adapter now: `POST /lora-adapters` changes their scales while the engine runs. None: not told."""
    status, body = await llama.call("GET", "/lora-adapters", limit=30.0)
    try:
        return msgspec.json.decode(body, type=tuple[Adapter, ...]) if status == 200 else None
    except NOT_JSON:
        return None


async def process_of(origin: Origin, pid: int | None) -> Listener | None:
    """The engine's process: the one that listens, else what stands for it below `pid`, a child of ours. None: unseen.

    A child's own processes are looked at first, and no others if one of them listens.
    """
    if pid is not None and (found := await asyncio.to_thread(listener.within, pid, origin.port)) is not None:
        return found
    found = await asyncio.to_thread(listener.find, origin.host, origin.port)
    if pid is None or (found is not None and not found.hidden):
        return found
    child = await asyncio.to_thread(listener.launched, pid, origin.port)
    contained = child is not None and child.volumes is not None  # then its volumes say more than what root hides
    return child if found is None or contained else found


async def capabilities(llama: Llama, props: dict[str, Json]) -> Capabilities:
    """Try each route that bioproxy would use."""
    if props.get("status") in NO_KEY:
        return Capabilities(locked=True, notes=(WANTS_KEY,))
    if "build_info" not in props:
        reason = str(props.get("refused") or "its /props has no build_info")
        return Capabilities(notes=(NOT_LLAMA.format(reason=reason),))
    action, _ = await llama.call("POST", "/slots/0?action=none", {}, limit=30.0)
    tokenize = await works(llama, "/tokenize", {"content": ""})
    template = await works(llama, "/apply-template", {"messages": [{"role": "user", "content": "a"}]})
    slots = bool(props.get("endpoint_slots", True))
    locked = action in NO_KEY  # some builds tell their /props to everybody
    missing = {
        NO_SLOT_ACTIONS: action == 400,
        "no /tokenize: the prompt prefix of a template is found in text, some tokens shorter": tokenize,
        "no /apply-template, or it cannot render the chat template: templates are warmed by chat requests": template,
        "no /slots (--no-slots): whether a silent engine works can only be told from its processor time": slots,
    }
    return Capabilities(
        slot_actions=action == 400,
        tokenize=tokenize,
        apply_template=template,
        slots_route=slots,
        locked=locked,
        notes=(WANTS_KEY,) if locked else tuple(note for note, there in missing.items() if not there),
    )


async def works(llama: Llama, path: str, body: Json) -> bool:
    """Whether `POST path` answers a good status to `body`."""
    status, _ = await llama.call("POST", path, body, limit=30.0)
    return 200 <= status < 300


async def card_of(llama: Llama, props: dict[str, Json]) -> tuple[str, tuple[tuple[str, Json], ...]]:
    """The name under which clients ask for the model (what /v1/models lists first, else the alias), and its figures.

    Those are of the weights alone: how much context it was given stands elsewhere.
    """
    try:
        cards = await llama.cards()
    except (EngineRefused, EngineProtocolError):
        cards = []
    meta = cards[0].get("meta") if cards else None
    figures = sorted((name, value) for name, value in meta.items() if name != "n_ctx") if isinstance(meta, dict) else []
    return str(cards[0]["id"] if cards else props.get("model_alias") or ""), tuple(figures)


def build_of(props: dict[str, Json], command: tuple[str, ...]) -> str:
    """The engine's build. The wheel does not know its own ("b0-unknown"): its version stands in."""
    build = str(props.get("build_info") or "")
    if not build.endswith("unknown") or MODULES.isdisjoint(command):
        return build
    from importlib import metadata  # 40 ms

    try:
        return f"xllamacpp {metadata.version('xllamacpp')}"
    except metadata.PackageNotFoundError:
        return build


def absolute(path: str, folder: str) -> str:
    """`path` as the engine in `folder` means it; unchanged if that is not known."""
    return str(Path(folder) / path) if path and folder else path


def number(value: Json) -> int:
    """A count, 0 if there is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def difference(before: Identity | None, now: Identity) -> str:
    """What is different about the engine, as a sentence."""
    told = before.told if before is not None else now.told
    if before is not None and before.pid is None and told == now.told:
        return "its process is seen now"
    changed = {name: (old, new) for name, old, new in zip(IDENTIFYING, told, now.told, strict=True) if old != new}
    changed.pop("media_marker", None)
    for name in ("model_path", "model_alias", "build_info", "total_slots"):
        if name in changed:
            old, new = changed[name]
            return f"another engine answers now: {name} is {new}, it was {old}"
    return "the engine was restarted with other settings" if changed else "the engine was restarted by something else"
