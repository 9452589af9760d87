"""`bioproxy check` and `bioproxy config`: look at a configuration without running anything.

`check` is what a deployment runs before it restarts the service: it reads every file that a start would read, templates
and includes too, and reports everything that is wrong at once. `config` answers "which value is in force, and where
does it come from".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bioproxy.cli import outlook
from bioproxy.cli.command import Command
from bioproxy.cli.outlook import Outlook
from bioproxy.cli.output import Colour, count, size
from bioproxy.config.describe import Described, describe, describe_dialect
from bioproxy.config.dialect.per_model import kv_of
from bioproxy.config.dialect.schema import Model
from bioproxy.config.json_schema import schemas
from bioproxy.config.load import Loaded
from bioproxy.config.schema import Prefix, template_files
from bioproxy.config.settings import Settings
from bioproxy.engines.commands import joined
from bioproxy.errors import ConfigError, Problem
from bioproxy.events import Bus
from bioproxy.models.command import prepare, split
from bioproxy.models.plan import make_plan
from bioproxy.templates.catalogue import Catalogue, TemplateStatistics
from bioproxy.wire.tls import doubt, tls_context

BYTES_PER_TOKEN = 4  # a guess for people; the engine's own count stands in /status


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `check`, as `--json` prints it."""

    ok: bool
    path: str | None = None
    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    templates: tuple[TemplateStatistics, ...] = ()
    models: tuple[str, ...] = ()
    swaps: tuple[Outlook, ...] = ()


def read_templates(loaded: Loaded) -> tuple[TemplateStatistics, ...]:
    """Read every template as a start would, those of single models too. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    found: list[TemplateStatistics] = []
    owners: dict[str, Mapping[str, str | Prefix]] = {"": loaded.config.prefixes}
    if loaded.dialect is not None:
        owners |= {name: model.prefixes for name, model in loaded.dialect.models.items() if model.prefixes}
    for owner, prefixes in owners.items():
        catalogue = Catalogue(
            template_files(prefixes), folder=loaded.folder, settings=Settings(loaded.config), bus=Bus()
        )
        try:
            catalogue.load()
        except ConfigError as error:
            problems += error.problems
        statistics = catalogue.statistics()
        found += [msgspec.structs.replace(one, prefix=f"{owner} {one.prefix}".strip()) for one in statistics]
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def read_certificate(loaded: Loaded) -> tuple[Problem, ...]:
    """Read certificate and key as a start would: what is odd about them. Raises ConfigError."""
    if not loaded.config.tls_cert_file:
        return ()
    why = doubt(tls_context(loaded.config.tls_cert_file, loaded.config.tls_key_file), time.time())
    return (Problem(why, key="tls_cert_file"),) if why else ()


def describe_command(loaded: Loaded, _model_id: str, model: Model) -> str:
    """The command that is started for a model: as it stands in the file, unless `--slot-save-path` is added to it."""
    folder = "" if kv_of(loaded.config, model).policy == "off" else loaded.slot_folder
    prepared = prepare(split(model.cmd), folder=folder, environment=model.env)
    return joined(prepared.words) if prepared.added else model.cmd


def read_models(loaded: Loaded) -> None:
    """Work out how the models go together, as a start would. Raises ConfigError."""
    if loaded.dialect is not None:
        make_plan(loaded.config, loaded.dialect, slot_folder=loaded.slot_folder)


def examine(load: Callable[[], Loaded]) -> Checked:
    """Everything that can be found out without starting."""
    try:
        loaded = load()
    except ConfigError as error:
        return Checked(ok=False, problems=error.problems)
    problems: list[Problem] = []
    templates: tuple[TemplateStatistics, ...] = ()
    try:
        templates = read_templates(loaded)
    except ConfigError as error:
        problems += error.problems
    warnings = loaded.warnings
    try:
        warnings += read_certificate(loaded)
    except ConfigError as error:
        problems += error.problems
    try:
        read_models(loaded)
    except ConfigError as error:
        problems += error.problems
    swaps, faults = outlook.examine(loaded)
    problems += faults
    return Checked(
        ok=not problems,
        path=loaded.path,
        paths=loaded.paths,
        problems=tuple(problems),
        warnings=warnings,
        templates=templates,
        models=tuple(loaded.dialect.models) if loaded.dialect else (),
        swaps=tuple(swaps),
    )


def check(command: Command) -> int:
    """Validate; 0 if a start would succeed, 1 with every problem otherwise."""
    output, found = command.output, examine(command.load)
    if output.json:
        output.document(found)
        return 0 if found.ok else 1
    for problem in found.problems:
        output.note(output.paint(f"error: {problem}", "red"))
    for warning in found.warnings:
        output.note(output.paint(f"warning: {warning}", "yellow"))
    if not found.ok:
        output.note(f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}; nothing was started")
        return 1
    if found.templates:
        rows = [template_row(template) for template in found.templates]
        output.table(("prefix", "size", "about tokens", "files", "template"), rows, right=(1, 2, 3))
    if found.swaps:
        swaps = [(one.model, "warm" if one.warm else "cold", one.why) for one in found.swaps]
        output.table(("model", "swaps", ""), swaps, colours=lambda cells: "" if cells[1] == "warm" else "yellow")
    output.line(f"{', '.join(found.paths) or 'no configuration file, defaults'}: good", "green")
    return 0


def template_row(template: TemplateStatistics) -> tuple[str, ...]:
    tokens = count(template.bytes // BYTES_PER_TOKEN)
    files = count(len({source.name for source in template.includes} | {Path(template.path).name}))
    return (template.prefix, size(template.bytes), tokens, files, template.path)


def config(command: Command) -> int:
    """Print every effective value, secrets masked, and where it came from; or the JSON Schema of one dialect."""
    output = command.output
    if command.arguments.schema:
        output.document(schemas()[command.arguments.schema])
        return 0
    loaded = command.load()
    rows = everything(loaded)
    if output.json:
        values = [{"key": row.key, "value": row.value, "origin": row.origin} for row in rows]
        output.document({"path": loaded.path, "paths": loaded.paths, "values": values, "warnings": loaded.warnings})
        return 0
    output.table(("key", "value", "from"), [(row.key, row.text, row.origin) for row in rows], colours=origin_colour)
    for warning in loaded.warnings:
        output.note(output.paint(f"warning: {warning}", "yellow"))
    return 0


def everything(loaded: Loaded) -> list[Described]:
    rows = describe(loaded)
    if loaded.dialect is not None:
        rows += describe_dialect(loaded.dialect, loaded.origins, command=partial(describe_command, loaded))
    return rows


def origin_colour(row: Sequence[str]) -> Colour:
    """Defaults are dimmed, because the operator looks for what was set."""
    return "dim" if row[-1] == "default" else ""
