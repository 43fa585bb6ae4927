"""A peer is asked, for the operator, whether all is well between it and us."""

from attrs import frozen

from pubky_homeserver.core.errors import PeerAway, PeerError, PeerRefused
from pubky_homeserver.core.peers import NONE, Greeting, Peer
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.peers.strangers import Stranger, known
from pubky_homeserver.peers.web import FEATURES, VERSION

NO_PEER = "403"
"""How what it says begins if it knows us not, or the signature does not please it."""

ASKED = 100
"""Accounts of an official homeserver that it is asked for."""


@frozen
class Probe:
    """What came of asking a peer who it is and what it offers."""

    name: str
    key: str
    well: bool
    says: str
    """One sentence for the operator."""
    features: tuple[str, ...] = ()
    offered: int = 0
    """Accounts that it offers, on the first page that it gives."""
    wanted: int = 0
    """Those of them that the settings follow."""
    more: bool = False
    """Whether it offers more than that page."""
    version: int = 0
    """The newest version of our language that it speaks; 0 if it did not say."""
    lacks: tuple[str, ...] = ()
    """What it does not understand, and we do: it is older."""


async def probe(peer: Peer, source: IPeer) -> Probe:
    """Ask a peer, now."""
    if isinstance(source, Stranger):
        return await _probe_official(peer, source)
    greeting = Greeting()
    try:
        greeting = await source.greet()
        page, following = await source.offered("")
    except PeerError as error:
        features = tuple(sorted(greeting.features))
        return Probe(peer.name, peer.key, False, _in_words(error), features, version=greeting.version)
    wanted = sum(1 for one in page if peer.follows(one.pubky))
    if peer.follow == NONE:
        well, says = True, "It answers. None of its accounts are followed, as the settings say."
    elif not page:
        well, says = False, "It answers, but offers us no account: its operator must set `offer` for us."
    elif not wanted and following is None:
        well, says = False, "It answers, but offers no account that the settings follow."
    else:
        well, says = True, "It answers and offers accounts."
    lacks = tuple(one for one in FEATURES if one not in greeting.features)
    if lacks:
        says += f" It is older than this homeserver: it does not understand {', '.join(lacks)}."
    return Probe(
        *(peer.name, peer.key, well, says, tuple(sorted(greeting.features)), len(page), wanted, following is not None),
        version=greeting.version,
        lacks=lacks,
    )


async def _probe_official(peer: Peer, source: Stranger) -> Probe:
    """Ask an official homeserver whether it knows the accounts that the settings name; it offers none by itself."""
    accounts = sorted(peer.follow.keys)
    try:
        await source.greet()
        found = await known(source.official, accounts[:ASKED])
    except PeerError as error:
        return Probe(peer.name, peer.key, False, _in_words(error))
    asked = len(accounts[:ASKED])
    says = f"It answers, and knows {found} of the {asked} accounts that were asked for."
    return Probe(peer.name, peer.key, found == asked, says, (), found, found, len(accounts) > asked)


def _in_words(error: PeerError) -> str:
    """What went wrong, and who can mend it."""
    text = str(error)
    if isinstance(error, PeerRefused) and text.startswith(NO_PEER):
        if "clock" in text:
            return f"Its clock and ours differ too much: set both by NTP ({text})."
        return f"It refuses us: its operator must list our key under [peers.NAME] and restart ({text})."
    if isinstance(error, PeerRefused):
        return (
            f"It does not speak version {VERSION} of what peers speak, as we do: it is no homeserver of our kind (an "
            f"official one needs `official = true`), or one of the two must be updated ({text})."
        )
    if isinstance(error, PeerAway):
        return f"It cannot be reached: see that it runs, and that its url or its key's record leads to it ({text})."
    return f"It does not say what peers say: it is no homeserver of our kind, or one of the two is too old ({text})."
