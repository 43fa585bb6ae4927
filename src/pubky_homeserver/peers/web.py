"""What homeservers of our own kind may ask, below `/peer/v1/`. The bodies of answers: `peers/messages.py`.

    GET hello                                                     version, features, limits, epoch
    GET accounts?after=                                           the accounts that live here and are offered
    GET copies?after=                                             how far our copies of the asker's accounts are
    GET changes?after=                                            a stream of hints (`peers/changes.py`)
    GET accounts/<key>/<log>/events?log_id=&seq=&id=&digest=      the events after a position; 409, 410
    GET accounts/<key>/<log>/entries?after=                       the files of a log, in byte order of their paths
    GET accounts/<key>/<log>/body?path=&hash=                     a body, or a range of it; 410 if it is not here
    POST accounts/<key>/<log>/late                                events that our log lacks; the receipts
    POST accounts/<key>/erase                                     the primary's order to forget a copy; the receipt
    GET packets/<key>                                             the newest signed packet of an account, as at relays
    POST packets                                                  packets that are shown: what became of each, and ours

`log` is `pub` or `priv`; `digest` and `hash` are padded base64. Every request is signed (`peers/signatures.py`): 403
for who is no peer. What is not offered is 404, like the unknown. A log is offered by its primary; by a homeserver that
has learned that the account lives elsewhere only to the one where it lives. While an account is about to open
here its logs are 503: what its last primary has more is on its way.

The question for events tells histories apart without anybody noticing that he was restored or failed over. A position
says how far a copy is, by the number, id and digest of its last event. If that is an event of ours the copy's history
is a beginning of ours, and the answer is what follows. If our log does not go back so far the answer is 410: lists must
be compared. Anything else is 409: one of the two has lost something.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from heapq import nsmallest
from typing import ClassVar

from attrs import define, field
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.core.copies import Held, LogStanding, Offered
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import Forbidden, InvalidRequest, NotErased, NotFound, Refused
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IIntegrityStore, ILogStore
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.asked import PAGE, Asked, answer_json, seen_by
from pubky_homeserver.peers.changes import Changes
from pubky_homeserver.peers.erasing import ERASE
from pubky_homeserver.peers.exchange import FEATURE, Knowledge
from pubky_homeserver.peers.handing import RANGES
from pubky_homeserver.peers.late import LATE, LateWrites
from pubky_homeserver.peers.logs import MAX_BODIES, LogSite
from pubky_homeserver.peers.shapes import MAX_NUMBER
from pubky_homeserver.peers.signatures import LONGEST, BadSignature, Head, Signed, verify
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.answers import answer_with, refuse, refuse_method
from pubky_homeserver.web.queries import pairs_of, whole_number
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route

ROOT = "/peer/v1/"

VERSION = 1
FEATURES = (
    "accounts",
    "changes",
    "entries",
    "events",
    "batches",
    "bodies",
    RANGES,
    "packets",
    messages.HOLDINGS,
    FEATURE,
    LATE,
    ERASE,
)
"""What a peer may ask for."""

_REASONS = {
    Obeyed.DIFFERENT: "The copy here has another history than your order, or is ahead of it",
    Obeyed.CLAIMED: "The user of this account has signed up here: it is no mere copy",
    Obeyed.BUSY: "An earlier copy of this account is still being erased",
}


async def _obey_nobody(_sender: str, _pubky: str, _log_id: str, _seq: int) -> Obeyed:
    return Obeyed.NOTHING


async def _tell_nobody(_pubky: str, _peer: str) -> None:
    """Nobody wants to see that."""


async def _lived_nowhere(_pubky: str) -> Sequence[str]:
    """All accounts began here."""
    return ()


@define(eq=False)
class PeerSite:
    """The port for peers. `answer` is called with each request below `ROOT`."""

    key: str
    """This homeserver's own."""
    peers: Mapping[str, Peer]
    """By their keys."""
    logs: ILogStore
    storage: Storage
    knowledge: Knowledge
    """Of packets."""
    clock: IReactorTime
    epoch: Callable[[], str]
    """A text that is another one after the store was restarted, restored, or failed over."""
    integrity: IIntegrityStore = field(kw_only=True)
    late_of: Callable[[Peer], LateWrites | None] = lambda _peer: None
    """What takes late writes of a peer; None if it cannot be asked for their bodies."""
    notice: Callable[[str], None] = lambda _key: None
    """Called with the key of each peer that asks something."""
    obey: Callable[[str, str, str, int], Awaitable[Obeyed]] = field(default=_obey_nobody, kw_only=True)
    """Carries an order out to erase a copy: sender, account, log id, number."""
    is_taken_down: Callable[[str], bool] = field(default=lambda _pubky: False, kw_only=True)
    """Whether nobody may read an account here."""
    called: Callable[[str], None] = field(default=lambda _key: None, kw_only=True)
    """Is told which peer begins to listen: it is back."""
    fork: Callable[[str, str], Awaitable[None]] = field(default=_tell_nobody, kw_only=True)
    """Is told of an account of ours, and a peer whose history of it is another one."""
    lived_at: Callable[[str], Awaitable[Sequence[str]]] = field(default=_lived_nowhere, kw_only=True)
    """The homeservers where an account of ours lived before."""
    has_all: Callable[[str, str], Awaitable[None]] = field(default=_tell_nobody, kw_only=True)
    """Is told of an account, and a peer that has its private log to the end."""
    _changes: Changes = field(init=False)
    _exact: dict[str, Route] = field(init=False)
    # Path below the root → its route.
    _of_log: dict[str, Route] = field(init=False)
    # The last part of a path about a log → its route.
    _packet: Route = field(init=False)
    _erase: Route = field(init=False)
    app: ClassVar[Klein] = Klein()
    log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        self._changes = Changes(self.storage.entries, self.logs, self.clock, self.epoch)
        app = self.app
        logs = LogSite(
            *(self.key, self.logs, self.storage, self.knowledge, self.integrity, self.late_of, self.is_taken_down),
            *(self.fork, self.lived_at, self.has_all),
        ).app
        self._exact = {name: route(app, {"GET": name}) for name in ("hello", "accounts", "copies", "changes")}
        self._exact["packets"] = route(app, {"POST": "shown"})
        self._of_log = {name: route(logs, {"GET": name}) for name in ("events", "entries", "body")}
        self._exact["events"] = route(logs, {"POST": "events_of_many"})
        self._of_log["late"] = route(logs, {"POST": "late"})
        self._packet = route(app, {"GET": "packet"})
        self._erase = route(app, {"POST": "erase"})

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        _dress(request, False)
        try:
            signed = self._signed(request)
            found, pubky, private = self._find(request.path[len(ROOT) :])
        except Refused as refusal:
            refuse(request, refusal, _dress)
            return
        self.notice(signed.sender)
        handler = found.methods.get(request.method)
        if handler is None:
            refuse_method(request, found.allow, _dress)
            return
        asked = Asked(self.peers[signed.sender], signed, dict(pairs_of(request.query)), pubky, private)
        await answer_with(request, handler(request, asked), _dress)

    def stop(self) -> None:
        """End the streams."""
        self._changes.stop()

    def _signed(self, request: Request) -> Signed:
        """Who asks, and for what. Raises `Forbidden`."""
        fields = {
            name: [value.decode("latin-1") for value in request.headers_named(name.encode("ascii"))] for name in LONGEST
        }
        target = request.path + (b"?" + request.query if request.query else b"")
        head = Head(request.method.decode("ascii"), target.decode("latin-1"), fields, request.body_if_any is not None)
        try:
            return verify(head, self.key, self.peers, self.clock.seconds())
        except BadSignature as error:
            self.log.debug("A peer's request is refused: {reason}", reason=str(error))
            raise Forbidden(str(error)) from None

    def _find(self, path: bytes) -> tuple[Route, str, bool]:
        """What a path is about: route, account, whether it is the private log. Raises `NotFound`."""
        match path.decode("latin-1").split("/"):
            case [name] if name in self._exact:
                return self._exact[name], "", False
            case ["packets", pubky] if reading.is_pubky(pubky):
                return self._packet, pubky, False
            case ["accounts", pubky, "erase"] if reading.is_pubky(pubky):
                return self._erase, pubky, False
            case ["accounts", pubky, log, name] if log in messages.LOGS and name in self._of_log:
                if reading.is_pubky(pubky):
                    return self._of_log[name], pubky, messages.LOGS[log]
        raise NotFound

    # --- the homeserver -------------------------------------------------------------------------------------------

    @app.route("/peer/v1/hello", methods=["GET"])
    async def hello(self, request: Request, asked: Asked) -> bytes:
        """Say what is understood here."""
        limits = {"page": PAGE, "bodies": MAX_BODIES}
        told = {"version": VERSION, "features": list(FEATURES), "limits": limits, "epoch": self.epoch()}
        return answer_json(request, told)

    @app.route("/peer/v1/accounts", methods=["GET"])
    async def accounts(self, request: Request, asked: Asked) -> bytes:
        """A page of the accounts that live here and are offered. 200; 400."""
        peer, after = asked.peer, asked.query.get("after", "")
        if peer.offer.all:
            number = whole_number(after, MAX_NUMBER) if after else 0
            if number is None:
                raise InvalidRequest("Invalid after")
            page, place = await self.logs.standings(number, PAGE)
            following = None if place is None else str(place)
        else:
            keys = sorted(pubky for pubky in peer.offer.keys if pubky > after)[:PAGE]
            page = [found for pubky in keys if (found := await self._of(pubky)) is not None]
            following = keys[-1] if len(keys) == PAGE else None
        offered = [one for found in page if (one := await self._offered(peer, *found)) is not None]
        return answer_json(request, messages.pack_accounts(offered, following))

    @app.route("/peer/v1/copies", methods=["GET"])
    async def copies(self, request: Request, asked: Asked) -> bytes:
        """A page of the copies of accounts of which the asker is the primary, by their keys. 200."""
        after = asked.query.get("after", "")
        theirs = [one for one in self.knowledge.copies.all() if one.primary == asked.peer.key and one.pubky > after]
        page = nsmallest(PAGE, theirs, key=lambda one: one.pubky)
        held = [
            Held(
                one.pubky,
                one.public.position.seq,
                one.private.position.seq if one.private.is_whole and one.private.position is not None else None,
                one.missing,
            )
            for one in page
            if one.public.is_whole and one.public.position is not None
        ]
        following = page[-1].pubky if len(page) == PAGE else None
        return answer_json(request, messages.pack_held(held, following))

    async def _of(self, pubky: str) -> tuple[str, LogStanding, LogStanding] | None:
        public, private = await self.logs.standing(pubky, False), await self.logs.standing(pubky, True)
        if public is None or private is None or public.is_copy:
            return None
        return pubky, public, private

    async def _offered(self, peer: Peer, pubky: str, public: LogStanding, private: LogStanding) -> Offered | None:
        """An account as the peer may know it; None if it lives elsewhere."""
        home, term = await self.knowledge.home(pubky)
        if home != self.key:
            return None
        return Offered(pubky, term, seen_by(public, peer), private if peer.private else None)

    @app.route("/peer/v1/changes", methods=["GET"])
    async def changes(self, request: Request, asked: Asked) -> None:
        """A stream of hints, without end. 200; 400."""
        after = asked.number("after") if "after" in asked.query else 0
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"X-Accel-Buffering", b"no")  # an nginx on the way would keep small pieces back
        request.ends_with_input = True
        pieces = self._changes.of(asked.peer, after)
        self.called(asked.peer.key)
        request.stream()
        try:
            async for piece in pieces:
                await request.write(piece)
        except Refused as refusal:
            self.log.info("{peer} hears no more of changes: {reason}", peer=asked.peer.name, reason=str(refusal))
        finally:
            await pieces.aclose()
        request.finish()

    @app.route("/peer/v1/packets/<pubky>", methods=["GET"])
    async def packet(self, request: Request, asked: Asked) -> bytes:
        """The newest signed packet of an account that is offered. 200; 404."""
        packet = await self.knowledge.packets.of(asked.pubky)
        if packet is None or not self.knowledge.may_know(asked.peer, packet, asked.pubky):
            raise NotFound
        request.setHeader(b"Content-Type", b"application/pkarr.org/relays#payload")
        return packet.relay_payload

    @app.route("/peer/v1/packets", methods=["POST"])
    async def shown(self, request: Request, asked: Asked) -> bytes:
        """Learn packets, and say what became of each. 200; 400, 403, 413."""
        packets = await asked.posted(request, reading.read_packets, messages.MAX_SHOWN)
        return answer_json(request, messages.pack_shown(await self.knowledge.take(asked.peer, packets)))

    @app.route("/peer/v1/accounts/<pubky>/erase", methods=["POST"])
    async def erase(self, request: Request, asked: Asked) -> bytes:
        """Hide our copy of an account that lives at the peer. 200 when that is durable; 400, 403, 409, 413."""
        log_id, seq = await asked.posted(request, reading.read_order, messages.MAX_ORDER)
        obeyed = await self.obey(asked.peer.key, asked.pubky, log_id, seq)
        if obeyed is Obeyed.ELSEWHERE:
            raise Forbidden("The newest record of this account does not name you")
        if not obeyed.is_done:
            raise NotErased(_REASONS[obeyed])
        return answer_json(request, messages.pack_obeyed(obeyed))


def _dress(request: Request, refused: bool) -> None:
    """What only a peer may see stays out of caches."""
    request.setHeader(b"Cache-Control", b"no-store")
