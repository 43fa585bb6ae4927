"""The operator looks at what would become of accounts if they came here, lets one come, has copies elsewhere erased."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from attrs import frozen
from klein import Klein

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.core.erasing import Order
from pubky_homeserver.core.errors import InvalidRequest, NotThisProcess
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import json_body


async def _open_elsewhere(_pubky: str, _incomplete: bool) -> bool:
    raise NotThisProcess("No account is opened by this process: it follows no homeserver")


async def _check_elsewhere(_pubky: str | None) -> list[dict[str, object]]:
    raise NotThisProcess("No account is opened by this process: it follows no homeserver")


async def _erase_elsewhere(_pubky: str) -> Sequence[Order]:
    raise NotThisProcess("No homeserver is trusted by this process: nobody has a copy of an account")


@frozen
class Moves:
    """Accounts that move. `open` opens one now; `check` tells of one copy, or all, how it would go."""

    open: Callable[[str, bool], Awaitable[bool]] = _open_elsewhere
    check: Callable[[str | None], Awaitable[list[dict[str, object]]]] = _check_elsewhere
    erase: Callable[[str], Awaitable[Sequence[Order]]] = _erase_elsewhere
    """Orders all who may have a copy of an account of ours to erase it."""
    app: ClassVar[Klein] = Klein()

    @app.route("/mirrors/open", methods=["POST"])
    async def open_now(self, request: Request) -> bytes:
        """Open an account whose record names this homeserver. 200 as JSON; 400, 503.

        Query: `pubky`; `incomplete=true` also if its list of files is not whole.
        """
        query = dict(pairs_of(request.query))
        pubky = _key(query.get("pubky", ""))
        opened = await self.open(pubky, query.get("incomplete") == "true")
        return json_body(request, {"pubky": pubky, "opened": opened})

    @app.route("/mirrors/erase", methods=["POST"])
    async def erase_now(self, request: Request) -> bytes:
        """Order every peer that may have a copy of an account of ours to erase it. 200 as JSON; 400, 503.

        Query: `pubky`. Answer: pubky, and to how many peers the order is given (`ordered`). What became of it: `orders`
        of `/mirrors`.
        """
        pubky = _key(dict(pairs_of(request.query)).get("pubky", ""))
        return json_body(request, {"pubky": pubky, "ordered": len(await self.erase(pubky))})

    @app.route("/mirrors/check", methods=["GET"])
    async def check_all(self, request: Request) -> bytes:
        """What would become of copies whose users came here now. 200 as JSON; 400.

        Query: `pubky` for one. `copies`: pubky, primary, `ready`, `why` (a sentence), `state`, `seq`, when it was
        `confirmed` (Unix seconds), bodies `missing`, `claim` (allow, token, deny), whether it was `claimed`, and which
        homeserver the newest record `names`.
        """
        text = dict(pairs_of(request.query)).get("pubky")
        copies = await self.check(None if text is None else _key(text))
        return json_body(request, {"copies": copies})


def _key(text: str) -> str:
    try:
        return PublicKey.parse(text).z32
    except InvalidPublicKey as error:
        raise InvalidRequest(f"Not a public key: {error}") from None
