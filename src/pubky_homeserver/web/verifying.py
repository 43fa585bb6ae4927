"""The operator has what is kept here verified."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import asdict, frozen
from klein import Klein

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.core.errors import InvalidRequest, NotThisProcess
from pubky_homeserver.core.verification import Verification
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import json_body


async def _begin_elsewhere(_pubky: str | None) -> Verification:
    raise NotThisProcess("Nothing is verified by this process: it follows no homeserver")


@frozen
class Verifying:
    """Verifications. `begin` begins one; `newest` is the last one that was begun, as far as it is."""

    begin: Callable[[str | None], Awaitable[Verification]] = _begin_elsewhere
    newest: Callable[[], Verification | None] = lambda: None
    app: ClassVar[Klein] = Klein()

    @app.route("/mirrors/verify", methods=["POST"])
    async def verify_now(self, request: Request) -> bytes:
        """Go through all accounts and copies, or one, from now on. 200 as JSON, as `show`; 400, 503.

        Query: `pubky` for one.
        """
        text = dict(pairs_of(request.query)).get("pubky")
        return json_body(request, asdict(await self.begin(None if text is None else _key(text))))

    @app.route("/mirrors/verify", methods=["GET", "HEAD"])
    async def show(self, request: Request) -> bytes:
        """How far the newest verification is. 200 as JSON; null if none was begun since the process did.

        `pubky` or null for all; when it `began` and `ended` (Unix seconds, 0 for not yet); how many `accounts` are done
        `of` all; `files` and `bytes` looked at; bodies that were `wrong` or not there; files that are `different` at
        their primaries; bodies that are `missing` in the end; `faults`: of an account what is not well.
        """
        newest = self.newest()
        return json_body(request, None if newest is None else asdict(newest))


def _key(text: str) -> str:
    try:
        return PublicKey.parse(text).z32
    except InvalidPublicKey as error:
        raise InvalidRequest(f"Not a public key: {error}") from None
