"""What homeservers tell each other, read from JSON. Its shapes: `messages.py`.

Who reads believes no shape: everything has its type and its bounds, or the whole answer is `Malformed`.
"""

import re
from collections.abc import Mapping, Sequence
from sys import intern
from typing import Any

from pkarr.packet import HEAD, MAX_PACKET
from pubky_homeserver.core.copies import (
    Held,
    Hint,
    Listed,
    Logged,
    LoggedEvent,
    LogStanding,
    Offered,
    Position,
    Question,
    Reign,
)
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import (
    InvalidPath,
    LogCompacted,
    LogForked,
    PeerAway,
    PeerBroken,
    PeerError,
    PeerRefused,
)
from pubky_homeserver.core.moves import Kept, Shown
from pubky_homeserver.core.paths import is_directory, is_private, is_public, parse_path
from pubky_homeserver.core.peers import Greeting
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.peers.messages import (
    COMPACTED,
    DIGEST,
    HASH,
    LOGS,
    MAX_BODY,
    MAX_CURSOR,
    MAX_LATE,
    MAX_LENGTH,
    MAX_PACKETS,
    MAX_PAGE,
    MAX_QUESTIONS,
    MAX_REIGNS,
    MAX_SEQ,
    MAX_WORDS,
)
from pubky_homeserver.peers.shapes import Malformed, a_list, a_number, a_text, an_object, parsed, some_bytes

_LOG_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PUBKY = re.compile(r"[ybndrfg8ejkmcpqxot1uwisza345h769]{52}", re.ASCII)
_NAME = re.compile(r"[a-z]{1,32}(:[!-~]{1,200})?", re.ASCII)  # of an entry that is no file
_TYPE = re.compile(r"[ -~]{0,255}", re.ASCII)
_WORD = re.compile(r"[!-~]{1,64}", re.ASCII)
_CURSOR = re.compile(rf"[!-~]{{1,{MAX_CURSOR}}}", re.ASCII)


def is_pubky(text: str) -> bool:
    """Whether this has the form of a public key."""
    return _PUBKY.fullmatch(text) is not None


def read_hello(answer: bytes) -> Greeting:
    """What a homeserver says of itself. Raises `Malformed`, as all these."""
    hello = an_object(parsed(answer))
    features = a_list(hello.get("features"), lambda one: a_text(one, _WORD, "a feature"), MAX_WORDS)
    epoch = a_text(hello.get("epoch"), _WORD, "an epoch")
    return Greeting(frozenset(features), epoch, a_number(hello.get("version")))


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
    return _read_logged(an_object(parsed(answer)), pubky, private)


def _read_logged(page: Mapping[str, Any], pubky: str, private: bool) -> Logged:
    events = a_list(page.get("events"), lambda one: _read_event(an_object(one), pubky, private), MAX_PAGE)
    end = page.get("end")
    return Logged(_reigns(page.get("reigns")), tuple(events), None if end is None else _seq(end))


def read_questions(request: bytes) -> list[Question]:
    """After which positions events are asked for."""
    return a_list(an_object(parsed(request)).get("logs"), _read_question, MAX_QUESTIONS)


def read_answers(answer: bytes, questions: Sequence[Question]) -> list[Logged | PeerError]:
    """What several questions are answered."""
    answers = a_list(an_object(parsed(answer)).get("logs"), an_object, len(questions))
    if len(answers) != len(questions):
        raise Malformed("answers to other questions")
    return [_read_answer(*both) for both in zip(answers, questions, strict=True)]


def _read_question(value: object) -> Question:
    asked = an_object(value)
    log = asked.get("log")
    if not isinstance(log, str) or log not in LOGS:
        raise Malformed("a log")
    position = Position(
        a_text(asked.get("log_id"), _LOG_ID, "a log id"),
        _seq(asked.get("seq")),
        a_number(asked.get("id")),
        some_bytes(asked.get("digest"), DIGEST, DIGEST),
    )
    return Question(a_text(asked.get("pubky"), _PUBKY, "a key"), LOGS[log], position)


def _read_answer(answer: Mapping[str, Any], question: Question) -> Logged | PeerError:
    status = answer.get("status")
    if status == 200:
        return _read_logged(answer, question.pubky, question.private)
    if status == 409:
        return LogForked(_reigns(answer.get("reigns")))
    if status == 410:
        return LogCompacted(COMPACTED)
    if status == 404:
        return PeerRefused("404: Not Found")
    if status == 503:
        return PeerAway("503: its store is away, or the account is not open there yet")
    return PeerBroken(f"{a_number(status, 999)}: an answer that is not known here")  # of a newer one, about this log


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
        _seq(held.get("pub")),
        None if private is None else _seq(private),
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
    return a_text(order.get("log_id"), _LOG_ID, "a log id"), _seq(order.get("seq"))


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
    return Hint(intern(a_text(hint.get("pubky"), _PUBKY, "an account")), LOGS[log], _seq(hint.get("seq")))


def _read_offered(value: object) -> Offered:
    offered = an_object(value)
    private = offered.get("priv")
    return Offered(
        intern(a_text(offered.get("pubky"), _PUBKY, "an account")),
        a_number(offered.get("term"), (1 << 64) - 1),
        _read_standing(offered.get("pub")),
        None if private is None else _read_standing(private),
    )


def _read_standing(value: object) -> LogStanding:
    standing = an_object(value)
    position = Position(
        a_text(standing.get("log_id"), _LOG_ID, "a log id"),
        _seq(standing.get("seq")),
        a_number(standing.get("id")),
        some_bytes(standing.get("digest"), DIGEST, DIGEST),
    )
    reigns = _reigns(standing.get("reigns"))
    if not reigns or reigns[-1].log_id != position.log_id:
        raise Malformed("the reigns of a log")
    return LogStanding(position, reigns, _seq(standing.get("floor")), a_number(standing.get("used")))


def _read_entry(entry: Mapping[str, object], private: bool) -> Entry:
    return Entry(
        _path(entry.get("path"), private),
        some_bytes(entry.get("hash"), HASH, HASH),
        a_number(entry.get("length"), MAX_LENGTH),
        a_text(entry.get("type"), _TYPE, "a content type"),
        a_number(entry.get("modified")),
        seq=_seq(entry.get("seq")),
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
        _seq(event.get("seq")),
        some_bytes(event.get("digest"), DIGEST, DIGEST),
        some_bytes(event.get("hash"), HASH, HASH) if put else None,
        a_number(event.get("length"), MAX_LENGTH) if put else 0,
        a_text(event.get("type"), _TYPE, "a content type") if put else "",
        a_number(event.get("modified")) if put else 0,
    )
    return LoggedEvent(read, None if body is None or not put else some_bytes(body, 0, MAX_BODY))


def _reigns(value: object) -> tuple[Reign, ...]:
    return tuple(a_list(value, _read_reign, MAX_REIGNS))


def _read_reign(value: object) -> Reign:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed("a reign")
    return Reign(a_text(value[0], _LOG_ID, "a log id"), _seq(value[1]))


def _seq(value: object) -> int:
    """A number in a log."""
    return a_number(value, MAX_SEQ)


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
