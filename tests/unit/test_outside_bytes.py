"""What reading bytes from outside costs: it grows with their length and no faster.

While one request is read no other is served, so a second that a reader needs for one body is a second of everybody's.
`READERS` lists what reads bytes that clients, engines or somebody's repository chose, each with what it is worst at; an
expression of `re` in the packages that read such bytes must be one that a reader of the list uses.
"""

from __future__ import annotations

import ast
import gzip
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import bioproxy
from bioproxy.admin import activity_api
from bioproxy.config.dialect.go import compile_pattern
from bioproxy.config.dialect.schema import IGNORED_PATHS, Filters
from bioproxy.config.schema import Limits
from bioproxy.engines import answers, llama
from bioproxy.errors import BioproxyError, EngineProtocolError
from bioproxy.front import dialects, inference, inflight, prefix, responses, traceparent, upstream_path, ways
from bioproxy.front.body import filters, model, multipart
from bioproxy.front.caching import answers as bills
from bioproxy.kv import ledger
from bioproxy.recipes import preset
from bioproxy.templates import bodies, dialect_heads, expand, gitignore, parse, patterns
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.parse import Filled
from bioproxy.wire import coding, sse
from bioproxy.wire.http1 import heads, judge, target
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.reader import RequestReader
from support.steps import counted

MODULES: list[ModuleType] = [
    activity_api, answers, bills, dialect_heads, dialects, gitignore, inference, inflight, judge, model, multipart,
    parse, prefix, preset, responses, sse, target, traceparent,
]  # fmt: skip
Reader = Callable[[bytes], object]
Worst = tuple[Callable[[int], bytes], ...]


def of(unit: bytes, *, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    """Bytes of about the wanted length: a unit again and again, between two ends."""
    return lambda size: before + unit * (size // len(unit)) + after


def request(body: bytes, kind: bytes = b"application/json", target_: bytes = b"/x") -> Request:
    headers = [(b"Content-Type", kind)]
    return Request("POST", target_, path="/x", headers=headers, fields={b"content-type": kind}, body=body)


class Templates:
    """A catalogue of one template, without pins."""

    def match(self, text: str) -> tuple[str, str] | None:
        return ("@t", text[2:]) if text.startswith("@t") else None

    def current(self, prefix: str) -> Filled:
        return Filled(prefix, "v", ("a ", " b"))

    def get(self, key: bytes) -> Filled | None:
        return None


def expanded(dialect: Dialect) -> Reader:
    both = Templates()
    return lambda body: expand.expand(
        Body(body), dialect=dialect, catalogue=both, pins=both, scope=b"", drop=frozenset({"id_slot"})
    )


def head(data: bytes) -> object:
    """One request's head through the reader, cut into pieces."""
    reader = RequestReader(Limits())
    for at in range(0, len(data), 97):
        if (found := reader.feed(data[at : at + 97], 0.0)) is not None:
            return found
    return None


def url(path: bytes) -> object:
    return target.read_target(path, b"GET")


def rules(data: bytes) -> object:
    found = gitignore.rules_of(data)
    return gitignore.ignored(((0, found),), "a" * 200, folder=False)


SWAPPED = filters.compile_filters(
    Filters(strip_params="id_slot, a.b", set_params={"x.y": 1, "messages.-1": 2}), use_model_name="m"
)
MESSAGES = (
    of(b"{},", before=b'{"messages":[', after=b"{}]}"),
    of(b'{"role":"user","content":"@t x"},', before=b'{"messages":[', after=b"{}]}"),
    of(b'{"role":"user","content":"x","n":1},', before=b'{"messages":[', after=b"{}]}"),
    of(b'{"type":"text","text":"x"},', before=b'{"messages":[{"role":"user","content":[', after=b"{}]}]}"),
    of(b'{"type":"text","text":"x"},', before=b'{"messages":[{"role":"system","content":[', after=b"{}]}]}"),
    of(b'{"cache_control":[]},', before=b'{"messages":[],"tools":[', after=b"{}]}"),
    of(b"[],", before=b'{"messages":[],"tools":["cache_control",', after=b"[]]}"),
    of(b'"a":1,', before=b'{"messages":[{"role":"user",', after=b'"b":2}]}'),
)
NO_JSON = (
    of(b'"a" ', before=b"{"),
    of(b"[]"),
    of(b"[],", before=b'{"x":[', after=b"NaN]}"),
    of(b"["),
    of(b'{"a":'),
    of(b"\\", before=b'{"'),
    of(b'"\\u006d', before=b"{"),
    of(b'"model":', before=b"{"),
    of(b"  ", before=b'{"model"', after=b"x"),
    of(b'{"id_slot'),
    of(b'"id_slo', before=b'{"a": NaN'),
)
FORMS = (of(b"a&"), of(b"%6d"), of(b"a=%41&"), of(b"%41", before=b"model="), of(b"="), of(b"model"))
PARTS = (
    of(b';a="\\', before=b"--b\r\nContent-Disposition: form-data", after=b"\r\n\r\nx\r\n--b--"),
    of(b'--b\r\nContent-Disposition: form-data;a="\\;a="\\\r\n\r\nx\r\n'),
    of(b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n"),
    of(b"\n--b "),
    of(b"\r\n", before=b"--b"),
    of(b"\r\n ", before=b"--b\r\nContent-Disposition:", after=b"\r\n\r\nx\r\n--b--"),
    of(b"Content-Disposition:", before=b"--b\r\n", after=b"\r\n\r\nx\r\n--b--"),
    of(b"; ", before=b"--b\r\nContent-Disposition:", after=b"\r\n\r\nx\r\n--b--"),
    of(b"a ", before=b"--b\r\nContent-Disposition:;", after=b"\r\n\r\nx\r\n--b--"),
)
HEADS = (
    of(b"a:\r\n", before=b"GET / HTTP/1.1\r\nHost: a\r\n", after=b"\r\n"),
    of(b"a,", before=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: ", after=b"\r\n\r\n"),
    of(b"a ", before=b"GET /"),
    of(b"1.", before=b"GET / A/", after=b"\r\n\r\n"),
    of(b"a", before=b"GET / HTTP/1.1\r\nHost: ", after=b"\r\n\r\n"),
    of(b"\n"),
)
PATHS = (of(b"/a"), of(b"%41"), of(b".j"), of(b"a", before=b"http://"), of(b":1", before=b"http://"), of(b"/..x"))
IGNORES = (
    of(b"*a", after=b"\n"), of(b"[", after=b"\n"), of(b"[[:", after=b"]\n"), of(b" ", before=b"a", after=b"b\n"),
    of(b"\\ ", after=b"\n"), of(b"a\n"), of(b"**/", after=b"b\n"), of(b"[a-z]", after=b"\n"),
    of(b"[[:alpha:]", after=b"]\n"), of(b"*" * 9 + b"a", after=b"\n"),
)  # fmt: skip
TEMPLATE = (of(b"<{"), of(b"<{ "), of(b"<{message}>"), of(b"<{a\n"))
STREAM = (of(b"\n"), of(b"\r"), of(b":\n\n"), of(b"data: \n\n"), of(b"data:\n"))

READERS: Mapping[str, tuple[Reader, Worst]] = {
    "a JSON body's model": (lambda body: model.read(request(body)), NO_JSON),
    "a body without a type": (lambda body: model.read(request(body, b"text/plain")), FORMS),
    "a form's model": (lambda body: model.read(request(body, b"application/x-www-form-urlencoded")), FORMS),
    "a form's model, renamed": (lambda body: model.with_field(body, "model", "n"), FORMS),
    "a query's model": (lambda query: model.from_query(request(b"", target_=b"/x?" + query)), FORMS),
    "a form of parts": (lambda body: model.read(request(body, b"multipart/form-data; boundary=b")), PARTS),
    "a form of parts, renamed": (lambda body: multipart.with_value(body, b"b", "model", "n"), PARTS),
    "a content type": (lambda kind: multipart.boundary_of(kind.decode("latin-1")), PARTS),
    "a chat": (expanded("chat"), (*MESSAGES, *NO_JSON)),
    "a chat of Anthropic's": (expanded("anthropic"), MESSAGES),
    "a chat of Responses": (
        lambda body: expanded("responses")(body.replace(b'"messages"', b'"input"')),
        MESSAGES,
    ),
    "a completion": (
        expanded("completion"),
        (of(b"1,", before=b'{"prompt":[', after=b"1]}"), of(b'"@t x",', before=b'{"prompt":[', after=b'""]}')),
    ),
    "a system prompt": (
        lambda text: dialect_heads.BILLING.sub("", text.decode()),
        (of(b"cch=", before=b"x-anthropic-billing-header:"), of(b"x-anthropic-billing-header:")),
    ),
    "a body without its slot": (lambda body: ways.without_slot(body, known=True), NO_JSON),
    "a body with filters": (lambda body: filters.apply(Body(body), SWAPPED, requested="m"), MESSAGES),
    "a body with a prefix": (lambda body: filters.add_prefix(Body(body), "@t", "chat"), MESSAGES),
    "a compressed body": (
        lambda body: list(coding.plain(body, ["gzip"], limit=1 << 20)),
        (of(gzip.compress(b"", mtime=0)), of(gzip.compress(b"\0" * 900, mtime=0)), of(b"\x1f\x8b")),
    ),
    "a key that can't be read": (lambda body: bodies.mentions(body, "id_slot"), NO_JSON),
    "a request's head": (head, HEADS),
    "a request line": (judge.is_http_10, (of(b"a "), of(b"1.", before=b"GET / A/"), of(b"a"))),
    "a method": (judge.unknown_method, (of(b"A"), of(b"A-"))),
    "a target": (url, PATHS),
    "a proxy's prefix": (
        lambda said: prefix.forwarded_prefix(
            Request("GET", b"/", path="/", headers=[], fields={b"x-forwarded-prefix": said})
        ),
        (of(b"/a"), of(b"/"), of(b"a", before=b"/"), of(b"/a", after=b"!")),
    ),
    "headers that travel on": (
        lambda names: heads.end_to_end([(b"Connection", names), *((name, b"") for name in names.split(b","))]),
        (of(b"a,"),),
    ),
    "an ignored path": (
        lambda path: upstream_path.Ignored([*IGNORED_PATHS, "(a+)+$", "(x+x+)+y"]).reason(path.decode()),
        (of(b".j"), of(b"a", after=b"!"), of(b"x")),
    ),
    "an expression of the config": (lambda text: compile_pattern(text.decode()), (of(b"(a*)*"), of(b"(", after=b")"))),
    "a .gitignore": (rules, IGNORES),
    "a name in a pattern": (
        lambda name: patterns.expression(name.decode())(b"a" * 250),
        (of(b"*a", after=b"b"), of(b"*"), of(b"?*")),
    ),
    "a template": (lambda text: parse.parse(text.decode()), TEMPLATE),
    "the end of a stream": (sse.last_event, STREAM),
    "what a stream ended with": (
        lambda tail: answers.ending(tail + b"\n\n", tail),
        (*STREAM, of(b'"type":"a",'), of(b" ", before=b'"type":"a"', after=b"x"), of(b'"type":"a","a":1 }')),
    ),
    "where the events of a stream end": (
        lambda data: [found.end() for found in bills.EVENT_END.finditer(data)],
        (of(b"a"), of(b"\n\n"), of(b"\r\n"), of(b"\r"), of(b"data: {}\r\n\r\n")),
    ),
    "an event of Responses": (
        lambda data: [one.search(data) for one in vars(responses).values() if isinstance(one, re.Pattern)],
        (
            of(b'"item_id":"a'), of(b'"call_id": '), of(b" ", before=b'"item_id":'), of(b" ", before=b'"part":'),
            of(b"a", before=b'"id":"'), of(b"1", before=b'"sequence_number":'),
        ),
    ),
    "a number in a query": (lambda text: activity_api.integer(text.decode()), (of(b"1"), of(b"+"))),
    "a time in a query": (
        lambda text: activity_api.RFC3339.fullmatch(text.decode()),
        (of(b"1", before=b"2026-01-01T00:00:00."),),
    ),
    "an id of a request": (lambda text: inflight.PLAIN.fullmatch(text.decode()), (of(b"a"),)),
    "a trace": (
        lambda value: traceparent.settle(Request("POST", b"/x", "/x", [(b"traceparent", value)], {})),
        (of(b"-01", before=b"01-" + b"a" * 32 + b"-" + b"b" * 16), of(b"0"), of(b"a", before=b"ff-")),
    ),
    "a preset": (
        lambda text: preset.parse(text.decode(), "p"),
        (of(b" ", before=b"[a", after=b"b\n"), of(b" ", before=b"a=", after=b"b\n"), of(b"a=1\n"), of(b"\t")),
    ),
}  # fmt: skip
CASES = [
    pytest.param(reader, worst, id=f"{name} {number}")
    for name, (reader, all_of_them) in READERS.items()
    for number, worst in enumerate(all_of_them, start=1)
]
SIZE = 120  # bytes to begin with


def steps(read: Reader, data: bytes) -> int:
    """What reading costs."""
    with counted(MODULES) as counter, suppress(BioproxyError, ValueError):  # refused: a good answer, too
        read(data)
    return counter.total


@pytest.mark.parametrize(("read", "worst"), CASES)
def test_twice_the_bytes_cost_twice_the_steps(read: Reader, worst: Callable[[int], bytes]) -> None:
    """Neither a loop in Python nor a search goes back to where it was."""
    read_once = worst(SIZE)
    steps(read, read_once)  # what is remembered for the next time is not what is measured
    small, middle, large = (steps(read, worst(SIZE * times)) for times in (1, 2, 4))
    assert large - middle <= 2.5 * (middle - small) + 300


def test_every_expression_over_bytes_from_outside_has_its_reader() -> None:
    """In the packages that read them; so a new one is missed here."""
    root = Path(bioproxy.__file__).parent
    found = {
        f"{path.stem}.{name}"
        for package in ("front", "templates", "wire", "admin")
        for path in (root / package).rglob("*.py")
        for name in expressions(path)
    }
    known = {f"{module.__name__.rpartition('.')[2]}.{name}" for module in MODULES for name in expressions_of(module)}
    assert found - known == {
        "catalogue.re.compile",  # the operator's own prefixes, one after the other, at the beginning of a message
        "catalogue.re.escape",
        "gpus.CARD",  # the kernel's words
        "hardware.re.search",
        "hardware.re.split",
        "tls.FIRST",  # the operator's own certificate
    }


def test_json_that_is_nested_too_deeply_is_what_any_other_broken_json_is() -> None:
    """Msgspec raises another error for it, and nobody names the others without that one."""
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(EngineProtocolError, match="the engine's answer to /x is not what llama-server sends"):
        llama.decode("/x", deep, dict[str, int])
    assert ledger.read_ledger(deep) == ledger.Ledger()
    root = Path(bioproxy.__file__).parent
    named = {path.name for path in root.rglob("*.py") if "msgspec.DecodeError" in path.read_text()}
    assert named == {"errors.py", "dialect_heads.py"}, "the head is read of a body whose depth was judged before"


def expressions_of(module: ModuleType) -> set[str]:
    return {name for name, value in vars(module).items() if isinstance(value, re.Pattern)}


def expressions(path: Path) -> set[str]:
    """Names of a module's expressions, and calls of `re` inside of functions."""
    tree = ast.parse(path.read_text())
    named = {id(node.value): node.targets[0] for node in tree.body if isinstance(node, ast.Assign)}
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
    ]
    return {ast.unparse(named[id(call)]) if id(call) in named else ast.unparse(call.func) for call in calls}
