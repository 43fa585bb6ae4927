"""How much may be kept of a peer: copies of its accounts, and what it laid on the shelf, up to its `max_bytes`."""

from attrs import define, field

from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IShelfStore
from pubky_homeserver.peers.bodies import Underway

BODIES = 0.9
"""Of the space that copies may take, what bodies may: names and events have room when there is none for bodies."""


@define(eq=False)
class Allowance:
    """What one peer may take here, and what it takes."""

    peer: Peer
    copies: Copies
    shelf: IShelfStore
    underway: Underway = field(factory=Underway)
    """Bodies on their way, or here and not yet counted with their copy."""
    _shelved: int = field(default=0, init=False)
    # Bytes of it on the shelf, as they were at the last look.

    def may_keep(self, length: int) -> bool:
        """Whether so many more bytes may be kept, the shelf's share among them; 0 for what is no body."""
        most = self.peer.max_bytes * (BODIES if length else 1)
        return self.copies.held_by(self.peer.key) + length <= most

    def may_follow(self, length: int) -> bool:
        """The same of a copy, beside what lies on the shelf."""
        most = self.peer.max_bytes * (BODIES if length else 1)
        return self.copies.held_by(self.peer.key) + self._shelved + length <= most

    async def read(self, pubky: str) -> Copy | None:
        """Read a copy again, and what lies on the shelf. Raises `StoreAway`."""
        copy, self._shelved = await self.copies.refresh(pubky), await self.shelf.shelf_used(self.peer.key)
        self.underway.settle(pubky)
        return copy
