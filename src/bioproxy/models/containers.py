"""The containers that models of a config run in, and the removal of what is left over of them.

A container outlives the program that asked for it: after a kill -9, or if stopping took too long, it goes on
holding its name, its port and the card's memory, and the next start fails. So each is started with a label,
`bioproxy=ID`, and a name of its own, and before a start what still has both is removed.

Only such a container is ever touched: it must carry our label, with the ID of a model of *this* config, and the name
that the model's own command gives it. A label alone would not do: a second bioproxy on the machine uses it as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bioproxy import aio
from bioproxy.engines.commands import CONTAINERS, basename
from bioproxy.models.command import split

log = logging.getLogger(__name__)

LABEL = "bioproxy"
UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_.-]+")
LONGEST_NAME = 63  # it is a host name in the container's network too
PATIENCE = 30.0  # seconds for one command; a daemon that is starting is slow


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """The container of one model: which program runs it, and the two marks by which it is known."""

    engine: str
    name: str
    model: str


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what the program lists."""

    id: str
    name: str
    label: str


def container_name(model: str) -> str:
    """A name for the container of a model; two IDs never share one, because a hash tells what was replaced."""
    plain = UNNAMEABLE.sub("-", model)
    name = f"{LABEL}-{plain}"
    if plain == model and len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('-.')}-{mark}"


def container_of(model: str, command: str) -> Container | None:
    """The container that a model's `cmd` (macros filled in) runs; None if it has not our label and a name."""
    words = split(command)
    if not words or basename(words[0]) not in CONTAINERS or "run" not in words:
        return None
    named, labels = values(words, "--name"), [*values(words, "--label"), *values(words, "-l")]
    if not named or f"{LABEL}={model}" not in labels:
        return None
    return Container(engine=words[0], name=named[-1], model=model)


def values(words: Sequence[str], flag: str) -> list[str]:
    """What `flag` is given, as the next word or after `=`."""
    following = [value for word, value in itertools.pairwise(words) if word == flag]
    return following + [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]


def containers_of(commands: Mapping[str, str]) -> list[Container]:
    """The containers of a config; `commands` is the `cmd` of each model ID."""
    found = (container_of(model, command) for model, command in commands.items())
    return [container for container in found if container is not None]


def listing_command(engine: str) -> list[str]:
    """The command that lists every container with our label, running or not; a line each, between tabs."""
    columns = '{{.ID}}\t{{.Names}}\t{{.Label "' + LABEL + '"}}'
    return [engine, "ps", "--all", "--no-trunc", "--filter", f"label={LABEL}", "--format", columns]


def listed(output: str) -> list[Listed]:
    """The lines of a listing; what is no such line is none."""
    rows = (line.split("\t") for line in output.splitlines())
    return [Listed(id=row[0], name=row[1], label=row[2]) for row in rows if len(row) == 3 and row[0]]


def stale(output: str, ours: Iterable[Container]) -> list[Listed]:
    """Those of a listing that are left over of `ours`, none of which runs now: label and name are both theirs."""
    marks = {(container.model, container.name) for container in ours}
    return [one for one in listed(output) if (one.label, one.name) in marks]


async def clean_up(ours: Sequence[Container]) -> list[str]:
    """Remove what is left over of `ours`, and return its names. Call it while none of these models runs.

    Nothing is raised: without the program there are no containers, and what cannot be removed is told in the log; the
    start that follows will say what is in its way.
    """
    removed: list[str] = []
    for engine in sorted({container.engine for container in ours}):
        output = await run(listing_command(engine))
        for one in stale(output or "", [container for container in ours if container.engine == engine]):
            if await run([engine, "rm", "--force", one.id]) is not None:
                log.info("removed the container %s, which was left over of the model %s", one.name, one.label)
                removed.append(one.name)
    return removed


async def run(words: Sequence[str]) -> str | None:
    """The output of a command; None if it failed, which is logged."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        log.debug("%s cannot be run: %s", words[0], error.strerror or error)
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        log.warning("`%s` did not end within %.0f s and is left alone", " ".join(words[:2]), PATIENCE)
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await aio.shielded(process.wait())
    if process.returncode:
        said = err.decode("utf-8", "replace").strip().splitlines()
        log.warning("`%s` failed: %s", " ".join(words[:2]), said[-1] if said else f"exit code {process.returncode}")
        return None
    return out.decode("utf-8", "replace")
