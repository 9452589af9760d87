"""`bioproxy fit MODEL.gguf`: how much memory a model will take, before anything is started.

With flags of llama-server it says what those take; without a context it says what this machine has room for. The
estimate is engines/estimate.py's, from the header of the file alone.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import msgspec

from bioproxy import files
from bioproxy.cli import machine
from bioproxy.cli.command import Command
from bioproxy.cli.output import Output, count, size
from bioproxy.engines import gguf
from bioproxy.engines.estimate import Settings, Share, estimate
from bioproxy.engines.gguf import Header
from bioproxy.engines.library import is_projector, shape_in
from bioproxy.engines.placement import Machine, Placement, fits, flags, place
from bioproxy.engines.shape import Shape
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
ASKED = ("context", "slots", "gpu_layers", "cpu_experts", "cache_k", "cache_v", "batch")
NOT_FITTING = 1


def run(command: Command) -> int:
    """Print the estimate; 0 if the machine has that much, else 1. BioproxyError for a file that is no model."""
    arguments, output = command.arguments, command.output
    file, mmproj = map(os.path.expanduser, (arguments.file, arguments.mmproj))  # no shell of Windows does it
    header, shape = files.patiently(shape_in, file)
    projector = files.patiently(projector_bytes, mmproj) if mmproj else 0
    here = machine.look(os.environ).machine
    best = place(shape, here, projector=projector)
    asked = {name: value for name in ASKED if (value := getattr(arguments, name)) is not None}
    placement = chosen(shape, here, asked, projector=projector) if asked else best
    if output.json:
        output.document(document(file, header, shape, placement, here))
    else:
        show(output, title(file, header, shape), placement, here)
        advise(output, shape, placement, best=best, here=here)
    return 0 if placement.fits else NOT_FITTING


def projector_bytes(path: str) -> int:
    """The size of a projector's file; BioproxyError if it is none."""
    try:
        with files.opened(path) as file:
            header = gguf.read_header(file)
        size = files.stat(path).st_size
    except OSError as error:
        raise BioproxyError(f"--mmproj: cannot read {path}: {files.reason(error)}") from error
    except BioproxyError as error:
        raise BioproxyError(f"--mmproj: {path}: {error}") from error
    if not is_projector(header):
        raise BioproxyError(f"--mmproj: {path} is no projector")
    return size


def chosen(shape: Shape, here: Machine, asked: dict[str, Json], *, projector: int) -> Placement:
    """What was asked for, with the context that the model was trained for if none was."""
    settings = Settings(**{"context": 0, **asked})
    settings = msgspec.structs.replace(settings, context=settings.context or shape.trained)
    if shape.kind == "chat" and settings.context < settings.slots:
        raise BioproxyError(f"a context of {count(settings.context)} has no token for each of {settings.slots} slots")
    found = estimate(shape, settings, projector=projector, cards=len(here.cards))
    return Placement(settings=settings, estimate=found, fits=fits(shape, found, here))


def title(path: str, header: Header, shape: Shape) -> str:
    """What the model is, in a line."""
    about = [shape.architecture, gguf.quantisation(header.keys), f"{len(shape.layers)} layers"]
    about += [f"trained for {count(shape.trained)} tokens"] if shape.trained else []
    about += [] if "tokenizer.chat_template" in header.keys or shape.kind != "chat" else ["no chat template"]
    return f"{os.path.basename(path)}: {', '.join(filter(None, about))}"


def show(output: Output, heading: str, placement: Placement, here: Machine) -> None:
    """The table: what goes where, and how much there is."""
    output.line(heading, "bold")
    found = placement.estimate
    columns = [("memory", found.memory, here.memory)]
    if here.cards:
        name = here.cards[0].name if len(here.cards) == 1 else f"{len(here.cards)} cards"
        columns.insert(0, (name, found.cards, here.capacity))
    rows = [
        [label, *(size(getattr(share, part)) for _, share, _ in columns)]
        for part, label in (
            ("weights", "weights"),
            ("kv", f"KV cache, {count(placement.settings.context)} tokens"),
            ("compute", "compute buffer"),
            ("projector", "projector"),
            ("total", "together"),
        )
        if part != "projector" or any(share.projector for _, share, _ in columns)
    ]
    rows.append(["of", *(size(there) for _, _, there in columns)])
    output.table(("", *(name for name, _, _ in columns)), rows, right=range(1, len(columns) + 1))


def advise(output: Output, shape: Shape, placement: Placement, *, best: Placement, here: Machine) -> None:
    """Whether it fits, and with which flags something would."""
    words = " ".join(flags(best, cards=bool(here.cards)))
    if placement.fits:
        output.line(f"It fits: {' '.join(flags(placement, cards=bool(here.cards)))}", "green")
    elif best.fits:
        output.line(f"It does not fit. This would: {words}", "yellow")
    else:
        output.line("It does not fit this machine, whatever the context: a smaller quantisation may.", "red")
    if shape.trained and placement.estimate.slot > shape.trained:
        output.note(f"it was trained for {count(shape.trained)} tokens; beyond that its answers get worse")
    if not here.cards:
        output.note("no graphics card that the engine could use was found")


def document(path: str, header: Header, shape: Shape, placement: Placement, here: Machine) -> Json:
    """The same as JSON; figures in bytes."""

    def figures(share: Share) -> Json:
        return {**msgspec.structs.asdict(share), "total": share.total}

    return {
        "model": os.path.abspath(path),
        "architecture": shape.architecture,
        "quantisation": gguf.quantisation(header.keys),
        "layers": len(shape.layers),
        "trained_context": shape.trained,
        "chat_template": "tokenizer.chat_template" in header.keys,
        "settings": msgspec.structs.asdict(placement.settings),
        "flags": flags(placement, cards=bool(here.cards)),
        "tokens_per_slot": placement.estimate.slot,
        "layers_on_cards": placement.estimate.layers,
        "cards": figures(placement.estimate.cards),
        "memory": figures(placement.estimate.memory),
        "fits": placement.fits,
        "machine": here,
    }
