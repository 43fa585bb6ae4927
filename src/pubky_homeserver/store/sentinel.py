"""The way to a Redis that Sentinel watches over: whoever is master now (Redis documentation, "Sentinel clients").

Each attempt to connect asks the sentinels in turn who is master and connects there. The store looks at every new
connection and refuses a replica, so an answer from before a failover is found out and asked again.
"""

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from pubky_homeserver.store.asking import Conversation

PATIENCE = 2
"""Seconds that a sentinel has to be reached; the next one is asked then."""


@implementer(IStreamClientEndpoint)
@frozen
class SentinelEndpoint:
    """Connects to the master of a service."""

    reactor: Any
    sentinels: Sequence[tuple[str, int]]
    """Host and port of each."""
    service: str
    """The name under which the sentinels know the master."""
    timeout: int
    """Seconds to connect to the master."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`. Fails with `ConnectError` if no sentinel knows a master."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        reasons = []
        for host, port in self.sentinels:
            try:
                address = await self._ask(host, port)
            except CancelledError:
                raise
            except Exception as error:
                reasons.append(f"{host}:{port}: {error}")
                continue
            if address is not None:
                endpoint = HostnameEndpoint(self.reactor, *address, timeout=self.timeout)
                connected: IProtocol = await endpoint.connect(factory)
                return connected
            reasons.append(f"{host}:{port} knows no master named {self.service}")
        raise ConnectError(string="no sentinel names a master: " + "; ".join(reasons))

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        """Who is master, as one sentinel says; None if it does not know the service."""
        factory = Factory.forProtocol(lambda: Conversation(self.reactor))
        factory.noisy = False
        conversation = await HostnameEndpoint(self.reactor, host, port, timeout=PATIENCE).connect(factory)
        assert isinstance(conversation, Conversation)
        try:
            answer = await conversation.ask("SENTINEL", "get-master-addr-by-name", self.service)
        finally:
            conversation.close()
        if not isinstance(answer, list) or len(answer) != 2:
            return None
        return answer[0].decode("ascii"), int(answer[1])
