"""The ports of the house: what it needs from outside. Each has two real implementations and one contract test suite.

All methods that return coroutines raise `core.errors.StoreAway` while the store cannot be reached; then nothing was
acknowledged, though it may have happened.
"""

from pubky_homeserver.interfaces.chronicle import IChronicleStore
from pubky_homeserver.interfaces.copies import ICopyStore, IFollower, ILogStore, IPeer
from pubky_homeserver.interfaces.erasures import IErasureStore
from pubky_homeserver.interfaces.files import IBlobReader, IBlobStore, IBlobWriter, IEntryStore, ILockStore
from pubky_homeserver.interfaces.integrity import IIntegrityStore
from pubky_homeserver.interfaces.leases import ILeaseStore
from pubky_homeserver.interfaces.moves import IMoveStore
from pubky_homeserver.interfaces.people import IAccountStore, IGrantStore, IPacketStore, ISessionStore
from pubky_homeserver.interfaces.shelf import IShelfStore
from pubky_homeserver.interfaces.takedowns import IHints, ITakedownStore

__all__ = [
    "IAccountStore",
    "IBlobReader",
    "IBlobStore",
    "IBlobWriter",
    "IChronicleStore",
    "ICopyStore",
    "IEntryStore",
    "IErasureStore",
    "IFollower",
    "IGrantStore",
    "IHints",
    "IIntegrityStore",
    "ILeaseStore",
    "ILockStore",
    "ILogStore",
    "IMoveStore",
    "IPacketStore",
    "IPeer",
    "ISessionStore",
    "IShelfStore",
    "ITakedownStore",
]
