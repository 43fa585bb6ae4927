"""The port of the conflict shelf."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface

from pubky_homeserver.core.shelf import Shelved


class IShelfStore(Interface):
    """The conflict shelf. Its bodies are its own: nothing else refers to their blobs, and the sweep spares them."""

    async def shelve(shelved: Shelved) -> bool:
        """Lay something on the shelf; False, and nothing happens, if it is there. Raises `StorageFull`."""

    async def shelf(pubky: str, after: str, limit: int) -> list[Shelved]:
        """Up to `limit` (at most 100) things of an account with an id above `after`, ascending."""

    async def shelves(after: str, limit: int) -> list[str]:
        """Up to `limit` (at most 500) accounts of which something lies there, with a pubky above `after`, ascending."""

    async def things(after: str, limit: int) -> dict[str, int]:
        """How many things lie there of the accounts that `shelves` names."""

    async def shelved(pubky: str, shelved_id: str) -> Shelved | None:
        """One thing."""

    async def is_disputed(pubky: str, path: str) -> bool:
        """Whether something of a path lies there."""

    async def drop(pubky: str, shelved_id: str) -> bool:
        """Take something away, and its bodies; False if it is not there."""

    async def shelf_used(origin: str) -> int:
        """Bytes that things from a homeserver take: of each the lengths of both entries and 256."""
