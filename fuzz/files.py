"""Files that an operator, a repository or a broken disk may hold: configurations, templates, what lies among snapshots.

Each reader has one way to say no, with where and what. Any other exception is a fault of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Raw

from bioproxy.clients.mend import Memory, mend
from bioproxy.clients.recognition import find, rules_of
from bioproxy.clients.view import View
from bioproxy.config.dialect.schema import Filters
from bioproxy.config.load import load
from bioproxy.config.schema import Config
from bioproxy.errors import NOT_JSON, ConfigError, RequestError
from bioproxy.front.body import filters, model
from bioproxy.front.caching import fields
from bioproxy.front.inference import asks
from bioproxy.front.ollama import requests as ollama
from bioproxy.kv.folder import COPIES, LEDGER, Folder, FolderError
from bioproxy.kv.snapshot import NAME, VERSION, Sidecar, Snapshot, checksum, decode, encode
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import expand
from support.templates import Site

BYTES = tuple(bytes([one]) for one in b"\0\t\n\r \"'#&*,-:?@[]`{|}!%<>\\\x7f\x85\xff")
YAML_WORDS = (
    *BYTES, b"\n  ", b"\n- ", b": ", b"- ", b"${", b"${PORT}", b"${env.X}", b"${x}", b"&a ", b"*a", b"<<: *a\n",
    b"null", b"true", b"0", b"-1", b"1e999", b".nan", b"0x10", b"10GB", b"99999999999999999999", b"2026-01-01",
    b"models:\n", b"macros:\n", b"groups:\n", b"a:\n", b"cmd: x\n", b"!!python/object:os.system x", b"!!binary aGk=",
    b"---\n", b"...\n", b"prefixes:\n", b"kv:\n", b"[", b"[[[[[[[[", b'{"a":', "\ufeffä\u2028".encode(),
)  # fmt: skip
TEMPLATE_WORDS = (
    *BYTES, b"<{", b"}>", b"<{message}>", b"<{a.txt}>", b"<{*.txt}>", b"<{**}>", b"<{ }>", b"[a-", b"{a,b}", b"\r\n",
    "\ufeffä\u2028".encode(), b"@code",
)  # fmt: skip
JSON_WORDS = (
    *BYTES, b"null", b"true", b"-0", b"1e999", b"1E5", b"99999999999999999999", b"[]", b"{}", b'""', b'"@code hi"',
    b'"\\ud800"', b'"\\u0000"', b"\\u", b"[[[[[[[[", b'{"a":', b'"role":"user"', b'"content":', b'"messages":[',
    b'"stream":true', b'"cache_prompt":false', b'"id_slot":0', b'"type":"text"', b'"version":2', b'"cuts":[]',
    b'"cache_control":{"type":"ephemeral"}', b'"prompt_cache_breakpoint":{"mode":"explicit"}', b'{"\xb3":1}',
)  # fmt: skip
PATHS: dict[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "completion": "/v1/completions",
}
OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
AGENTS = (None, b"claude-cli/2.0.1 (external, cli)", b"codex_cli_rs/0.50", b"opencode/1.0", b"python-httpx/0.28")
FILTERS = filters.compile_filters(
    Filters(strip_params="temperature, stream_options.include_usage, messages.0.x", set_params={"seed": Raw(b"1")})
)
RULES = rules_of(Config())
SEED = "bp-00112233445566aa-0123456789abcdef"
DIALECTS: tuple[Dialect, ...] = ("chat", "anthropic", "responses", "completion")


class Files:
    """A folder that is one input's own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.other = self.folder / "snapshots"
        self.site: Site | None = None
        self.memory = Memory()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def config(self, data: bytes, random: Random) -> str:
        """A configuration of either dialect is loaded, or every problem says where it stands."""
        path = self.folder / random.choice(("conf.yaml", "conf.json"))
        path.write_bytes(data)
        try:
            load(path=str(path), environment={"HOME": str(self.folder), "X": "y"})
        except ConfigError as error:
            return refused(error)
        return "read"

    def template(self, data: bytes, random: Random) -> str:
        """A template is filled in, or the catalogue says what is wrong and where."""
        if any(place in data for place in (b"/", b"~", b"..")):
            return "passed over"  # it would include files of this machine
        if self.site is None:
            (self.folder / "t.md").write_bytes(b"<{message}>")
            (self.folder / "a.txt").write_bytes(b"A")
            self.site = Site(self.folder, {"@code": "t.md"})
        (self.folder / "t.md").write_bytes(data)
        try:
            self.site.catalogue.load()
        except ConfigError as error:
            return refused(error)
        message = random.choice(("", "m", "<{a.txt}>", "@code"))
        assert message in self.site.text(message=message)
        return "read"

    def body(self, data: bytes, random: Random) -> str:
        """A body is filled in: what goes to the engine is JSON with every other value as it was, or the very bytes."""
        if self.site is None:
            (self.folder / "t.md").write_bytes(b"T <{message}> T")
            self.site = Site(self.folder, {"@code": "t.md"})
            self.site.catalogue.load()
        dialect = random.choice(DIALECTS)
        self.looked_at(data, dialect, random)
        try:
            found = expand(Body(data), dialect=dialect, catalogue=self.site.catalogue, pins=None, scope=b"")
        except RequestError:
            return "refused"
        if found.body is data or found.body == data:
            return "passed"
        before, after = plain(data), plain(found.body)
        changed = {name for name in before if before[name] != after.get(name)}
        assert before.keys() == after.keys(), "fields came or went"
        assert changed <= {"messages", "input", "prompt"}, changed
        return "filled"

    def looked_at(self, data: bytes, dialect: Dialect, random: Random) -> None:
        """All else that reads a body says what it cannot mean, or does what it can."""
        path = PATHS[dialect]
        for work in (self.filtered, self.marked, self.mended):
            with contextlib.suppress(RequestError):
                model.from_json(data)
                if (body := Body(data)).fields is not None:
                    work(body, dialect, path, random)
        with contextlib.suppress(RequestError):
            ollama.translate(random.choice(OLLAMA), data)

    def filtered(self, body: Body, _dialect: Dialect, _path: str, _random: Random) -> None:
        filters.apply(body, FILTERS, requested="a", model_name="b")
        body.written()

    def marked(self, body: Body, dialect: Dialect, _path: str, _random: Random) -> None:
        if asks(body, dialect):
            fields.take(body, dialect)
            body.written()

    def mended(self, body: Body, dialect: Dialect, path: str, random: Random) -> None:
        view = View(dialect, body)
        found = find(RULES.look(random.choice(AGENTS), path), {}, view)
        mend(view, found.mend, self.memory, b"")
        body.written()

    def index(self, data: bytes, random: Random) -> str:
        """Whatever lies in a folder of snapshots: what is taken up describes its file, and the rest is taken away."""
        self.other.mkdir(exist_ok=True)
        slot, sidecar = self.other / f"{SEED}.kv", self.other / f"{SEED}.json"
        slot.write_bytes(b"k" * 64)
        sidecar.write_bytes(described(data, slot) if random.random() < 0.8 else data)
        if random.random() < 0.3:
            (self.other / random.choice((LEDGER, COPIES, "bp-tmp-x.kv", "x.json"))).write_bytes(data)
        folder = Folder(self.other)
        try:
            folder.peek()
            found = folder.load()
            left = os.listdir(self.other)
        except FolderError:
            return "refused"
        finally:
            shutil.rmtree(self.other)
        for snapshot in found.snapshots:
            assert NAME.fullmatch(snapshot.name), snapshot.name
            assert snapshot.name in left, "taken up, and its file is gone"
            assert (snapshot.size, bool(snapshot.cuts)) == (64, True)
            assert decode(encode(snapshot)) == snapshot
        return "read" if found.snapshots else "nothing taken up"


def refused(error: ConfigError) -> str:
    """A refusal says what is wrong, in sentences that can be printed."""
    assert error.problems, "refused without a word"
    for problem in error.problems:
        assert problem.message, "a problem without a sentence"
        str(problem).encode()
    return "refused"


def described(data: bytes, slot: Path) -> bytes:
    """The sidecar whose description is `data`, with a right checksum; if it is one, it fits the slot file."""
    with contextlib.suppress(*NOT_JSON):
        status, snapshot = slot.stat(), msgspec.json.decode(data, type=Snapshot)
        stamp = {"size": 64, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
        data = msgspec.json.encode(msgspec.structs.replace(snapshot, **stamp))
    with contextlib.suppress(*NOT_JSON):
        msgspec.json.decode(data)
        return msgspec.json.encode(Sidecar(VERSION, msgspec.Raw(data), checksum(data)))
    return data


def plain(data: bytes) -> Any:
    """JSON as Python has it, with numbers as they are written, and bytes that are no UTF-8 as they are."""
    return json.loads(data.decode("utf-8", "surrogateescape"), parse_float=str, parse_int=str, parse_constant=str)
