"""Which files make a TLS context, and what is said of those that make none."""

from __future__ import annotations

import logging
import math
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bioproxy import aio, files
from bioproxy.errors import ConfigError
from bioproxy.wire import tls
from bioproxy.wire.tls import PairContext, digest, doubt, tls_context, validity, watch
from support.http import EC, Certificate, certificate, needs_openssl
from support.leaks import until

pytestmark = needs_openssl
DAMAGED = "-----BEGIN {0}-----\nxx\n-----END {0}-----\n"


def said(cert: str, key: str) -> str:
    """Why two files make no context."""
    with pytest.raises(ConfigError) as caught:
        tls_context(cert, key)
    return str(caught.value)


def test_a_context_speaks_tls_1_2_at_least(tmp_path: Path) -> None:
    """Older versions are refused by everybody."""
    made = certificate(tmp_path)
    assert tls_context(made.cert, made.key).minimum_version == ssl.TLSVersion.TLSv1_2


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    """As HAProxy has it."""
    made = certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(Path(made.key).read_text() + Path(made.cert).read_text())
    assert tls_context(str(both), str(both))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Whichever it is."""
    made = certificate(tmp_path)
    assert said("/none.pem", made.key) == "tls_cert_file: /none.pem cannot be read: No such file or directory"
    assert said(made.cert, "/none.key") == "tls_key_file: /none.key cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["cert", "key"])
def test_a_file_that_goes_while_it_is_read_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever renews a pair may take a file away between our look at it and OpenSSL's."""
    made = certificate(tmp_path)
    path, read = getattr(made, name), files.read
    seen: list[str] = []

    def read_and_lose(which: str, *, most: int) -> bytes:
        data = read(which, most=most)
        seen.append(which)
        if seen.count(path) > 1 and which == path:  # the first time it is only compared
            Path(path).unlink()
        return data

    monkeypatch.setattr(files, "read", read_and_lose)
    assert said(made.cert, made.key) == f"tls_{name}_file: {path} was taken away while it was read"


def test_files_that_were_taken_for_each_other(tmp_path: Path) -> None:
    """The sentence says what is missing in which."""
    made = certificate(tmp_path)
    assert said(made.key, made.key) == f"tls_cert_file: {made.key} holds no certificate in PEM form"
    assert said(made.cert, made.cert) == f"tls_key_file: {made.cert} holds no private key in PEM form"


@pytest.mark.parametrize("kind", [EC, ("-newkey", "rsa:2048")], ids=["same kind", "another kind"])
def test_a_key_of_another_certificate(kind: tuple[str, ...], tmp_path: Path) -> None:
    """After half a renewal."""
    one, other = certificate(tmp_path), certificate(tmp_path, "other", kind=kind)
    expected = f"tls_key_file: {other.key} does not belong to the certificate in {one.cert}"
    assert said(one.cert, other.key) == expected


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """OpenSSL does not tell which."""
    made = certificate(tmp_path)
    cert, key = tmp_path / "damaged.pem", tmp_path / "damaged.key"
    cert.write_text(DAMAGED.format("CERTIFICATE"))
    key.write_text(DAMAGED.format("PRIVATE KEY"))
    assert said(str(cert), made.key).startswith(f"tls_cert_file: {cert} is damaged")
    assert said(made.cert, str(key)).startswith(f"tls_key_file: {key} is damaged")


def test_a_pass_phrase_is_not_asked_for(tmp_path: Path) -> None:
    """A service has no terminal to ask on."""
    made = certificate(tmp_path, pass_phrase="secret")
    assert "has a pass phrase" in said(made.cert, made.key)


def test_a_key_that_is_too_short_is_named(tmp_path: Path) -> None:
    """It is neither damaged, nor has it a pass phrase."""
    made = certificate(tmp_path, kind=("-newkey", "rsa:512"))
    assert "tls.pem is too weak for clients of today (ee key too small); make another one" in said(made.cert, made.key)


def test_when_a_certificate_is_valid(tmp_path: Path) -> None:
    """It is read as OpenSSL prints it; what cannot be read is doubted by nobody."""
    made = certificate(tmp_path)
    shown = subprocess.run(
        ["openssl", "x509", "-in", made.cert, "-noout", "-dates"], check=True, capture_output=True, text=True
    ).stdout
    begins, ends = (ssl.cert_time_to_seconds(line.partition("=")[2]) for line in shown.splitlines())
    context = tls_context(made.cert, made.key)
    assert (context.begins, context.ends) == (begins, ends)
    soon = ends - (ends - begins) / 4
    assert [doubt(context, now) for now in (begins, soon - 1)] == ["", ""]
    assert re.search(r"tls\.pem expires on 20\S+ \S+ UTC, and nobody has renewed it$", doubt(context, soon))
    assert "tls.pem is not valid before 20" in doubt(context, begins - 1)
    assert "tls.pem has expired on 20" in doubt(context, ends)
    context.begins = ends - 90 * 86400  # as those of Let's Encrypt, which certbot renews 30 days before their end
    assert [bool(doubt(context, ends - days * 86400)) for days in (30, 8, 7)] == [False, False, True]
    assert validity(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----") == (0.0, math.inf)
    assert validity(b"no certificate") == (0.0, math.inf)


async def test_a_certificate_that_expires_while_it_is_used_is_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it is time to renew it, and when it is over. Nobody else tells who runs the program: clients only refuse."""
    made, looks = certificate(tmp_path), tls_looks(monkeypatch)
    context = tls_context(made.cert, made.key)
    monkeypatch.setattr(tls, "INTERVAL", 0.001)

    async def take(_old: PairContext, _new: PairContext) -> None:
        """There is nothing to take."""

    with caplog.at_level(logging.WARNING, "bioproxy.wire.tls"):
        now = context.ends - 1
        task = aio.spawn(watch(lambda: context, take, clock=lambda: now), name="watch")
        await until(lambda: len(looks) > 5)
        now = context.ends
        await until(lambda: len(caplog.messages) > 1)
        looks.clear()
        await until(lambda: len(looks) > 5)
        await aio.finish([task])
    soon, late = caplog.messages
    assert "tls.pem expires on" in soon
    assert "tls.pem has expired on" in late


class Watched:
    """Two files that are renewed while they are watched; `context` is the one in use."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two = certificate(folder, "one"), certificate(folder, "two")
        self.files = Certificate(str(folder / "tls.pem"), str(folder / "tls.key"))
        self.put(self.one)
        self.context = tls_context(self.files.cert, self.files.key)

    def put(self, made: Certificate, *, key: bool = True) -> None:
        """Write a pair, or only its certificate."""
        shutil.copy(made.cert, self.files.cert)
        if key:
            shutil.copy(made.key, self.files.key)

    async def take(self, old: PairContext, new: PairContext) -> None:
        """A renewed pair is in use."""
        assert old is self.context
        self.context = new

    def uses(self, made: Certificate) -> bool:
        """Whether the context in use has the content of this pair."""
        return self.context.digest == digest(made.cert, made.key)


@asynccontextmanager
async def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """Files that are looked at all the time."""
    monkeypatch.setattr(tls, "INTERVAL", 0.001)
    found = Watched(folder)
    task = aio.spawn(watch(lambda: found.context, found.take), name="watch")
    try:
        yield found
    finally:
        await aio.finish([task])


async def test_a_renewed_pair_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reload."""
    async with watched(tmp_path, monkeypatch) as pair:
        pair.put(pair.two)
        await until(lambda: pair.uses(pair.two))


async def test_a_link_that_leads_to_another_pair_is_a_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As certbot and NixOS turn it."""
    async with watched(tmp_path, monkeypatch) as pair:
        for file, target in ((pair.files.cert, pair.two.cert), (pair.files.key, pair.two.key)):
            Path(f"{file}.new").symlink_to(target)
            Path(f"{file}.new").replace(file)
        await until(lambda: pair.uses(pair.two))


@pytest.mark.parametrize("fault", ["the key is that of before", "half a certificate", "the key is gone"])
async def test_half_a_renewal_keeps_the_old_pair(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once which file it is, and the whole pair is taken when it is there."""
    async with watched(tmp_path, monkeypatch) as pair:
        with caplog.at_level(logging.WARNING, "bioproxy.wire.tls"):
            match fault:
                case "the key is that of before":
                    pair.put(pair.two, key=False)
                case "half a certificate":
                    Path(pair.files.cert).write_bytes(Path(pair.two.cert).read_bytes()[:300])
                case _:
                    Path(pair.files.key).unlink()
            await until(lambda: bool(caplog.messages))
            looks = tls_looks(monkeypatch)
            await until(lambda: len(looks) > 5)
        (said,) = caplog.messages
        assert said.endswith("; the old pair stays in use until the two files hold another one")
        assert str(tmp_path / "tls.") in said
        assert pair.uses(pair.one)
        assert pair.context.fault == said
        pair.put(pair.two)
        await until(lambda: pair.uses(pair.two))
        assert pair.context.fault == ""


def tls_looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What each look at the files finds from now on."""
    found: list[bytes] = []

    def look(*paths: str) -> bytes:
        found.append(digest(*paths))
        return found[-1]

    monkeypatch.setattr(tls, "digest", look)
    return found
