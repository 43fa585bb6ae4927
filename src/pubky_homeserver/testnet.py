"""A test network for app developers, at the addresses where the official clients look for one.

A homeserver with the well-known key, sign-up open to everybody and the password `admin`; a PKARR relay that it
publishes its record at; and the http relay over which apps and signers meet. All on the loopback, all in one process.
"""

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from pkarr.keys import Keypair
from pubky_homeserver.config import Admin, Config, Drive, General, Pkdns, Socket
from pubky_homeserver.web.http_relay import HttpRelay
from pubky_homeserver.web.pkarr_relay import PkarrRelay

KEYPAIR = Keypair(bytes(32))
"""The key of every test network's homeserver: `8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo`."""

LOOPBACK = "127.0.0.1"
PKARR_RELAY = Socket(LOOPBACK, 15411)
HTTP_RELAY = Socket(LOOPBACK, 15412)

CONFIG = Config(
    general=General(signup_mode="open"),
    drive=Drive(icann_listen_socket=Socket(LOOPBACK, 6286), pubky_listen_socket=Socket(LOOPBACK, 6287)),
    admin=Admin(listen_socket=Socket(LOOPBACK, 6288), admin_password="admin"),
    pkdns=Pkdns(icann_domain="localhost", dht_relay_nodes=(f"http://{PKARR_RELAY}",)),
)
"""The settings of the homeserver, where a configuration file does not say otherwise."""


@frozen
class Relays:
    """The two relays."""

    clock: IReactorTime
    pkarr: PkarrRelay = field(init=False)
    http: HttpRelay = field(init=False)

    @pkarr.default
    def _make_pkarr_relay(self) -> PkarrRelay:
        return PkarrRelay(self.clock)

    @http.default
    def _make_http_relay(self) -> HttpRelay:
        return HttpRelay(self.clock, cors=True)
