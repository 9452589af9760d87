"""The JSON Schemas as files of the package: `python -m bioproxy.config.schema_files` writes them.

They are shipped so that an editor or a schema store can point at them without running anything. A test sees that they
are what the Structs make of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bioproxy.config.dialect.json_schema import json_schema as swap_json_schema
from bioproxy.config.json_schema import json_schema

Json: TypeAlias = Any
FOLDER = Path(__file__).parents[1] / "schemas"


def schemas() -> dict[str, Json]:
    """The schema of each dialect by the dialect's name."""
    return {"bioproxy": json_schema(), "llama-swap": swap_json_schema()}


def files() -> dict[Path, str]:
    """The path of each schema, and what belongs there."""
    return {
        FOLDER / f"{name}.schema.json": msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
        for name, schema in schemas().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, "utf-8")
