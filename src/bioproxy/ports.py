"""The ports: for clients, for Ollama's clients if they have one of their own, and for the operator.

Who answers is given; here they are opened in that order, with one certificate for those that speak TLS, and a renewed
one is used from the next connection on. Each is closed at a time of its own (app.py): the operator's is the last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bioproxy.config.addresses import listens_at, url_of
from bioproxy.config.listening import Listening
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.engines.listener import taken_by
from bioproxy.wire.connection import ErrorBody, Handler
from bioproxy.wire.server import ADMIN_SHARE, FEWEST, OLLAMA_SHARE, Server, files_for_clients, open_files
from bioproxy.wire.sockets import PortTaken
from bioproxy.wire.tls import PairContext, tls_context, watch

log = logging.getLogger(__name__)

Sockets: TypeAlias = Mapping[str, Sequence[socket.socket]]


def tls_of(config: Config) -> PairContext | None:
    """What ports speak TLS with; None if none does. ConfigError if a file is not usable."""
    return tls_context(config.tls_cert_file, config.tls_key_file) if config.tls_cert_file else None


class Ports:
    """The three servers. `sockets` are open already, by port; the others we open."""

    def __init__(
        self,
        settings: Settings,
        *,
        proxy: Handler,
        ollama: Handler,
        admin: Handler,
        error_body: ErrorBody,
        sockets: Sockets,
    ) -> None:
        self.settings = settings
        self.sockets = sockets
        self.tls: PairContext | None = None
        self.securing = asyncio.Lock()
        config, most = settings.config, files_for_clients(open_files())
        beside, limits = most // OLLAMA_SHARE if config.ollama.listen else 0, config.limits
        self.proxy = Server(proxy, limits=limits, name="proxy", error_body=error_body, files=max(FEWEST, most - beside))
        self.ollama = Server(ollama, limits=limits, name="ollama", error_body=error_body, files=max(FEWEST, beside))
        self.admin = Server(admin, limits=limits, name="admin", files=max(FEWEST, most // ADMIN_SHARE))

    def servers(self) -> dict[str, Server]:
        """Those that there are, by name."""
        found = {"proxy": self.proxy, "admin": self.admin}
        return {**found, "ollama": self.ollama} if self.settings.config.ollama.listen else found

    async def open(self, *, admin: bool) -> None:
        """Open them all; ConfigError says which program has one.

        The operator's may be taken unless it was asked for (`admin`): people run two instances.
        """
        config, mode = self.settings.config, int(self.settings.config.socket_mode, 8)
        self.tls = tls_of(config)
        host, port = config.proxy_host, config.proxy_port
        try:
            await self.proxy.listen(host, port, self.tls, mode=mode, sockets=self.sockets.get("proxy", ()))
        except PortTaken as error:
            raise await asyncio.to_thread(taken_by, error, host, port, flag="-port or -listen") from error
        if (place := listens_at(config.ollama.listen)) is not None:
            try:
                await self.ollama.listen(*place)
            except PortTaken as error:
                raise await asyncio.to_thread(taken_by, error, *place, flag="-ollama-listen") from error
        host, port, tls = config.admin_host, config.admin_port, self.tls if config.admin_tls else None
        try:
            await self.admin.listen(host, port, tls, mode=mode, sockets=self.sockets.get("admin", ()))
        except PortTaken as error:
            told = await asyncio.to_thread(taken_by, error, host, port, flag="-admin-port")
            if admin:
                raise told from error
            log.warning("there is no admin port: %s", told.message)

    def listening(self) -> Listening:
        """Where this machine finds the program."""
        config, proxy, admin = self.settings.config, self.proxy, self.admin
        return Listening(
            pid=os.getpid(),
            proxy=url_of(config.proxy_host, proxy.port, tls=proxy.tls is not None),
            admin=url_of(config.admin_host, admin.port, tls=admin.tls is not None) if admin.addresses else "",
            certificate=self.tls.certificate if self.tls is not None else "",
        )

    def stop_accepting(self) -> None:
        """Take no connection of a client any more."""
        self.proxy.stop_accepting()
        self.ollama.stop_accepting()

    # TLS

    async def secure(self, tls: PairContext | None) -> None:
        """Let the ports speak TLS with this pair, or plain HTTP."""
        async with self.securing:
            await self.use(tls)

    async def use(self, tls: PairContext | None) -> None:
        self.tls = tls
        wanted = ((self.proxy, tls), (self.admin, tls if self.settings.config.admin_tls else None))
        for server, context in wanted:
            if server.addresses and context is not server.tls:
                switched = (context is None) != (server.tls is None)
                await server.secure(context)
                if switched:
                    speaks = "TLS" if context is not None else "plain HTTP, not TLS,"
                    log.info("the %s port speaks %s from now on", server.shared.name, speaks)

    async def watch_certificate(self) -> None:
        """Look whether the pair was renewed: a service that never ends by itself."""
        await watch(lambda: self.tls, self.renew)

    async def renew(self, old: PairContext, new: PairContext) -> None:
        """Use a renewed pair for connections from now on, unless a reload has chosen another one meanwhile."""
        async with self.securing:
            if self.tls is old:
                await self.use(new)
                log.info("the certificate in %s was renewed; new connections get it", new.certificate)
