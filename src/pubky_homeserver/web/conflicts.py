"""The operator looks at the conflict shelf, and applies or drops what lies there."""

import re
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import frozen
from klein import Klein

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.conflicts import ACCOUNTS, PAGE, Conflicts, Outcome
from pubky_homeserver.core.errors import InvalidRequest, NotFound, NotHereYet, NotThisProcess
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Shelved
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import entity_tag, json_body

_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)


async def _repair_elsewhere(_pubky: str) -> int:
    raise NotThisProcess("This process follows no homeserver")


@frozen
class Shelf:
    """The conflict shelf. `repair` lets a comparison that waits go on; it returns how many files that removes."""

    conflicts: Conflicts
    repair: Callable[[str], Awaitable[int]] = _repair_elsewhere
    app: ClassVar[Klein] = Klein()

    @app.route("/conflicts", methods=["GET", "HEAD"])
    async def show(self, request: Request) -> bytes:
        """A page of what lies there. 200 as JSON; 400.

        Query: `pubky`, `after`. Without `pubky`: `accounts` and `next`, an account or null. With it: `items`, each with
        `pubky`, `id`, `reason` (late, replaced), `origin` (a homeserver's key), `path`, `operation` (PUT, DEL), `entry`
        and `ours` (etag, length, type, modified, and whether the body is here; null for none), `written` and `shelved`
        (microseconds), and whether the path is `untouched` since; and `next`, an id or null.
        """
        query = dict(pairs_of(request.query))
        after = query.get("after", "")
        if "pubky" not in query:
            accounts = await self.conflicts.accounts(after)
            return json_body(
                request, {"accounts": accounts, "next": accounts[-1] if len(accounts) == ACCOUNTS else None}
            )
        pubky = _key(query["pubky"])
        page = await self.conflicts.page(pubky, after)
        untouched = await self.conflicts.untouched(pubky, page)
        items = [{**_json(one), "untouched": one.id in untouched} for one in page]
        return json_body(request, {"items": items, "next": page[-1].id if len(page) == PAGE else None})

    @app.route("/conflicts/body", methods=["GET"])
    async def body(self, request: Request) -> None:
        """The body of one thing. 200; 400, 404, 503 if it could not be had. Query: `pubky`, `id`, `ours=true`."""
        query, pubky, shelved_id = self._one(request)
        found = await self.conflicts.one(pubky, shelved_id)
        entry = found.ours if query.get("ours") == "true" else found.entry
        if entry is None:
            raise NotFound
        if not _is_here(entry):
            raise NotHereYet
        request.setHeader(b"Content-Type", b"application/octet-stream")
        request.stream()
        async for piece in self.conflicts.body(entry):
            await request.write(piece)
        request.finish()

    @app.route("/conflicts/apply", methods=["POST"])
    async def apply(self, request: Request) -> bytes:
        """Write what lies there to its path. 200 as JSON; 400, 404.

        Query: `pubky`, and `id` of one thing, or `untouched=true` for all whose paths nobody changed since. `applied`
        and `left`: as in `items`, those that are left with a `failure`.
        """
        query = dict(pairs_of(request.query))
        if query.get("untouched") == "true":
            outcomes = await self.conflicts.apply_untouched(_key(query.get("pubky", "")))
        else:
            _, pubky, shelved_id = self._one(request)
            outcomes = [await self.conflicts.apply(pubky, shelved_id)]
        applied = [_json(one.shelved) for one in outcomes if one.failure is None]
        return json_body(request, {"applied": applied, "left": [_left(one) for one in outcomes if one.failure]})

    @app.route("/conflicts/drop", methods=["POST"])
    async def drop(self, request: Request) -> bytes:
        """Throw away what lies there. 200 as JSON: how many are `dropped`; 400, 404.

        Query: `pubky`, and `id` of one thing, or `all=true`.
        """
        query = dict(pairs_of(request.query))
        if query.get("all") == "true":
            return json_body(request, {"dropped": await self.conflicts.drop_all(_key(query.get("pubky", "")))})
        _, pubky, shelved_id = self._one(request)
        await self.conflicts.drop(pubky, shelved_id)
        return json_body(request, {"dropped": 1})

    @app.route("/mirrors/repair", methods=["POST"])
    async def repair_now(self, request: Request) -> bytes:
        """Let the comparison of a copy go on that waits for the operator. 200 as JSON; 400, 503. Query: `pubky`.

        `permitted`: files that it may remove, after they were shelved; 0 if none waits.
        """
        pubky = _key(dict(pairs_of(request.query)).get("pubky", ""))
        return json_body(request, {"pubky": pubky, "permitted": await self.repair(pubky)})

    def _one(self, request: Request) -> tuple[dict[str, str], str, str]:
        """The query, and which thing it names. Raises `InvalidRequest`."""
        query = dict(pairs_of(request.query))
        shelved_id = query.get("id", "")
        if not _ID.fullmatch(shelved_id):
            raise InvalidRequest("Not an id of something on the shelf: 40 hex digits")
        return query, _key(query.get("pubky", "")), shelved_id


def _json(shelved: Shelved) -> dict[str, object]:
    return {
        "pubky": shelved.pubky,
        "id": shelved.id,
        "reason": shelved.reason.value,
        "origin": shelved.origin,
        "path": shelved.path,
        "operation": "DEL" if shelved.entry is None else "PUT",
        "entry": _entry(shelved.entry),
        "ours": _entry(shelved.ours),
        "written": shelved.written,
        "shelved": shelved.shelved,
    }


def _left(outcome: Outcome) -> dict[str, object]:
    return {**_json(outcome.shelved), "failure": outcome.failure}


def _entry(entry: Entry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    return {
        "etag": entity_tag(entry.content_hash),
        "length": entry.length,
        "type": entry.content_type,
        "modified": entry.modified,
        "here": _is_here(entry),
    }


def _is_here(entry: Entry) -> bool:
    """Whether its body is."""
    return entry.body is not None or entry.blob is not None


def _key(text: str) -> str:
    try:
        return PublicKey.parse(text).z32
    except InvalidPublicKey as error:
        raise InvalidRequest(f"Not a public key: {error}") from None
