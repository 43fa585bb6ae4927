"""The port of accounts that move between homeservers."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface


class IMoveStore(Interface):
    """Accounts on their way. An account beside which there is a copy is **away**: it takes no writes.

    It is away because its user's record names another homeserver (it was *fenced*, `IPacketStore.keep_packet`), or
    because the user signed up at a copy and no record says so yet (it is *claimed*, `IAccountStore.sign_up`). While it
    is away its logs are those of the copy, which may follow its primary; sign-in works if it is claimed.
    """

    async def is_admitted(pubky: str) -> bool:
        """Whether the user signed up here, now or earlier: there is an account, open or away."""

    async def has_lived_here(pubky: str) -> bool:
        """Whether the account was open here, now or earlier: a claim alone does not make it that."""

    async def lived_at(pubky: str) -> list[str]:
        """The homeservers where an account lived before it opened here, as far as is known; the newest twenty."""

    async def note_home(pubky: str, homeserver: str) -> None:
        """Note one of them, as an old packet shows; nothing happens unless the account is open here."""

    async def void_claim(pubky: str) -> bool:
        """Undo a claim that no record followed: its sessions end, a signup token that it spent is free again.

        The account goes if it was made by the claim; one that lived here before stays fenced. False, and nothing
        happens, if there is no claim.
        """

    async def open(pubky: str, packet: bytes, now: int, incomplete: bool = False) -> bool:
        """Let an account that is away, or a copy without one, live here: one atomic step.

        Each log goes on where the copy is, in a new reign that begins with its next number. A private log that is not
        whole begins empty. The bytes of the copy become the account's, its missing bodies too; feed ids go on above all
        of the copy; the copy is gone. What lies in the logs is put into the feed by `announce`.

        False, and nothing happens, if there is no copy, or if `packet` is not the one that is kept: the caller has seen
        that this one names us. Raises `NotHereYet` if the public list is not whole, unless `incomplete`.
        """

    async def announce(pubky: str, limit: int) -> bool:
        """Put a part of what came with an account into the feed of all accounts: up to `limit` (at most 250) events.

        First one DEL for each path that the logs say was removed and that holds nothing, then a PUT for each file that
        nobody wrote since the account opened: events as others are, with the next numbers; digests stay as they are. So
        who reads the feed from anywhere ends with the account's files. Returns whether it is done.
        """

    async def announcing(after: str, limit: int) -> list[str]:
        """Up to `limit` (at most 500) accounts that `announce` is not done with, above `after`, ascending."""
