"""Judges what homeservers did, by what clients saw of them and by what they show in the end, and by nothing else.

A **dump** is what one homeserver shows of an account to everybody: listing, files with their heads, its events, and
what its operator is told of the copy. From the events of the primary follows what any beginning of its history looks
like: event k is number k of the public log. The rules are named as in the invariants of the design.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from tests.faults.mirroring.history import Call

LISTED = 1000  # paths that a listing names, at most
OVERHEAD = 256  # bytes that a file counts besides its length, as quotas count them

State = Mapping[str, bytes]
"""Path → hash, of all files there are."""


@frozen
class Shown:
    """One file as it is shown."""

    content_hash: bytes
    """Of the bytes that were read, not of what a header says."""
    length: int
    head: tuple[str | None, ...]
    """ETag, Last-Modified, Content-Type."""


@frozen
class Dump:
    """What one homeserver shows of an account at rest."""

    node: str
    paths: tuple[str, ...]
    """In the order of the listing."""
    files: Mapping[str, Shown]
    refused: Mapping[str, int]
    """Path that is listed, but not shown → status."""
    events: tuple[tuple[str, str, bytes | None], ...] = ()
    """Operation, path, hash of each event, of the primary."""
    copy: Mapping[str, Any] | None = None
    """What the operator is told of the copy; None at the primary."""
    mirror: str | None = None
    """`Pubky-Mirror` of the listing."""


class Violation(AssertionError):
    """A rule was broken."""


def must(holds: object, rule: str, why: object) -> None:
    """Raise `Violation` unless something holds."""
    if not holds:
        raise Violation(f"{rule}: {why}")


def fold(events: Iterable[tuple[str, str, bytes | None]], moved: bool = False) -> Iterator[dict[str, bytes]]:
    """The states after each of some events, and first of all the empty one.

    `moved`: whether the account lived elsewhere before: its first events here tell again what is there and what not.
    """
    state: dict[str, bytes] = {}
    yield dict(state)
    for operation, path, content_hash in events:
        if operation == "PUT":
            assert content_hash is not None
            state[path] = content_hash
        else:
            must(path in state or moved, "I11", f"{path} is deleted twice")
            state.pop(path, None)
        yield dict(state)


def check_at_rest(primary: Dump, copies: Sequence[Dump], calls: Sequence[Call]) -> None:
    """All rules for an account at rest."""
    check_primary(primary)
    check_written([call for call in calls if call.node == primary.node], primary)
    states = (
        [*fold(primary.events)] if any(call.method == "GET" for call in calls) else []
    )  # one is as large as all files
    for copy in copies:
        check_equal(primary, copy)
        check_bytes(copy)
        mine = [call for call in calls if call.node == copy.node]
        check_refused(mine)
        check_prefix(mine, states)


def check_primary(primary: Dump, moved: bool = False) -> None:
    """I11, I5, I23: what is shown is what the events say."""
    (last,) = deque(fold(primary.events, moved), maxlen=1)
    must(not primary.refused, "I5", f"{primary.node} does not show {primary.refused}")
    shown = {path: file.content_hash for path, file in primary.files.items()}
    must(shown == last, "I5", f"events and files differ at {_difference(shown, last)}")


def check_equal(primary: Dump, copy: Dump, moved: bool = False, unseen: int = 0) -> None:
    """I1, I11: at rest a copy shows the same bytes under the same names, and nothing else.

    `moved`: whether the account lived elsewhere before, so that its events here do not count from one. `unseen`: events
    that are shown to no client, for they are about no file.
    """
    must(copy.mirror is not None, "I1", f"{copy.node} has no copy")
    must(copy.mirror is None or "state=current" in copy.mirror, "I16", copy.mirror)
    must(not copy.refused, "I1", f"{copy.node} does not show {copy.refused}")
    must(copy.paths == primary.paths, "I1", f"other paths: {sorted({*copy.paths} ^ {*primary.paths})}")
    different = [path for path in primary.paths if copy.files[path] != primary.files[path]]
    must(not different, "I1", [(primary.files[path], copy.files[path]) for path in different])
    seq = dict(part.split("=") for part in (copy.mirror or "").split("; ")).get("seq")
    count = len(primary.events) + unseen
    must(moved or seq == str(count), "I16", f"{copy.mirror} after {count} events")


def check_bytes(copy: Dump) -> None:
    """I15: bytes and bodies are counted right."""
    assert copy.copy is not None
    takes = sum(file.length + OVERHEAD for file in copy.files.values())
    must(copy.copy["used"] == takes, "I15", f"{copy.copy['used']} bytes are counted, {takes} are there")
    must(copy.copy["missing"] == 0, "I15", f"{copy.copy['missing']} bodies are missing")


def check_refused(calls: Sequence[Call]) -> None:
    """I10: a copy changes nothing for a client."""
    for call in calls:
        must(not call.is_acknowledged, "I10", call)


def check_written(calls: Sequence[Call], primary: Dump) -> None:
    """I5, I9: every path holds what was written last.

    A write counts no more when an acknowledged one of the same path began after its end. What was not acknowledged may
    have had its effect, and at any time since.
    """
    shown = {path: file.content_hash for path, file in primary.files.items()}
    for path, allowed in last_writes(calls).items():
        must(shown.get(path) in allowed, "I5", f"{path} holds {shown.get(path)!r}, written was {allowed}")


def last_writes(calls: Sequence[Call]) -> dict[str, set[bytes | None]]:
    """Path → what it may hold after all these writes."""
    by_path: dict[str, list[Call]] = {}
    for call in calls:
        if call.is_write and (call.is_acknowledged or call.status in (0, 503)):
            by_path.setdefault(call.path, []).append(call)
    allowed: dict[str, set[bytes | None]] = {}
    for path, writes in by_path.items():
        settled = max((one.start for one in writes if one.is_acknowledged), default=None)
        left = [one for one in writes if settled is None or one.end >= settled or not one.is_acknowledged]
        allowed[path] = {one.sent if one.method == "PUT" else None for one in left}
        if settled is None:
            allowed[path].add(None)
    return allowed


def check_kept(calls: Sequence[Call], primary: Dump, shelf: Iterable[tuple[str, bytes | None]]) -> None:
    """I9: an acknowledged write, wherever it was, is there, was superseded, or is on a shelf. Nothing fourth."""
    history = {(path, content_hash) for _, path, content_hash in primary.events}
    kept = {*shelf}
    for path, allowed in last_writes(calls).items():
        for content_hash in allowed:
            doubtful = any(c.path == path and c.sent == content_hash and not c.is_acknowledged for c in calls)
            must(
                doubtful
                or (path, content_hash) in history | kept
                or (content_hash is None and path not in primary.files),
                "I9",
                f"{path} with {content_hash!r} is nowhere",
            )


def check_prefix(calls: Sequence[Call], states: Sequence[State]) -> None:
    """I2, I3, I10: what one reader saw of a copy, in its order, are ever later beginnings of the primary's history.

    While the list is not whole nothing is called missing, and what is shown was there at some time. `seq` in the header
    never goes back, and is never ahead of what is shown.
    """
    low, last_seq, seen = 0, 0, False
    for call in calls:
        header = call.headers.get("pubky-mirror")
        if call.method != "GET" or call.status in (0, 503) or call.status >= 500:
            continue
        if header is None:
            must(not seen, "I10", f"the copy was forgotten: {call}")
            continue
        fields = dict(part.split("=") for part in header.split("; "))
        seq, seen = int(fields["seq"]), True
        if fields["state"] == "bootstrapping":
            must(call.status == 200 and not call.lines, "I10", f"said before the list was whole: {call}")
            must(any(state.get(call.path) == call.found for state in states), "I2", f"this never was there: {call}")
            continue
        must(seq >= last_seq, "I3", f"{seq} after {last_seq}: {call}")
        last_seq = seq
        low = _first(call, states, max(low, seq))


def _first(call: Call, states: Sequence[State], low: int) -> int:
    """The first state from `low` on that shows what a call found."""
    for number in range(low, len(states)):
        if _agrees(call, states[number]):
            return number
    earlier = [number for number in range(low) if _agrees(call, states[number])]
    raise Violation(f"I2: not in any state from {low} of {len(states)} on, but in {earlier[-5:]}: {call}")


def _agrees(call: Call, state: State) -> bool:
    if not call.path.endswith("/"):
        return state.get(call.path) == (call.found if call.status == 200 else None)
    below = sorted((path for path in state if path.startswith(call.path)), key=str.encode)
    return below[:LISTED] == list(call.lines)


def check_fence(calls: Sequence[Call]) -> None:
    """I8: who has once said that an account lives elsewhere commits nothing that is asked of him after that."""
    refused = min((call.end for call in calls if call.is_write and call.status == 421), default=None)
    if refused is not None:
        after = [call for call in calls if call.is_acknowledged and call.start > refused]
        must(not after, "I8", after)


def _difference(one: State, other: State) -> list[str]:
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
