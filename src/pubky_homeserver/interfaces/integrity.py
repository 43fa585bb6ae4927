"""The port of who looks whether bodies are still what their entries say."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface

from pubky_homeserver.core.records import Entry


class IIntegrityStore(Interface):
    """Bodies of accounts and copies alike. An account that lives elsewhere has the files of its copy."""

    async def held(pubky: str, after: str, limit: int) -> list[Entry]:
        """Up to `limit` (at most 500) files with a path above `after`, in byte order, with their bodies or blobs.

        Both logs, the private one after the public one's letters as bytes have it; never what is no file.
        """

    async def lose(pubky: str, entry: Entry) -> bool:
        """Let an entry be without its body, which is not here or another one; False if its path has another body now.

        The blob gets its grace, but nobody finds it by its hash. `ICopyStore.missing` names the entry then, and
        `ICopyStore.fill` gives it a body again. Neither log nor digest change.
        """

    async def note_verified(pubky: str, now: int) -> None:
        """Note when all was found to be right (microseconds); nothing without account and copy."""

    async def verified(pubky: str) -> int:
        """When that was last noted; 0 for never, or without account and copy."""

    async def lacking(after: int, limit: int) -> tuple[list[str], int | None]:
        """The accounts that live here with a file whose body is missing, among the next `limit` (at most 500) accounts.

        `after` and what is returned besides: as in `IAccountStore.accounts`.
        """

    async def in_grace(pubky: str, path: str, content_hash: bytes) -> str | None:
        """The blob of the body that a path had, with this hash, while its grace runs."""
