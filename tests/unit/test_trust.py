"""What a release is made of: every package pinned with hashes, and named in its bill of materials."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools import sbom
from tools.locked import BUILD, FOLDER

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
AGAIN = "run `make locked`"


def named(requirements: list[str]) -> set[str]:
    """The names of requirements, as an index writes them."""
    return {re.split(r"[<>=!;\[ ]", one)[0].lower().replace("_", "-").replace(".", "-") for one in requirements}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {name: version for line in lines for name, version in [line.split("==")] if name}


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("program.txt", named(PROJECT["dependencies"])),
        ("extras.txt", named([one for extra in PROJECT["optional-dependencies"].values() for one in extra])),
        ("build.txt", set(BUILD)),
    ],
)
def test_what_a_release_is_made_of_is_pinned(file: str, wanted: set[str]) -> None:
    """At the versions that the tests ran with, and each with the hashes of its builds."""
    text = (FOLDER / file).read_text("utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    known = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in constraints().items()}
    found = sbom.python_packages(file)
    assert len(found) == len(blocks)
    assert wanted <= found.keys(), AGAIN
    different = {name: version for name, (version, _) in found.items() if known.get(name, version) != version}
    assert not different, AGAIN
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text, "a file of the repository names no index"


def test_the_bill_names_everything() -> None:
    """Python's packages and the page's, with what each is there for; and it refers to nothing that it does not name."""
    bill = sbom.bill()
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert scopes.items() >= {"msgspec": "required", "xllamacpp": "optional", "hatchling": "excluded"}.items()
    assert scopes.items() >= {"svelte": "required", "dompurify": "required", "vite": "excluded"}.items()
    refs = [one["ref"] for one in bill["dependencies"]]
    assert len(refs) == len(set(refs)) == len(bill["components"]) + 1
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} <= set(refs)
    direct = next(one["dependsOn"] for one in bill["dependencies"] if one["ref"] == sbom.US)
    assert named(PROJECT["dependencies"]) <= {ref.partition("/")[2].partition("@")[0] for ref in direct}
