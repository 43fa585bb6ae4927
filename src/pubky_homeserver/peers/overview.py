"""All that the operator sees of peers and copies, and asks of them."""

from collections.abc import Mapping

from attrs import asdict, field, frozen
from twisted.internet.defer import maybeDeferred

from pubky_homeserver.conflicts import Waiting
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.core.moves import Fork, Move
from pubky_homeserver.peers.chronicle import Chronicle
from pubky_homeserver.peers.erasing import Erasures
from pubky_homeserver.peers.exposure import Exposure
from pubky_homeserver.peers.mirror import Mirror
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.ordering import Orders
from pubky_homeserver.peers.probing import probe
from pubky_homeserver.peers.tally import Counted, Tally, Traffic


@frozen
class Overview:
    """What `web/mirrors.py` shows."""

    neighbours: Mapping[str, Neighbour]
    traffic: Mapping[str, Traffic]
    """By the keys of the same peers."""
    copies: Copies
    orders: Orders
    erasures: Erasures
    would_be_lost: Exposure
    shelved: Waiting
    tally: Tally
    chronicle: Chronicle
    mirrors: tuple[Mirror, ...] = field(init=False)
    """Who follows the peers."""

    @mirrors.default
    def _find_mirrors(self) -> tuple[Mirror, ...]:
        return tuple(one.mirror for one in self.neighbours.values() if one.mirror is not None)

    def status(self) -> dict[str, object]:
        """How it goes, for the operator: each peer that is followed, each copy, and what happened lately."""
        forked = self.chronicle.forked()
        return {
            "peers": [
                {
                    "name": mirror.peer.name,
                    "key": mirror.peer.key,
                    "failure": mirror.failure,
                    "trouble": mirror.trouble,
                    "paused": not mirror.running,
                    "heard": int(self.copies.heard(mirror.peer.key)),
                    "traffic": asdict(self.traffic[mirror.peer.key]),
                }
                for mirror in self.mirrors
            ],
            "copies": [
                {**self._describe(copy), "forked": forked.get(copy.pubky, 0)}
                for copy in sorted(self.copies.all(), key=lambda copy: copy.pubky)
            ],
            "forks": [_in_seconds(one) for one in self.chronicle.forks()],
            "conflicts": self.shelved.things,
            "turned_away": self.tally.of(Counted.TURNED_AWAY),
            "orders": self.orders.status(),
            "erased": [{"pubky": one.pubky, "until": one.until // 1_000_000} for one in self.erasures.waiting],
            "moves": [_in_seconds(one) for one in self.chronicle.moves],
        }

    def _describe(self, copy: Copy) -> dict[str, object]:
        position = copy.public.position
        return {
            "pubky": copy.pubky,
            "primary": copy.primary,
            "state": self.copies.state(copy),
            "seq": 0 if position is None else position.seq,
            "confirmed": self.copies.confirmed(copy),
            "claimed": copy.claimed // 1_000_000,
            "behind": int(self.copies.behind_for(copy)),
            "lag": self.copies.lag(copy),
            "used": copy.used,
            "missing": copy.missing,
            "braked": copy.braked,
            "verified": copy.verified // 1_000_000,
            "taken_down": copy.taken_down,
        }

    async def exposure(self) -> dict[str, object]:
        """What would be lost if this machine died now, for the operator. Raises `StoreAway`."""
        return asdict(await self.would_be_lost.measure())

    async def probe(self, name: str) -> dict[str, object]:
        """Ask a peer whether all is well, for the operator. Raises `InvalidRequest` if it cannot be asked from here."""
        for neighbour in self.neighbours.values():
            if neighbour.peer.name == name:
                return asdict(await probe(neighbour.peer, neighbour.source))
        raise InvalidRequest("The running node asks no peer of that name: restart it if its settings changed")

    async def pause(self, name: str, paused: bool) -> None:
        """Leave a peer alone from now on, or follow it again. Raises `InvalidRequest` if it is not followed."""
        mirror = next((one for one in self.mirrors if one.peer.name == name), None)
        if mirror is None:
            raise InvalidRequest("The running node follows no peer of that name: restart it if its settings changed")
        if paused and mirror.running:
            await maybeDeferred(mirror.stopService)
        elif not paused and not mirror.running:
            mirror.startService()

    async def repair(self, pubky: str) -> int:
        """Let the comparison of a copy go on that waits for the operator; how many files it may remove."""
        permitted = await self.copies.store.permit(pubky)
        copy = await self.copies.refresh(pubky)
        neighbour = None if copy is None else self.neighbours.get(copy.primary)
        if permitted and neighbour is not None and neighbour.mirror is not None:
            neighbour.mirror.hint(pubky, False)
            if neighbour.peer.private:
                neighbour.mirror.hint(pubky, True)
        return permitted


def _in_seconds(happened: Move | Fork) -> dict[str, object]:
    return {**asdict(happened), "at": happened.at / 1_000_000}
