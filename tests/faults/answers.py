"""What a homeserver says that an account has: by its listings, and by its events."""

import re
from base64 import b64decode

from attrs import define, field

from tests.process import Node, Person

PAGE = 1000  # paths of one listing, at most

_EVENT = re.compile(
    r"event: (PUT|DEL)\ndata: pubky://\w+(/\S+)\ndata: cursor: (\d+)\n(?:data: content_hash: (\S+)\n)?\n"
)


def listed(node: Node, person: Person) -> set[str]:
    """The paths that the listings of both places name, page by page."""
    paths: set[str] = set()
    for place in ("/pub/", "/priv/"):
        after: str | None = ""
        while after is not None:
            page = _page(node, person, place, after)
            paths.update(page)
            after = page[-1] if len(page) == PAGE else None
    return paths


def _page(node: Node, person: Person, place: str, after: str) -> list[str]:
    cursor = f"&cursor={person.pubky}{after}" if after else ""
    target = f"{person.path(place)}?limit={PAGE}{cursor}"
    answer, body = node.ask("GET", target, headers=person.headers)
    assert answer.status in (200, 404), (answer.status, body)
    lines = body.decode().splitlines() if answer.status == 200 else []
    return [line.removeprefix(f"pubky://{person.pubky}") for line in lines]


@define(eq=False)
class Follower:
    """Reads the feed of all accounts from where it was, over the ends of its homeserver."""

    there: set[str] = field(factory=set, init=False)
    """What there is by what it has read: `<pubky><path>`."""
    _cursor: int = field(default=0, init=False)

    def follow(self, node: Node) -> None:
        """Read to the end. Nothing comes twice, and nothing is deleted that was not there."""
        while True:
            answer, body = node.ask("GET", f"/events/?limit={PAGE}&cursor={self._cursor}")
            assert answer.status == 200, body
            *events, last = body.decode().split("\n")
            if not events:
                return
            for event in events:
                operation, _, place = event.partition(" pubky://")
                if operation == "DEL":
                    self.there.remove(place)
                else:
                    self.there.add(place)
            cursor = int(last.removeprefix("cursor: "))
            assert cursor > self._cursor
            self._cursor = cursor


def told(node: Node, person: Person) -> dict[str, bytes]:
    """What the events say, taken one after the other: path → hash."""
    query = f"?user={person.pubky}&path=/pub/&path=/priv/"
    answer, body = node.ask("GET", "/events-stream" + query, headers=person.headers)
    assert answer.status == 200, body
    events = _EVENT.findall(body.decode())
    assert "".join(_EVENT.sub("", body.decode()).split()) == "", "nothing but events"
    cursors = [int(cursor) for _, _, cursor, _ in events]
    assert cursors == sorted(set(cursors))
    states: dict[str, bytes] = {}
    for operation, path, _, content_hash in events:
        if operation == "PUT":
            states[path] = b64decode(content_hash)
        else:
            del states[path]  # only what was there is deleted
    return states
