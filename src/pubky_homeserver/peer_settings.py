"""`[peers.NAME]` tables put into the operator's settings file, or taken out of it.

The file is the operator's: nothing else in it may change, comments included. So a table is added at its end as text,
and taken out from its heading to its last setting. How the file then reads is compared with how it should before it is
written; whatever is written in a way that we do not know is left to the operator.
"""

import re
from pathlib import Path

from attrs import evolve

from pubky_homeserver.config import Config, ConfigError, read_settings
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.durable import write_whole

_HEADING = re.compile(r"\s*\[")
_PAUSED = re.compile(r"\s*paused\s*=")
_OURS = r"\s*\[\s*peers\s*\.\s*([\"']?){name}\1\s*\]\s*(#.*)?"


def add_peer(file: Path, name: str, settings: dict[str, object]) -> Peer:
    """Add a table to a file, which is made if it is not there. Raises `ConfigError`, `OSError`."""
    before = file.read_bytes().decode() if file.exists() else ""
    was = read_settings(before, str(file))
    lines = [f"[peers.{name}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    gap = "" if not before or before.endswith("\n\n") else "\n" if before.endswith("\n") else "\n\n"
    text = before + gap + "\n".join(lines) + "\n"
    try:
        now = read_settings(text, str(file))
    except ConfigError:
        if any(peer.name == name for peer in was.peers):
            raise ConfigError(f"{file}: there is a [peers.{name}] already") from None
        raise
    added = next((peer for peer in now.peers if peer.name == name), None)
    if added is None or _others(was, name) != _others(now, name):
        raise ConfigError(f"{file}: add the table by hand, for its end is written in an unusual way")
    _write(file, text)
    return added


def remove_peer(file: Path, name: str) -> None:
    """Take a table out of a file. Raises `ConfigError`, `OSError`."""
    before = file.read_bytes().decode()
    was = read_settings(before, str(file))
    if not any(peer.name == name for peer in was.peers):
        raise ConfigError(f"{file}: there is no [peers.{name}]")
    text = _without(before, name)
    try:
        fits = text is not None and read_settings(text, str(file)) == _others(was, name)
    except ConfigError:
        fits = False
    if text is None or not fits:
        raise ConfigError(f"{file}: remove [peers.{name}] by hand, for it is written in an unusual way")
    _write(file, text)


def pause_peer(file: Path, name: str, paused: bool) -> None:
    """Have a peer left alone, or followed again. Raises `ConfigError`, `OSError`."""
    before = file.read_bytes().decode()
    was = read_settings(before, str(file))
    if not any(peer.name == name for peer in was.peers):
        raise ConfigError(f"{file}: there is no [peers.{name}]")
    wanted = evolve(was, peers=tuple(evolve(one, paused=paused) if one.name == name else one for one in was.peers))
    if wanted == was:
        return
    text = _with_pause(before, name, paused)
    try:
        fits = text is not None and read_settings(text, str(file)) == wanted
    except ConfigError:
        fits = False
    if text is None or not fits:
        said = "true" if paused else "false"
        raise ConfigError(f"{file}: write paused = {said} into [peers.{name}] by hand: it is written in an unusual way")
    _write(file, text)


def _with_pause(text: str, name: str, paused: bool) -> str | None:
    """A text in whose table stands whether the peer is paused: where it stood, or below the heading."""
    lines = text.splitlines(keepends=True)
    heading = re.compile(_OURS.format(name=re.escape(name)))
    starts = [number for number, line in enumerate(lines) if heading.fullmatch(line.rstrip("\r\n"))]
    if len(starts) != 1:
        return None
    start = starts[0] + 1
    ends = (number for number in range(start, len(lines)) if _HEADING.match(lines[number]))
    end = next(ends, len(lines))
    kept = [line for line in lines[start:end] if not _PAUSED.match(line)]
    added = ["paused = true\n"] if paused else []
    return "".join([*lines[: start - 1], lines[start - 1].rstrip("\r\n") + "\n", *added, *kept, *lines[end:]])


def _others(config: Config, name: str) -> Config:
    """The settings without this peer."""
    return evolve(config, peers=tuple(peer for peer in config.peers if peer.name != name))


def _without(text: str, name: str) -> str | None:
    """A text without a table; what stands after its last setting stays, for it belongs to the next one."""
    lines = text.splitlines(keepends=True)
    heading = re.compile(_OURS.format(name=re.escape(name)))
    starts = [number for number, line in enumerate(lines) if heading.fullmatch(line.rstrip("\r\n"))]
    if len(starts) != 1:
        return None
    start = starts[0]
    ends = (number for number in range(start + 1, len(lines)) if _HEADING.match(lines[number]))
    end = next(ends, len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return "".join(lines[:start] + lines[end:])


def _write(file: Path, text: str) -> None:
    """In one step, and for whoever could read it before."""
    target = file.resolve()
    write_whole(target, text.encode(), target.stat() if target.exists() else None)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
