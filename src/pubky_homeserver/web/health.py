"""Whether the node lives, and whether it can work: `/healthz` and `/readyz`, for supervisors and load balancers.

A node is **ready** when its store answers, for without it no request can be served. All else is shown and changes
nothing: with a full disk people still read and delete, and while PKARR is away those who know the address still come.
Taking such a node out of service would make a small failure a large one.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.health import Check
from pubky_homeserver.core.records import Totals
from pubky_homeserver.web.errors import RETRY_AFTER
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import PLAIN, json_body

PATIENCE = 2.0
"""Seconds that the store has to answer: less than what probes commonly wait, so that they read a reason."""


@frozen
class Health:
    """The node, asked how it is. No password is needed, and nothing here tells more than a lamp."""

    accounts: Accounts
    rooms: Mapping[str, Callable[[], bool]]
    """Name of a place that bytes are written to → whether there is room above the reserve."""
    records: Callable[[], Mapping[str, Check]]
    """What became of the homeserver's record and those of its users; empty if another process publishes them."""
    clock: IReactorTime
    log: ClassVar[Logger] = Logger()
    app: ClassVar[Klein] = Klein()

    @app.route("/healthz", methods=["GET", "HEAD"])
    async def alive(self, request: Request) -> bytes:
        """Answer at all. 200."""
        request.setHeader(b"Content-Type", PLAIN)
        request.setHeader(b"Cache-Control", b"no-store")
        return b"ok"

    @app.route("/readyz", methods=["GET", "HEAD"])
    async def ready(self, request: Request) -> bytes:
        """Every check by its name, as JSON. 200 if the store answers, else 503."""
        checks = {"store": await self._check_store()}
        checks.update((name, _check_room(has_room)) for name, has_room in self.rooms.items())
        checks.update(self.records())
        is_ready = checks["store"].ok
        if not is_ready:
            request.setResponseCode(503)
            request.setHeader(b"Retry-After", b"%d" % RETRY_AFTER)
        request.setHeader(b"Cache-Control", b"no-store")
        return json_body(request, {"ready": is_ready, "checks": {name: one.to_json() for name, one in checks.items()}})

    async def _check_store(self) -> Check:
        answer: Deferred[Totals] = Deferred.fromCoroutine(self.accounts.totals())
        answer.addTimeout(PATIENCE, self.clock)
        try:
            await answer
        except (Refused, TimeoutError) as error:
            return Check(False, str(error) if isinstance(error, Refused) else f"no answer within {PATIENCE:g} s")
        except Exception:
            self.log.failure("The store could not be asked")
            return Check(False, "failed; the log tells why")
        return Check(True, "answers")


def _check_room(has_room: Callable[[], bool]) -> Check:
    return Check(True, "has room") if has_room() else Check(False, "the reserve is reached: writes are refused")
