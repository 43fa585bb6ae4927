"""A request of a peer, once it is known whose it is, and the answers that all have."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import evolve, frozen

from pubky_homeserver.core.copies import LogStanding
from pubky_homeserver.core.errors import Forbidden, InvalidRequest
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.peers.shapes import MAX_NUMBER, Malformed, to_json
from pubky_homeserver.peers.signatures import BadSignature, Signed
from pubky_homeserver.web.queries import whole_number
from pubky_homeserver.web.request import Request

T = TypeVar("T")

PAGE = 250
"""Accounts, events or files of an answer: it is written and read in a few milliseconds, and so holds up nobody."""


@frozen
class Asked:
    """A request of a peer, once it is known whose it is."""

    peer: Peer
    signed: Signed
    query: Mapping[str, str]
    pubky: str = ""
    """The account that it is about."""
    private: bool = False
    """Whether it is about the private log of that."""

    def number(self, name: str) -> int:
        """A whole number of the query. Raises `InvalidRequest`."""
        number = whole_number(self.query.get(name, ""), MAX_NUMBER)
        if number is None:
            raise InvalidRequest(f"Invalid {name}")
        return number

    def data(self, name: str, length: int) -> bytes:
        """Bytes of the query. Raises `InvalidRequest`."""
        try:
            data = b64decode(self.query.get(name, ""), validate=True)
        except ValueError:
            data = b""
        if len(data) != length:
            raise InvalidRequest(f"Invalid {name}")
        return data

    async def posted(self, request: Request, read: Callable[[bytes], T], most: int) -> T:
        """What a peer sends. Raises `InvalidRequest`, `Forbidden` for another body than was signed, `BodyTooLarge`."""
        body = await request.read(most)
        try:
            self.signed.check(body)
            return read(body)
        except BadSignature as error:
            raise Forbidden(str(error)) from None
        except Malformed as error:
            raise InvalidRequest(f"Not as it must be: {error}") from None


def seen_by(standing: LogStanding, peer: Peer) -> LogStanding:
    """A standing as a peer may know it: what an account takes counts private files too."""
    return standing if peer.private else evolve(standing, used=0)


def answer_json(request: Request, value: object) -> bytes:
    """The body of an answer."""
    request.setHeader(b"Content-Type", b"application/json")
    return to_json(value)
