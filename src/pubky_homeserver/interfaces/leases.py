"""The port of the lease: of several processes one works in the background."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface


class ILeaseStore(Interface):
    """Who works in the background, by the store's own clock."""

    async def take(holder: str, seconds: float) -> int | None:
        """Have the lease for so long from now: one atomic step. Its number; None while another holder has it.

        The number is larger whenever the lease has changed hands: who finds another one than before was out of it.
        """

    async def leave(holder: str) -> None:
        """Let the next one have it at once; nothing happens if another holder has it."""
