"""What models can have on this machine, for `fit` and `init`: cards, memory, and the program that will run them.

The engine is asked first (`llama-server --list-devices`): it alone knows which cards its build can use, and it knows
those that no library of ours reads (Vulkan, Metal, SYCL). If it does not say, cards count as their drivers tell, and
none for an engine that computes on the processor only.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec

from bioproxy.admin.gpus import Gpu, TheseGpus
from bioproxy.admin.hardware import memory_of_machine
from bioproxy.engines.launch import card_hint, find_program, wheel_knows_cards
from bioproxy.engines.placement import Card, Machine
from bioproxy.errors import ConfigError

MIB = 1 << 20
PATIENCE = 15  # seconds; the first look at a card loads its driver
DEVICE = re.compile(r"^ *(?P<id>[A-Za-z]+\d*): (?P<name>.*) \((?P<total>\d+) MiB(?:, \d+ MiB free)?\)$", re.MULTILINE)
SHARED = re.compile(r"(Metal|MTL)\d*")  # of Apple's machines
BARE = "CPU"
APPLE = sys.platform == "darwin" and platform.machine() == "arm64"  # two thirds of the memory is what Metal gives


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `program`: the engine's words, empty if there is none; `hint`: what the operator should know."""

    machine: Machine
    program: tuple[str, ...] = ()
    embedded: bool = False
    hint: str = ""


def look(environment: Mapping[str, str]) -> Here:
    """Look at the machine; blocks for as long as its drivers do, but not for ever."""
    memory = memory_of_machine() or 0
    path = environment.get("PATH", os.defpath)
    try:
        program, embedded = find_program(path)
    except ConfigError as error:
        return Here(machine=by_drivers(TheseGpus().read(), memory), hint=error.problems[0].message)
    gpus = TheseGpus().read()
    if embedded:
        machine = by_drivers(gpus, memory) if wheel_knows_cards() else Machine(memory=memory)
        return Here(machine=machine, program=program, embedded=True, hint=card_hint(path))
    told = asked(program)
    machine = by_drivers(gpus, memory) if told is None else by_engine(told, gpus, memory)
    return Here(machine=machine, program=program)


def asked(program: Sequence[str]) -> str | None:
    """What the engine says of the devices that it can use; None if it does not know the question."""
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own program
            [*program, "--list-devices"], capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")  # as Windows ends lines
    return text if done.returncode == 0 and "vailable devices" in text else None


def by_engine(told: str, gpus: Sequence[Gpu], memory: int) -> Machine:
    """The machine as the engine sees it; whether a card has a memory of its own, the drivers know."""
    devices = [found for found in DEVICE.finditer(told) if found["id"] != BARE]
    shared = any(SHARED.fullmatch(found["id"]) for found in devices) or (bool(gpus) and all(gpu.shared for gpu in gpus))
    cards = tuple(Card(name=found["name"], bytes=int(found["total"]) * MIB) for found in devices)
    return Machine(memory=memory, cards=cards, shared=shared)


def by_drivers(gpus: Sequence[Gpu], memory: int, *, apple: bool = APPLE) -> Machine:
    """The machine as its drivers see it; a processor's own graphics count only if there is nothing else."""
    if apple:
        return Machine(memory=memory, cards=(Card(name="Apple's graphics", bytes=memory * 2 // 3),), shared=True)
    seen = [gpu for gpu in gpus if gpu.memory_total]
    own = [gpu for gpu in seen if not gpu.shared] or seen
    cards = tuple(Card(name=gpu.name, bytes=gpu.memory_total or 0) for gpu in own)
    return Machine(memory=memory, cards=cards, shared=bool(own) and own[0].shared)
