"""Who signed out: ends what was opened with a credential when that credential is revoked, in whatever process.

The store tells of each revocation, and says when it cannot be heard any more; then everything that depends on hearing
it ends, and nothing new begins. That a credential's time runs out is no revocation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from pubky_homeserver.core.errors import RevocationsAway
from pubky_homeserver.core.records import Session
from pubky_homeserver.interfaces import ISessionStore


@define(eq=False)
class Revocations:
    """What is open, by the credential that it was opened with."""

    store: ISessionStore
    _open: dict[str, set[Callable[[], None]]] = field(factory=dict, init=False)
    # Credential → how to end what was opened with it.

    def __attrs_post_init__(self) -> None:
        self.store.hear_revocations(self._hear)

    @contextmanager
    def watch(self, session: Session, end: Callable[[], None]) -> Iterator[None]:
        """While this lasts, call `end` when the session is revoked; check afterwards that it was not before.

        Raises `RevocationsAway` while revocations cannot be heard.
        """
        if not self.store.hears_revocations():
            raise RevocationsAway
        ends = self._open.setdefault(session.credential, set())
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends and self._open.get(session.credential) is ends:
                del self._open[session.credential]

    def _hear(self, credential: str | None) -> None:
        if credential is not None:
            self._end(credential)
            return
        for one in list(self._open):
            self._end(one)

    def _end(self, credential: str) -> None:
        for end in list(self._open.get(credential, ())):
            end()
