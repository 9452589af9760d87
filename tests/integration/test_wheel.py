"""What a user installs: a wheel of this tree, put where nothing else is, has the web page and serves it."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path

import pytest

from support.apps import Bioproxy, write_config
from support.browser import no_page
from support.http import call
from support.page import ROOT


async def run(*words: str, folder: Path) -> None:
    """A module of the developers' environment; AssertionError with its output if it fails."""
    pipe, joined = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    program = await asyncio.create_subprocess_exec(sys.executable, "-m", *words, cwd=folder, stdout=pipe, stderr=joined)
    output, _ = await program.communicate()
    assert program.returncode == 0, output.decode()


class Installed(Bioproxy):
    """The program as it lies in a folder of installed packages, before no engine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "conf.json")
        self.site = folder / "site"
        values = {"proxy_port": self.proxy_port, "admin_port": self.admin_port, "backend_url": "http://127.0.0.1:1"}
        write_config(folder, **values)

    def command(self) -> list[str]:
        return ["env", f"PYTHONPATH={self.site}", *super().command()]


@pytest.mark.timeout(180)
async def test_an_installed_wheel_serves_the_page(tmp_path: Path) -> None:
    """All of it: each file that `make ui` left is there, and the start page is answered."""
    if reason := no_page():
        pytest.skip(reason)
    await run("hatchling", "build", "-t", "wheel", "-d", str(tmp_path), folder=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    page = ROOT / "src" / "bioproxy" / "page"
    assert {f"bioproxy/page/{path.relative_to(page).as_posix()}" for path in page.rglob("*") if path.is_file()} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    program = Installed(tmp_path)
    target = ["--target", str(program.site)]
    await run("pip", "install", "-q", "--no-deps", "--no-index", *target, str(wheel), folder=tmp_path)
    index = program.site / "bioproxy" / "page" / "index.html"
    index.write_text("the installed one" + index.read_text())
    async with program:
        answer = await call(program.admin_port, "GET", "/ui/")
        assert answer.text == index.read_text()
