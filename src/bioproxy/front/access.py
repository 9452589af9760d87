"""Who asks, and what that one may: keys, addresses, origins. The same on every route, for one engine and for many."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import msgspec

from bioproxy.config.addresses import is_address, is_loopback
from bioproxy.config.schema import Config
from bioproxy.errors import Forbidden, Unauthorized
from bioproxy.front.cors import LOOPBACK, Cors, host_of
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.keys import Keyring, presented
from bioproxy.wire.message import Request

NO_KEY = "unauthorized: invalid or missing API key"  # llama-swap's sentence, which scripts look for

# What a key for certain models may not do while there is no admin: stop and start those of others.
CHANGING = ("/unload", "/api/models/", "/models/", "/api/profiles/active", "/api/inflight/")


class Access:
    """The rule of one configuration."""

    def __init__(self, config: Config) -> None:
        self.keyring = Keyring(config.api_keys)
        self.admin_keyring = Keyring((config.admin_key,) if config.admin_key else ())
        self.keys = bool(config.api_keys)
        self.cors = Cors(config.cors_origins, keys=self.keys)
        self.local = is_loopback(config.proxy_host)
        self.names = LOOPBACK | {config.proxy_host.lower(), *(host_of(f"//{host}") for host in config.admin_hosts)}
        self.trusted: list[IPv4Network | IPv6Network] = [
            ip_network(net, strict=False) for net in config.trusted_proxies
        ]

    def is_admin(self, request: Request) -> bool:
        """Whether the request shows the admin key."""
        return self.admin_keyring.find(presented(request.header)) is not None

    def admit(self, exchange: Exchange) -> None:
        """Find out who asks: the key's owner, or an address; Unauthorized where a key is wanted and none fits."""
        request = exchange.request
        if exchange.route.guard in {"manage", "private"}:
            self.admit_operator(exchange)
            return
        if not self.keys:
            exchange.record.client = self.address(request)
            return
        principal = self.keyring.find(presented(request.header))
        if principal is None and exchange.route.admin:
            principal = self.admin_keyring.find(presented(request.header))
            principal = principal and msgspec.structs.replace(principal, name="admin")
        if principal is None:
            if exchange.route.public:
                return
            how = "this server wants an API key: send it as `Authorization: Bearer <key>` or `x-api-key`"
            raise Unauthorized(f"{NO_KEY}; {how}" if exchange.envelope else how)
        exchange.record.client = principal.name
        user = request.header(b"x-openwebui-user-id") if principal.forwards_users else None
        if user:
            exchange.record.client = f"{principal.name}/{user.decode('latin-1')[:64]}"
            principal = principal.of_user(user)
        exchange.principal = principal

    def admit_operator(self, exchange: Exchange) -> None:
        """Who may manage: with an `admin_key` only who has it, else whoever may use the models.

        What others asked and got is no business of one of several keys. Pages of elsewhere are refused in any case:
        `GET /unload` is done by an image in a page.
        """
        request = exchange.request
        self.cors.check(request, "what manages models")
        if request.header(b"sec-fetch-site") == b"cross-site":
            raise Forbidden(
                "a page of another site may not manage models; if it should, give it an API key and a program"
            )
        key = presented(request.header)
        admin = self.admin_keyring.find(key)
        exchange.record.client = self.address(request)
        if admin is not None:
            exchange.record.client = "admin"
            return
        if len(self.admin_keyring):
            raise Unauthorized("this wants admin_key: send it as `Authorization: Bearer <key>`, or as a Basic password")
        if not self.keys:
            if exchange.route.guard == "private" and self.local:
                self.check_host(request)
            return
        principal = self.keyring.find(key)
        if principal is None:
            raise Unauthorized(NO_KEY)
        exchange.principal = principal
        exchange.record.client = principal.name
        if principal.models and request.path.startswith(CHANGING):
            raise Forbidden("a key for certain models manages none; that wants admin_key")
        if exchange.route.guard == "private" and len(self.keyring) > 1:
            raise Forbidden(
                "this shows what others asked: with more than one API key it wants admin_key, which is not set"
            )

    def check_host(self, request: Request) -> None:
        """Forbidden where this machine's own port was asked by a name that is none of its own.

        A page's name can be pointed at 127.0.0.1 while it is open (DNS rebinding), and the browser then lets the page
        read what we answer. Where others reach the port anyway, or a key is wanted, there is nothing to gain by that.
        """
        host = (request.header(b"host") or b"").decode("latin-1")
        name = host_of(f"//{host}")
        if name not in self.names and not is_address(name):
            raise Forbidden(
                f"this shows what others asked, and {host[:80]!r} is none of this port's names; if it should be, "
                "add it to admin_hosts"
            )

    def address(self, request: Request) -> str:
        """The client's address: where a trusted proxy asks, the one that it got the request from.

        Each proxy adds an address at the end of X-Forwarded-For, so it is read from there; what stands before the first
        one that is not trusted was written by the client, who may write anything.
        """
        address = request.peer
        if not self.trusted or not self.trusts(address):
            return address
        lines = [value for name, value in request.headers if name.lower() == b"x-forwarded-for"]
        for part in reversed(b",".join(lines).split(b",")):
            try:
                address = str(ip_address(part.strip().decode("latin-1")))
            except ValueError:
                break
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of `trusted_proxies`."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in net for net in self.trusted)

    @staticmethod
    def allow_model(exchange: Exchange, *names: str) -> None:
        """Forbidden where the key is for other models only; any one of the model's `names` will do."""
        principal = exchange.principal
        if principal is not None and principal.models and not set(names) & set(principal.models):
            asked = repr(names[0][:MOST_SHOWN]) if names and names[0] else "no model at all"
            raise Forbidden(f"this key may ask for {', '.join(principal.models)}, not for {asked}")
