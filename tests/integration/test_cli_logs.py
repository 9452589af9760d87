"""`bioproxy logs` against a real server: the bytes as they are, to the end, to Ctrl-C, or to a sentence."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from bioproxy import aio
from bioproxy.admin.logs import Logs
from bioproxy.admin.routes import Question, refuse
from bioproxy.cli.client import Client
from bioproxy.cli.logs import logs
from bioproxy.cli.output import Output
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError, RequestError, Unauthorized
from bioproxy.logbook import Logbook
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server
from support.command import told
from support.http import free_port

LOG = b"\x1b[32mloaded\x1b[0m\n\xff\xfe\n"
COMMAND = "from bioproxy.cli.main import main; raise SystemExit(main({words}))"


class Seen(io.StringIO):
    """A stream that tells the test's loop when something was written, from whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.seen = asyncio.Event()

    def write(self, text: str) -> int:
        """Write, and tell."""
        self.loop.call_soon_threadsafe(self.seen.set)
        return super().write(text)


class Running:
    """A port with the log of `org/qwen`; with `key` set, only for who has it. `asked` are the targets."""

    def __init__(self) -> None:
        self.book = Logbook()
        self.model = self.book.model("org/qwen")
        self.logs = Logs(self.book, resolve=lambda _: None)
        self.server = Server(self.handle, limits=Limits(), name="admin")
        self.key = ""
        self.asked: list[bytes] = []

    async def handle(self, request: Request, responder: Responder) -> None:
        """Serve one stream."""
        self.asked.append(request.target)
        try:
            self.check(request)
            name = request.path.removeprefix("/logs/stream").lstrip("/")
            await self.logs.stream(Question(request, responder, {"id": name}))
        except (RequestError, Unauthorized) as error:
            refuse(responder, error)

    def check(self, request: Request) -> None:
        """Refuse who has not the key."""
        if self.key and request.header(b"authorization") != b"Bearer " + self.key.encode():
            raise Unauthorized("this wants a key")

    def client(self, *, key: str = "") -> Client:
        """How the command finds it."""
        return Client(f"http://127.0.0.1:{self.server.port}", key=key)

    async def read(self, model: str = "org/qwen", *, key: str = "") -> tuple[int, str]:
        """Run the command beside the server: its exit code, and what it printed."""
        stream = io.StringIO()
        code = await asyncio.to_thread(
            logs, told(Output(stream=stream), client=self.client(key=key), model=model, follow=False)
        )
        return code, stream.getvalue()

    async def start(self, *, follow: bool) -> asyncio.subprocess.Process:
        """Run the command as a program."""
        words = ["logs", "org/qwen", "-admin-host=127.0.0.1", f"-admin-port={self.server.port}", *["-f"] * follow]
        program = COMMAND.format(words=words)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=pipe, stderr=pipe)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """The running server."""
    port = Running()
    await port.server.listen("127.0.0.1", 0)
    yield port
    port.logs.close()
    await port.server.close(deadline=1.0)


async def test_without_follow_it_prints_what_there_is(running: Running) -> None:
    """And ends; slashes of an ID stay, other characters are quoted."""
    running.model(b"line\n")
    assert await running.read() == (0, "line\n")
    assert running.asked == [b"/logs/stream/org/qwen?no-follow"]


async def test_bytes_are_written_as_they_are(running: Running) -> None:
    """To a pipe and to a terminal alike: colours of the engine are its colours."""
    running.model(LOG)
    program = await running.start(follow=False)
    assert await program.communicate() == (LOG, b"")
    assert program.returncode == 0


async def test_a_text_stream_gets_text(running: Running) -> None:
    """What is no text becomes a mark, also where a piece ends in the middle of a character."""
    running.model(b"\xe2\x82")
    running.model(b"\xac\xff")
    assert await running.read() == (0, "€\ufffd")


async def test_following_ends_with_the_program(running: Running) -> None:
    """An orderly end of the stream is a good end of the command."""
    program = await running.start(follow=True)
    assert program.stdout is not None
    running.model(b"one\n")
    assert await program.stdout.readline() == b"one\n"
    running.model(b"two\n")
    assert await program.stdout.readline() == b"two\n"
    running.logs.close()
    assert await program.communicate() == (b"", b"")
    assert program.returncode == 0
    assert running.asked == [b"/logs/stream/org/qwen"]


async def test_ctrl_c_ends_it_quietly(running: Running) -> None:
    """That is how one stops following; the exit code says so, and nothing else is said."""
    program = await running.start(follow=True)
    assert program.stdout is not None
    running.model(b"one\n")
    assert await program.stdout.readline() == b"one\n"
    program.send_signal(signal.SIGINT)
    assert await program.communicate() == (b"", b"")
    assert program.returncode == 130


@pytest.mark.parametrize("model", ["", "proxy"])
async def test_other_logs_have_names_too(running: Running, model: str) -> None:
    """Nothing is the combined one."""
    running.book.proxy_line("[INFO] ours")
    assert await running.read(model) == (0, "[INFO] ours\n")


async def test_an_unknown_model_is_a_sentence(running: Running) -> None:
    """The server's own."""
    with pytest.raises(BioproxyError, match="Use 'proxy', 'upstream' or a model's ID"):
        await running.read("other")


async def test_a_key_is_sent_and_its_absence_explained(running: Running) -> None:
    """As with the other commands."""
    running.key = "secret"
    running.model(b"line\n")
    assert await running.read(key="secret") == (0, "line\n")
    with pytest.raises(BioproxyError, match="this wants a key; name the key with -admin-key"):
        await running.read()


async def test_nobody_there_is_a_sentence() -> None:
    """What was tried, and what to do."""
    client = Client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BioproxyError, match="no bioproxy answers on"):
        await asyncio.to_thread(logs, told(Output(stream=io.StringIO()), client=client, model="", follow=False))


async def test_a_stream_that_is_cut_is_a_sentence(running: Running) -> None:
    """A program that was killed gave no last chunk: the log may be incomplete, and that is said."""
    running.model(b"line\n")
    stream = Seen()
    reading = aio.spawn(
        asyncio.to_thread(logs, told(Output(stream=stream), client=running.client(), model="org/qwen", follow=True)),
        name="reading",
    )
    await stream.seen.wait()
    await running.server.close(deadline=0.0)
    with pytest.raises(BioproxyError, match="the log was cut off"):
        await reading
    assert stream.getvalue() == "line\n"
