"""What homeservers tell each other, as JSON, and back. One object an answer.

    standing   {"log_id", "seq", "id", "digest", "reigns": [[log_id, first], …], "floor", "used"}
    account    {"pubky", "term", "pub": standing, "priv": standing}          (without "priv" if it is not offered)
    entry      {"path", "hash", "length", "type", "modified", "seq"}
    event      {"seq", "id", "op", "path", "digest"}, and of a PUT {"hash", "length", "type", "modified", "body"}
    hint       {"pubky", "log", "seq"}

    hello      {"version", "features": [text, …], "limits": {text: number, …}, "epoch": text}
    accounts   {"accounts": [account, …], "next": text or null}
    events     {"reigns": [[log_id, first], …], "events": [event, …], "end": number}
    entries    {"standing": standing, "entries": [entry, …]}
    copies     {"copies": [{"pubky", "pub": seq, "priv": seq or null, "missing": number}, …], "next": text or null}
    fork       {"reigns": [[log_id, first], …]}
    packets    {"packets": [packet, …]}
    shown      {"packets": [{"pubky", "kept", "packet": packet, "ended": {"pub": standing, "priv": standing},
                "before": packet}, …]}
    late       {"events": [event, …]}
    kept       {"kept": [id, …]}
    order      {"log_id", "seq"}
    obeyed     {"obeyed": "hidden" or "nothing"}

Hashes (32 bytes), digests (16), bodies and packets are padded base64, numbers are whole and below 2^53, times
microseconds since the Unix epoch; `log_id` has 32 hex digits, `log` is "pub" or "priv". A "body" is there if it is
small and still what the path holds. A packet has its key in front; `kept` is what became of one that was shown: "old",
"kept", "fenced" (it shut the account), "unknown"; "packet", "ended" and "before" are there where they help who asks. A
name that a reader does not know is skipped: so newer homeservers may say more.

Who reads believes no shape: everything has its type and its bounds, or the whole answer is `Malformed`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pkarr.packet import HEAD, MAX_PACKET
from pubky_homeserver.core.copies import Held, Hint, Listed, Logged, LoggedEvent, LogStanding, Offered, Position, Reign
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import InvalidPath
from pubky_homeserver.core.moves import Kept, Shown
from pubky_homeserver.core.paths import is_directory, is_private, is_public, parse_path
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.peers.shapes import Malformed, a_list, a_number, a_text, an_object, base64, parsed, some_bytes

HOLDINGS = "copies"
"""What a homeserver understands that says which copies it has of the asker's accounts."""

MAX_PAGE = 1000
"""Accounts, events or files of a page that is read, at most."""

MAX_ANSWER = 8 << 20
"""Bytes of an answer: a thousand of the longest paths take 2 MiB, small bodies no more than that."""

MAX_BODY = 65_536
"""Bytes of a body within an event: the largest that a homeserver may be set to keep with its entry."""

MAX_REIGNS = 1000
"""Times that an account moved: far above what anybody does."""

MAX_CURSOR = 64
"""Characters of what a page of accounts says where to go on."""

MAX_WORDS = 100
"""Features that a homeserver names."""

MAX_PACKETS = 100
"""Packets that are shown at once: to verify them takes some milliseconds."""

MAX_SHOWN = MAX_PACKETS * (MAX_PACKET + 2) * 4 // 3 + 1024
"""Bytes of a request that shows them."""

MAX_LATE = 100
"""Events that a request offers as late."""

MAX_OFFER = 4 << 20
"""Bytes of that request: a hundred of the longest paths, a MiB of small bodies and one more, in base64."""

MAX_ORDER = 1024
"""Bytes of an order to erase a copy."""

HASH, DIGEST = 32, 16  # bytes

LOGS = {"pub": False, "priv": True}
"""How a log is called, and whether it is the private one."""

_LOG_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PUBKY = re.compile(r"[ybndrfg8ejkmcpqxot1uwisza345h769]{52}", re.ASCII)
_NAME = re.compile(r"[a-z]{1,32}(:[!-~]{1,200})?", re.ASCII)  # of an entry that is no file
_TYPE = re.compile(r"[ -~]{0,255}", re.ASCII)
_WORD = re.compile(r"[!-~]{1,64}", re.ASCII)
_CURSOR = re.compile(rf"[!-~]{{1,{MAX_CURSOR}}}", re.ASCII)


def is_pubky(text: str) -> bool:
    """Whether this has the form of a public key."""
    return _PUBKY.fullmatch(text) is not None


# --- to JSON ------------------------------------------------------------------------------------------------------


def pack_accounts(accounts: Sequence[Offered], following: str | None) -> dict[str, Any]:
    """A page of accounts."""
    return {"accounts": list(map(_pack_offered, accounts)), "next": following}


def pack_events(reigns: Sequence[Reign], events: Sequence[LoggedEvent], end: int) -> dict[str, Any]:
    """A page of events; `end`: the number of the log's newest one."""
    return {**pack_reigns(reigns), "events": list(map(_pack_event, events)), "end": end}


def pack_entries(listed: Listed) -> dict[str, Any]:
    """A page of files."""
    return {"standing": _pack_standing(listed.standing), "entries": list(map(_pack_entry, listed.entries))}


def pack_reigns(reigns: Sequence[Reign]) -> dict[str, Any]:
    """What is said of a fork."""
    return {"reigns": [[one.log_id, one.first] for one in reigns]}


def pack_held(held: Sequence[Held], following: str | None) -> dict[str, Any]:
    """A page of copies."""
    copies = [{"pubky": one.pubky, "pub": one.public, "priv": one.private, "missing": one.missing} for one in held]
    return {"copies": copies, "next": following}


def pack_hint(hint: Hint) -> dict[str, Any]:
    """A hint."""
    return {"pubky": hint.pubky, "log": "priv" if hint.private else "pub", "seq": hint.seq}


def pack_packets(packets: Sequence[bytes]) -> dict[str, Any]:
    """Packets to show."""
    return {"packets": list(map(base64, packets))}


def pack_shown(answers: Sequence[Shown]) -> dict[str, Any]:
    """What is said of packets that were shown."""
    return {"packets": list(map(_pack_one_shown, answers))}


def _pack_one_shown(shown: Shown) -> dict[str, Any]:
    packed: dict[str, Any] = {"pubky": shown.pubky, "kept": "unknown" if shown.kept is None else shown.kept.value}
    if shown.packet is not None:
        packed["packet"] = base64(shown.packet)
    if shown.before is not None:
        packed["before"] = base64(shown.before)
    ends = {"pub": shown.public, "priv": shown.private}
    ended = {name: _pack_standing(end) for name, end in ends.items() if end is not None}
    return {**packed, "ended": ended} if ended else packed


def pack_late(events: Sequence[LoggedEvent]) -> dict[str, Any]:
    """Events that a log lacks."""
    return {"events": list(map(_pack_event, events))}


def pack_kept(ids: Iterable[int]) -> dict[str, Any]:
    """Receipts for some of them."""
    return {"kept": sorted(ids)}


def pack_order(log_id: str, seq: int) -> dict[str, Any]:
    """An order to erase the copy of a log that ends there."""
    return {"log_id": log_id, "seq": seq}


def pack_obeyed(obeyed: Obeyed) -> dict[str, Any]:
    """The receipt for it."""
    return {"obeyed": obeyed.value}


def _pack_offered(offered: Offered) -> dict[str, Any]:
    packed = {"pubky": offered.pubky, "term": offered.term, "pub": _pack_standing(offered.public)}
    return packed if offered.private is None else {**packed, "priv": _pack_standing(offered.private)}


def _pack_standing(standing: LogStanding) -> dict[str, Any]:
    position = standing.position
    return {
        "log_id": position.log_id,
        "seq": position.seq,
        "id": position.event_id,
        "digest": base64(position.digest),
        **pack_reigns(standing.reigns),
        "floor": standing.floor,
        "used": standing.used,
    }


def _pack_entry(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "hash": base64(entry.content_hash),
        "length": entry.length,
        "type": entry.content_type,
        "modified": entry.modified,
        "seq": entry.seq,
    }


def _pack_event(logged: LoggedEvent) -> dict[str, Any]:
    event = logged.event
    packed: dict[str, Any] = {
        "seq": event.seq,
        "id": event.id,
        "op": event.operation.value,
        "path": event.path,
        "digest": base64(event.digest),
    }
    if event.content_hash is None:
        return packed
    packed |= {
        "hash": base64(event.content_hash),
        "length": event.length,
        "type": event.content_type,
        "modified": event.modified,
    }
    return packed if logged.body is None else {**packed, "body": base64(logged.body)}


# --- from JSON ----------------------------------------------------------------------------------------------------


def read_hello(answer: bytes) -> Mapping[str, object]:
    """What a homeserver says of itself. Raises `Malformed`, as all these."""
    hello = an_object(parsed(answer))
    a_number(hello.get("version"))
    a_list(hello.get("features"), lambda one: a_text(one, _WORD, "a feature"), MAX_WORDS)
    a_text(hello.get("epoch"), _WORD, "an epoch")
    return hello


def read_accounts(answer: bytes) -> tuple[list[Offered], str | None]:
    """A page of accounts."""
    page = an_object(parsed(answer))
    accounts = a_list(page.get("accounts"), _read_offered, MAX_PAGE)
    following = page.get("next")
    return accounts, None if following is None else a_text(following, _CURSOR, "a cursor")


def read_held(answer: bytes) -> tuple[list[Held], str | None]:
    """A page of copies."""
    page = an_object(parsed(answer))
    following = page.get("next")
    held = a_list(page.get("copies"), _read_one_held, MAX_PAGE)
    return held, None if following is None else a_text(following, _CURSOR, "a cursor")


def read_events(answer: bytes, pubky: str, private: bool) -> Logged:
    """A page of events of a log."""
    page = an_object(parsed(answer))
    events = a_list(page.get("events"), lambda one: _read_event(an_object(one), pubky, private), MAX_PAGE)
    end = page.get("end")
    return Logged(_reigns(page.get("reigns")), tuple(events), None if end is None else a_number(end))


def read_entries(answer: bytes, private: bool) -> Listed:
    """A page of files of a log."""
    page = an_object(parsed(answer))
    entries = a_list(page.get("entries"), lambda one: _read_entry(an_object(one), private), MAX_PAGE)
    return Listed(tuple(entries), _read_standing(page.get("standing")))


def read_fork(answer: bytes) -> tuple[Reign, ...]:
    """The reigns of a log that is not a continuation of ours."""
    return _reigns(an_object(parsed(answer)).get("reigns"))


def read_packets(request: bytes) -> list[bytes]:
    """Packets that are shown."""
    return a_list(an_object(parsed(request)).get("packets"), _packet, MAX_PACKETS)


def read_shown(answer: bytes, pubkys: Sequence[str]) -> list[Shown]:
    """What is said of packets of these keys."""
    shown = a_list(an_object(parsed(answer)).get("packets"), _read_one_shown, len(pubkys))
    if [one.pubky for one in shown] != [*pubkys]:
        raise Malformed("packets of other keys")
    return shown


def _read_one_held(value: object) -> Held:
    held = an_object(value)
    private = held.get("priv")
    return Held(
        a_text(held.get("pubky"), _PUBKY, "a key"),
        a_number(held.get("pub")),
        None if private is None else a_number(private),
        a_number(held.get("missing")),
    )


def _read_one_shown(value: object) -> Shown:
    shown = an_object(value)
    kept, ended = shown.get("kept"), an_object(shown.get("ended", {}))
    packet, before = (None if shown.get(name) is None else _packet(shown[name]) for name in ("packet", "before"))
    if kept not in ("unknown", *Kept):
        raise Malformed("what became of a packet")
    public, private = (None if ended.get(name) is None else _read_standing(ended[name]) for name in LOGS)
    return Shown(
        a_text(shown.get("pubky"), _PUBKY, "an account"),
        None if kept == "unknown" else Kept(str(kept)),
        packet,
        public,
        private,
        before,
    )


def read_late(request: bytes, pubky: str, private: bool) -> list[LoggedEvent]:
    """Events that our log lacks."""
    events = an_object(parsed(request)).get("events")
    return a_list(events, lambda one: _read_event(an_object(one), pubky, private), MAX_LATE)


def read_kept(answer: bytes) -> set[int]:
    """Receipts."""
    return set(a_list(an_object(parsed(answer)).get("kept"), a_number, MAX_LATE))


def read_order(request: bytes) -> tuple[str, int]:
    """Log id and number."""
    order = an_object(parsed(request))
    return a_text(order.get("log_id"), _LOG_ID, "a log id"), a_number(order.get("seq"))


def read_obeyed(answer: bytes) -> Obeyed:
    """A receipt: one of those that are `is_done`."""
    said = an_object(parsed(answer)).get("obeyed")
    obeyed = next((one for one in Obeyed if one.is_done and one.value == said), None)
    if obeyed is None:
        raise Malformed("a receipt")
    return obeyed


def read_hint(data: bytes) -> Hint:
    """A hint."""
    hint = an_object(parsed(data))
    log = hint.get("log")
    if not isinstance(log, str) or log not in LOGS:
        raise Malformed("a log")
    return Hint(a_text(hint.get("pubky"), _PUBKY, "an account"), LOGS[log], a_number(hint.get("seq")))


def _read_offered(value: object) -> Offered:
    offered = an_object(value)
    private = offered.get("priv")
    return Offered(
        a_text(offered.get("pubky"), _PUBKY, "an account"),
        a_number(offered.get("term"), (1 << 64) - 1),
        _read_standing(offered.get("pub")),
        None if private is None else _read_standing(private),
    )


def _read_standing(value: object) -> LogStanding:
    standing = an_object(value)
    position = Position(
        a_text(standing.get("log_id"), _LOG_ID, "a log id"),
        a_number(standing.get("seq")),
        a_number(standing.get("id")),
        some_bytes(standing.get("digest"), DIGEST, DIGEST),
    )
    reigns = _reigns(standing.get("reigns"))
    if not reigns or reigns[-1].log_id != position.log_id:
        raise Malformed("the reigns of a log")
    return LogStanding(position, reigns, a_number(standing.get("floor")), a_number(standing.get("used")))


def _read_entry(entry: Mapping[str, object], private: bool) -> Entry:
    return Entry(
        _path(entry.get("path"), private),
        some_bytes(entry.get("hash"), HASH, HASH),
        a_number(entry.get("length")),
        a_text(entry.get("type"), _TYPE, "a content type"),
        a_number(entry.get("modified")),
        seq=a_number(entry.get("seq")),
    )


def _read_event(event: Mapping[str, object], pubky: str, private: bool) -> LoggedEvent:
    operation, body = event.get("op"), event.get("body")
    if operation not in ("PUT", "DEL"):
        raise Malformed("an operation")
    put = operation == "PUT"
    read = Event(
        a_number(event.get("id")),
        Operation(operation),
        pubky,
        _path(event.get("path"), private),
        a_number(event.get("seq")),
        some_bytes(event.get("digest"), DIGEST, DIGEST),
        some_bytes(event.get("hash"), HASH, HASH) if put else None,
        a_number(event.get("length")) if put else 0,
        a_text(event.get("type"), _TYPE, "a content type") if put else "",
        a_number(event.get("modified")) if put else 0,
    )
    return LoggedEvent(read, None if body is None or not put else some_bytes(body, 0, MAX_BODY))


def _reigns(value: object) -> tuple[Reign, ...]:
    return tuple(a_list(value, _read_reign, MAX_REIGNS))


def _read_reign(value: object) -> Reign:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed("a reign")
    return Reign(a_text(value[0], _LOG_ID, "a log id"), a_number(value[1]))


def _path(value: object, private: bool) -> str:
    """The path of a file of this log; of the public one also the name of what is no file."""
    if not isinstance(value, str):
        raise Malformed("a path")
    if not private and _NAME.fullmatch(value):
        return value
    try:
        path = parse_path(value)
    except InvalidPath:
        raise Malformed("a path") from None
    if is_directory(path) or not (is_private if private else is_public)(path):
        raise Malformed("a path of another log")
    return path


def _packet(value: object) -> bytes:
    return some_bytes(value, HEAD, MAX_PACKET)
