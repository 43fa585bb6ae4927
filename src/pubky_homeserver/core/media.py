"""The content type of a file: what its first bytes say, else what its name says, else `application/octet-stream`.

What a client declares is not asked: all homeservers of the protocol derive the type themselves, from the same two
tables. The one for bytes is `core/signatures.py`, the one for names the data file `mime.types` beside this module.
"""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from pubky_homeserver.core.signatures import sniff

SNIFFED = 4096
"""Bytes from the beginning of a body that can decide. Later ones never do, so the type does not depend on how the body
was cut into packets; in the reference it does, which looks at the first piece that arrives."""

UNKNOWN = "application/octet-stream"


def content_type(head: bytes, path: str) -> str:
    """The type of a body that begins with `head`, its first `SNIFFED` bytes or all of it, at a canonical path."""
    return sniff(head[:SNIFFED]) or guess(path) or UNKNOWN


def guess(path: str) -> str | None:
    """The type that a name claims by what follows its last dot, in any case. A name of which that is all has none."""
    stem, _, ending = path[path.rfind("/") + 1 :].rpartition(".")
    return _BY_ENDING.get(ending.casefold()) if stem else None


def _read_table(text: str) -> Mapping[str, str]:
    table = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            content_type, *endings = line.split()
            table.update(dict.fromkeys(endings, content_type))
    return MappingProxyType(table)


_BY_ENDING = _read_table(files(__package__).joinpath("mime.types").read_text("ascii"))
