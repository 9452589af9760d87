"""What TLS costs: CPU of a small request on a kept connection, beside the same program without it, in the same run."""

from __future__ import annotations

import statistics
import subprocess
import tempfile

from bench import peers
from bench.report import Row, verdict

ROUNDS = 15
SMALL = {"path": "/v1/chat/completions", "clients": 1, "each": 800}
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
    """One row. Each round measures both, there and back; its difference is what counts, for neighbours disturb both."""
    added, without = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        peers.upstream(slots=16) as engine,
        peers.bioproxy(engine) as plain,
        peers.bioproxy(engine, **certificate(folder)) as secure,
    ):
        for number in range(ROUNDS):
            spent = {}
            for tls in (False, True) if number % 2 else (True, False):
                port, pid = secure if tls else plain
                cpu, counted = peers.metered(pid, port, tls=tls, **SMALL)
                if counted["lost"]:
                    raise AssertionError(f"{counted['lost']:.0f} requests were lost")
                spent[tls] = cpu / counted["requests"] * 1e6
            added.append(spent[True] - spent[False])
            without.append(spent[False])
    more = statistics.median(added)
    beside = f"without: {statistics.median(without):.0f} µs"
    return [Row("CPU that TLS adds to a small chat, 1 client", f"{more:.0f} µs", beside, f"≤ {MOST} µs", more <= MOST)]


if __name__ == "__main__":
    print(verdict("TLS", measure()))
