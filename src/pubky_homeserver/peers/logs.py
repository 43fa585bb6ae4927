"""What peers may ask of one log of an account, and what its followers bring. See `peers/web.py`."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from attrs import evolve, field, frozen
from klein import Klein

from pkarr.asking import all_of
from pubky_homeserver.core.copies import LoggedEvent, LogStanding, Position, Question
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import NotFound, NotOpenYet, StoreAway
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IIntegrityStore, ILogStore
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.asked import PAGE, Asked, answer_json, seen_by
from pubky_homeserver.peers.exchange import Knowledge
from pubky_homeserver.peers.handing import Handing
from pubky_homeserver.peers.late import LateWrites
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.request import Request

MAX_BODIES = 1 << 20
"""Bytes of small bodies within a page of events, and one body more."""

STEP = 100
"""Events read from the store at a time: with the largest bodies, some 6 MiB."""


@frozen
class LogSite:
    """The answers about logs. The functions are those of `PeerSite`."""

    key: str
    """This homeserver's own."""
    logs: ILogStore
    storage: Storage
    knowledge: Knowledge
    integrity: IIntegrityStore
    late_of: Callable[[Peer], LateWrites | None]
    is_taken_down: Callable[[str], bool]
    fork: Callable[[str, str], Awaitable[None]]
    lived_at: Callable[[str], Awaitable[Sequence[str]]]
    has_all: Callable[[str, str], Awaitable[None]]
    _handing: Handing = field(init=False)
    app: ClassVar[Klein] = Klein()

    @_handing.default
    def _make_handing(self) -> Handing:
        return Handing(self.storage, self.integrity)

    @app.route("/peer/v1/accounts/<pubky>/<log>/events", methods=["GET"])
    async def events(self, request: Request, asked: Asked) -> bytes:
        """The events after a position. 200; 400, 404, 409, 410, 503."""
        position = Position(
            asked.query.get("log_id", ""),
            asked.number("seq"),
            asked.number("id"),
            asked.data("digest", messages.DIGEST),
        )
        status, told = await self._told(asked, position, 1)
        request.setResponseCode(status)
        return answer_json(request, told)

    @app.route("/peer/v1/events", methods=["POST"])
    async def events_of_many(self, request: Request, asked: Asked) -> bytes:
        """The same for several logs, in their order, each with the status that it would have. 200; 400, 403, 413."""
        questions = await asked.posted(request, reading.read_questions, messages.MAX_ASKED)
        answers = await all_of(self._answer_one(asked, one, len(questions)) for one in questions)
        return answer_json(request, messages.pack_answers(answers))

    async def _answer_one(self, asked: Asked, question: Question, share: int) -> dict[str, Any]:
        about = evolve(asked, pubky=question.pubky, private=question.private)
        try:
            return messages.pack_answer(*await self._told(about, question.position, share))
        except NotFound:
            return messages.pack_answer(HTTPStatus.NOT_FOUND, {})
        except (StoreAway, NotOpenYet):
            return messages.pack_answer(HTTPStatus.SERVICE_UNAVAILABLE, {})

    async def _told(self, asked: Asked, position: Position, share: int) -> tuple[HTTPStatus, dict[str, Any]]:
        """What is said of the events after a position, and its status. `share`: how many share an answer's length."""
        most = max(PAGE // share, 1) + bool(position.seq)
        known = await self.logs.known(asked.pubky, asked.private, position, min(STEP, most))
        home, _ = self.knowledge.home_by(asked.pubky, self.knowledge.packets.verified(asked.pubky, known.packet))
        standing = self._allowed(asked, home, known.standing)
        if position == standing.position:
            if asked.private:
                await self.has_all(asked.pubky, asked.peer.key)
            return HTTPStatus.OK, messages.pack_events(standing.reigns, (), position.seq)
        verdict, events = self._judge(standing, position), list[LoggedEvent]()
        if verdict is None:
            events = await self._page(asked, known.events, most, MAX_BODIES // share)
            verdict = await self._judge_page(asked, position, events)
        if verdict is None:
            return HTTPStatus.OK, messages.pack_events(standing.reigns, events, standing.position.seq)
        if verdict is HTTPStatus.CONFLICT and home == self.key:
            await self.fork(asked.pubky, asked.peer.key)
        return verdict, messages.pack_reigns(standing.reigns)

    def _judge(self, standing: LogStanding, position: Position) -> HTTPStatus | None:
        """Whether a position cannot be one of ours, and how; None if it can."""
        firsts = [reign.first for reign in standing.reigns]
        ends = [*(first - 1 for first in firsts[1:]), standing.position.seq]
        reigns = zip(standing.reigns, ends, strict=True)
        reign = next(((one.first - 1, end) for one, end in reigns if one.log_id == position.log_id), None)
        if reign is None or not reign[0] <= position.seq <= reign[1]:
            return HTTPStatus.CONFLICT
        if position.seq < standing.floor:
            return HTTPStatus.GONE
        if not position.seq and (position.event_id, position.digest) != (0, EMPTY):
            return HTTPStatus.CONFLICT
        return None

    async def _judge_page(self, asked: Asked, position: Position, events: list[LoggedEvent]) -> HTTPStatus | None:
        """Whether a page begins with the event of the position, which is taken away, and goes on with the next one."""
        if position.seq:
            first = events.pop(0).event if events else None
            if first is None or first.id != position.event_id:
                event = await self.logs.event_numbered(asked.pubky, asked.private, position.seq)
                return HTTPStatus.GONE if event is None else HTTPStatus.CONFLICT  # gone: its path was written again
            if (first.seq, first.digest) != (position.seq, position.digest):
                return HTTPStatus.CONFLICT
        # If the next one is not there the log was shortened meanwhile.
        return HTTPStatus.GONE if events and events[0].event.seq != position.seq + 1 else None

    async def _page(self, asked: Asked, found: Sequence[LoggedEvent], most: int, longest: int) -> list[LoggedEvent]:
        """A page of `most` events, those that were found and the next ones; it ends early if their bodies are large."""
        page: list[LoggedEvent] = []
        size = 0
        while True:
            for one in found:
                page.append(one)
                size += len(one.body or b"")
                if size >= longest and len(page) > 1:
                    return page
            if len(found) < STEP or len(page) >= most:
                return page
            step = min(STEP, most - len(page))
            found = await self.logs.logged(asked.pubky, asked.private, page[-1].event.id, step)

    @app.route("/peer/v1/accounts/<pubky>/<log>/entries", methods=["GET"])
    async def entries(self, request: Request, asked: Asked) -> bytes:
        """A page of the files of a log. 200; 404, 503."""
        await self._standing(asked)
        after = asked.query.get("after", "")
        listed = await self.logs.listed(asked.pubky, asked.private, after, PAGE)
        if listed is None:
            raise NotFound
        seen = evolve(listed, standing=seen_by(listed.standing, asked.peer))
        return answer_json(request, messages.pack_entries(seen))

    @app.route("/peer/v1/accounts/<pubky>/<log>/body", methods=["GET"])
    async def body(self, request: Request, asked: Asked) -> bytes | None:
        """The body that a path has or had, if it has this hash, or a range of it. 200, 206; 400, 404, 410, 416.

        What is public every peer may have, for everybody may read it: one of them can need it for a copy of its own.
        """
        path, content_hash = asked.query.get("path", ""), asked.data("hash", messages.HASH)
        if is_private(path) != asked.private:
            raise NotFound
        try:
            await self._standing(asked)
        except (NotFound, NotOpenYet):
            if not await self._is_read_by_all(asked, path, content_hash):
                raise
        return await self._handing.answer(request, asked.pubky, path, content_hash)

    async def _is_read_by_all(self, asked: Asked, path: str, content_hash: bytes) -> bool:
        """Whether a path has this body, and everybody may read it here."""
        copy = self.knowledge.copies.of(asked.pubky)
        if self.is_taken_down(asked.pubky):
            return False
        if asked.private or (copy is not None and not copy.public.is_whole):
            return False
        entry = await self.storage.entries.entry(asked.pubky, path)
        return entry is not None and entry.content_hash == content_hash

    @app.route("/peer/v1/accounts/<pubky>/<log>/late", methods=["POST"])
    async def late(self, request: Request, asked: Asked) -> bytes:
        """Lay what our log lacks on the shelf, and say what is safe. 200; 400, 403, 404, 413, 503.

        From who follows the account, or whom we followed; and from where it lived, all, whatever was agreed on private
        files: but what it must not read it must not learn of the answer either.
        """
        peer, pubky, private = asked.peer, asked.pubky, asked.private
        takes = self.late_of(peer)
        may_have = peer.may_read(pubky, private) or (peer.follows(pubky) and (peer.private or not private))
        standing = await self.logs.standing(pubky, private)
        is_home = standing is not None and (await self.knowledge.home(pubky))[0] == self.key
        lived_there = is_home and peer.key in await self.lived_at(pubky)
        if takes is None or not is_home or not (may_have or lived_there):
            raise NotFound
        if standing is not None and standing.is_copy:
            raise NotOpenYet
        events = await asked.posted(request, lambda body: reading.read_late(body, pubky, private), messages.MAX_OFFER)
        if events:
            await self.fork(pubky, peer.key)
        taken = await takes.take(pubky, private, events, may_have, lived_there)
        return answer_json(request, messages.pack_kept(taken))

    async def _standing(self, asked: Asked) -> LogStanding:
        """Where a log that the peer may read stands: the account's homeserver may read all.

        Raises `NotFound`; and `NotOpenYet` if the account is about to open here: what its last primary has more is on
        its way, and whoever compared himself with us now would take that for lost.
        """
        home, _ = await self.knowledge.home(asked.pubky)
        return self._allowed(asked, home, await self.logs.standing(asked.pubky, asked.private))

    def _allowed(self, asked: Asked, home: str, standing: LogStanding | None) -> LogStanding:
        """The standing, if the peer may read the log of an account that lives there."""
        is_offered = home == self.key and asked.peer.may_read(asked.pubky, asked.private)
        if standing is None or (not is_offered and home != asked.peer.key):
            raise NotFound
        if standing.is_copy and home == self.key:
            raise NotOpenYet
        return standing
