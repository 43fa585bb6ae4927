"""A homeserver in memory behind a real socket, its time in the test's hands."""

import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock

from pkarr.keys import Keypair
from pubky_homeserver.accounts import Accounts
from pubky_homeserver.claims import Claims
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.grants import GRANT_TYPE, POP_TYPE, sign_jws
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.core.records import Session
from pubky_homeserver.core.tokens import sign_auth_token
from pubky_homeserver.feed import Feed
from pubky_homeserver.grants import Grants
from pubky_homeserver.locks import Locks
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.packets import Packets
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.testing import MemoryBlobs
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.site import client_site
from tests.web.client import Answer, ask

reactor: Any = _reactor

HOMESERVER = Keypair(bytes(32)).public_key.z32
"""The homeserver's own key, as in the recorded transcripts."""

NOW = 1_795_387_747.0
"""When the tests happen: seconds since the epoch."""


@define
class Family:
    """How users sign in."""

    name: str = "cookie"
    """`cookie` or `grant`."""


FAMILY = Family()


@frozen
class User:
    """Somebody with a session here."""

    pubky: str
    cookie: str
    session: Session
    bearer: str | None = None
    """What is shown instead of the cookie, where users sign in by grant."""

    @property
    def headers(self) -> dict[str, str]:
        """What the user sends with each request."""
        shown = {"Cookie": self.cookie} if self.bearer is None else {"Authorization": f"Bearer {self.bearer}"}
        return {**shown, "pubky-host": self.pubky}


@define
class Served:
    """The homeserver of one test."""

    clock: Clock
    store: MemoryStore
    blobs: MemoryBlobs
    storage: Storage
    feed: Feed
    accounts: Accounts
    sessions: Sessions
    metrics: ServerMetrics
    port: int = 0
    copies: Copies | None = None
    claims: Claims | None = None
    _users: int = field(default=0, init=False)

    async def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        host: str | None = "127.0.0.1",
    ) -> Answer:
        """One request."""
        return await ask(reactor, self.port, method, target, headers, body, host)

    async def sign_up(self, capabilities: str = "/:rw", token: str | None = None) -> User:
        """A new user, signed up over HTTP."""
        self._users += 1
        return await self.sign_in(Keypair(self._users.to_bytes(32, "big")), capabilities, "/signup", token)

    async def sign_in(
        self, keypair: Keypair, capabilities: str = "/:rw", path: str = "/session", token: str | None = None
    ) -> User:
        """A session over HTTP."""
        self.clock.advance(0.001)  # two tokens of one key at one time would be one token
        body = sign_auth_token(keypair, capabilities, int(self.clock.seconds() * 1_000_000))
        query = "" if token is None else f"?signup_token={token}"
        answer = await self.ask("POST", path + query, body=body)
        assert answer.status == 200, answer
        cookie = (answer.header("set-cookie") or "").partition(";")[0]
        pubky, _, secret = cookie.partition("=")
        session = await self.sessions.of(pubky, secret)
        assert session is not None
        if FAMILY.name == "cookie":
            return User(pubky, cookie, session)
        granted = await self.sign_in_by_grant(keypair, capabilities, exp=int(self.clock.seconds()) + 10**9)
        return User(pubky, cookie, session, granted.bearer)

    async def sign_up_by_grant(self, capabilities: str = "/:rw") -> "Granted":
        """A new user, and a client that acts for it."""
        self._users += 1
        keypair = Keypair(self._users.to_bytes(32, "big"))
        signup = self.grant(keypair, keypair, client_id="pubky.signup", exp=int(self.clock.seconds()) + 300)
        answer = await self.send_grant("POST", "/auth/grant/signup", signup, keypair)
        assert answer.status == 204, answer
        return await self.sign_in_by_grant(keypair, capabilities)

    async def sign_in_by_grant(self, keypair: Keypair, capabilities: str = "/:rw", **claims: Any) -> "Granted":
        """A client with a new grant of a user."""
        client = Keypair.random()
        grant = self.grant(keypair, client, caps=capabilities.split(",") if capabilities else [], **claims)
        answer = await self.send_grant("POST", "/auth/grant/session", grant, client)
        assert answer.status == 200, answer
        told = json.loads(answer.body)
        return Granted(keypair, client, grant, told["session"]["grant_id"], told["token"])

    def grant(self, user: Keypair, client: Keypair, **claims: Any) -> str:
        """A grant for everything and an hour, unless the claims say something else."""
        now = int(self.clock.seconds())
        whole = {
            "iss": user.public_key.z32,
            "client_id": "app.example",
            "caps": ["/:rw"],
            "cnf": client.public_key.z32,
            "jti": token_urlsafe(16),
            "iat": now,
            "exp": now + 3600,
        }
        return sign_jws(user, GRANT_TYPE, whole | claims)

    def proof(self, grant: str, client: Keypair, **claims: Any) -> str:
        """A proof of possession of a grant, here and now."""
        gid = json.loads(urlsafe_b64decode(grant.split(".")[1] + "=="))["jti"]
        whole = {"aud": HOMESERVER, "gid": gid, "nonce": token_urlsafe(16), "iat": int(self.clock.seconds())}
        return sign_jws(client, POP_TYPE, whole | claims)

    async def send_grant(
        self, method: str, target: str, grant: str, client: Keypair, headers: dict[str, str] | None = None
    ) -> Answer:
        """Show a grant and a new proof."""
        body = json.dumps({"grant": grant, "pop": self.proof(grant, client)}).encode()
        return await self.ask(method, target, {"Content-Type": "application/json"} | (headers or {}), body)


@frozen
class Granted:
    """A client that acts for a user by a grant."""

    user: Keypair
    client: Keypair
    grant: str
    grant_id: str
    bearer: str

    @property
    def pubky(self) -> str:
        """Whose grant it is."""
        return self.user.public_key.z32

    @property
    def headers(self) -> dict[str, str]:
        """What the client sends with each request."""
        return {"Authorization": f"Bearer {self.bearer}"}


@asynccontextmanager
async def served(
    token_required: bool = False,
    websites: bool = True,
    store: Any = None,
    copies: Callable[[Clock], Copies] | None = None,
    peers: Callable[[Clock, MemoryStore, Storage], Any] | None = None,
    trusting: Mapping[str, Peer] | None = None,
    **storage: Any,
) -> AsyncIterator[Served]:
    """A homeserver that answers on a port of its own; over a store of its own in memory, unless one is given."""
    clock = Clock()
    clock.advance(NOW)
    store, blobs, metrics = store or MemoryStore(clock), MemoryBlobs(clock), ServerMetrics()
    accounts, sessions = Accounts(store, clock, token_required), Sessions(store, clock)
    files, feed = Storage(store, store.locks, blobs, clock, **storage), Feed(store, store, clock, metrics)
    grants, locks = Grants(store.grants, store, HOMESERVER, clock), Locks(store, store.locks)
    kept = None if copies is None else copies(clock)
    packets = Packets(store.packets, HOMESERVER, frozenset(trusting or ()))
    claims = None if kept is None else Claims(kept, store.moves, packets, trusting or {}, clock)
    trusted = None if peers is None else peers(clock, store, files)
    takedowns = Takedowns(store.takedowns, store, clock, kept)
    stop_hearing = await takedowns.begin()
    site = client_site(
        *(accounts, sessions, grants, files, locks, feed, metrics, clock),
        *(HOMESERVER, takedowns, websites, claims, trusted),
    )
    factory = HTTPFactory(site.answer, reactor)
    listening: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    feed.startService()
    try:
        yield Served(
            clock, store, blobs, files, feed, accounts, sessions, metrics, listening.getHost().port, kept, claims
        )
    finally:
        feed.stopService()
        stop_hearing()
        await listening.stopListening()
        await factory.drain(1)
