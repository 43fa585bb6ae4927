"""Ports: taken early, so that a taken one is a line before the start; served when the house is ready."""

import os
import socket
from typing import Any

from attrs import define
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.values import Socket

BACKLOG = 1024
"""Connections that the kernel holds while the house is getting ready, or busy."""


@define(eq=False)
class Listener:
    """A port that is ours; nobody answers on it before `serve`."""

    address: Socket
    """With the real port, if 0 was asked for."""
    _socket: socket.socket | None

    def serve(self, reactor: Any, factory: Factory) -> IListeningPort:
        """Answer with a factory's protocols."""
        assert self._socket is not None
        port: IListeningPort = reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, factory)
        self.close()  # the reactor has a descriptor of its own
        return port

    def close(self) -> None:
        """Give the port back, if it is not served."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def bind(where: Socket, setting: str) -> Listener:
    """Take a port. Raises `CannotStart`, which names the setting."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setblocking(False)
        taken.bind((where.host, where.port))
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotStart(f"Cannot listen on {where} ({setting}): {reason}") from None
    return Listener(Socket(where.host, taken.getsockname()[1]), taken)
