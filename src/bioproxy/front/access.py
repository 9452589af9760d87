"""Who asks, and what that one may: keys, addresses, origins. The same on every route, for one engine and for many."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from bioproxy.config.addresses import UNIX_PEERS, host_of, is_address, network_of
from bioproxy.config.schema import Config
from bioproxy.config.settings import among_strangers
from bioproxy.errors import Forbidden, Unauthorized
from bioproxy.front.allowance import Allowances
from bioproxy.front.cors import SAID, Cors, check_name
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.front.routes import READING_METHODS, Route
from bioproxy.keys import Keyring, Principal, presented
from bioproxy.wire.http1.message import Request

NO_KEY = "unauthorized: invalid or missing API key"  # llama-swap's sentence, which scripts look for

# By these names containers reach a port of this machine that is bound to its loopback; they cannot be registered.
CONTAINERS = frozenset({"host.docker.internal", "host.containers.internal"})
MOST_NAMES = 100  # values of `Host` that need not be judged again


class Access:
    """The rule of one configuration. `local`: the port is bound so that only this machine reaches it.

    `allowances`: where what keys use is counted, if it is.
    """

    def __init__(self, config: Config, *, local: bool, allowances: Allowances | None = None) -> None:
        self.allowances = allowances
        self.keyring = Keyring(config.api_keys)
        self.admin_keyring = Keyring((config.admin_key,) if config.admin_key else ())
        self.metrics_keyring = Keyring((config.metrics_key,) if config.metrics_key else ())
        self.keys = bool(config.api_keys)
        self.admin = bool(config.admin_key)
        self.among_strangers = among_strangers(config)
        self.cors = Cors(config.cors_origins, keys=self.keys)
        self.named = CONTAINERS | {host_of(host) for host in (config.proxy_host, *config.admin_hosts)}
        self.known: set[bytes] = set()
        self.local = local
        self.trusted = bool(config.trusted_proxies)  # anybody
        self.trusts_unix = UNIX_PEERS in config.trusted_proxies
        self.networks = [network_of(net) for net in config.trusted_proxies if net != UNIX_PEERS]

    def is_admin(self, request: Request) -> bool:
        """Whether the request shows the admin key."""
        return self.admin and self.admin_keyring.find(presented(request.header)) is not None

    def admit(self, exchange: Exchange) -> None:
        """Find out who asks: the key's owner, or an address; Unauthorized if a key is wanted and none fits."""
        request, route = exchange.request, exchange.route
        if not route.public or route.guard:  # the web page's files are public, for names of ours
            self.check_browser(request, route)
        if route.guard in {"manage", "own", "private"}:
            self.admit_operator(exchange)
            return
        if not self.keys:
            exchange.record.client = request.peer
            return
        principal = self.keyring.find(presented(request.header))
        if principal is None and (route.admin or request.header(b"x-requested-with") == b"bioproxy"):  # or the page's
            principal = self.admin_keyring.find(presented(request.header))
            principal = principal and msgspec.structs.replace(principal, name="admin")
        if principal is None:
            if route.public:
                return
            how = "this server wants an API key: send it as `Authorization: Bearer <key>`, `x-api-key` or `api-key`"
            raise Unauthorized(f"{NO_KEY}; {how}" if exchange.envelope else how)
        self.know(exchange, principal)

    def know(self, exchange: Exchange, principal: Principal) -> None:
        """It is the request of this key, or of a user behind it: what it uses is counted, and may be bounded."""
        exchange.record.client = principal.name
        user = exchange.request.header(b"x-openwebui-user-id") if principal.forwards_users else None
        if user:
            exchange.record.client = f"{principal.name}/{user.decode('latin-1')[:64]}"
            principal = principal.of_user(user)
        exchange.principal = principal
        if self.allowances is not None:
            exchange.count = self.allowances.count
            exchange.check = self.allowances.check if principal.tokens_per_day else None

    def check_browser(self, request: Request, route: Route) -> None:
        """ForeignPage if a browser asks by a name that is none of ours, or for a page that may not.

        The name counts if only this machine reaches the port and no key is wanted: otherwise others may read anyway,
        and a rebound page has no key. Without a `Host` (HTTP/1.0) no browser asks. A websocket is judged as a change
        is, because any page may read what it says.
        """
        host = request.fields.get(b"host")
        if self.local and not self.keys and host is not None and host not in self.known:
            check_name(request, names=self.named, addresses=True, port="proxy")
            if len(self.known) < MOST_NAMES:
                self.known.add(host)
        if SAID.isdisjoint(request.fields) and request.fields.get(b"content-type") == b"application/json":
            return  # as programs ask; a browser would have asked for permission first
        if route.changed_by(request) or request.upgrade:
            self.cors.check(request)

    def admit_operator(self, exchange: Exchange) -> None:
        """Who may manage: with an `admin_key` only its owner, else every client that may use the models.

        `/metrics` is for the owner of `metrics_key`, too, and without any other key for no one else.
        What others asked and got is no business of one of several keys; each may look at what is its own.
        """
        request = exchange.request
        key = presented(request.header)
        admin = self.admin_keyring.find(key)
        exchange.record.client = request.peer
        if admin is not None:
            exchange.record.client = "admin"
            return
        if exchange.route.endpoint == "/metrics" and self.metrics_keyring:
            if self.metrics_keyring.find(key) is not None:
                exchange.record.client = "metrics"
                return
            if not self.admin and not self.keys:
                raise Unauthorized("this wants metrics_key: send it as `Authorization: Bearer <key>`")
        looks = self.keys and exchange.route.guard == "own" and request.method in READING_METHODS
        if self.admin and not looks:
            raise Unauthorized("this wants admin_key: send it as `Authorization: Bearer <key>`, or as a Basic password")
        if not self.keys:
            return
        principal = self.keyring.find(key)
        if principal is None:
            raise Unauthorized(NO_KEY)
        self.know(exchange, principal)
        if exchange.route.guard == "private" and self.among_strangers:
            raise Forbidden(
                "this shows what others asked: with more than one API key it wants admin_key, which is not set"
            )

    def address(self, request: Request) -> str:
        """The client's address: if a trusted proxy asks, the one that it got the request from.

        Each proxy adds an address at the end of X-Forwarded-For, so it is read from there; what stands before the first
        one that is not trusted was written by the client, who may write anything.
        """
        address = request.peer
        if not (self.trusts_unix if address == UNIX_PEERS else self.trusts(address)):
            return address
        lines = [value for name, value in request.headers if name.lower() == b"x-forwarded-for"]
        for part in reversed(b",".join(lines).split(b",")):
            text = part.strip().decode("latin-1")
            if not is_address(text):
                break
            address = host_of(text)
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Whether `address` is in one of the networks of `trusted_proxies`."""
        try:
            found = ip_address(host_of(address))
        except ValueError:
            return False
        return any(found in net for net in self.networks)

    @staticmethod
    def allow_model(exchange: Exchange, *names: str) -> None:
        """Forbidden if the key is for other models only; any one of the model's `names` will do."""
        principal = exchange.principal
        if principal is not None and principal.models and not set(names) & set(principal.models):
            asked = repr(names[0][:MOST_SHOWN]) if names and names[0] else "no model at all"
            raise Forbidden(f"this key may ask for {', '.join(principal.models)}, not for {asked}")
