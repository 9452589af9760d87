"""Which port a command asks: the admin's, or the proxy's where another program has the first one."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.cli.client import Client
from bioproxy.cli.find import find, program, proxy_client
from bioproxy.cli.logs import logs
from bioproxy.cli.models import models, unload
from bioproxy.cli.output import Output
from bioproxy.cli.remote import status
from bioproxy.config.load import Loaded, load
from bioproxy.config.schema import Config, Key
from bioproxy.config.tree import DEFAULT
from bioproxy.errors import BioproxyError
from support.command import told
from support.http import certificate, free_port, needs_openssl
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any


def loaded(rig: Rig, *, admin_port: int, **values: str) -> Loaded:
    """The configuration of `rig`, with an admin port that nobody asked for."""
    found = load(
        {"proxy_host": "127.0.0.1", "proxy_port": str(rig.port), "admin_port": str(admin_port), **values},
        path=str(rig.folder / "config.yaml"),
        environment=dict(os.environ),
    )
    origins = found.origins | {"admin_host": DEFAULT, "admin_port": DEFAULT}
    return msgspec.structs.replace(found, origins=origins)


async def found_for(rig: Rig, *, admin_port: int) -> Client:
    """The client that a command would use."""
    return await asyncio.to_thread(find, loaded(rig, admin_port=admin_port))


async def printed(verb: Any, **given: Any) -> str:
    """What a verb prints."""
    stream = io.StringIO()
    await asyncio.to_thread(verb, told(Output(stream=stream), **given))
    return stream.getvalue()


async def test_the_admin_port_is_asked_where_it_is_this_programs(tmp_path: Path) -> None:
    """It has more to tell."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        client = await found_for(rig, admin_port=rig.ports.admin)
    assert client.url == f"http://127.0.0.1:{rig.ports.admin}"


async def test_the_proxy_port_is_asked_where_there_is_no_other(tmp_path: Path) -> None:
    """With a key of the configuration; every verb but those of the admin port works there."""
    async with swap_rig(tmp_path, fakes("a", "--say hello-from-a"), api_keys=["s3cret"]) as rig:
        client = await found_for(rig, admin_port=free_port())
        assert (client.url, client.key) == (f"http://127.0.0.1:{rig.port}", "s3cret")
        await rig.chat("a", headers={"Authorization": "Bearer s3cret"})
        assert "ready" in await printed(models, client=client)
        assert "hello-from-a" in await printed(logs, client=client, model="a", follow=False)
        assert await printed(unload, client=client, model="") == "stopped: a\n"


async def test_another_programs_models_are_left_alone(tmp_path: Path) -> None:
    """The admin port is the other one's: what is unloaded is ours."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = tmp_path / "one", tmp_path / "two"
    async with swap_rig(one, fakes("a")) as other, swap_rig(two, fakes("a"), child=True) as own:
        await other.chat("a")
        await own.chat("a")
        client = await found_for(own, admin_port=other.ports.admin)
        assert await printed(unload, client=client, model="") == "stopped: a\n"
        assert (await own.running(), await other.running()) == ({}, {"a": "ready"})


async def test_what_needs_the_admin_port_says_so(tmp_path: Path) -> None:
    """And how to get one."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        with pytest.raises(
            BioproxyError, match=r"nothing is served at /status.*; only the admin port has that.*admin_port"
        ):
            await printed(status, loaded=loaded(rig, admin_port=free_port()))


@needs_openssl
async def test_tls_is_spoken_with_the_certificate_of_the_configuration(tmp_path: Path) -> None:
    """Whatever name it is for; a stranger behind that port is not believed."""
    own, strange = certificate(tmp_path, "own"), certificate(tmp_path, "strange")
    flags = ("-tls-cert-file", own.cert, "-tls-key-file", own.key, "-admin-tls")
    tls = {"tls_cert_file": own.cert, "tls_key_file": own.key, "admin_tls": "true"}
    async with swap_rig(tmp_path, fakes("a", "--say hello-from-a"), flags=flags) as rig:
        config = Config(proxy_host="127.0.0.1", proxy_port=rig.port, tls_cert_file=own.cert, tls_key_file=own.key)
        client = proxy_client(config)
        assert client.url == f"https://127.0.0.1:{rig.port}"
        pid = await asyncio.to_thread(program, client)
        assert pid == rig.program.pid
        assert "listening" in await printed(logs, client=client, model="proxy", follow=False)
        wrong = proxy_client(msgspec.structs.replace(config, tls_cert_file=strange.cert))
        with pytest.raises(BioproxyError, match="has another certificate than the one in tls_cert_file"):
            await asyncio.to_thread(wrong.get, "/api/models")
        admin = await asyncio.to_thread(find, loaded(rig, admin_port=rig.ports.admin, **tls))
        assert admin.url == f"https://127.0.0.1:{rig.ports.admin}"
        assert await asyncio.to_thread(program, admin) == rig.program.pid


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, ""),
        ({"api_keys": ("one", "two")}, "one"),
        ({"api_keys": (Key(sha256="00"), Key(key="two"))}, "two"),
        ({"api_keys": (Key(sha256="00"),)}, ""),
        ({"api_keys": ("one",), "admin_key": "boss"}, "boss"),
    ],
)
def test_a_key_that_manages_is_sent(config: Json, key: str) -> None:
    """The admin's where there is one; of a digest nobody knows the key."""
    assert proxy_client(Config(**config)).key == key


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://localhost:1"), ("", "http://localhost:1"), ("::1", "http://[::1]:1")]
)
def test_where_the_proxy_port_is_asked(host: str, url: str) -> None:
    """An address that means "all" is asked on this machine."""
    assert proxy_client(Config(proxy_host=host, proxy_port=1)).url == url
