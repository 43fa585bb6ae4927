"""The operator takes accounts down, and shows them again."""

from typing import ClassVar

from attrs import frozen
from klein import Klein

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.core.errors import InvalidRequest, NotFound
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import json_body


@frozen
class TakedownList:
    """What is taken down here."""

    takedowns: Takedowns
    app: ClassVar[Klein] = Klein()

    @app.route("/takedowns", methods=["GET", "HEAD"])
    async def show(self, request: Request) -> bytes:
        """All that the operator has taken down. 200 as JSON: `takedowns`, each `pubky` and `since` (Unix seconds)."""
        known = self.takedowns.known.items()
        return json_body(
            request, {"takedowns": [{"pubky": pubky, "since": since // 1_000_000} for pubky, since in known]}
        )

    @app.route("/takedowns", methods=["POST"])
    async def add(self, request: Request) -> bytes:
        """Take an account or a copy down. 200 as JSON; 400 for a key of which nothing is here. Query: `pubky`.

        Answer: `pubky`, and whether that `changed` something.
        """
        pubky = _key(request)
        try:
            changed = await self.takedowns.take_down(pubky)
        except NotFound:
            raise InvalidRequest("No account, and no copy of one, has this key here") from None
        return json_body(request, {"pubky": pubky, "changed": changed})

    @app.route("/takedowns", methods=["DELETE"])
    async def lift(self, request: Request) -> bytes:
        """Show an account or a copy again. 200 as JSON; 400. Query and answer as above."""
        pubky = _key(request)
        return json_body(request, {"pubky": pubky, "changed": await self.takedowns.lift(pubky)})


def _key(request: Request) -> str:
    try:
        return PublicKey.parse(dict(pairs_of(request.query)).get("pubky", "")).z32
    except InvalidPublicKey as error:
        raise InvalidRequest(f"Not a public key: {error}") from None
