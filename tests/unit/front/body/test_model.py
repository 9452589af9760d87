"""Which model a request asks for."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec
import pytest

from bioproxy.front.body import model
from bioproxy.front.body.model import Asked, renamed, rewrite_multipart
from bioproxy.templates.bodies import LONGEST_READ
from bioproxy.wire.http1.message import Request

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def request(body: bytes = b"", kind: str = JSON, *, method: str = "POST", target: bytes = b"/v1/x") -> Request:
    fields = {b"content-type": kind.encode("latin-1")} if kind else {}
    path = target.partition(b"?")[0].decode()
    return Request(method, target, path=path, headers=list(fields.items()), fields=fields, body=body)


def read(one: Request) -> Asked:
    """What it asks for; whether its body was opened well is another question."""
    return msgspec.structs.replace(model.read(one), body=None)


def multipart(*parts: bytes, boundary: bytes = b"b0undary", end: bytes = b"\r\n") -> bytes:
    """A form of parts, each with its head."""
    whole = b"".join(b"--" + boundary + end + part + end for part in parts)
    return whole + b"--" + boundary + b"--" + end


def field(name: bytes, value: bytes, further: bytes = b"") -> bytes:
    return b"Content-Disposition: form-data; name=" + name + further + b"\r\n\r\n" + value


MULTIPART = 'multipart/form-data; boundary="b0undary"'
FILE = field(b'"file"', b"RIFF\r\n\x00\xff--b0undar", b'; filename="a.wav"\r\nContent-Type: audio/wav')


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"gemma","stream":true}', "gemma", True),
        (b'{"stream":"true","model":"gemma"}', "gemma", False),
        (b'\xef\xbb\xbf{"model":"gemma"}', "gemma", False),
        (b'{"model":42}', "42", False),
        (b'{"model":4.50}', "4.50", False),
        (b'{"model":null}', "", False),
        (b'{"model":["gemma"]}', "", False),
        (b'{"messages":[{"model":"inner"}]}', "", False),
        (b'{"model":"a","model":"b"}', "b", False),
        (rb'{"mod\u0065l":"gem\u006da"}', "gemma", False),
        ('{"model":"gemma-ü"}'.encode(), "gemma-ü", False),
        (b"", "", False),
        (b"[1]", "", False),
    ],
)
def test_json_names_its_model_at_the_top(body: bytes, model: str, stream: bool) -> None:
    """A number is read as text; of equal keys the last counts, as in the engine."""
    assert read(request(body)) == Asked(model, stream, "json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gemma","messages":[',
        b'{"model":"gemma",}',
        b'{"temperature":NaN,"model":"gemma"}',
        b'{"messages":[{"model":"inner"},],"model":"gemma"}',
        b'{"model":"gemma"} trailing',
        b'{"x":"\xff","model":"gemma"}',
        b'{"x":"\\ud800","model":"gemma"}',
        b'{"text":"a \\" b","model" : "gemma","unclosed":"',
        b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b',"model":"gemma"}',
    ],
)
def test_malformed_json_with_a_readable_model_is_readable(body: bytes) -> None:
    """What is wrong with it the engine will say better."""
    assert read(request(body)).model == "gemma"


def test_a_stream_is_recognised_in_malformed_json() -> None:
    """Its client reads errors as events."""
    assert read(request(b'{"model":"gemma","stream": true,"x":NaN')).stream


def test_a_large_body_that_is_no_json_names_nothing() -> None:
    """It is not searched word by word while others wait; its query may still name the model."""
    body = b'{"model":"gemma","x":NaN,"y":"%b"}' % (b"y" * LONGEST_READ)
    assert read(request(body)) == Asked(kind="json", unreadable=True)
    assert read(request(body, target=b"/x?model=m")) == Asked(model="m", kind="json", unreadable=True)
    assert read(request(body[: LONGEST_READ - 2] + b'"}')).model == "gemma"


@pytest.mark.parametrize("kind", ["", "text/plain", FORM, "application/octet-stream"])
def test_json_without_its_content_type_is_json(kind: str) -> None:
    """Clients forget it; the engine has to be told."""
    asked = read(request(b' {"model":"gemma","stream":true}\n', kind))
    assert asked == Asked("gemma", True, "json", untyped=True)


def test_jsons_query_counts_where_its_body_names_no_model() -> None:
    """And only there."""
    assert read(request(b'{"content":"a"}', target=b"/tokenize?model=org%2Fgemma")).model == "org/gemma"
    assert read(request(b'{"model":"a"}', target=b"/tokenize?model=b")).model == "a"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_a_body_is_read_by_its_query(method: str) -> None:
    """Its streaming, too."""
    asked = read(request(kind="", method=method, target=b"/props?x=1&model=org%2Fgemma+2&stream=true"))
    assert asked == Asked("org/gemma 2", stream=True, kind="query")
    assert read(request(kind="", method=method)) == Asked()


def test_a_form_is_read_before_its_query() -> None:
    """The query counts where the form names no model."""
    assert read(request(b"x=1&model=gem%6Da&stream=true", FORM)) == Asked("gemma", True, "urlencoded")
    assert read(request(b"model=a", FORM, target=b"/x?model=b")).model == "a"
    assert read(request(b"x=a", FORM, target=b"/x?model=b")) == Asked("b", False, "query")


@pytest.mark.parametrize("name", [b'"model"', b"model"])
@pytest.mark.parametrize("kind", [MULTIPART, "multipart/form-data;charset=x; Boundary=b0undary"])
def test_a_multipart_form_names_its_model_anywhere(name: bytes, kind: str) -> None:
    """With and without quotes, behind a file."""
    body = multipart(FILE, field(name, b"whisper"), field(b"stream", b"true"))
    assert read(request(body, kind)) == Asked("whisper", True, "multipart")


def test_a_multipart_forms_query_goes_first() -> None:
    """As Go's FormValue has it."""
    assert read(request(multipart(field(b"model", b"a")), MULTIPART, target=b"/x?model=b")).model == "b"


def test_lines_may_end_with_a_bare_line_feed() -> None:
    """Some scripts write their forms by hand."""
    body = multipart(b'Content-Disposition: form-data; name="model"\n\nwhisper', end=b"\n")
    assert read(request(b"preamble\n" + body, MULTIPART)).model == "whisper"


@pytest.mark.parametrize(
    "body",
    [
        multipart(field(b'"model"', b"a", b'; filename="model.gguf"')),
        multipart(field(b'"notmodel"', b"a")),
        multipart(b"\r\n" + field(b'"model"', b"a")),
        multipart(field(b'"model"', b"a"), boundary=b"another"),
        multipart(field(b'"model"', b"a")).removesuffix(b"--b0undary--\r\n"),
        b"x--b0undary\r\n" + field(b"model", b"a") + b"\r\n--b0undary--",
        b"",
    ],
)
def test_what_is_no_field_of_that_name(body: bytes) -> None:
    """A file, another name, text that only looks like a head, another boundary, a part that does not end."""
    assert read(request(body, MULTIPART)).model == ""


def test_a_form_without_a_boundary_names_nothing() -> None:
    """Nobody could read it."""
    assert read(request(multipart(field(b"model", b"a")), "multipart/form-data")) == Asked()
    assert rewrite_multipart(b"abc", "multipart/form-data", "model", "x") == b"abc"


def test_only_the_fields_value_is_rewritten() -> None:
    """Order, heads, the files' bytes and a value that ends like a delimiter stay."""
    head = b'content-disposition:form-data;\r\n name="model"\r\nX-Own: 1\r\n\r\n'
    body = b"preamble\r\n" + multipart(FILE, head + b"alias", field(b"model2", b"alias"), FILE)
    assert rewrite_multipart(body, MULTIPART, "model", "ünï") == body.replace(head + b"alias", head + "ünï".encode())


def test_an_empty_value_can_be_rewritten() -> None:
    """And a field that is not there leaves the same object."""
    body = multipart(field(b"model", b""), FILE)
    assert rewrite_multipart(body, MULTIPART, "model", "x") == multipart(field(b"model", b"x"), FILE)
    assert rewrite_multipart(body, MULTIPART, "other", "x") is body


@pytest.mark.parametrize(
    ("kind", "body", "target", "renamed_to"),
    [
        ("", b"", b"/x?a=%41&model=old&model=older&b", (b"/x?a=%41&model=new%2Fx&model=new%2Fx&b", b"")),
        ("", b"", b"/x?a=1", (b"/x?a=1", b"")),
        (FORM, b"a=%41&&m%6fdel=old", b"/x", (b"/x", b"a=%41&&model=new%2Fx")),
        (FORM, b"", b"/x?model=old", (b"/x?model=new%2Fx", b"")),
    ],
)
def test_a_model_is_renamed_where_it_stands(
    kind: str, body: bytes, target: bytes, renamed_to: tuple[bytes, bytes]
) -> None:
    """Everything else of query and form stays byte for byte."""
    asking = request(body, kind, target=target)
    assert renamed(asking, read(asking), "new/x") == renamed_to


def test_a_multipart_form_is_renamed_in_query_and_body() -> None:
    """The engine may look at the one that we did not read."""
    asking = request(multipart(field(b"model", b"old")), MULTIPART, target=b"/x?model=old")
    assert renamed(asking, read(asking), "new") == (b"/x?model=new", multipart(field(b"model", b"new")))


def test_a_form_survives_any_value() -> None:
    """What is written can be read again."""
    value = 'a&b=c+d %20 "é"'
    asking = request(urlencode({"model": "x", "k": value}).encode(), FORM)
    body = renamed(asking, read(asking), value)[1]
    assert read(request(body, FORM)).model == value
