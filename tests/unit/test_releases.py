"""Files that build what users get on systems that are not here: workflows, containers, the single-file executable.

Nothing is built in a test. These hold the rules that a reader of such a file would check.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.page import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONTAINERS = sorted((ROOT / "packaging" / "container").glob("Containerfile*"))
SYSTEMS = {"linux-x86_64", "linux-arm64", "macos-arm64", "macos-x86_64", "windows-x86_64"}


def read(path: Path) -> Any:
    """A workflow; YAML takes its key `on` for a boolean."""
    return yaml.safe_load(path.read_text("utf-8").replace("\non:", "\n'on':"))


def release() -> Any:
    return read(ROOT / ".github" / "workflows" / "release.yml")


def steps(job: Any) -> str:
    """Everything that a job runs."""
    return "\n".join(step.get("run", "") for step in job["steps"])


def binary(name: str) -> ModuleType:
    """A file of packaging/binary, which is no package."""
    spec = importlib.util.spec_from_file_location(f"binary_{name}", ROOT / "packaging" / "binary" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_may_do_little(path: Path) -> None:
    """By commit, with the version beside it; only the job that publishes may write; no job keeps credentials."""
    workflow, text = read(path), path.read_text("utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []
    assert set(workflow["permissions"].values() if workflow["permissions"] else ()) <= {"read"}
    jobs = workflow["jobs"]
    writing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert writing <= {"release"}
    checkouts = [
        step for job in jobs.values() for step in job["steps"] if step.get("uses", "").startswith("actions/checkout")
    ]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "${{ github.event" not in text, "what strangers write must not become a command"


def test_a_release_is_all_that_is_promised() -> None:
    """Wheel, sdist, five executables that were started, sums of all, a bill of materials, an attestation."""
    workflow = release()
    jobs = workflow["jobs"]
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    assert {one["name"] for one in jobs["executable"]["strategy"]["matrix"]["include"]} == SYSTEMS
    assert "hatchling build" in steps(jobs["packages"])
    assert "packaging/installed.py dist/*.whl dist/*.tar.gz" in steps(jobs["packages"])
    assert "tools.sbom" in steps(jobs["packages"])
    assert {"build.py", "attempt.py"} <= set(re.findall(r"packaging/binary/(\w+\.py)", steps(jobs["executable"])))
    assert "sha256sum -- * > SHA256SUMS" in steps(jobs["release"])
    assert any("attest-build-provenance" in step.get("uses", "") for step in jobs["release"]["steps"])
    assert set(jobs["release"]["needs"]) == {"packages", "executable"}


def test_a_release_takes_nothing_without_its_hash() -> None:
    """Each of its installations reads a file of packaging/locked."""
    jobs = release()["jobs"]
    installs = [line for job in jobs.values() for line in steps(job).splitlines() if "pip install" in line]
    assert installs
    assert all(re.search(r"-r packaging/locked/\w+\.txt", line) for line in installs)
    assert release()["env"]["PIP_REQUIRE_HASHES"] == "1"


def test_other_systems_are_tried_in_ci() -> None:
    """MacOS and Windows run what needs no real engine and no browser."""
    job = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["elsewhere"]
    tests = {one["system"]: one["tests"] for one in job["strategy"]["matrix"]["include"]}
    assert tests == {"macos-latest": "tests/unit tests/integration", "windows-latest": "@tests/windows.txt"}
    assert "${{ matrix.tests }}" in steps(job)
    lines = (ROOT / "tests" / "windows.txt").read_text("utf-8").splitlines()
    assert all((ROOT / re.sub(r"^--\w+=|::.*", "", line)).exists() for line in lines), "a file has another name now"


# containers


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction of a container's file and its words, with lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_a_container_is_built_by_the_rules(path: Path) -> None:
    """Known images, no root at run time, commands without a shell, nothing kept that only the build needed."""
    lines = instructions(path)
    last = lines[max(index for index, (name, _) in enumerate(lines) if name == "FROM") :]
    of = dict(last)
    arguments = {words.partition("=")[0] for name, words in lines if name == "ARG"}
    images = [words.split()[0] for name, words in lines if name == "FROM"]
    assert all(re.fullmatch(r"[a-z.]+/[\w./-]+:\$\{(\w+)\}", image) for image in images)
    assert {image.rpartition("${")[2][:-1] for image in images} == arguments
    assert [name for name, _ in last if name == "USER"]
    assert of["USER"].isdecimal()
    for name in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(of[name]), list)
    assert '["bioproxy", "status"' in of["HEALTHCHECK"]
    assert not {"ADD", "MAINTAINER", "SHELL"} & {name for name, _ in lines}
    for command in (words for name, words in lines if name == "RUN"):
        assert "curl" not in command
        assert "wget" not in command
        for install in re.findall(r"pip install ([^&]*)", command):
            assert "--no-cache-dir" in install
            assert "--require-hashes" in install or "--no-deps" in install
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists/*" in command


def test_llama_cpps_tag_is_the_builders_to_choose() -> None:
    """Cards differ, and so do builds."""
    lines = instructions(ROOT / "packaging" / "container" / "Containerfile.llama-cpp")
    assert ("ARG", "LLAMA_CPP=server") in lines
    assert ("FROM", "ghcr.io/ggml-org/llama.cpp:${LLAMA_CPP}") in lines


def test_a_containers_build_gets_what_a_wheel_needs() -> None:
    """And none of what lies in a developer's folder."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert "*" in lines
    assert {"src", "ui", "packaging", "pyproject.toml", "README.md", "LICENSE"} <= kept
    assert all((ROOT / name).exists() for name in kept)
    assert 'license-files = ["LICENSE"]' in project


# the single-file executable


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"LD_LIBRARY_PATH": "/in:/usr/own", "LD_LIBRARY_PATH_ORIG": "/usr/own"}, {"LD_LIBRARY_PATH": "/usr/own"}),
        ({"LD_LIBRARY_PATH": "/in"}, {}),
        ({"LD_LIBRARY_PATH": "/usr/own"}, {"LD_LIBRARY_PATH": "/usr/own"}),
        ({"PATH": "/bin"}, {"PATH": "/bin"}),
    ],
)
def test_an_executable_hands_its_libraries_to_nobody(before: dict[str, str], after: dict[str, str]) -> None:
    """An engine would load ours instead of its own; what the user set stays."""
    binary("program").leave_libraries_aside(before, "/in")
    assert before == after


def test_an_executable_unpacks_itself_once(tmp_path: Path) -> None:
    """And runs as one process with its own arguments; a file that is not whole says so."""
    build, folder = binary("build"), tmp_path / "made"
    folder.mkdir()
    (folder / "bioproxy").write_text('#!/bin/sh\necho "$$ $*"\n')
    (folder / "bioproxy").chmod(0o755)
    content = build.archive(folder)
    with tarfile.open(fileobj=BytesIO(content)) as packed:
        assert packed.getnames() == ["bioproxy"]
    program = tmp_path / "program"
    program.write_bytes(build.script(content, version="1.2", name="here") + content)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run() -> str:
        started = subprocess.Popen(["sh", program, "a b"], stdout=subprocess.PIPE, env=environment, text=True)
        output, _ = started.communicate()
        assert output == f"{started.pid} a b\n"
        [home] = (tmp_path / ".cache" / "bioproxy" / "program").iterdir()
        return home.name

    assert re.fullmatch(r"1\.2-[0-9a-f]{16}", run())
    (tmp_path / ".cache" / "bioproxy" / "program" / run() / "mark").touch()
    assert (tmp_path / ".cache" / "bioproxy" / "program" / run() / "mark").exists()
    broken = tmp_path / "broken"
    broken.write_bytes(build.script(content, version="1.3", name="here") + content[:20])
    ended = subprocess.run(["sh", broken], capture_output=True, env=environment, text=True, check=False)
    assert ended.returncode == 1
    assert "cannot be unpacked" in ended.stderr
    assert len(list((tmp_path / ".cache" / "bioproxy" / "program").iterdir())) == 1
