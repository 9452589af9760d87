"""An inference server that computes nothing and can misbehave: `python -I -S tests/fakes/swap_engine.py --port N`.

For tests in which engines come and go: it listens some 20 ms after its start, and with `--events FILE` it writes down
what happens to it (swap_journal.py).

Its routes: GET /health, GET /v1/models, the ones of swap_answers.py, a websocket that echoes at /ws, 404 for /props and
/slots, and for every other path an echo. For the test itself, neither counted nor written down: GET /last (the newest
request), /requests (all), /env (environment, arguments, pid, group), POST /release (whoever is on `hold` goes on),
POST /recover (it is healthy from now on), POST /script (how the requests that follow are answered, see
swap_answers.py).

FLAGS below are its faults. Standard library only, and little of it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # 10 ms

from fakes.swap_answers import Answer
from fakes.swap_http import Call, Connection, Gone, echo_frames
from fakes.swap_journal import Journal, group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Json = Any

FLAGS: dict[str, Json] = {  # name: default; False is a switch, the others take a value
    "port": 0,
    "model": "fake",
    "events": "",
    "say": "",  # a line on stderr at the start
    "start_delay": 0.0,  # seconds before it listens
    "wait_for": "",  # it does not listen before this file is there
    "fail_first": 0,  # its first N starts (by the log) end with code 1
    "exit": -1,  # ends with this code ...
    "after": 0.0,  # ... that many seconds after its start
    "health_503_for": 0.0,  # seconds
    "health_503_forever": False,
    "health_204": False,
    "health_redirect": False,
    "health_never": False,  # takes the connection, and that is all
    "die_after_ready": -1.0,  # seconds after the first good health check
    "ignore_sigterm": False,
    "slow_stop": 0.0,  # seconds between SIGTERM and the end
    "fork_child": False,  # a child of its own that stays
    "setsid": False,  # ... and leaves its process group
    "deaf_child": False,  # ... and ignores SIGTERM
    "close_pipes": False,
    "log_bytes": 0,
    "log_no_newline": False,
    "log_binary": False,
    "crash_on_request": 0,  # dies in its Nth request, before the first byte ...
    "crash_mid_stream": False,  # ... or in the middle of the stream
    "drop_before_byte": 0,  # closes the connections of its first N requests
    "only_first_life": False,  # ... and all three only in the first process of this model
    "refuse_connections_after_healthy": False,
    "tool_calls": False,  # every answer ends in a tool call
    "big_header": 0,  # bytes
    "sleeps": False,  # has vLLM's routes for that
    "no_wake": False,  # ... and does not come back
}
SLEEP = {"/sleep", "/wake_up", "/is_sleeping", "/collective_rpc"}
CONTROL = {"/last", "/requests", "/env", "/release", "/recover", "/script"}
BINARY = b"\x1b[31mred\x1b[0m\x07\x00\xff\xfe\x1b[2J\xc3\x28\n"


def options_of(words: list[str]) -> dict[str, Json]:
    """The flags that were given, over their defaults."""
    found, left = dict(FLAGS), list(words)
    while left:
        name = left.pop(0).removeprefix("--").replace("-", "_")
        if name not in FLAGS:
            sys.exit(f"swap_engine: unknown flag --{name}")
        default = FLAGS[name]
        found[name] = True if default is False else type(default)(left.pop(0))
    return found


class Engine:
    """The program: one listener in the main thread, one thread per connection."""

    def __init__(self, options: dict[str, Json]) -> None:
        self.options = options
        self.journal = Journal(options["events"], options["model"])
        self.healthy = False
        self.requests: list[Json] = []
        self.script: Json = {}
        self.lock = threading.Lock()
        self.count = self.releases = self.starts = 0
        self.probed = self.asleep = False
        self.listener = socket.socket()

    def leave(self, code: int, why: str) -> NoReturn:
        """End at once."""
        self.journal.note("exit", code=code, why=why)
        os._exit(code)

    def later(self, seconds: float, code: int, why: str) -> None:
        """End after a while, whatever happens."""
        timer = threading.Timer(seconds, self.leave, (code, why))
        timer.daemon = True
        timer.start()

    def run(self) -> None:
        """Start as the flags say, then serve for ever."""
        options = self.options
        starts = self.starts = self.journal.begin()
        signal.signal(signal.SIGTERM, self.asked_to_end)
        if options["say"]:
            os.write(2, options["say"].encode() + b"\n")
        if starts <= options["fail_first"]:
            self.leave(1, "fail_first")
        if options["exit"] >= 0 and not options["after"]:
            self.leave(options["exit"], "exit")
        if options["fork_child"]:
            self.fork()
        if options["exit"] >= 0:
            self.later(options["after"], options["exit"], "exit")
        self.talk()
        time.sleep(options["start_delay"])
        while options["wait_for"] and not os.path.exists(options["wait_for"]):
            time.sleep(0.01)
        self.listen()
        self.serve()

    def asked_to_end(self, *_: object) -> None:
        """SIGTERM."""
        self.journal.note("sigterm")
        if not self.options["ignore_sigterm"]:
            time.sleep(self.options["slow_stop"])
            self.leave(0, "sigterm")

    def fork(self) -> None:
        """A child that does nothing but live; it holds our pipes too."""
        reader, writer = os.pipe()
        if os.fork():
            os.read(reader, 1)  # it is as the flags say before we go on
            return
        if self.options["setsid"]:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self.options["deaf_child"] else signal.SIG_DFL)
        self.journal.note("child", group=group())
        os.write(writer, b"x")
        while True:
            signal.pause()

    def talk(self) -> None:
        """Write the log that the flags ask for, or close it."""
        if self.options["close_pipes"]:
            os.close(1)
            os.close(2)
        if self.options["log_bytes"]:
            threading.Thread(target=self.write_log, args=(self.options["log_bytes"],), daemon=True).start()

    def write_log(self, left: int) -> None:
        """Write `left` bytes as fast as they are taken."""
        line = BINARY if self.options["log_binary"] else b"x" * 79 + (b"" if self.options["log_no_newline"] else b"\n")
        block = line * (1 + (1 << 16) // len(line))
        while left > 0:
            left -= os.write(1, block[:left])
        self.journal.note("logged")

    def listen(self) -> None:
        """Take the port; code 1 where somebody else has it."""
        if sys.platform != "win32":  # there it would share a port with another
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.listener.bind(("127.0.0.1", self.options["port"]))
        except OSError as error:
            os.write(2, f"couldn't bind to port {self.options['port']}: {error.strerror}\n".encode())
            self.leave(1, "port")
        self.listener.listen(128)
        port = self.listener.getsockname()[1]
        self.journal.note("listening", port=port)
        wait = self.options["health_503_for"]
        timer = threading.Timer(wait, self.recover)
        timer.daemon = True
        timer.start() if wait else self.recover()
        if not self.options["close_pipes"]:
            os.write(1, f"listening on {port}\n".encode())

    def recover(self) -> None:
        """Be healthy from now on; it is told before anybody can see it."""
        self.journal.note("healthy")
        self.healthy = True

    def serve(self) -> NoReturn:
        """Take connections until there is no listener, then just live."""
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                break
            threading.Thread(target=self.connection, args=(sock,), daemon=True).start()
        while True:
            signal.pause()

    def connection(self, sock: socket.socket) -> None:
        """One connection, request after request."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        padding = self.options["big_header"]
        connection = Connection(sock, extra=f"X-Big: {'x' * padding}" if padding else "")
        try:
            while connection.keep:
                self.request(connection.call(), connection)
        except Gone:
            pass
        finally:
            sock.close()

    def request(self, call: Call, connection: Connection) -> None:
        """One request: the test's, a health check, or what an engine is for."""
        if call.path == "/health":
            self.health(connection)
        elif call.path in CONTROL:
            connection.answer(200, self.control(call))
            if call.path == "/release":
                self.releases += 1  # once it is answered: who goes on may be the last, and then this engine is stopped
        elif call.path in ("/props", "/slots") or call.path.startswith("/slots/"):
            self.journal.note("looked", path=call.path, method=call.method)
            connection.answer(404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}})
        elif self.options["sleeps"] and call.path in SLEEP:
            connection.answer(*self.sleep(call))
        elif call.path == "/v1/models":
            self.journal.note("looked", path=call.path, method=call.method)
            connection.answer(200, {"object": "list", "data": [{"id": self.options["model"], "object": "model"}]})
        else:
            self.work(call, connection)

    def sleep(self, call: Call) -> tuple[int, Json]:
        """Sleep mode as vLLM has it: status and body."""
        if call.path != "/is_sleeping":
            self.journal.note("sleep", path=call.target)
            self.asleep = call.path == "/sleep" or (self.asleep and self.options["no_wake"])
        return 200, {"is_sleeping": self.asleep}

    def health(self, connection: Connection) -> None:
        """The health check, as the flags say."""
        options = self.options
        if options["health_never"]:
            connection.pause(3600)
        elif options["health_redirect"]:
            connection.head(302, "text/plain", "Location: /elsewhere", "Content-Length: 0")
        elif options["health_204"]:
            connection.head(204, "text/plain")
        elif options["health_503_forever"] or not self.healthy:
            loading = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            connection.answer(503, {"error": loading})
        else:
            connection.keep = connection.keep and not options["refuse_connections_after_healthy"]
            self.first_probe()
            connection.answer(200, {"status": "ok"})

    def first_probe(self) -> None:
        """What begins with the first good health check."""
        with self.lock:
            first, self.probed = not self.probed, True
        if not first:
            return
        self.journal.note("probed")
        if self.options["die_after_ready"] >= 0:
            self.later(self.options["die_after_ready"], 1, "die_after_ready")
        if self.options["refuse_connections_after_healthy"]:
            self.listener.shutdown(socket.SHUT_RDWR)

    def control(self, call: Call) -> Json:
        """The routes for the test."""
        path = call.path
        if path == "/recover":
            self.recover()
        if path == "/script":
            self.script = call.members
        if path == "/env":
            return {"env": dict(os.environ), "argv": sys.argv, "pid": os.getpid(), "group": group()}
        return self.requests if path == "/requests" else self.requests[-1] if self.requests else None

    def work(self, call: Call, connection: Connection) -> None:
        """A request that counts: begun, ended, and both written down."""
        with self.lock:
            self.count += 1
            number = self.count
            self.requests.append(call.record())
        self.journal.note("begin", number=number, path=call.path, method=call.method)
        how = "gone"
        try:
            how = self.serve_one(call, connection, number)
        finally:
            self.journal.note("end", number=number, how=how)

    def serve_one(self, call: Call, connection: Connection, number: int) -> str:
        """Answer, or do what the flags say; how it ended."""
        options = self.options
        sound = options["only_first_life"] and self.starts > 1
        if number <= options["drop_before_byte"] and not sound:
            connection.keep = False
            return "dropped"
        crash = number == options["crash_on_request"] and not sound
        if crash and not options["crash_mid_stream"]:
            os.write(2, b"swap_engine: crash\n")
            self.leave(3, "crash")
        if call.header("upgrade").lower() == "websocket":
            echo_frames(connection, call)
            return "closed"
        answer = Answer(
            call,
            connection,
            model=options["model"],
            script=self.script,
            hold=lambda: self.hold(connection),
            middle=lambda: self.leave(3, "crash") if crash else None,
        )
        answer.tool_calls = options["tool_calls"]
        answer.run()
        return "ok"

    def hold(self, connection: Connection) -> None:
        """Wait until the test asks for /release; Gone where the client leaves before that."""
        seen = self.releases
        self.journal.note("held")
        while self.releases == seen:
            connection.look(0.005)


if __name__ == "__main__":
    Engine(options_of(sys.argv[1:])).run()
