"""What homeservers tell each other: written and read again, and nothing else is read."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pkarr.packet import HEAD
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
from pubky_homeserver.core.errors import PeerBroken
from pubky_homeserver.core.moves import Kept, Shown
from pubky_homeserver.core.paths import MAX_PATH
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.messages import MAX_BODY, MAX_LENGTH, MAX_SEQ
from pubky_homeserver.peers.shapes import MAX_NUMBER, Malformed, to_json

PUBKY = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
NUMBERS, SEQS, LENGTHS = st.integers(0, MAX_NUMBER), st.integers(0, MAX_SEQ), st.integers(0, MAX_LENGTH)
LOG_IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp"), exclude_characters="/\\"))
PATHS = NAMES.filter(lambda name: name not in (".", "..") and 0 < len(name.encode()) < 250)
TYPES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
DIGESTS, HASHES = st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)


@st.composite
def standings(draw: Any) -> LogStanding:
    """Where some log stands."""
    reigns = draw(st.lists(st.builds(Reign, LOG_IDS, SEQS), min_size=1, max_size=4))
    position = Position(reigns[-1].log_id, draw(SEQS), draw(NUMBERS), draw(DIGESTS))
    return LogStanding(position, tuple(reigns), draw(SEQS), draw(NUMBERS))


@st.composite
def logged(draw: Any) -> LoggedEvent:
    """Some event of the public log."""
    path = draw(st.one_of(PATHS.map("/pub/{}".format), st.just("takedown"), st.just("revoked:Ab_-9")))
    deleted = Event(draw(NUMBERS), Operation.DEL, PUBKY, path, draw(SEQS), draw(DIGESTS))
    if draw(st.booleans()):
        return LoggedEvent(deleted)
    put = evolve(
        deleted,
        operation=Operation.PUT,
        content_hash=draw(HASHES),
        length=draw(LENGTHS),
        content_type=draw(TYPES),
        modified=draw(NUMBERS),
    )
    return LoggedEvent(put, draw(st.one_of(st.none(), st.binary(max_size=50))))


ENTRIES = st.builds(Entry, PATHS.map("/priv/{}".format), HASHES, LENGTHS, TYPES, NUMBERS, seq=SEQS)
OFFERS = st.builds(
    Offered, st.just(PUBKY), st.integers(0, (1 << 64) - 1), standings(), st.one_of(st.none(), standings())
)


@given(st.lists(OFFERS, max_size=5), st.one_of(st.none(), st.text("abc019", min_size=1, max_size=64)))
def test_accounts(offers: list[Offered], following: str | None) -> None:
    """A page of accounts is read as it was written."""
    written = to_json(messages.pack_accounts(offers, following))
    assert reading.read_accounts(written) == (offers, following)


@given(st.lists(logged(), max_size=5))
def test_events(events: list[LoggedEvent]) -> None:
    """So is a page of events."""
    written = to_json(messages.pack_events((Reign("0" * 32, 1),), events, 9))
    assert reading.read_events(written, PUBKY, False) == Logged((Reign("0" * 32, 1),), tuple(events), 9)


@given(st.lists(ENTRIES, max_size=5), standings())
def test_entries(entries: list[Entry], standing: LogStanding) -> None:
    """So is a page of files."""
    listed = Listed(tuple(entries), standing)
    assert reading.read_entries(to_json(messages.pack_entries(listed)), True) == listed


@given(st.lists(st.builds(Reign, LOG_IDS, SEQS), max_size=5), SEQS, st.booleans())
def test_forks_and_hints(reigns: list[Reign], seq: int, private: bool) -> None:
    """So are the reigns of a fork, and a hint."""
    assert reading.read_fork(to_json(messages.pack_reigns(reigns))) == tuple(reigns)
    hint = Hint(PUBKY, private, seq)
    assert reading.read_hint(to_json(messages.pack_hint(hint))) == hint


STANDING = LogStanding(Position("1" * 32, 7, 70, bytes(16)), (Reign("0" * 32, 1), Reign("1" * 32, 5)), 3, 9)
PUT = LoggedEvent(
    Event(70, Operation.PUT, PUBKY, "/pub/a", 7, bytes(16), bytes(32), 3, "text/plain", 70_000_000), b"one"
)
QUESTION = Question(PUBKY, False, STANDING.position)
PAGES: dict[str, tuple[Any, Callable[[bytes], object]]] = {
    "accounts": (messages.pack_accounts([Offered(PUBKY, 5, STANDING, STANDING)], "7"), reading.read_accounts),
    "events": (
        messages.pack_events(STANDING.reigns, [PUT], 9),
        lambda answer: reading.read_events(answer, PUBKY, False),
    ),
    "entries": (
        messages.pack_entries(Listed((Entry("/pub/a", bytes(32), 3, "text/plain", 70, seq=7),), STANDING)),
        lambda answer: reading.read_entries(answer, False),
    ),
    "questions": (messages.pack_questions([QUESTION]), reading.read_questions),
    "answers": (
        messages.pack_answers(
            [
                messages.pack_answer(200, messages.pack_events(STANDING.reigns, [PUT], 9)),
                messages.pack_answer(409, messages.pack_reigns(STANDING.reigns)),
                *(messages.pack_answer(status, {}) for status in (404, 410, 503)),
            ]
        ),
        lambda answer: reading.read_answers(answer, [QUESTION] * 5),
    ),
    "fork": (messages.pack_reigns(STANDING.reigns), reading.read_fork),
    "hint": (messages.pack_hint(Hint(PUBKY, False, 7)), reading.read_hint),
    "copies": (messages.pack_held([Held(PUBKY, 7, 9, 1)], PUBKY), reading.read_held),
    "packets": (messages.pack_packets([bytes(HEAD)]), reading.read_packets),
    "shown": (
        messages.pack_shown([Shown(PUBKY, Kept.KEPT, bytes(HEAD), STANDING, STANDING, bytes(HEAD))]),
        lambda answer: reading.read_shown(answer, [PUBKY]),
    ),
    "late": (messages.pack_late([PUT]), lambda request: reading.read_late(request, PUBKY, False)),
    "kept": (messages.pack_kept([70]), reading.read_kept),
    "order": (messages.pack_order("1" * 32, 7), reading.read_order),
    "obeyed": (messages.pack_obeyed(Obeyed.HIDDEN), reading.read_obeyed),
    "hello": ({"version": 1, "features": ["events"], "limits": {"events": 1}, "epoch": "e1"}, reading.read_hello),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_truncation(name: str) -> None:
    """Half an answer is none."""
    page, read = PAGES[name]
    whole = to_json(page)
    read(whole)
    for length in range(len(whole)):
        with pytest.raises(Malformed):
            read(whole[:length])


def spoilt(page: Any, place: tuple[Any, ...], value: object) -> bytes:
    """A page with another value at a place; without it if there is none."""
    page = json.loads(json.dumps(page))
    *outer, last = place
    inner = page
    for one in outer:
        inner = inner[one]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(page).encode()


HASH, DIGEST = "A" * 43 + "=", "A" * 22 + "=="
WRONG: list[tuple[str, tuple[Any, ...], list[object]]] = [
    ("accounts", ("accounts",), [..., {}, None, "x", [1], [None], [{}] * 1001]),
    ("accounts", ("next",), [1, "", "a" * 65, "a b", "ä"]),
    ("accounts", ("accounts", 0, "pubky"), [..., PUBKY[:-1], PUBKY + "y", PUBKY.upper(), 1, None]),
    ("accounts", ("accounts", 0, "term"), [..., -1, 1 << 64, 1.0, True, "1", None]),
    ("accounts", ("accounts", 0, "pub"), [..., None, [], {}]),
    ("accounts", ("accounts", 0, "priv"), [[], {}, 1]),
    ("accounts", ("accounts", 0, "pub", "log_id"), [..., "1" * 31, "1" * 33, "g" * 32, "A" * 32, "0" * 32]),
    ("accounts", ("accounts", 0, "pub", "seq"), [..., -1, 1 << 53, 1e3, True, "7"]),
    ("accounts", ("accounts", 0, "pub", "id"), [..., -1, 1 << 53]),
    ("accounts", ("accounts", 0, "pub", "digest"), [..., "", DIGEST[:-4], HASH, "*" * 24, 1, "ä" * 24]),
    ("accounts", ("accounts", 0, "pub", "floor"), [..., -1]),
    ("accounts", ("accounts", 0, "pub", "used"), [..., -1]),
    ("accounts", ("accounts", 0, "pub", "reigns"), [..., [], {}, [["1" * 32, 1]] * 1001, [["0" * 32, 1]]]),
    ("fork", ("reigns",), [..., None, "x", [["0" * 32, 1]] * 1001]),
    ("fork", ("reigns", 0), [[], ["0" * 32], ["0" * 32, 1, 2], ["x", 1], ["0" * 32, -1], "00", None]),
    ("events", ("events",), [..., {}, [{}], [None], [{}] * 1001]),
    ("events", ("events", 0, "op"), [..., "put", "GET", 1, None, []]),
    ("events", ("events", 0, "seq"), [..., -1, "7"]),
    ("events", ("events", 0, "id"), [..., -1]),
    ("events", ("events", 0, "digest"), [..., HASH]),
    ("events", ("events", 0, "hash"), [..., DIGEST, None]),
    ("events", ("events", 0, "length"), [..., -1, None]),
    ("events", ("events", 0, "type"), [..., "a\nb", "ä", "x" * 256, 1]),
    ("events", ("events", 0, "modified"), [..., -1]),
    ("events", ("events", 0, "body"), ["x", 1, "A" * (MAX_BODY * 4 // 3 + 8)]),
    (
        "events",
        ("events", 0, "path"),
        [..., "", "/", "/pub/", "/pub", "pub/a", "/priv/a", "/pub/../a", "/pub//a", "/pub/./a", "/pub/a/", "/x/a", 1],
    ),
    (
        "events",
        ("events", 0, "path"),
        ["/pub/" + "a/" * 500 + "a", "/pub/\x00", "/pub/\ud800", "Revoked:x", "revoked:", "revoked:a b", "/pub/a\n"],
    ),
    ("questions", ("logs",), [..., {}, [None], [{}], [{}] * 17]),
    ("questions", ("logs", 0, "pubky"), [..., "x", 1]),
    ("questions", ("logs", 0, "log"), [..., "public", 1, None]),
    ("questions", ("logs", 0, "log_id"), [..., "0" * 31, 1]),
    ("questions", ("logs", 0, "seq"), [..., -1, "7"]),
    ("questions", ("logs", 0, "id"), [..., 1 << 53]),
    ("questions", ("logs", 0, "digest"), [..., HASH, DIGEST[:-4]]),
    ("answers", ("logs",), [..., {}, [], [{}] * 4, [{}] * 6]),
    ("answers", ("logs", 0), [None, [], {}]),
    ("answers", ("logs", 0, "status"), [..., 1000, -1, "200", None, []]),
    ("answers", ("logs", 0, "reigns"), [..., None]),
    ("answers", ("logs", 0, "events"), [..., [{}], [{}] * 1001]),
    ("answers", ("logs", 0, "events", 0, "path"), ["/priv/a", "/etc/passwd"]),
    ("answers", ("logs", 1, "reigns"), [..., "x"]),
    ("entries", ("entries",), [..., {}, [{}] * 1001]),
    ("entries", ("standing",), [..., None, {}]),
    ("entries", ("entries", 0, "path"), [..., "/priv/a", "/pub/a/.."]),
    ("entries", ("entries", 0, "hash"), [..., DIGEST]),
    ("entries", ("entries", 0, "seq"), [..., -1, True]),
    ("hint", ("log",), [..., "public", "", 1, []]),
    ("hint", ("pubky",), [..., "x"]),
    ("hint", ("seq",), [..., -1]),
    ("hello", ("version",), [..., "1", -1]),
    ("hello", ("features",), [..., {}, [1], ["a b"], ["a"] * 101]),
    ("hello", ("epoch",), [..., 1, "", "a\nb", "x" * 65]),
]


@pytest.mark.parametrize(
    ("name", "place", "value"), [(name, place, value) for name, place, values in WRONG for value in values]
)
def test_values_that_are_none(name: str, place: tuple[Any, ...], value: object) -> None:
    """Everything has its type and its bounds, or nothing of the answer is used."""
    page, read = PAGES[name]
    with pytest.raises(Malformed):
        read(spoilt(page, place, value))


@pytest.mark.parametrize("answer", [b"", b"[]", b"null", b"1", b'"x"', b"\xff", b"[" * 200_000, b'{"a":' * 100_000])
@pytest.mark.parametrize("name", PAGES)
def test_answers_that_are_no_objects(name: str, answer: bytes) -> None:
    """However deep they are."""
    with pytest.raises(Malformed):
        PAGES[name][1](answer)


def test_pages_that_are_too_long() -> None:
    """One more than a page has is refused, however good each one is."""
    for name in ("accounts", "events", "entries"):
        page, read = PAGES[name]
        read(json.dumps(page | {name: page[name] * messages.MAX_PAGE}).encode())
        with pytest.raises(Malformed):
            read(json.dumps(page | {name: page[name] * (messages.MAX_PAGE + 1)}).encode())


def test_numbers_without_end() -> None:
    """A number of a million digits costs no time."""
    with pytest.raises(Malformed):
        reading.read_hint(b'{"pubky":"%b","log":"pub","seq":%b}' % (PUBKY.encode(), b"9" * 1_000_000))


@pytest.mark.parametrize("name", PAGES)
def test_what_a_reader_does_not_know_is_skipped(name: str) -> None:
    """A newer homeserver may say more, wherever there is a name for it."""
    page, read = PAGES[name]
    understood = str(read(to_json(page)))  # some of them are errors, which are equal to themselves alone
    everything: list[Any] = [None, 1e300, "x" * 1000, {"seq": -1, "path": "../a"}, [[[]]]]
    for more in everything:
        assert str(read(to_json(with_more(page, more)))) == understood


def test_an_answer_that_is_not_known_is_about_its_log_alone() -> None:
    """A status that a newer homeserver may have does not spoil what is said of other logs."""
    page, read = PAGES["answers"]
    answers: Any = read(spoilt(page, ("logs", 1, "status"), 451))
    assert isinstance(answers[1], PeerBroken)
    assert "451" in str(answers[1])
    assert answers[0] == Logged(STANDING.reigns, (PUT,), 9)


def with_more(value: Any, more: object) -> Any:
    """A page with something more in each of its objects."""
    if isinstance(value, list | tuple):
        return [with_more(one, more) for one in value]
    if isinstance(value, dict):
        return {"": more, **{name: with_more(one, more) for name, one in value.items()}, "more": more}
    return value


def test_private_paths_are_of_the_private_log() -> None:
    """And of no other: what is no file, too, is told in the public one only."""
    page = messages.pack_events((), [LoggedEvent(evolve(PUT.event, path="/priv/a"))], 1)
    assert reading.read_events(to_json(page), PUBKY, True).events[0].event.path == "/priv/a"
    for path in ("/pub/a", "takedown", "revoked:x"):
        page = messages.pack_events((), [LoggedEvent(evolve(PUT.event, path=path))], 1)
        with pytest.raises(Malformed):
            reading.read_events(to_json(page), PUBKY, True)


def test_the_largest_page_fits() -> None:
    """A page of the longest paths, with all the bodies that it may have, is one that is read."""
    path = '/pub/"' + '/"' * ((MAX_PATH - 6) // 2)
    event = evolve(PUT.event, path=path, seq=MAX_SEQ, id=MAX_NUMBER, modified=MAX_NUMBER, length=MAX_LENGTH)
    small = [LoggedEvent(event)] * (messages.MAX_PAGE - 17) + [LoggedEvent(event, bytes(MAX_BODY))] * 17
    written = to_json(messages.pack_events((Reign("0" * 32, 1),) * messages.MAX_REIGNS, small, MAX_SEQ))
    assert len(written) < messages.MAX_ANSWER
    assert len(reading.read_events(written, PUBKY, False).events) == messages.MAX_PAGE


@given(st.sampled_from(sorted(PAGES)), st.data())
def test_any_other_value_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever stands in its place, a value is read or the answer is malformed: nothing else happens."""
    page, read = PAGES[name]
    places = list(_places(page))
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    answer = spoilt(page, data.draw(st.sampled_from(places)), data.draw(values))
    try:
        read(answer)
    except Malformed:
        pass


def _places(value: Any, place: tuple[Any, ...] = ()) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*place, name)
        yield from _places(one, (*place, name))
