"""A test network for app developers, at the addresses where the official clients look for one.

A homeserver with the well-known key, sign-up open to everybody and the password `admin`; a DHT of its own, of which it
is a node; a PKARR relay in front of that; and the http relay over which apps and signers meet. All on the loopback, all
in one process.
"""

from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.error import CannotListenError

from pkarr.dht.node import Dht
from pkarr.keys import Keypair
from pubky_homeserver.config import Admin, Config, DhtNode, Drive, General, Pkdns
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.networks import settings_of
from pubky_homeserver.values import Socket
from pubky_homeserver.web.http_relay import HttpRelay
from pubky_homeserver.web.pkarr_relay import PkarrRelay

KEYPAIR = Keypair(bytes(32))
"""The key of every test network's homeserver: `8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo`."""

LOOPBACK = "127.0.0.1"
PKARR_RELAY = Socket(LOOPBACK, 15411)
HTTP_RELAY = Socket(LOOPBACK, 15412)

BOOTSTRAP = Socket(LOOPBACK, 6881)

_NO_LIMIT = 1_000_000  # messages a second: all clients of the network have the same address

CONFIG = Config(
    general=General(signup_mode="open"),
    drive=Drive(icann_listen_socket=Socket(LOOPBACK, 6286), pubky_listen_socket=Socket(LOOPBACK, 6287)),
    admin=Admin(listen_socket=Socket(LOOPBACK, 6288), admin_password="admin"),
    pkdns=Pkdns(
        icann_domain="localhost",
        dht_relay_nodes=(f"http://{PKARR_RELAY}",),
        dht_bootstrap_nodes=((BOOTSTRAP.host, BOOTSTRAP.port),),
    ),
    dht=DhtNode(addresses=(LOOPBACK,), port=0, private_network=True, rate_limit=_NO_LIMIT, total_rate_limit=_NO_LIMIT),
)
"""The settings of the homeserver, where a configuration file does not say otherwise."""

JOINING = 5.0
"""Seconds that the nodes get to find each other before the relay answers."""


@frozen
class Surroundings:
    """What the homeserver of a test network has around it."""

    reactor: Any
    dht: Dht = field(init=False)
    """The node that all others begin with."""
    pkarr: PkarrRelay = field(init=False)
    http: HttpRelay = field(init=False)

    @dht.default
    def _make_dht(self) -> Dht:
        settings = settings_of(CONFIG.pkdns, CONFIG.dht)
        return Dht(self.reactor, evolve(settings, port=BOOTSTRAP.port, insists=True, bootstrap=()))

    @pkarr.default
    def _make_pkarr_relay(self) -> PkarrRelay:
        return PkarrRelay(self.reactor, self.dht)

    @http.default
    def _make_http_relay(self) -> HttpRelay:
        return HttpRelay(self.reactor, cors=True)

    def start(self) -> None:
        """Take the port of the DHT. Raises `CannotStart`."""
        try:
            self.dht.startService()
        except CannotListenError as error:
            raise CannotStart(f"Cannot listen on {BOOTSTRAP} (the test network's DHT): {error.socketError}") from None
