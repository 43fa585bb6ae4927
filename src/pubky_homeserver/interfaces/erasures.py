"""The port of copies that are erased, and of the orders that say so."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface

from pubky_homeserver.core.erasing import Doomed, Obeyed, Order


class IErasureStore(Interface):
    """Orders that were given to peers, and copies that are hidden until they are wiped.

    A hidden copy is none for any other port: neither it nor its files, events and shelf are found; only its blobs are
    in use, as before. Beside it a new copy of the account may begin. An account that lived here once, whose files are
    those of the copy, stays meanwhile, and stays away.
    """

    async def order(order: Order) -> None:
        """Remember an order until it is dropped; it replaces one to the same peer about the same account."""

    async def orders() -> list[Order]:
        """All orders, by peer and account."""

    async def settle(order: Order, now: int) -> bool:
        """Note the receipt for an order. False, and nothing happens, if another one took its place."""

    async def drop_order(order: Order) -> bool:
        """Forget an order. False, and nothing happens, if another one took its place."""

    async def hide(pubky: str, primary: str, log_id: str, seq: int, until: int, name: str) -> Obeyed:
        """Hide a copy, and note that it is wiped from `until` (microseconds) on: one atomic step.

        It must have this primary, and know `log_id` as a reign of its public log and no event after `seq`; one without
        a position knows neither, and is hidden too. `name` is what stands for the account afterwards: `erased` finds
        `log_id` by it. Anything but `Obeyed.HIDDEN` changed nothing, and so does a second order.
        """

    async def hide_again(pubky: str) -> bool:
        """Hide a copy that was shown, unless it is claimed or the account lives here. Whether it did."""

    async def hidden(pubky: str) -> str | None:
        """The primary of the hidden copy of an account; None if there is none."""

    async def show(pubky: str) -> bool:
        """Let a hidden copy be one again, which is wiped nevertheless. Whether it is one then.

        False, and nothing happens, if there is none, or the account lives here, or another copy is in its place.
        """

    async def lift(pubky: str, name: str) -> None:
        """Let a copy that was shown, or the account that it became, stay: forget that it was to be erased."""

    async def doomed(limit: int) -> list[Doomed]:
        """Up to `limit` (at most 500) copies that are to be wiped, the soonest first."""

    async def wipe(pubky: str, limit: int) -> bool:
        """Remove up to `limit` (at most 500) things of a hidden copy, at last its packet; whether nothing is left.

        The grace of its blobs is over at once. An account that lived here once goes too, with its grants, and what the
        chronicle has of it, unless it lives here again or has another copy; but who is disabled, or has limits of their
        own, is still known afterwards, and a grant that was revoked stays so until it expires. The packet goes unless
        an account or another copy is left.
        """

    async def erased(name: str) -> list[str]:
        """The log ids of what was erased by that name."""
