"""`bioproxy check` and `bioproxy config`: look at a configuration without running anything.

`check` is what a deployment runs before it restarts the service: it reads every file that a start would read, templates
and includes too, and tells all that is wrong at once. `config` answers "which value does it use, and who said so".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bioproxy.cli.output import Colour, Output, count, size
from bioproxy.config.describe import describe
from bioproxy.config.json_schema import json_schema
from bioproxy.config.load import Loaded
from bioproxy.config.schema import Prefix
from bioproxy.errors import ConfigError, Problem
from bioproxy.events import Bus
from bioproxy.templates.catalogue import Catalogue, TemplateStatistics

BYTES_PER_TOKEN = 4  # a guess for people; the engine's own count stands in /status


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `check`, as `--json` prints it."""

    ok: bool
    path: str | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    templates: tuple[TemplateStatistics, ...] = ()


def read_templates(loaded: Loaded) -> tuple[TemplateStatistics, ...]:
    """Read every template as a start would. Raises ConfigError with all problems."""
    paths = {name: one.template if isinstance(one, Prefix) else one for name, one in loaded.config.prefixes.items()}
    catalogue = Catalogue(paths, folder=loaded.folder, settle=0.0, bus=Bus())
    catalogue.load()
    return catalogue.statistics()


def examine(load: Callable[[], Loaded]) -> Checked:
    """Everything that can be told without starting."""
    try:
        loaded = load()
    except ConfigError as error:
        return Checked(ok=False, problems=error.problems)
    try:
        templates = read_templates(loaded)
    except ConfigError as error:
        return Checked(ok=False, path=loaded.path, problems=error.problems, warnings=loaded.warnings)
    return Checked(ok=True, path=loaded.path, warnings=loaded.warnings, templates=templates)


def check(output: Output, load: Callable[[], Loaded]) -> int:
    """Validate; 0 where a start would succeed, 1 with every problem otherwise."""
    found = examine(load)
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
    output.line(f"{found.path or 'no configuration file, defaults'}: good", "green")
    return 0


def template_row(template: TemplateStatistics) -> tuple[str, ...]:
    """One template in the table."""
    tokens = count(template.bytes // BYTES_PER_TOKEN)
    files = count(len({source.name for source in template.includes} | {Path(template.path).name}))
    return (template.prefix, size(template.bytes), tokens, files, template.path)


def config(output: Output, load: Callable[[], Loaded]) -> int:
    """Print every effective value, secrets masked, and where it came from."""
    loaded = load()
    rows = describe(loaded)
    if output.json:
        values = [{"key": row.key, "value": row.value, "origin": row.origin} for row in rows]
        output.document({"path": loaded.path, "values": values, "warnings": loaded.warnings})
        return 0
    output.table(("key", "value", "from"), [(row.key, row.text, row.origin) for row in rows], colours=origin_colour)
    for warning in loaded.warnings:
        output.note(output.paint(f"warning: {warning}", "yellow"))
    return 0


def origin_colour(row: Sequence[str]) -> Colour:
    """Defaults are dimmed: what somebody set is what one looks for."""
    return "dim" if row[-1] == "default" else ""


def schema(output: Output) -> int:
    """Print the JSON Schema of the configuration file."""
    output.document(json_schema())
    return 0
