"""The ports of accounts that are taken down, and of hints between the processes of a homeserver."""

# mypy: disable-error-code="empty-body"

from collections.abc import Callable

from zope.interface import Interface


class ITakedownStore(Interface):
    """Accounts, and copies, that the operator of this homeserver has taken down.

    The decision is this homeserver's own: it stays with the key, whether the account moves away, is copied, or comes
    back. While the account is open here its public log says so too, by an entry without slash (`TAKEDOWN`), so that
    copies elsewhere obey. An account that opens here begins with what was decided here: if its former homeserver took
    it down, and we did not, the entry goes.
    """

    async def take_down(pubky: str, now: int) -> bool:
        """Take an account or a copy down: one atomic step. False if it was already. Raises `NotFound`."""

    async def lift(pubky: str) -> bool:
        """Show it again: one atomic step. False if it was not taken down."""

    async def taken_down() -> dict[str, int]:
        """All that are taken down, and when (microseconds), the first one first."""


class IHints(Interface):
    """Words from one process of a homeserver to all: look at this again. What is true stands in the store."""

    async def hint(text: str) -> None:
        """Give a hint. Nothing is said of who hears it."""

    def hear_hints(hear: Callable[[str | None], None]) -> Callable[[], None]:
        """Call `hear` with each hint; returns the way to stop.

        None: some may have been missed, and from now on they are heard; so everything has to be looked at again.
        """
