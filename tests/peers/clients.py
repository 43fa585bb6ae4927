"""What users of a simulated world ask homeservers, over HTTP, and what they are told: this is all that they know."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from attrs import define, field
from blake3 import blake3
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, PartialDownloadError, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.claims import Claims
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.records import Session
from pubky_homeserver.core.tokens import session_id
from pubky_homeserver.feed import Feed
from pubky_homeserver.grants import Grants
from pubky_homeserver.locks import Locks
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.storage import Storage
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.site import ClientSite, client_site
from tests.peers.wire import Answerer, Wires

SECRET = "0" * 26

NOT_SENT = 0
"""The status of what did not reach anybody. What reached somebody and has none may have been done."""


@define(eq=False)
class Asked:
    """One request of a client, and the answer if there was one."""

    node: str
    method: str
    pubky: str
    path: str
    body: bytes | None
    began: float
    place: int = 0
    """How many requests began before."""
    is_signed: bool = True
    """Whether it shows the user's session."""
    code: int = 0
    """Of the answer that has begun."""
    status: int | None = None
    """Of the answer, once that is whole."""
    ended: float | None = None
    headers: dict[str, str] = field(factory=dict)
    answer: bytes = b""

    @property
    def is_write(self) -> bool:
        """Whether it would change something."""
        return self.method in ("PUT", "DELETE")

    @property
    def is_acknowledged(self) -> bool:
        """Whether the homeserver said that it did what it was asked."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody can say if it was done."""
        return self.is_write and self.status is None


def last_writes(asked: Iterable[Asked], pubky: str) -> dict[str, Asked]:
    """The newest acknowledged write of each path."""
    done = [one for one in asked if one.pubky == pubky and one.is_write and one.is_acknowledged]
    return {one.path: one for one in sorted(done, key=lambda one: (one.ended or 0.0, one.place))}


def doubts(asked: Iterable[Asked], pubky: str, path: str, after: Asked, node: str | None = None) -> set[bytes | None]:
    """Hashes that a path may have because of requests of which nobody knows what became; None if it may be empty."""
    open_ones = [one for one in asked if one.is_in_doubt and (one.pubky, one.path) == (pubky, path)]
    return {
        None if one.body is None else blake3(one.body).digest()
        for one in open_ones
        if node in (None, one.node) and (one.ended is None or one.ended >= after.began)
    }


def session_of(pubky: str) -> Session:
    """The session that a user has wherever they are signed in."""
    return Session(session_id(SECRET), pubky, tuple(parse_capabilities("/:rw")), 0)


def ask(wires: Wires, asked: Asked) -> None:
    """Send a request. What is answered is noted when that is here, if ever."""
    headers = Headers({"pubky-host": [asked.pubky]})
    if asked.is_signed:
        headers.addRawHeader("cookie", f"{asked.pubky}={SECRET}")
    body = None if asked.body is None else FileBodyProducer(BytesIO(asked.body))
    place = f"http://{asked.node}/storage/{asked.pubky}{asked.path}"
    asking = wires.agent("user").request(asked.method.encode("ascii"), place.encode("ascii"), headers, body)

    def note(response: IResponse) -> Deferred[None]:
        asked.headers = {
            name.decode("ascii").lower(): values[-1].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        asked.code = response.code
        reading: Deferred[bytes] = readBody(response)
        return reading.addCallback(end)

    def end(answer: bytes) -> None:
        asked.answer, asked.status, asked.ended = answer, asked.code, wires.clock.seconds()

    def fail(failure: Failure) -> None:
        if failure.check(ConnectError):
            asked.status, asked.ended = NOT_SENT, wires.clock.seconds()
        elif not failure.check(ResponseFailed, PartialDownloadError):
            wires.faults.append(failure)

    asking.addCallback(note)
    asking.addErrback(fail)


def front(store: Any, storage: Storage, clock: IReactorTime, homeserver: str, claims: Claims) -> Answerer:
    """The client API of a homeserver, made when the first client comes."""
    made: list[ClientSite] = []

    async def answer(request: Request) -> None:
        if not made:
            metrics, accounts = ServerMetrics(), Accounts(store, clock, False)
            sessions, grants = Sessions(store, clock), Grants(store.grants, store, homeserver, clock)
            locks, feed = Locks(store, store.locks), Feed(store, store, clock, metrics)
            takedowns = Takedowns(store.takedowns, store, clock, claims.copies)
            made.append(
                client_site(
                    *(accounts, sessions, grants, storage, locks, feed, metrics, clock, homeserver, takedowns),
                    claims=claims,
                )
            )
        await made[0].answer(request)

    return answer
