"""What TLS costs: CPU of a small request on a kept connection, beside the same program without it, in the same run."""

from __future__ import annotations

import subprocess
import tempfile
from typing import Any

from bench import peers
from bench.report import Row, verdict

SMALL: dict[str, Any] = {"path": "/v1/chat/completions", "clients": 1, "each": 800}
MOST = 60  # microseconds that TLS may add


def certificate(folder: str) -> dict[str, str]:
    """The two keys of a configuration with a certificate of our own."""
    files = {"tls_cert_file": f"{folder}/tls.pem", "tls_key_file": f"{folder}/tls.key"}
    words = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    )
    made = ["openssl", "req", "-x509", *words, "-keyout", files["tls_key_file"], "-out", files["tls_cert_file"]]
    subprocess.run(made, check=True, capture_output=True)
    return files


def measure() -> list[Row]:
    """One row."""
    with (
        tempfile.TemporaryDirectory() as folder,
        peers.upstream(slots=16) as engine,
        peers.bioproxy(engine) as plain,
        peers.bioproxy(engine, **certificate(folder)) as secure,
    ):
        without, more = peers.paired(plain, secure, more={"tls": True}, **SMALL)
    beside = f"without: {without:.0f} µs"
    return [Row("CPU that TLS adds to a small chat, 1 client", f"{more:.0f} µs", beside, f"≤ {MOST} µs", more <= MOST)]


if __name__ == "__main__":
    print(verdict("TLS", measure()))
