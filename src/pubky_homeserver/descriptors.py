"""Open files: how many the system allows, and how many connections that is.

A connection is one open file, and so is the body that it reads or writes; there is at most one such body for each. The
port for clients therefore takes half as many connections as there may be open files, less some for everything else:
those in their TLS handshake, which have no body yet, and what is not for clients. Then a body can always be opened, and
nobody waits for those who do not read, or do not send, what they asked for.
"""

import resource

ENOUGH = 65_536
"""Open files above which no more are asked for: an idle connection takes some kilobytes of memory as well."""

OTHER_CONNECTIONS = 128
"""Connections that each of the other ports takes: the operator's, and those of a test network."""

ASIDE = 5 * OTHER_CONNECTIONS
"""Open files for those, and for Redis, the ports, the log, and what the homeserver asks others."""

HANDSHAKES = 512
"""Connections in their TLS handshake at once; a quarter of the clients' connections where that is less."""

FEWEST = 64
"""Connections that the port for clients takes, however few open files there may be."""


def raise_limit() -> int:
    """Allow as many open files as this process may, and wants; how many it may have now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ENOUGH
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def client_connections(files: int) -> int:
    """How many connections the port for clients takes, and bodies are open at most, with so many open files."""
    left = files - ASIDE
    return max(FEWEST, (left - HANDSHAKES) // 2, left * 4 // 9)


def handshakes(connections: int) -> int:
    """How many may be in their TLS handshake, besides so many connections of clients."""
    return min(HANDSHAKES, connections // 4)
