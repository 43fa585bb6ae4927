"""What homeservers tell each other, as JSON; it is read in `reading.py`. One object an answer.

    standing   {"log_id", "seq", "id", "digest", "reigns": [[log_id, first], …], "floor", "used"}
    account    {"pubky", "term", "pub": standing, "priv": standing}          (without "priv" if it is not offered)
    entry      {"path", "hash", "length", "type", "modified", "seq"}
    event      {"seq", "id", "op", "path", "digest"}, and of a PUT {"hash", "length", "type", "modified", "body"}
    hint       {"pubky", "log", "seq"}

    hello      {"version", "features": [text, …], "limits": {text: number, …}, "epoch": text}
    accounts   {"accounts": [account, …], "next": text or null}
    events     {"reigns": [[log_id, first], …], "events": [event, …], "end": number}
    questions  {"logs": [{"pubky", "log", "log_id", "seq", "id", "digest"}, …]}
    answers    {"logs": [{"status": number, and with 200 what `events` has, with 409 what `fork` has}, …]}
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
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pkarr.packet import MAX_PACKET
from pubky_homeserver.core.copies import (
    Held,
    Hint,
    Listed,
    LoggedEvent,
    LogStanding,
    Offered,
    Question,
    Reign,
)
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.core.records import Entry
from pubky_homeserver.peers.shapes import base64

HOLDINGS = "copies"
"""What a homeserver understands that says which copies it has of the asker's accounts."""

MAX_PAGE = 1000
"""Accounts, events or files of a page that is read, at most."""

MAX_ANSWER = 8 << 20
"""Bytes of an answer: a thousand of the longest paths take 2 MiB, small bodies no more than that."""

MAX_BODY = 65_536
"""Bytes of a body within an event: the largest that a homeserver may be set to keep with its entry."""

MAX_SEQ = (1 << 40) - 1
"""The largest number in a log: a reign is kept with five bytes for its first one."""

MAX_LENGTH = 1 << 42
"""Bytes of a file. A page of such files can still be added up exactly, in Lua, too."""

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

MAX_QUESTIONS = 16
"""Logs of which a request asks for the events."""

MAX_ASKED = MAX_QUESTIONS * 320 + 64
"""Bytes of that request."""

MAX_ORDER = 1024
"""Bytes of an order to erase a copy."""

HASH, DIGEST = 32, 16  # bytes

COMPACTED = "its log does not go back to where ours ends"

LOGS = {"pub": False, "priv": True}
"""How a log is called, and whether it is the private one."""


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


def pack_questions(questions: Sequence[Question]) -> dict[str, Any]:
    """After which positions events are asked for."""
    return {"logs": list(map(_pack_question, questions))}


def pack_answer(status: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """What one of several questions is answered."""
    return {"status": status, **told}


def pack_answers(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several are."""
    return {"logs": answers}


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


def _pack_question(question: Question) -> dict[str, Any]:
    position = question.position
    return {
        "pubky": question.pubky,
        "log": "priv" if question.private else "pub",
        "log_id": position.log_id,
        "seq": position.seq,
        "id": position.event_id,
        "digest": base64(position.digest),
    }


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
