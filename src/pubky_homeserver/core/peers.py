"""Homeservers that the operator trusts, as the settings name them.

Trust is of two directions, each given by itself: what we follow of theirs, and what we offer them of ours.
"""

from enum import StrEnum

from attrs import frozen

GIGABYTE = 1 << 30


@frozen
class Selection:
    """Some accounts, or all of them."""

    all: bool = False
    keys: frozenset[str] = frozenset()
    """Those that are meant if it is not all, z-base-32."""

    def __contains__(self, pubky: str) -> bool:
        return self.all or pubky in self.keys


ALL = Selection(all=True)
NONE = Selection()


class Claim(StrEnum):
    """Whether users of copies may sign up here, and so make this homeserver theirs."""

    ALLOW = "allow"
    TOKEN = "token"
    """With a signup token, even where others need none."""
    DENY = "deny"


@frozen
class Greeting:
    """What a homeserver says of itself."""

    features: frozenset[str] = frozenset()
    """What it may be asked for beyond the first version."""
    epoch: str = ""
    """Another one after its store was restarted, restored, or failed over: it may have forgotten something."""
    version: int = 0
    """The newest version of our language that it speaks; 0 if it does not say."""


@frozen
class Peer:
    """A homeserver that the operator trusts."""

    name: str
    """What the operator calls it; nobody else sees that."""
    key: str
    """Its public key, z-base-32."""
    url: str | None = None
    """Where it answers, without a slash at the end: its domain's certificate is believed. None: where its key leads."""
    follow: Selection = NONE
    """The accounts that we keep copies of, if it offers them."""
    offer: Selection = NONE
    """The accounts of ours that it may keep copies of."""
    private: bool = False
    """Whether both are about private files too."""
    max_bytes: int = 20 * GIGABYTE
    """That copies of its accounts may take here."""
    claim: Claim = Claim.TOKEN
    official: bool = False
    """Whether it is the official homeserver, which knows of no peers: its public protocol is what we ask."""

    paused: bool = False
    """Whether it is left alone for now: nothing of it is followed. It may follow us."""

    def follows(self, pubky: str) -> bool:
        """Whether we keep a copy of this account, if the peer offers it."""
        return pubky in self.follow

    def may_read(self, pubky: str, private: bool) -> bool:
        """Whether the peer may read this account's public or private log."""
        return pubky in self.offer and (self.private or not private)
