"""A running homeserver as its operator sees it: asked over its admin port."""

import json
from typing import Any
from urllib.parse import quote

from attrs import field, frozen
from treq import collect
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import TokenState

PATIENCE = 10.0
"""Seconds that the node has to answer: more than its own patience with its store."""

LOOK = 70.0
"""Seconds for what the node asks the network for: longer than its own patience with that."""

OPENING = 150.0
"""Seconds for an account to open: the node looks it up, tells its peers, and fetches for a minute what it lacks."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes that are read of an answer: far above a full page of tokens with their quotas."""

PAGE = 1000
"""Signup tokens asked for at once, the most that the node gives."""

INFO = frozenset({
    "num_users", "num_disabled_users", "total_disk_used_mb", "num_signup_codes", "num_unused_signup_codes",
    "public_key", "pkarr_icann_domain", "version",
})  # fmt: skip
"""What is used of a node's numbers."""


SEEN = frozenset({"key", "timestamp", "age", "records", "found"})
"""What is used of a record that was looked up."""

EXPOSURE = frozenset({"accounts", "alone", "behind", "changes", "bodies", "private", "named", "silent"})
"""What is used of what would be lost."""

VERIFICATION = frozenset(
    {"began", "ended", "accounts", "of", "files", "bytes", "wrong", "different", "missing", "faults"}
)
"""What is used of a verification."""


class CommandFailed(Exception):
    """What the operator asked for cannot be had; the text is one line that says what to do next."""


@frozen
class Node:
    """A running homeserver, by its admin port. Every method raises `CommandFailed`."""

    http: HTTPClient
    clock: IReactorTime
    address: str
    """`host:port`."""
    password: str = field(repr=False)

    async def readiness(self) -> dict[str, Any]:
        """What `/readyz` says, ready or not."""
        status, body = await self._ask("GET", "/readyz")
        if status not in (200, 503):
            raise self._stranger()
        return self._read(body, frozenset({"ready", "checks"}))

    async def info(self) -> dict[str, Any]:
        """The node's numbers."""
        return self._read(await self._succeed("GET", "/info"), INFO)

    async def new_token(self, quota: UserQuota) -> str:
        """Make a signup token."""
        body = await self._succeed("POST", "/generate_signup_token", json.dumps(quota.to_json()).encode())
        return body.decode("utf-8", "replace")

    async def tokens(self, state: TokenState, limit: int) -> dict[str, Any]:
        """Up to `limit` signup tokens: `items`, and `next_cursor`, which is not null if there are more."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            asked = f"/signup_tokens?state={state}&limit={min(limit - len(items), PAGE)}{cursor}"
            page = self._read(await self._succeed("GET", asked), frozenset({"items", "next_cursor"}))
            items += page["items"]
            if page["next_cursor"] is None or not page["items"] or len(items) >= limit:
                return {"items": items, "next_cursor": page["next_cursor"]}
            cursor = f"&cursor={page['next_cursor']}"

    async def record(self, key: str) -> dict[str, Any]:
        """What the networks have of a key."""
        return self._read(await self._succeed("GET", f"/records/{quote(key, safe='')}", patience=LOOK), SEEN)

    async def mirrors(self) -> dict[str, Any]:
        """The peers that are followed, and the copies of their accounts."""
        return self._read(await self._succeed("GET", "/mirrors"), frozenset({"peers", "copies"}))

    async def test_peer(self, name: str) -> dict[str, Any]:
        """Ask a peer whether all is well between it and the node."""
        asked = f"/peers/test?name={quote(name, safe='')}"
        return self._read(await self._succeed("POST", asked, patience=LOOK), frozenset({"well", "says", "key"}))

    async def exposure(self) -> dict[str, Any]:
        """What would be lost if the node's machine died now."""
        return self._read(await self._succeed("GET", "/mirrors/exposure", patience=LOOK), EXPOSURE)

    async def pause_peer(self, name: str, paused: bool) -> None:
        """Have the node leave a peer alone, or follow it again."""
        said = "true" if paused else "false"
        await self._succeed("POST", f"/peers/pause?name={quote(name, safe='')}&paused={said}")

    async def open_copy(self, pubky: str, incomplete: bool) -> dict[str, Any]:
        """Let an account whose record names this node open here."""
        asked = f"/mirrors/open?pubky={quote(pubky, safe='')}" + ("&incomplete=true" if incomplete else "")
        return self._read(await self._succeed("POST", asked, patience=OPENING), frozenset({"pubky", "opened"}))

    async def check_copies(self, pubky: str | None) -> dict[str, Any]:
        """What would become of a copy, or of all, if its user came here now."""
        asked = "/mirrors/check" + ("" if pubky is None else f"?pubky={quote(pubky, safe='')}")
        return self._read(await self._succeed("GET", asked), frozenset({"copies"}))

    async def verify(self, pubky: str | None) -> dict[str, Any]:
        """Have an account, or all, verified; how it begins."""
        asked = "/mirrors/verify" + ("" if pubky is None else f"?pubky={quote(pubky, safe='')}")
        return self._read(await self._succeed("POST", asked), VERIFICATION)

    async def verification(self) -> dict[str, Any]:
        """How far the newest verification is."""
        return self._read(await self._succeed("GET", "/mirrors/verify"), VERIFICATION)

    async def erase_copies(self, pubky: str) -> dict[str, Any]:
        """Order every peer to erase its copy of an account of this node; how many are ordered."""
        asked = f"/mirrors/erase?pubky={quote(pubky, safe='')}"
        return self._read(await self._succeed("POST", asked), frozenset({"pubky", "ordered"}))

    async def takedowns(self) -> dict[str, Any]:
        """What is taken down on the node."""
        return self._read(await self._succeed("GET", "/takedowns"), frozenset({"takedowns"}))

    async def take_down(self, pubky: str, is_down: bool) -> dict[str, Any]:
        """Take an account or a copy down, or show it again; whether that changed something."""
        method = "POST" if is_down else "DELETE"
        asked = f"/takedowns?pubky={quote(pubky, safe='')}"
        return self._read(await self._succeed(method, asked), frozenset({"pubky", "changed"}))

    async def repair(self, pubky: str) -> int:
        """Let a comparison that waits go on; how many files it may remove, 0 if none waits."""
        asked = f"/mirrors/repair?pubky={quote(pubky, safe='')}"
        return int(self._read(await self._succeed("POST", asked), frozenset({"permitted"}))["permitted"])

    async def conflicted(self) -> list[str]:
        """The accounts of which something lies on the conflict shelf."""
        return await self._all("/conflicts?", "accounts")

    async def conflicts(self, pubky: str) -> list[dict[str, Any]]:
        """What lies there of an account."""
        return await self._all(f"/conflicts?pubky={quote(pubky, safe='')}&", "items")

    async def _all(self, asked: str, name: str) -> list[Any]:
        """All pages of a list."""
        found: list[Any] = []
        after = ""
        while True:
            page = self._read(await self._succeed("GET", asked + after), frozenset({name, "next"}))
            found += page[name]
            if page["next"] is None or not page[name]:
                return found
            after = f"after={quote(page['next'], safe='')}"

    async def conflict_body(self, pubky: str, shelved_id: str, ours: bool) -> bytes:
        """The body of one thing, or of what its path held instead."""
        which = f"pubky={quote(pubky, safe='')}&id={quote(shelved_id, safe='')}" + ("&ours=true" if ours else "")
        return await self._succeed("GET", f"/conflicts/body?{which}")

    async def apply_conflicts(self, pubky: str, shelved_id: str | None) -> dict[str, Any]:
        """Write one thing to its path, or all whose paths nobody changed since: what was `applied`, what is `left`."""
        which = "untouched=true" if shelved_id is None else f"id={quote(shelved_id, safe='')}"
        asked = f"/conflicts/apply?pubky={quote(pubky, safe='')}&{which}"
        return self._read(await self._succeed("POST", asked, patience=LOOK), frozenset({"applied", "left"}))

    async def drop_conflicts(self, pubky: str, shelved_id: str | None) -> dict[str, Any]:
        """Throw away one thing, or all of an account: how many are `dropped`."""
        which = "all=true" if shelved_id is None else f"id={quote(shelved_id, safe='')}"
        asked = f"/conflicts/drop?pubky={quote(pubky, safe='')}&{which}"
        return self._read(await self._succeed("POST", asked), frozenset({"dropped"}))

    async def publish_record(self) -> dict[str, Any]:
        """Publish the homeserver's record now: what each network did."""
        return self._read(
            await self._succeed("POST", "/record/publish", patience=LOOK),
            frozenset({"published", "outdated", "networks"}),
        )

    async def _succeed(self, method: str, path: str, body: bytes | None = None, patience: float = PATIENCE) -> bytes:
        status, answer = await self._ask(method, path, body, patience)
        if status == 200:
            return answer
        if status == 401:
            raise CommandFailed(
                f"The node at {self.address} has another password: set PUBKY_API_KEY to it, or name the node's data "
                "directory with --data-dir."
            )
        if status == 404:
            raise self._stranger()
        reason = answer[:200].decode("utf-8", "replace").strip() or "without a reason"
        raise CommandFailed(f"The node at {self.address} answered {status}: {reason}")

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, patience: float = PATIENCE
    ) -> tuple[int, bytes]:
        answer = Deferred.fromCoroutine(self._exchange(method, path, body)).addTimeout(patience, self.clock)
        try:
            return await answer
        except TimeoutError:
            raise CommandFailed(f"No answer from {self.address} within {patience:g} s: look into its log.") from None
        except ConnectError:
            raise CommandFailed(
                f"Nothing answers at {self.address}: start the node (script/run, or twistd -n homeserver), or name its "
                "settings with --config or its data directory with --data-dir."
            ) from None
        except (ResponseFailed, _TooMuch):
            raise CommandFailed(
                f"The exchange with {self.address} broke off: ask again. If that is of no use, something else than a "
                "homeserver listens there, or the node's log tells why."
            ) from None

    async def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = Headers({b"X-Admin-Password": [self.password.encode()]})
        if body is not None:
            headers.addRawHeader(b"Content-Type", b"application/json")
        response = await self.http.request(
            method, f"http://{self.address}{path}", headers=headers, data=body, allow_redirects=False, unbuffered=True
        )
        received = bytearray()

        def keep(chunk: bytes) -> None:
            received.extend(chunk)
            if len(received) > MAX_ANSWER:
                raise _TooMuch

        await collect(response, keep)
        return response.code, bytes(received)

    def _read(self, body: bytes, names: frozenset[str]) -> dict[str, Any]:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not names <= value.keys():
            raise self._stranger()
        return value

    def _stranger(self) -> CommandFailed:
        return CommandFailed(
            f"What answers at {self.address} is not the admin port of a homeserver: name the node's settings with "
            "--config, or its data directory with --data-dir."
        )


class _TooMuch(Exception):
    """An answer that does not end."""
