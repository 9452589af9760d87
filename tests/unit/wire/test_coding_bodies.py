"""Request bodies that come compressed: all of what they are in plain, or an error, and never more than the limit."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.errors import RequestError
from bioproxy.wire import coding
from bioproxy.wire.coding import BLOCK, MOST_MEMBERS, codings_of, plain

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 1 << 20
TEXT = b'{"messages": [{"role": "user", "content": "' + bytes(range(32, 127)).replace(b'"', b"") * 3000 + b'"}]}'


def bare(data: bytes) -> bytes:
    """A deflate stream without zlib's two bytes before it, as some senders have it."""
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


def streamed(data: bytes) -> bytes:
    """A frame of zstd that does not say how long it is and ends with a checksum, as Codex sends it."""
    squeeze = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    return bytes(squeeze.compress(data) + squeeze.flush())


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "streamed zstd": ("zstd", streamed),
}
ALL = pytest.mark.parametrize(("name", "pack"), PACKERS.values(), ids=PACKERS)


def whole(body: bytes, *names: str, limit: int = LIMIT) -> bytes:
    return b"".join(plain(body, names, limit=limit))


@ALL
@pytest.mark.parametrize("text", [b"x", TEXT, bytes(3 * BLOCK)], ids=["a byte", "a chat", "whole blocks"])
def test_a_body_comes_out_as_it_was(text: bytes, name: str, pack: Callable[[bytes], bytes]) -> None:
    """To the last byte, when the limit is just enough."""
    assert whole(pack(text), name, limit=len(text)) == text


def test_codings_are_taken_off_in_the_order_in_which_they_were_put_on() -> None:
    """The last one first."""
    packed = brotli.compress(gzip.compress(zstd.compress(zlib.compress(TEXT))))
    assert whole(packed, "deflate", "zstd", "gzip", "br") == TEXT


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"gzip"], ["gzip"]),
        ([b"identity"], []),
        ([b""], []),
        ([b"X-GZip , Identity,, br"], ["gzip", "br"]),
        ([b"deflate", b"zstd"], ["deflate", "zstd"]),
    ],
)
def test_headers_name_the_codings(values: list[bytes], found: list[str]) -> None:
    """One line or several, in any case."""
    assert codings_of(values) == found


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([b"compress"], "its coding 'compress'"),
        ([b"gzip;q=1"], "its coding 'gzip;q=1'"),
        ([b"gzip, aes128gcm"], "its coding 'aes128gcm'"),
        ([b"\xff"], "its coding"),
        ([b"gzip," * 5], "more than 4 codings"),
    ],
)
def test_what_we_do_not_know_is_415(values: list[bytes], sentence: str) -> None:
    """It says what we do know."""
    with pytest.raises(RequestError, match=sentence) as caught:
        codings_of(values)
    assert caught.value.status == 415
    assert "gzip, deflate, br, zstd" in caught.value.message


@ALL
def test_a_body_that_is_cut_is_refused(name: str, pack: Callable[[bytes], bytes]) -> None:
    """Wherever that is: an engine would take what there is for the whole."""
    packed = pack(TEXT[:300])
    for end in range(1, len(packed)):
        with pytest.raises(RequestError, match=f"the body is not whole {name}") as caught:
            whole(packed[:end], name)
        assert caught.value.status == 400


@ALL
@pytest.mark.parametrize("more", [b"\0", b"x" * 30, b"{}" * BLOCK])
def test_a_body_that_goes_on_after_its_end_is_refused(more: bytes, name: str, pack: Callable[[bytes], bytes]) -> None:
    """Two readers could take it for two different bodies."""
    with pytest.raises(RequestError, match=f"the body is not whole {name}"):
        whole(pack(TEXT) + more, name)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_and_frames_follow_one_another(name: str) -> None:
    """Both formats allow that; there may be many, but not millions of empty ones."""
    pack = PACKERS[name][1]
    assert whole(pack(b"one ") + pack(b"") + pack(b"two"), name) == b"one two"
    with pytest.raises(RequestError, match="something follows its end"):
        whole(pack(b"") * (MOST_MEMBERS + 1), name)


def test_zstd_may_have_frames_that_say_nothing() -> None:
    """They are skipped, as RFC 8878 has it."""
    assert whole(b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(b"x"), "zstd") == b"x"


def test_zstd_may_not_ask_for_more_memory_than_http_allows() -> None:
    """A frame says how far it looks back; beyond 8 MiB it is refused (RFC 9659)."""
    far = zstd.compress(bytes(40 << 20), options={zstd.CompressionParameter.window_log: 24})
    with pytest.raises(RequestError, match="too much memory"):
        whole(far, "zstd", limit=1 << 30)


@ALL
@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_refused_before_it_is_there(layers: int, name: str, pack: Callable[[bytes], bytes]) -> None:
    """Not a block more than the limit is ever made, in no layer."""
    packed = pack(bytes(4 << 20))
    if layers == 2:
        packed = gzip.compress(packed + gzip.compress(b""))
    made: list[int] = []
    with pytest.raises(RequestError, match="longer than 1048576 bytes") as caught:
        made.extend(map(len, plain(packed, [name, "gzip"][:layers], limit=LIMIT)))
    assert caught.value.status == 413
    assert sum(made) <= LIMIT
    assert max(made, default=0) <= 2 * BLOCK


def test_a_layer_under_another_is_bounded_too() -> None:
    """It may become nothing in the end: empty blocks, a gigabyte of them."""
    hollow = b"\0\0\0\xff\xff" * LIMIT  # stored blocks of deflate without a byte
    with pytest.raises(RequestError) as caught:
        whole(gzip.compress(hollow), "deflate", "gzip")
    assert caught.value.status == 413


@given(st.sampled_from(coding.CODINGS), st.binary(max_size=200))
def test_noise_is_refused_or_read(name: str, body: bytes) -> None:
    """With a sentence, whatever it is."""
    with suppress(RequestError):
        whole(body, name)
