"""A configuration for models that were found: its text, with every number explained beside it.

The file is somebody's to read and to change, so it is written as a person would: what all commands share is one macro,
each model has its own few flags, and a comment says what they take and why they are what they are. Pure; `init`
(cli/init.py) looks, asks and writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from bioproxy.engines.commands import joined
from bioproxy.engines.estimate import GIB, MIB, Share
from bioproxy.engines.gguf import quantisation
from bioproxy.engines.library import Entry
from bioproxy.engines.placement import Machine, Placement, flags
from bioproxy.recipes import yaml_text

Json: TypeAlias = Any

SCHEMA = "# yaml-language-server: $schema={}.schema.json"
SHARED = ("--host", "127.0.0.1", "--port", "${PORT}", "-b", "512", "--metrics")
KINDS = {"chat": (), "embedding": ("--embeddings",), "ranking": ("--embeddings", "--pooling", "rank")}
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./~-]+")
HEAD = """\
{schema}
# Written by `bioproxy init` for {machine}.
# Each model is started when it is asked for, and makes way for another one; conversations come back from the disk.
# `bioproxy check` finds mistakes in this file, `bioproxy fit MODEL.gguf` says what other settings would take.

proxy_port: 8088          # clients connect to http://localhost:8088
# proxy_host: 0.0.0.0     # lets other machines in: set api_keys, too
"""
LARGE = 16 * GIB
PATIENCE = "healthCheckTimeout: 600   # seconds: a large model takes minutes to load from a slow disk\n"
ENGINE = """
macros:
  # -b 512: work for a client that left stops after so many tokens.
  engine: {engine}

models:
"""
NO_ENGINE = "llama-server"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs already, and the names of its models."""

    name: str
    url: str
    models: tuple[str, ...]


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A model and where it goes."""

    entry: Entry
    placement: Placement


def unusable(entry: Entry) -> str:
    """Why a model cannot be written into a command; empty for nearly all."""
    return "its path has ${ in it, which would be a macro" if "${" in entry.path + entry.projector else ""


def text(proposals: Sequence[Proposal], machine: Machine, *, program: Sequence[str], peers: Sequence[Peer] = ()) -> str:
    """The whole file."""
    words = " ".join(quoted(word) for word in (*(program or (NO_ENGINE,)), *SHARED))
    parts = [HEAD.format(schema=SCHEMA.format("llama-swap"), machine=described(machine))]
    if any(one.entry.shape.weights > LARGE for one in proposals):
        parts.append(PATIENCE)
    if proposals:
        parts.append(ENGINE.format(engine=yaml_text.scalar(words)))
        parts.append("\n".join("".join(model(one, machine)) for one in proposals))
    if peers:
        parts.append("\n# servers that run already: their models are passed on, and not stopped for others\npeers:\n")
        parts += [line for peer in peers for line in peer_lines(peer)]
    return "".join(parts)


def attached(url: str, *, model: str, remarks: Sequence[str]) -> str:
    """The file for one engine that runs already."""
    lines = [SCHEMA.format("bioproxy"), "# Written by `bioproxy init`.", "", "proxy_port: 8088          # for clients"]
    lines += [f"# {remark}" for remark in remarks]
    lines += [f"backend_url: {url}     # llama-server" + (f", with {one_line(model)}" if model else "")]
    return "\n".join(lines) + "\n"


def model(proposal: Proposal, machine: Machine) -> Iterator[str]:
    """The lines of one model."""
    entry, placement = proposal.entry, proposal.placement
    for comment in comments(proposal, machine):
        yield f"  # {one_line(comment)}\n"
    words = flags(placement, cards=bool(machine.cards))
    yield f"  {yaml_text.scalar(entry.name)}:\n    cmd: |\n      ${{engine}}\n      --model {quoted(entry.path)}\n"
    if entry.projector:
        yield f"      --mmproj {quoted(entry.projector)}\n"
    yield f"      {' '.join((*words, *KINDS[entry.shape.kind]))}\n"


def comments(proposal: Proposal, machine: Machine) -> Iterator[str]:
    """What the model is, what it takes, and why its flags are what they are."""
    entry, placement = proposal.entry, proposal.placement
    shape = entry.shape
    about = [shape.architecture, quantisation(entry.header.keys), f"{len(shape.layers)} layers"]
    about += [f"from {entry.owner}"] if entry.owner else []
    about += ["with a projector"] if entry.projector else []
    yield f"{shape.name or entry.name}: {', '.join(filter(None, about))}"
    if shape.exact and shape.kind == "chat" and "tokenizer.chat_template" not in entry.header.keys:
        yield "it has no chat template: name one with --chat-template or --chat-template-file"
    if not placement.fits:
        yield "it does not fit this machine:"
    yield sentence(proposal, machine)
    why, settings = placement.why, placement.settings
    if "-c" in why:
        each = f"{placement.estimate.slot:,} tokens a slot; " if settings.slots > 1 else ""
        yield f"-c {settings.context}: {each}{why['-c']}"
    if placement.slots > settings.slots:
        room = placement.slots
        yield f"-np {settings.slots}: {room} slots with as long a context would fit (bioproxy init --slots {room})"
    if machine.cards and "-ngl" not in why:
        everything = placement.estimate.layers == len(shape.layers)
        yield f"-ngl 999: all layers on {cards_of(machine)}" if everything else "-ngl 0: no layer fits on a card"
    yield from (f"{flag}: {reason}" for flag, reason in why.items() if flag != "-c")


def sentence(proposal: Proposal, machine: Machine) -> str:
    """`10.1 of 23.6 GiB on the card: weights 4.4, KV cache 5.6, compute 0.1`; what is in memory beside it."""
    found = proposal.placement.estimate
    if not machine.cards or not found.layers:
        return share(found.memory, proposal, there=machine.memory, where="in memory")
    cards = share(found.cards, proposal, there=machine.capacity, where=f"on {cards_of(machine)}")
    return f"{cards}; {amount(found.memory.total)} in memory"


def share(taken: Share, proposal: Proposal, *, there: int, where: str) -> str:
    """What is taken of what is there, part by part."""
    unit, name = (GIB, "GiB") if taken.total >= GIB else (MIB, "MiB")
    cache = "KV cache" if any(layer.keys for layer in proposal.entry.shape.layers) else "state"
    parts = {"weights": taken.weights, cache: taken.kv, "compute": taken.compute, "projector": taken.projector}
    told = ", ".join(f"{part} {size / unit:.1f}" for part, size in parts.items() if size)
    first = f"{taken.total / unit:.1f}" + (f" {name}" if unit != GIB else "")
    return f"{first} of {there / GIB:.1f} GiB {where}: {told}"


def amount(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{-(-size // MIB)} MiB"


def described(machine: Machine) -> str:
    """`NVIDIA GeForce RTX 3090 (23.6 GiB) and 64.0 GiB of memory`."""
    cards = [f"{one_line(card.name)} ({amount(card.bytes)})" for card in machine.cards]
    return " and ".join([*cards, f"{amount(machine.memory)} of memory"])


def cards_of(machine: Machine) -> str:
    return "the card" if len(machine.cards) == 1 else f"{len(machine.cards)} cards"


def peer_lines(peer: Peer) -> Iterator[str]:
    yield f"  {yaml_text.key(peer.name)}:\n    proxy: {yaml_text.scalar(peer.url)}\n    models:\n"
    yield from (f"      - {yaml_text.scalar(name)}\n" for name in peer.models)


def adopted(source: str, before: str) -> str:
    """A llama-swap configuration as it stands, with the line that editors read."""
    body = before.removeprefix("\ufeff")
    schema = "" if "yaml-language-server" in body else SCHEMA.format("llama-swap") + "\n"
    return f"{schema}# Taken over by `bioproxy init` from {one_line(source)}, as it stood.\n{body}"


def quoted(word: str) -> str:
    """A word of a command: in quotes if it needs them, and if no macro stands in it."""
    return word if PLAIN.fullmatch(word) or word == "${PORT}" else joined([word])


def one_line(words: str) -> str:
    """For a comment: a file's own words may not end it."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", words).split())


def taken_names(models: Mapping[str, Json], peers: Sequence[Peer]) -> list[Peer]:
    """Peers without the models whose names are taken; those that have no other ones are left out."""
    left = (msgspec.structs.replace(one, models=tuple(n for n in one.models if n not in models)) for one in peers)
    return [one for one in left if one.models]
