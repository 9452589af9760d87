"""Certificates for tests, made on the spot with the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl command is missing; it makes the certificate"
)
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Certificate(msgspec.Struct, frozen=True):
    """Two PEM files: a certificate for localhost and 127.0.0.1 that signed itself, and its key."""

    cert: str
    key: str


def certificate(folder: Path, name: str = "tls", *, pass_phrase: str = "", kind: tuple[str, ...] = EC) -> Certificate:
    """Make one in `folder`."""
    made = Certificate(f"{folder}/{name}.pem", f"{folder}/{name}.key")
    secret = ("-passout", f"pass:{pass_phrase}") if pass_phrase else ("-nodes",)
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", made.key, "-out", made.cert)
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *secret, "-days", "2", *names, *files], check=True, capture_output=True
    )
    return made
