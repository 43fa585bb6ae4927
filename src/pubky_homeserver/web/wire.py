"""What HTTP wants of a transport besides `ITransport`: to send at once, and to know what a slow client leaves waiting.

Twisted's TCP transport never sends in `write`; it waits for the next turn of the reactor, which costs three system
calls and half of the time of a small answer. While the transport holds nothing the socket may as well be written to
directly: measured, 1.3 to 1.9 times the requests per second (`tests/bench/channel.py`). What the kernel does not take
goes to the transport, which then queues, notices errors and pushes back as ever. Other transports (TLS, unix,
wrappers) are written to as usual.

A body that lies on the disk need not be queued at all: it is `offer`ed, and what the kernel does not take is read again
when it does. So a client that does not read keeps no memory here, and one that reads faster than the disk does not
keep the reactor. (`sendfile` would save a copy; measured on the loopback it has two thirds of the speed of this.)
"""

from __future__ import annotations

import fcntl
import socket
import termios
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Server

TURN = 1 << 20
"""Bytes that are offered to one client in a turn of the reactor, half a millisecond or so: then others have theirs."""

UNSENT = 512 * 1024
"""Bytes that the kernel takes for a client before it has sent them. By itself it takes four megabytes, and a few
hundred clients that do not read would fill what it has for the connections of all."""

QUEUED = 128 * 1024
"""Bytes of an offer that a transport gets which can only queue."""


class Wire:
    """The sending half of a transport."""

    __slots__ = ("_descriptor", "_offered", "_socket", "_transport", "written")

    def __init__(self, transport: Any) -> None:
        """`transport` is a stream transport: a consumer that queues."""
        self._transport = transport
        self._descriptor = _descriptor_under(transport)
        # Exactly this class: in one derived from it, or in a wrapper, `write` may do more than send.
        self._socket: socket.socket | None = transport.getHandle() if type(transport) is Server else None
        self._offered = 0  # bytes since the producer was last paused for it
        _limit_unsent(self._descriptor)
        self.written = 0  # bytes, since the connection began

    def write(self, data: bytes | bytearray) -> None:
        """Send, or queue what cannot be sent yet."""
        self.written += len(data)
        if self._socket is not None and not self.pending:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0  # full, or broken: the transport finds out
            if sent == len(data):
                return
            data = bytes(memoryview(data)[sent:])
        self._transport.write(bytes(data))

    def offer(self, data: memoryview) -> int:
        """Send what can be sent now and forget the rest; how many bytes went.

        If it is not all, or was much, the transport's producer is paused until a later turn of the reactor, when more
        can be sent.
        """
        if self._socket is None:
            queued = bytes(data[:QUEUED])
            self.write(queued)
            return len(queued)
        sent = 0
        if not self.pending:
            try:
                sent = self._socket.send(data)
            except OSError:
                pass  # full, or broken: the transport finds out
        self.written += sent
        self._offered += sent
        if sent < len(data) or self._offered >= TURN:
            self._offered = 0
            # As the transport does when it holds too much: it resumes the producer when it can send and holds nothing.
            self._transport.producerPaused = True
            self._transport.producer.pauseProducing()
            self._transport.startWriting()
        return sent

    def set_read_size(self, length: int) -> None:
        """Read so many bytes at once, at most. It is also from where on the transport wants no more to send."""
        if self._descriptor is not None:
            self._descriptor.bufferSize = length

    @property
    def pending(self) -> int:
        """Bytes that wait in this process."""
        descriptor = self._descriptor
        if descriptor is None:
            return 0
        # Twisted tells nobody; these are the two halves of its buffer.
        return len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait here or, as far as it says, in the kernel: that takes megabytes before a client takes one."""
        handle = getattr(self._descriptor, "socket", None)
        if handle is None:
            return self.pending
        try:
            queued = fcntl.ioctl(handle, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return self.pending
        return self.pending + int.from_bytes(queued, "little")


def _limit_unsent(descriptor: FileDescriptor | None) -> None:
    handle = getattr(descriptor, "socket", None)
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not every system has it
    if option is not None and handle is not None and handle.family in (socket.AF_INET, socket.AF_INET6):
        handle.setsockopt(socket.IPPROTO_TCP, option, UNSENT)


def _descriptor_under(transport: Any) -> FileDescriptor | None:
    """The file descriptor below any wrappers."""
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport
