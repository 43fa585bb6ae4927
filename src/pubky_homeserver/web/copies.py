"""What a copy answers: public reads, with a word of how new they are; everything else lives at the primary.

    Pubky-Role: mirror
    Pubky-Primary: <z32 of the homeserver that the account lives at>
    Pubky-Mirror: seq=<number of the last change>; confirmed=<Unix seconds>; state=current|stale|bootstrapping

`confirmed` is when the primary last said that it has nothing newer, by our clock; 0 if it never did. Nothing that is
not here yet is called missing: until the list of files is whole, and for a body that is still on its way, it is 503.
"""

from functools import partial

from attrs import frozen

from pubky_homeserver.claims import Claims
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import DirectoryNotFound, NotFound, NotHereYet, Refused, TakenDown
from pubky_homeserver.core.paths import is_directory, is_public
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.answers import Dress, answer_with, refuse, refuse_method
from pubky_homeserver.web.credentials import NOBODY
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route
from pubky_homeserver.web.target import Target

EXPOSED = b"pubky-role,pubky-primary,pubky-mirror"
"""Fields of an answer that a script in a browser may read besides."""

READS = (b"GET", b"HEAD")


@frozen
class CopiedFiles:
    """The files of copies. `exposed`: the fields that scripts may read of any answer."""

    copies: Copies
    claims: Claims
    takedowns: Takedowns
    exposed: bytes

    async def answer(self, request: Request, target: Target, copy: Copy, found: Route, dress: Dress) -> bool:
        """Answer one request about a copy, as `found` does for accounts; `dress` is what those carry.

        False, and nothing happened, if it is an account by now: the request waited for that.
        """
        dress = partial(self._dress, dress, copy)
        if request.method not in found.methods:
            refuse_method(request, found.allow, dress)
            return True
        if request.method not in READS or (copy.claimed and target.private):
            try:
                await self.claims.settle(copy.pubky)
            except Refused as refusal:
                refuse(request, refusal, dress)
                return True
            return False
        dress(request, False)
        await answer_with(request, self._read(request, target, copy, found), dress)
        return True

    def dress_page(self, dress: Dress, pubky: str) -> Dress:
        """What a page of an account's website carries: `dress`, and of a copy how new it is."""
        copy = self.copies.of(pubky)
        return dress if copy is None else partial(self._dress, dress, copy)

    async def _read(self, request: Request, target: Target, copy: Copy, found: Route) -> bytes | None:
        """Read as somebody who is not signed in, whatever they show: sessions are the primary's business."""
        path = target.path
        if self.takedowns.has(copy.pubky):
            raise TakenDown
        if path is not None and is_public(path) and is_directory(path) and not copy.public.is_whole:
            raise NotHereYet
        try:
            return await found.methods[request.method](request, target, NOBODY)
        except (NotFound, DirectoryNotFound):
            if copy.public.is_whole:
                raise
            raise NotHereYet from None

    def _dress(self, dress: Dress, copy: Copy, request: Request, refused: bool) -> None:
        dress(request, refused)
        request.setHeader(b"Access-Control-Expose-Headers", self.exposed + b"," + EXPOSED)
        request.setHeader(b"Pubky-Role", b"mirror")
        request.setHeader(b"Pubky-Primary", copy.primary.encode("ascii"))
        request.setHeader(b"Pubky-Mirror", age_of(self.copies, copy))
        if request.method not in READS:
            request.setHeader(b"Cache-Control", b"no-store")


def age_of(copies: Copies, copy: Copy) -> bytes:
    """What `Pubky-Mirror` says: how new a copy is."""
    seq = copy.public.position.seq if copy.public.position is not None else 0
    state = copies.state(copy).encode("ascii")
    return b"seq=%d; confirmed=%d; state=%b" % (seq, copies.confirmed(copy), state)
