"""A web page that was built, what builds it, a running program that shows it, and a reverse proxy before that."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.util
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from bioproxy.app import App
from support.swap_rig import Inside, Rig

ROOT = Path(__file__).parents[2]
INDEX, SCRIPT = b"<!doctype html><title>x</title>", b"let a = 1;" * 50
SMALLER = {"gzip": gzip.compress(SCRIPT, mtime=0), "br": b"smaller", None: SCRIPT}
NAME = "assets/main-Ab3_-x9Z.js"
SECRET = "kept in the cellar"
PREFIX = b"/some/prefix"  # below which a reverse proxy shows the program
HTML = {"Accept": "text/html,*/*;q=0.8"}


def build(folder: Path) -> Path:
    """What `make ui` leaves in `folder`, and beside it a file that is no part of it."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(INDEX)
    (folder / NAME).write_bytes(SCRIPT)
    (folder / f"{NAME}.gz").write_bytes(SMALLER["gzip"])
    (folder / f"{NAME}.br").write_bytes(SMALLER["br"])
    (folder / "assets" / "readme.txt").write_bytes(b"no hash")
    (folder.parent / "secret.txt").write_text(SECRET)
    return folder


def app_of(rig: Rig) -> App:
    """The program, which must run in this process."""
    assert isinstance(rig.program, Inside)
    assert rig.program.app is not None
    return rig.program.app


def packaging(name: str) -> ModuleType:
    """A module of `packaging/`, which is no package; the build of a wheel runs it."""
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", ROOT / "packaging" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def reverse_proxy(port: int) -> AsyncIterator[int]:
    """A server that shows the program below a path, and nothing beside it; its port. One request a connection."""

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, rest = head.split(b" ", 2)
            if not path.startswith(PREFIX):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                writer.close()
                return
            rest = re.sub(rb"(?i)connection:[^\r]*\r\n", b"", rest)
            extra = b"Connection: close\r\nX-Forwarded-Prefix: %b\r\n\r\n" % PREFIX
            from_program, to_program = await asyncio.open_connection("127.0.0.1", port)
            to_program.write(b" ".join((method, path.removeprefix(PREFIX) or b"/", rest[:-2] + extra)))
            async with asyncio.TaskGroup() as group:
                group.create_task(pipe(reader, to_program))
                group.create_task(pipe(from_program, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
