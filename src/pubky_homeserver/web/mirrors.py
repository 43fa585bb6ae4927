"""The operator looks at the copies of other homeservers' accounts."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import frozen
from klein import Klein

from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import json_body


def _nothing() -> dict[str, object]:
    return {"peers": [], "copies": []}


async def _trusts_nobody() -> dict[str, object]:
    raise InvalidRequest("No homeserver is trusted by this process: see [peers.NAME] in its settings")


async def _pause_nobody(_name: str, _paused: bool) -> None:
    raise InvalidRequest("No homeserver is trusted by this process: see [peers.NAME] in its settings")


async def _ask_nobody(_name: str) -> dict[str, object]:
    raise InvalidRequest("No homeserver is trusted by this process: see [peers.NAME] in its settings")


@frozen
class Mirrors:
    """What is kept for peers, by default nothing. `status` tells how it goes, `probe` asks a peer by its name.

    `pause` leaves a peer alone, or not.
    """

    status: Callable[[], dict[str, object]] = _nothing
    probe: Callable[[str], Awaitable[dict[str, object]]] = _ask_nobody
    pause: Callable[[str, bool], Awaitable[None]] = _pause_nobody
    exposure: Callable[[], Awaitable[dict[str, object]]] = _trusts_nobody
    app: ClassVar[Klein] = Klein()

    @app.route("/mirrors", methods=["GET", "HEAD"])
    async def show(self, request: Request) -> bytes:
        """Every peer that is followed, and every copy. 200 as JSON.

        `peers`: name, key, why it cannot be followed at the moment, or null (`failure`), and what it said last that
        cannot be, or null (`trouble`), whether it is `paused`,
        when it last told of all that changed (`heard`, Unix seconds), and since the
        process began our requests, how many failed, and the bytes of the answers (`traffic`). `copies`: pubky, primary,
        state (current, stale, bootstrapping), number of the last change, when the primary last confirmed it and when
        its user signed up here (`claimed`; both Unix seconds, 0 for never), for how long (`behind`, seconds) and by how
        many changes (`lag`) it is known to be behind, bytes, files whose body is missing, files that a comparison would
        remove which waits for the operator (`braked`), and when its history was last another one than its primary's
        (`forked`, Unix seconds, of the last 30 days), when bodies and list were last found to be right (`verified`,
        Unix seconds, 0 for never). `forks`, of accounts here and of copies: pubky, the `peer` whose history is another
        one, and when that was last found (`at`).
        `conflicts`: how many things lie on the conflict shelf, or null (not counted yet); `turned_away`: writes and
        sign-ins that were refused since the process began, for the account lives elsewhere.
        `orders` to erase copies: the `peer`, pubky, when it was given (`ordered`) and obeyed (`receipt`, 0 for not yet;
        both Unix seconds), and why not yet, or null (`failure`). `erased`, copies that are hidden: pubky, and when they
        are wiped (`until`). `moves`, the newest last: pubky, `what` (opened, fenced, or voided, a claim), the `other`
        homeserver, when (`at`), and `is_back`: it went the other way just before.
        """
        return json_body(request, self.status())

    @app.route("/mirrors/exposure", methods=["GET"])
    async def exposed(self, request: Request) -> bytes:
        """What would be lost if this machine died now; the peers are asked. 200 as JSON; 400 without peers.

        How many `accounts` live here; `alone`: those without a copy, `named` some of them; `behind`: those whose best
        copy lacks something, and how many `changes` and `bodies` those lack in all; `private`: those whose private
        files have no copy; `silent`: peers that did not answer.
        """
        return json_body(request, await self.exposure())

    @app.route("/peers/pause", methods=["POST"])
    async def pause_peer(self, request: Request) -> bytes:
        """Leave a peer alone until the next start, or follow it again. 200 as JSON; 400.

        Query: `name`; `paused` is false to follow it again.
        """
        query = dict(pairs_of(request.query))
        name, paused = query.get("name", ""), query.get("paused", "true") != "false"
        await self.pause(name, paused)
        return json_body(request, {"name": name, "paused": paused})

    @app.route("/peers/test", methods=["POST"])
    async def test(self, request: Request) -> bytes:
        """Ask a peer now. 200 as JSON, however it went; 400 if the running settings have no such peer.

        Query: `name`. Answer: name, key, whether all is `well`, what it `says` (a sentence), its `version` and its
        `features`, which of ours it `lacks`, how many accounts it `offered` on its first page, how many of them are
        `wanted`, and whether there are `more`.
        """
        return json_body(request, await self.probe(dict(pairs_of(request.query)).get("name", "")))
