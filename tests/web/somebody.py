"""Somebody who uses a homeserver of a test, with short words for requests."""

from collections.abc import Mapping

from attrs import frozen

from tests.web.client import Answer
from tests.web.served import Granted, Served, User


@frozen
class At:
    """Somebody at a homeserver, with short words for requests."""

    server: Served
    who: User | Granted

    @property
    def key(self) -> str:
        """Whose files."""
        return self.who.pubky

    async def ask(self, method: str, path: str, body: bytes | None = None, **fields: str) -> Answer:
        """A request for a path of the own storage, in the newer form."""
        return await self.server.ask(method, f"/storage/{self.key}{path}", dict(self.who.headers) | fields, body)

    async def put(self, path: str, body: bytes = b"hello") -> int:
        """Write; the status."""
        answer = await self.ask("PUT", path, body)
        self.server.clock.advance(0)  # wake the feed
        return answer.status

    async def delete(self, path: str) -> int:
        """Delete; the status."""
        answer = await self.ask("DELETE", path)
        self.server.clock.advance(0)
        return answer.status

    async def get(self, path: str) -> bytes | None:
        """Read; None if nothing is there."""
        answer = await self.ask("GET", path)
        return answer.body if answer.status == 200 else None

    async def lines(self, query: str) -> list[str]:
        """A listing: what stands after the key, line by line."""
        answer = await self.ask("GET", query)
        assert answer.status == 200, answer
        return [line.removeprefix(f"pubky://{self.key}") for line in answer.text.split("\n") if line]

    async def used(self) -> int:
        """Bytes that the account uses."""
        account = await self.server.store.account(self.key)
        assert account is not None
        return account.used


async def somebody(server: Served, capabilities: str = "/:rw") -> At:
    """A new user."""
    return At(server, await server.sign_up(capabilities))


async def status(
    server: Served, method: str, target: str, headers: Mapping[str, str] | None = None, host: str = "127.0.0.1"
) -> int:
    """The status of a request."""
    return (await server.ask(method, target, dict(headers or {}), b"x" if method == "PUT" else None, host)).status
