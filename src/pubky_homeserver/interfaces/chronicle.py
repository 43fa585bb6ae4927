"""The port of what happened to accounts between homeservers, for the operator."""

# mypy: disable-error-code="empty-body"

from zope.interface import Interface

from pubky_homeserver.core.moves import Fork, Move


class IChronicleStore(Interface):
    """The newest of what happened. What is older than the newest hundred moves, or thousand forks, is forgotten."""

    async def note_move(move: Move) -> None:
        """Remember a move."""

    async def moves() -> list[Move]:
        """The moves that are remembered, the newest last."""

    async def note_fork(fork: Fork) -> None:
        """Remember a fork; an earlier one of the same account with the same homeserver is forgotten."""

    async def forks() -> list[Fork]:
        """The forks that are remembered, the newest last."""
