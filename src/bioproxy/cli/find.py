"""Which port of a running bioproxy a command asks.

The admin port, in general. If `models` are served and the configuration does not name an admin port, the default one
may belong to another bioproxy: people run two, and the second does without. Its proxy port then has the routes that
manage models. Which of the two programs answers on a port is known by its pid, because `bioproxy unload` must not
unload the other program's models.

If the configuration is broken, its program may run all the same, with what the file said before: then the port is asked
that a flag or a variable names, else the one that the program wrote down (config/listening.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, TypeAlias

from bioproxy.cli.client import Client, admin_url
from bioproxy.config import listening
from bioproxy.config.addresses import url_of
from bioproxy.config.load import Loaded, admin_port_asked
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError, ConfigError, Problem

Json: TypeAlias = Any
PROGRAM = "/api/models"  # a route of both ports; its answer has the program's pid
LACKING = "only the admin port has that, and this bioproxy has none: give it one of its own with admin_port"
UNKNOWN = (
    "nothing tells where the program of this configuration listens, if it runs: mend the configuration, or name the "
    "program's admin port with -admin-port, and its key with -admin-key"
)
QUICK = 3.0  # seconds to find out who answers


def find(loaded: Loaded) -> Client:
    """A client for the program that this configuration describes, whether it runs or not.

    ConfigError if the configuration is broken and nothing else tells where that is.
    """
    client = despite(loaded) if loaded.problems else port_of(loaded)
    client.configuration = Path(loaded.state).name if loaded.paths else ""
    return client


def port_of(loaded: Loaded) -> Client:
    """The admin port, or the proxy port of a program that has none."""
    config = loaded.config
    believed = trust(config.tls_cert_file) if config.admin_tls else None
    admin = Client(admin_url(config), key=config.admin_key, trust=believed)
    if loaded.dialect is None or admin_port_asked(loaded):
        return admin
    proxy = proxy_client(config)
    pid = program(proxy)
    return proxy if pid is not None and pid != program(admin) else admin


def despite(loaded: Loaded) -> Client:
    """The port of a program whose configuration is broken by now; ConfigError."""
    if any(loaded.origins[key].source in {"flag", "environment"} for key in ("admin_host", "admin_port")):
        return port_of(loaded)
    running, config = listening.read(Path(loaded.state)), loaded.config
    if running is not None:
        believed = trust(running.certificate) if running.certificate else None
        if running.admin:
            client = Client(running.admin, key=config.admin_key, trust=believed)
        else:
            client = Client(running.proxy, key=a_key(config), trust=believed, lacking=LACKING)
        if program(client) in {None, running.pid}:
            return client
    raise ConfigError([*loaded.problems, Problem(UNKNOWN)])


def proxy_client(config: Config) -> Client:
    tls = bool(config.tls_cert_file)
    where, believed = (
        url_of(config.proxy_host, config.proxy_port, tls=tls),
        trust(config.tls_cert_file) if tls else None,
    )
    return Client(where, key=a_key(config), trust=believed, lacking=LACKING)


def a_key(config: Config) -> str:
    """A key that manages models; of those that are known by their digest only, none can be sent."""
    if config.admin_key:
        return config.admin_key
    keys = [one if isinstance(one, str) else one.key for one in config.api_keys]
    return next((key for key in keys if key), "")


def trust(certificate: str) -> ssl.SSLContext | None:
    """Accept exactly this certificate, whatever authority signed it and whatever name it is for: it is our own.

    None if it cannot be read. Then nothing is: the program cannot use it either, and goes on with the one before.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError):
        return None
    return context


def program(client: Client) -> int | None:
    """The pid of the bioproxy that serves models there; None if none does, or it does not say."""
    pid = told(client).get("pid")
    return pid if isinstance(pid, int) else None


def another(client: Client) -> str:
    """What to say if the program that answers runs another configuration than the one that was named; else "".

    Whether it answers at all, and takes the key, the verb finds out by what it asks.
    """
    answer = told(client) if client.configuration else {}
    theirs = answer.get("configuration")
    if not theirs or theirs == client.configuration:
        return ""
    who = f"the bioproxy on {client.url} (pid {answer['pid']}) runs the configuration {theirs}"
    return f"{who}, not {client.configuration}; name another one's port with -admin-port, or its file with -config"


def told(client: Client) -> dict[str, Json]:
    """What the program there says of itself and its models; {} if it does not, or not soon."""
    quick = Client(client.url, key=client.key, timeout=QUICK, trust=client.trust)
    try:
        answer = quick.get(PROGRAM)
    except BioproxyError:
        return {}
    return answer if isinstance(answer, dict) else {}
