"""Which files make a TLS context, and what is said of those that make none."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from bioproxy.errors import ConfigError
from bioproxy.wire.tls import tls_context
from support.http import EC, certificate, needs_openssl

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
