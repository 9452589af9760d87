"""YAML as a careful person writes it: every text in quotes.

PyYAML leaves `0e0` bare, because YAML 1.1 takes it for a text; our reader takes it for the number that it looks
like, and asks for quotes.
"""

from __future__ import annotations

from typing import Any

import yaml


class Quoting(yaml.SafeDumper):
    """Writes texts in double quotes, and everything else as always."""


def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """One text."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


Quoting.add_representer(str, quoted)


def yaml_text(value: Any) -> str:
    """`value` (of JSON's types) as YAML."""
    return str(yaml.dump(value, Dumper=Quoting))
