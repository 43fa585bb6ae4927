"""The atomic steps: Lua files, put together and named by their hash.

A script whose first line is `-- uses: a b` gets the files `a.lua` and `b.lua` in front of it. Numbers that stand in the
house already (the bytes that a file costs besides its length, the time for which a write holds a lock, sizes and kinds
of packed records) come from there.
"""

from collections.abc import Mapping
from hashlib import sha1
from importlib.resources import files

from attrs import frozen

from pubky_homeserver.core.locks import HELD_SECONDS
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.shelf import OF_PATH
from pubky_homeserver.store.packing import BLOB, DEL, NEITHER, PUT, REIGN, STAT

_PARTS = {"account", "copy", "ending", "lock", "log", "logging", "notice", "packed", "shelf", "signing"}
"""Files that are only used by others."""

_USES = "-- uses: "

_CONSTANTS = {
    "OVERHEAD": ENTRY_OVERHEAD,
    "HELD": HELD_SECONDS,
    "STAT": STAT,
    "BLOB": BLOB,
    "NEITHER": NEITHER,
    "DEL": DEL,
    "PUT": PUT,
    "REIGN": REIGN,
    "OF_PATH": OF_PATH,
}


@frozen
class Script:
    """One atomic step. Its head tells keys, arguments and what it returns."""

    name: str
    text: str
    sha: str
    """SHA-1 of the text, hex: Redis' name for it."""


def load_scripts() -> Mapping[str, Script]:
    """All scripts by name."""
    texts = {
        file.name.removesuffix(".lua"): file.read_text("utf-8")
        for file in files(__package__).joinpath("lua").iterdir()
        if file.name.endswith(".lua")
    }
    return {name: _compose(name, texts) for name in texts.keys() - _PARTS}


def _compose(name: str, texts: Mapping[str, str]) -> Script:
    first = texts[name].partition("\n")[0]
    used = first.removeprefix(_USES).split() if first.startswith(_USES) else []
    constants = [f"local {constant} = {value}" for constant, value in _CONSTANTS.items()] if used else []
    text = "\n".join((*constants, *(texts[part] for part in used), texts[name]))
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
