"""Whether all is well in a world at rest: from what users were told, and dumps."""

from collections import Counter
from collections.abc import Sequence

from attrs import frozen
from blake3 import blake3

from tests.peers.clients import Asked, doubts, last_writes
from tests.peers.dumps import Dump, body_of, dump, hash_of, shelves
from tests.peers.worlds import World


@frozen
class Verdict:
    """What is checked at rest. `looked`: invariant → how often there was something to see."""

    world: World
    asked: Sequence[Asked]
    excused: set[int]
    """Writes, by their places, that were lost with the only store that had them."""
    looked: Counter[str]

    def check(self) -> None:
        """All that holds once everybody has come to rest."""
        for pubky, user in self.world.users.items():
            home = dump(self.world.nodes[user.home].store, pubky)
            assert home is not None, f"I24: {user.home} knows nothing of {pubky}"
            assert home.is_home, f"I24: {user.home} is not open"
            for name in self.world.nodes:
                if name != user.home and self.world.is_copying(name, user.home):
                    self.equal(user.home, home, name, pubky)
            self.nothing_lost(user.home, home, pubky)
            self.stays_away(user.home, home, pubky)

    def equal(self, primary: str, home: Dump, name: str, pubky: str) -> None:
        """I1."""
        world = self.world
        copy = dump(world.nodes[name].store, pubky)
        if copy is None and not any(log.at and log.at[0] for log in home.logs.values()):
            return  # nothing was ever written, so nobody was told of it
        assert copy is not None, f"I1: {name} has no copy"
        assert not copy.is_home, f"I1: {name} is open, too"
        for private in (False, True):
            if private and not world.consent(name, primary):
                continue
            here, there = copy.logs[private], home.logs[private]
            assert here.is_whole, f"I1: the list of {name} is not whole"
            assert here.at == there.at, f"I1: {name} stands at {here.at}, {primary} at {there.at}"
            paths = {path for path in {*home.entries, *copy.entries} if path.startswith("/priv/") is private}
            for path in paths:
                one, other = copy.entries.get(path), home.entries.get(path)
                assert one is not None, f"I1: {name} lacks {path}"
                assert other is not None, f"I1: {name} has {path}"
                facts = [(each.content_hash, each.length, each.content_type, each.modified) for each in (one, other)]
                assert facts[0] == facts[1], f"I1: {path} at {name}"
                for node, entry in ((name, one), (primary, other)):
                    body = body_of(entry, world.nodes[node].blobs)
                    if path.startswith("/") and self._is_somewhere(pubky, path, entry.content_hash):
                        assert body is not None, f"I1: {node} lacks the body of {path}"
                        assert blake3(body).digest() == entry.content_hash, f"I1: the body of {path} at {node}"
        self.looked["I1"] += 1

    def _is_somewhere(self, pubky: str, path: str, content_hash: bytes) -> bool:
        """Whether anybody has the body of a file."""
        for node in self.world.nodes.values():
            there = dump(node.store, pubky)
            entry = None if there is None else there.entries.get(path)
            if entry is not None and entry.content_hash == content_hash and body_of(entry, node.blobs) is not None:
                return True
        return False

    def nothing_lost(self, primary: str, home: Dump, pubky: str) -> None:
        """I9."""
        kept = shelves(self.world, pubky)
        for one in last_writes(self.asked, pubky).values():
            wanted = hash_of(one.body)
            if one.place in self.excused or (one.path, wanted) in kept:
                continue
            right = {wanted, *doubts(self.asked, pubky, one.path, one)}
            held = home.hash_at(one.path) in right
            for name, node in self.world.nodes.items():
                is_apart = not self.world.is_connected(name, primary)
                is_hidden = one.path.startswith("/priv/") and (
                    name == one.node or not self.world.consent(name, primary)
                )
                if not held and (is_apart or is_hidden):
                    there = dump(node.store, pubky)
                    held = there is not None and there.hash_at(one.path) in right
            assert held, f"I9: {one} is lost"
            self.looked["I9"] += 1

    def stays_away(self, primary: str, home: Dump, pubky: str) -> None:
        """I11."""
        for one in last_writes(self.asked, pubky).values():
            if one.body is not None or one.path in home.entries:
                continue
            for name, node in self.world.nodes.items():
                is_open = not one.path.startswith("/priv/") or self.world.consent(name, primary)
                if name != primary and self.world.is_copying(name, primary) and is_open:
                    there = dump(node.store, pubky)
                    assert there is None or one.path not in there.entries, f"I11: {one.path} is back at {name}"
                    self.looked["I11"] += 1


def in_step(world: World, pubky: str) -> set[str]:
    """The copies of an account that are where its home is, and in touch with it."""
    home = world.users[pubky].home
    primary = dump(world.nodes[home].store, pubky)
    if primary is None or not primary.is_home:
        return set()
    found = set()
    for name, node in world.nodes.items():
        there = dump(node.store, pubky)
        if there is None or there.is_home or world.name_of(there.primary) != home:
            continue
        is_there = there.logs[False].is_whole and there.logs[False].at == primary.logs[False].at
        if is_there and world.is_connected(name, home) and world.is_in_touch(name, home):
            found.add(name)
    return found
