"""The bodies that copies of one peer's accounts lack, fetched while their logs go on.

A first copy of a large account takes hours; what its user writes meanwhile must not wait for that. So an account that
lacks bodies is **due** here, once its list is known; a few are filled at a time, and none twice at once. What is left
then is tried again after a while, sooner only if more is missing meanwhile.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pubky_homeserver.copies import Copies
from pubky_homeserver.core.errors import PeerError, Refused
from pubky_homeserver.interfaces import IFollower

AT_ONCE = 8
"""Accounts of one peer that are filled at a time."""


@define(eq=False)
class Filling(Service):
    """Fills copies of one peer's accounts, `private` files too or not, from its start on."""

    follower: IFollower
    private: bool
    copies: Copies
    clock: IReactorTime
    delay: Callable[[int], float]
    """Seconds to wait after so many failures in a row."""
    _due: "OrderedDict[str, None]" = field(factory=OrderedDict, init=False)
    # Accounts that wait for a hand; the first ones first.
    _working: "dict[str, Deferred[None]]" = field(factory=dict, init=False)
    _again: set[str] = field(factory=set, init=False)
    # Accounts that lacked something again while they were worked on.
    _waiting: dict[str, IDelayedCall] = field(factory=dict, init=False)
    # Accounts that wait after a failure.
    _failures: dict[str, int] = field(factory=dict, init=False)
    # How often an account failed in a row.
    _left: dict[str, int] = field(factory=dict, init=False)
    # How many bodies an account that waits lacked at the end, if its peer could be asked for all.
    _asking: "dict[str, list[Deferred[None]]]" = field(factory=dict, init=False)
    # Who wants to know when an account is neither due nor worked on.
    _is_taking: bool = field(default=False, init=False)
    log: ClassVar[Logger] = Logger()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        ending = [self.leave(pubky) for pubky in {*self._due, *self._working, *self._waiting}]
        return DeferredList(ending).addCallback(lambda _results: None)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way, due or waiting."""
        return not (self._due or self._working or self._waiting)

    def is_busy(self, pubky: str) -> bool:
        """Whether an account is filled now, or will be as soon as there is a hand."""
        return pubky in self._due or pubky in self._working

    def is_waiting(self, pubky: str) -> bool:
        """Whether the peer did not have all that an account lacks, and is asked again later."""
        return pubky in self._waiting

    def begin(self, pubky: str) -> None:
        """Fill an account, if it lacks something that was not asked for just now."""
        copy = self.copies.of(pubky)
        if copy is None or not copy.missing or not self.running:
            return
        if pubky in self._working:
            self._again.add(pubky)
            return
        if (waiting := self._waiting.get(pubky)) is not None:
            if copy.missing <= self._left.get(pubky, 0):
                return
            waiting.cancel()
            del self._waiting[pubky]
        self._due[pubky] = None
        self._work()

    def ended(self, pubky: str) -> "Deferred[None]":
        """Fires when an account is neither due nor worked on."""
        if not self.is_busy(pubky):
            return succeed(None)
        asking: Deferred[None] = Deferred()  # who gives up waiting for it does not end the work
        self._asking.setdefault(pubky, []).append(asking)
        return asking

    def leave(self, pubky: str) -> "Deferred[None]":
        """Fill an account no more, until it is begun again; fires when nothing is under way."""
        self._due.pop(pubky, None)
        self._again.discard(pubky)
        self._forget(pubky)
        if (waiting := self._waiting.pop(pubky, None)) is not None:
            waiting.cancel()
        ended = self.ended(pubky)
        if (working := self._working.get(pubky)) is not None:
            working.cancel()
        else:
            self._tell(pubky)
        return ended

    # --- the work -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take accounts that are due, as long as there are hands."""
        if self._is_taking:
            return  # one of them ended at once
        self._is_taking = True
        while self._due and len(self._working) < AT_ONCE and self.running:
            pubky, _ = self._due.popitem(last=False)
            self._working[pubky] = succeed(None)  # it may end before it waits for anything
            work = Deferred.fromCoroutine(self._take(pubky))
            if pubky in self._working:
                self._working[pubky] = work
        self._is_taking = False

    async def _take(self, pubky: str) -> None:
        """Fill one account; whatever happens, it is given back."""
        try:
            is_filled = await self._fill(pubky)
        except CancelledError:
            is_filled = True  # it was left
        except (PeerError, Refused) as error:
            self.log.info("Bodies of {pubky} wait: {reason}", pubky=pubky, reason=str(error))
            is_filled = False
        except Exception:  # whatever it is, the account is given back
            self.log.failure("Bodies of {pubky} could not be fetched", pubky=pubky)
            is_filled = False
        del self._working[pubky]
        if not is_filled and self.running:
            self._failures[pubky] = self._failures.get(pubky, 0) + 1
            self._waiting[pubky] = self.clock.callLater(self.delay(self._failures[pubky]), self._stop_waiting, pubky)
        if pubky in self._again:
            self._again.discard(pubky)
            self.begin(pubky)
        if not self.is_busy(pubky):
            self._tell(pubky)
        self._work()

    async def _fill(self, pubky: str) -> bool:
        """Ask for all that an account lacks; whether nothing is left."""
        self._left.pop(pubky, None)
        try:
            left = await self.follower.fill(pubky, self.private)
        finally:
            copy = await self.copies.refresh(pubky)
        if copy is None or not left:
            self._forget(pubky)
            return True
        self.log.info("{left} bodies of {pubky} are still missing", left=left, pubky=pubky)
        self._left[pubky] = copy.missing
        return False

    def _stop_waiting(self, pubky: str) -> None:
        del self._waiting[pubky]
        self.begin(pubky)

    def _forget(self, pubky: str) -> None:
        self._failures.pop(pubky, None)
        self._left.pop(pubky, None)

    def _tell(self, pubky: str) -> None:
        for asking in self._asking.pop(pubky, []):
            asking.callback(None)
