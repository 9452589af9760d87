"""Writes a release's bill of materials (CycloneDX 1.6): what is in it, and what builds it.

Run `python -m tools.sbom [FILE]`; `make sbom` writes dist/bioproxy-VERSION.cdx.json. Everything it says stands in files
of the repository: Python's packages and who needs them in packaging/locked (tools/locked.py), the page's in
ui/package-lock.json. What is part of the program is `required`, what an extra brings `optional`, what only builds or
tests it `excluded`. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bioproxy import __version__
from tools.locked import FOLDER, ROOT

Json = Any
US = f"pkg:pypi/bioproxy@{__version__}"
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)
NEEDED_BY = re.compile(r"^    #(?: via)? +([A-Za-z0-9][A-Za-z0-9_.-]*)(?: \(pyproject\.toml\))?$", re.MULTILINE)
IMPORTED = re.compile(r"""(?:from|import\(|import)\s*["']([^."'$][^"']*)["']""")
NAMESPACE = uuid.UUID("6a0ea6f3-5f2c-5d6b-9a59-2f1a7a6c0c11")


def python_packages(name: str) -> dict[str, tuple[str, list[str]]]:
    """The packages of one locked file: version, and who needs it ("bioproxy" for what pyproject.toml names)."""
    found = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", (FOLDER / name).read_text("utf-8")):
        if pinned := PINNED.search(block):
            found[pinned[1]] = pinned[2], [one for one in NEEDED_BY.findall(block) if one != "via"]
    return found


def python_part(components: dict[str, Json], needs: dict[str, set[str]]) -> None:
    """Python's packages."""
    program, extras, build = (python_packages(f"{name}.txt") for name in ("program", "extras", "build"))
    for name, (version, needed_by) in sorted({**build, **extras}.items()):
        scope = "required" if name in program else "optional" if name in extras else "excluded"
        purl = purl_of(name, version)
        components[purl] = component(name, version, scope=scope, purl=purl)
        for one in needed_by:
            owner = US if one == "bioproxy" else purl_of(one, {**build, **extras}[one][0])
            needs.setdefault(owner, set()).add(purl)


def purl_of(name: str, version: str) -> str:
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"


def page_part(components: dict[str, Json], needs: dict[str, set[str]]) -> None:
    """The page's packages: those that its sources import, with all that they need, are built into it."""
    lock = json.loads((ROOT / "ui" / "package-lock.json").read_text("utf-8"))["packages"]
    sources = [path for path in (ROOT / "ui" / "src").rglob("*.*") if path.suffix in {".ts", ".svelte", ".css"}]
    bundled = closure(lock, {one for path in sources if ".test." not in path.name for one in imports(path)})
    for place, one in sorted(lock.items()):
        if not place:
            continue
        name = place.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{name.replace('@', '%40')}@{one['version']}"
        digest = base64.b64decode(one["integrity"].partition("-")[2]).hex()
        more = {"hashes": [{"alg": "SHA-512", "content": digest}]}
        if "license" in one:
            more["licenses"] = [{"expression": one["license"]}]
        if place in bundled:
            needs[US].add(purl)
        scope = "required" if purl in needs[US] else "excluded"
        components[purl] = component(name, one["version"], scope=scope, purl=purl) | more


def imports(path: Path) -> Iterable[str]:
    """The packages that a source of the page imports."""
    for found in IMPORTED.findall(path.read_text("utf-8")):
        yield "/".join(found.split("/")[: 2 if found.startswith("@") else 1])


def closure(lock: dict[str, Json], names: Iterable[str]) -> set[str]:
    """The places in the lock file of these packages and of all that they need."""
    found, waiting = set[str](), [f"node_modules/{name}" for name in names]
    while waiting:
        place = waiting.pop()
        if place in found or place not in lock:
            continue
        found.add(place)
        for name in lock[place].get("dependencies", {}):
            own = f"{place}/node_modules/{name}"
            waiting.append(own if own in lock else f"node_modules/{name}")
    return found


def component(name: str, version: str, *, scope: str, purl: str) -> Json:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": scope, "purl": purl}


def bill() -> Json:
    """The whole document."""
    components: dict[str, Json] = {}
    needs: dict[str, set[str]] = {US: set()}
    python_part(components, needs)
    page_part(components, needs)
    ours = {"type": "application", "bom-ref": US, "name": "bioproxy", "version": __version__, "purl": US}
    listed = [components[purl] for purl in sorted(components)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps([__version__, listed]))}",
        "version": 1,
        "metadata": {"component": {**ours, "licenses": [{"license": {"id": "MIT"}}]}},
        "components": listed,
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs.get(ref, ()))} for ref in (US, *sorted(components))],
    }


def main() -> None:
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "dist" / f"bioproxy-{__version__}.cdx.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
