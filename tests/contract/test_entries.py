"""What every entry store does with one file: keep, read, refuse, remove, and count."""

from base64 import b64encode
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from blake3 import blake3
from zope.interface.verify import verifyObject

from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import (
    Collision,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    UserDisabled,
    WriteNotAllowed,
)
from pubky_homeserver.core.quotas import MEGABYTE, UNLIMITED
from pubky_homeserver.core.records import Entry, Operation
from pubky_homeserver.interfaces import IEntryStore
from tests.contract.store import ALICE, BOB, Store, entry, put, sign_up

LONG = "/pub/" + "/".join(["d" * 200] * 4) + "/" + "ü" * 80


def tag(body: bytes) -> str:
    """The entity tag of a body."""
    return f'"{b64encode(blake3(body).digest()).decode()}"'


async def used(store: Store, pubky: str = ALICE) -> int:
    """Bytes that the account uses, which must be those of the node too."""
    account = await store.account(pubky)
    assert account is not None
    assert (await store.totals()).used == account.used
    return account.used


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IEntryStore, store)


@pytest.mark.parametrize(
    "kept",
    [
        entry("/pub/a"),
        entry("/priv/a", b""),
        entry("/pub/app/Ü ,:%2F?#.json", bytes(range(256)) * 16, content_type="application/json"),
        entry(LONG, content_type="x/" + "y" * 253, modified=1),
        entry("/pub/b", length=2**47, body=b"", modified=2**53 - 1),
        Entry("/pub/blob", bytes(32), 5000, "image/png", 1, blob="00ff" * 8),
        Entry("/pub/neither", b"\xff" * 32, 5000, "", 1),
    ],
    ids=lambda kept: kept.path[:20],
)
@pytest_twisted.ensureDeferred
async def test_an_entry_is_as_it_was_put(store: Store, kept: Entry) -> None:
    """An entry comes back whole, with its number in its log; its neighbours in name do not."""
    await sign_up(store, ALICE)
    event = await store.put(ALICE, kept, None, announced=True)
    assert await store.entry(ALICE, kept.path) == evolve(kept, seq=event.seq)
    for other in (kept.path + "a", kept.path[:-1], kept.path + "/", kept.path + "/a"):
        assert await store.entry(ALICE, other) is None
    assert await store.entry(BOB, kept.path) is None


@pytest_twisted.ensureDeferred
async def test_a_put_replaces(store: Store) -> None:
    """There is one entry of a path: the newest."""
    await sign_up(store, ALICE)
    for number, body in enumerate((b"one", b"two", b"two", b"", b"x" * 4096), 1):
        event = await put(store, ALICE, "/pub/a", body)
        assert (event.seq, event.operation, event.content_hash) == (number, Operation.PUT, blake3(body).digest())
        assert await store.entry(ALICE, "/pub/a") == entry("/pub/a", body, seq=number)
        assert await store.listing(ALICE, "/pub/", "", 10, False, False) == ["/pub/a"]


@pytest_twisted.ensureDeferred
async def test_a_delete_removes_one_entry(store: Store) -> None:
    """Only the path itself goes; a second delete finds nothing."""
    await sign_up(store, ALICE)
    for path in ("/pub/a", "/pub/a2", "/pub/b/c"):
        await put(store, ALICE, path)
    event = await store.delete(ALICE, "/pub/a")
    assert (event.operation, event.path, event.seq, event.content_hash) == (Operation.DEL, "/pub/a", 4, None)
    assert await store.entry(ALICE, "/pub/a") is None
    assert await store.listing(ALICE, "/pub/", "", 10, False, False) == ["/pub/a2", "/pub/b/c"]
    for path in ("/pub/a", "/pub/b", "/pub/b/"):
        with pytest.raises(NotFound):
            await store.delete(ALICE, path)
    assert await used(store) == 2 * (256 + 5)


@pytest_twisted.ensureDeferred
async def test_usage_is_length_and_256_a_file(store: Store) -> None:
    """The 256 bytes are charged once for a file, also an empty one, and given back."""
    await sign_up(store, ALICE)
    expected = [("/pub/a", b"", 256), ("/pub/a", b"12345", 261), ("/pub/a", b"1", 257), ("/priv/b", b"22", 515)]
    for path, body, total in expected:
        await put(store, ALICE, path, body)
        assert await used(store) == total
    await store.delete(ALICE, "/pub/a")
    assert await used(store) == 258
    await store.delete(ALICE, "/priv/b")
    assert await used(store) == 0


@pytest.mark.parametrize("announced", [True, False])
@pytest_twisted.ensureDeferred
async def test_quota(store: Store, announced: bool) -> None:
    """What would exceed the limit is refused and changes nothing; equality fits."""
    await sign_up(store, ALICE)

    async def write(path: str, length: int, limit: int | None) -> None:
        await store.put(ALICE, entry(path, length=length), limit, announced)

    for length in (744, 745, 10**12):
        with pytest.raises(QuotaExceeded):
            await write("/pub/a", length, 999)
    assert await used(store) == 0
    assert (await store.log_state(ALICE, False)) == evolve(await _log(store), seq=0, event_id=0, digest=EMPTY)
    await write("/pub/a", 743, 999)
    assert await used(store) == 999
    with pytest.raises(QuotaExceeded):
        await write("/pub/b", 0, 999)
    await write("/pub/b", 10**12, None)
    # Above the limit even a smaller file is refused, unless the account is within the limit then.
    with pytest.raises(QuotaExceeded):
        await write("/pub/a", 1, 999)
    await store.delete(ALICE, "/pub/b")
    await write("/pub/a", 1, 257)
    with pytest.raises(QuotaExceeded):
        await write("/pub/c", 0, 0)
    assert await store.entry(ALICE, "/pub/a") == entry("/pub/a", length=1, seq=4)


async def _log(store: Store, private: bool = False) -> Any:
    return await store.log_state(ALICE, private)


@pytest_twisted.ensureDeferred
async def test_an_own_quota_rules_over_the_default(store: Store) -> None:
    """An account's own limit counts instead of the server's, also none and zero."""
    own: dict[str, Any] = {ALICE: 1, BOB: UNLIMITED, "c" * 52: 0}
    for pubky, megabytes in own.items():
        await sign_up(store, pubky, storage_quota_mb=megabytes)
    for default in (None, 0, 300):
        await store.put(ALICE, entry("/pub/a", length=MEGABYTE - 256), default, announced=True)
        with pytest.raises(QuotaExceeded):
            await store.put(ALICE, entry("/pub/b", length=0), default, announced=True)
        await store.put(BOB, entry("/pub/a", length=2**45), default, announced=True)
        with pytest.raises(QuotaExceeded):
            await store.put("c" * 52, entry("/pub/a", length=0), default, announced=True)


@pytest.mark.parametrize(
    ("there", "path"),
    [
        ("/pub/a/b", "/pub/a"),
        ("/pub/a/b/c/d", "/pub/a"),
        ("/pub/a", "/pub/a/b"),
        ("/pub/a", "/pub/a/b/c/d"),
        ("/pub/a/b/c", "/pub/a/b/c/d/e/f"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_path_is_a_file_and_a_folder(store: Store, there: str, path: str) -> None:
    """A put is refused while a file lies below the path or one of its folders is a file; not longer."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    await put(store, ALICE, there)
    with pytest.raises(Collision):
        await put(store, ALICE, path)
    with pytest.raises(Collision):
        await store.check_put(ALICE, path, None, None)
    assert await store.entry(ALICE, path) is None
    await put(store, BOB, path)
    await put(store, ALICE, there, b"again")
    await store.delete(ALICE, there)
    await put(store, ALICE, path)


@pytest_twisted.ensureDeferred
async def test_siblings_do_not_collide(store: Store) -> None:
    """Names that only begin alike are no folder of each other: every byte around the slash."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/sub1/x")
    for sibling in ("sub10", "sub1.", "sub1-", "sub1!", "SUB1/x", "sub", "sub1 x", "sub1ü"):
        await put(store, ALICE, f"/pub/{sibling}")
    with pytest.raises(Collision):
        await put(store, ALICE, "/pub/sub1")


@pytest.mark.parametrize(
    ("allowed", "path", "is_allowed"),
    [
        (None, "/pub/a", True),
        ([], "/pub/a", False),
        (["/pub/a"], "/pub/a", True),
        (["/pub/a"], "/pub/ab", False),
        (["/pub/a"], "/pub/a/b", False),
        (["/pub/a/"], "/pub/a/b/c", True),
        (["/pub/a/"], "/pub/a", False),
        (["/pub/a/"], "/pub/aa", False),
        (["/x", "/priv/"], "/priv/a", True),
        (["/pub/%d.*[a-z]/"], "/pub/%d.*[a-z]/b", True),
        (["/pub/%a/"], "/pub/x/b", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_allowed_write_paths(store: Store, allowed: list[str] | None, path: str, is_allowed: bool) -> None:
    """A directory covers what lies below it, a file itself, and no sign in a path means more than itself."""
    await sign_up(store, BOB)
    await sign_up(store, ALICE, allowed_write_paths=None if allowed is None else tuple(allowed))
    if is_allowed:
        await store.check_put(ALICE, path, 1, None)
        await put(store, ALICE, path)
        await store.check_delete(ALICE, path)
        await store.delete(ALICE, path)
    else:
        with pytest.raises(WriteNotAllowed):
            await store.check_put(ALICE, path, 1, None)
        with pytest.raises(WriteNotAllowed):
            await put(store, ALICE, path)
        with pytest.raises(NotFound):
            await store.delete(ALICE, path)


@pytest_twisted.ensureDeferred
async def test_a_disabled_account_cannot_put(store: Store) -> None:
    """Disabled: no put, but reading, listing and deleting go on."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    await store.set_disabled(ALICE, True)
    with pytest.raises(UserDisabled):
        await put(store, ALICE, "/pub/a")
    with pytest.raises(UserDisabled):
        await store.check_put(ALICE, "/pub/a", None, None)
    assert await store.entry(ALICE, "/pub/a") is not None
    assert await store.listing(ALICE, "/pub/", "", 10, False, False) == ["/pub/a"]
    await store.check_delete(ALICE, "/pub/a")
    await store.delete(ALICE, "/pub/a")
    await store.set_disabled(ALICE, False)
    await put(store, ALICE, "/pub/a")


CURRENT, OTHER = tag(b"hello"), tag(b"other")


@pytest.mark.parametrize(
    ("if_match", "holds"),
    [
        ([CURRENT], True),
        ([OTHER, CURRENT], True),
        (["*"], True),
        ([OTHER, "*"], True),
        ([OTHER], False),
        ([], False),
        (["W/" + CURRENT], False),
        ([CURRENT.strip('"')], False),
        ([CURRENT.lower()], False),
        ([CURRENT[:-3] + 'B="'], False),
        (['""', '"', "", '"ü"', '"="'], False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_if_match(store: Store, if_match: list[str], holds: bool) -> None:
    """One of the tags must be exactly the current one, quotes included, or `*`; else nothing changes."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a", b"hello")
    if holds:
        await store.put(ALICE, entry("/pub/a", b"hello", modified=7), None, True, if_match)
        await store.delete(ALICE, "/pub/a", if_match)
        assert await store.entry(ALICE, "/pub/a") is None
    else:
        with pytest.raises(PreconditionFailed):
            await store.put(ALICE, entry("/pub/a", b"new"), None, True, if_match)
        with pytest.raises(PreconditionFailed):
            await store.delete(ALICE, "/pub/a", if_match)
        assert await store.entry(ALICE, "/pub/a") == entry("/pub/a", b"hello", seq=1)
    with pytest.raises(PreconditionFailed):
        await store.put(ALICE, entry("/pub/none", b"new"), None, True, if_match)


@pytest_twisted.ensureDeferred
async def test_if_none_match(store: Store) -> None:
    """A put that wants no file there makes one only if there is none."""
    await sign_up(store, ALICE)
    await store.put(ALICE, entry("/pub/a"), None, True, None, True)
    with pytest.raises(PreconditionFailed):
        await store.put(ALICE, entry("/pub/a", b"new"), None, True, None, True)
    await store.delete(ALICE, "/pub/a")
    await store.put(ALICE, entry("/pub/a", b"new"), None, True, None, True)


@pytest_twisted.ensureDeferred
async def test_the_order_of_refusals(store: Store) -> None:
    """Of several reasons the client hears the first in the protocol's order."""
    unwanted = [tag(b"nobody has this")]

    async def refusal(pubky: str, path: str, announced: bool, limit: int | None = 10) -> type:
        with pytest.raises(Exception) as caught:
            await store.put(pubky, entry(path), limit, announced, unwanted)
        return caught.type

    async def early(pubky: str, path: str, length: int | None, limit: int | None = 10) -> type | None:
        try:
            await store.check_put(pubky, path, length, limit)
        except Exception as error:
            return type(error)
        return None

    await sign_up(store, ALICE, allowed_write_paths=("/pub/a/",))
    await put(store, ALICE, "/pub/a/b")
    await store.set_disabled(ALICE, True)

    assert await refusal(BOB, "/pub/x", True) is await early(BOB, "/pub/x", 5) is NotFound
    assert await refusal(ALICE, "/pub/x", True) is await early(ALICE, "/pub/x", 5) is UserDisabled
    await store.set_disabled(ALICE, False)
    assert await refusal(ALICE, "/pub/x", True) is await early(ALICE, "/pub/x", 5) is QuotaExceeded
    assert await refusal(ALICE, "/pub/x", False) is await early(ALICE, "/pub/x", None) is WriteNotAllowed
    assert await refusal(ALICE, "/pub/a/b/c", True) is await early(ALICE, "/pub/a/b/c", 5) is QuotaExceeded
    assert await refusal(ALICE, "/pub/a/b/c", False) is await early(ALICE, "/pub/a/b/c", None) is Collision
    assert await refusal(ALICE, "/pub/a/c", False) is PreconditionFailed
    assert await early(ALICE, "/pub/a/c", None) is None
    with pytest.raises(QuotaExceeded):
        await store.put(ALICE, entry("/pub/a/c"), 10, announced=False)

    async def delete_refusal(pubky: str, path: str) -> type:
        with pytest.raises(Exception) as caught:
            await store.delete(pubky, path, unwanted)
        return caught.type

    assert await delete_refusal(BOB, "/pub/a/b") is NotFound
    assert await delete_refusal(ALICE, "/pub/x") is NotFound
    assert await delete_refusal(ALICE, "/pub/a/b") is PreconditionFailed
    for pubky, path in ((BOB, "/pub/a/b"), (ALICE, "/pub/x")):
        with pytest.raises(NotFound):
            await store.check_delete(pubky, path)


@pytest_twisted.ensureDeferred
async def test_a_refused_write_changes_nothing(store: Store) -> None:
    """No entry, event, usage, digest or blob comes of a write that was refused."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    before = (await _log(store), await used(store), await store.last_event_id())
    blob = Entry("/pub/a/b", bytes(32), 5000, "image/png", 1, blob="ab" * 16)
    for refused in (blob, evolve(blob, path="/pub/c")):
        with pytest.raises((Collision, QuotaExceeded)):
            await store.put(ALICE, refused, 1000, announced=False)
    assert (await _log(store), await used(store), await store.last_event_id()) == before
    assert await store.known_blobs(["ab" * 16]) == set()
    assert len(await store.events(0, 10, True)) == 1


@pytest_twisted.ensureDeferred
async def test_the_digest_is_that_of_the_live_entries(store: Store) -> None:
    """Each log's digest is the XOR of the marks of its files, and each event has the one after it."""
    await sign_up(store, ALICE)
    live: dict[bool, dict[str, bytes]] = {False: {}, True: {}}
    writes = [
        ("/pub/a", b"1"),
        ("/priv/a", b"1"),
        ("/pub/b", b"2"),
        ("/pub/a", b"3"),
        ("/pub/a", b"3"),
        ("/pub/b", b""),
    ]
    for number, (path, body) in enumerate(writes):
        event = await put(store, ALICE, path, body, modified=number)
        one = entry(path, body, modified=number)
        marks = live[path.startswith("/priv/")]
        marks[path] = mark(path, one.content_hash, one.length, one.modified, one.content_type)
        assert event.digest == (await _log(store, path.startswith("/priv/"))).digest == fold(EMPTY, *marks.values())
    for path in ("/pub/a", "/priv/a", "/pub/b"):
        event = await store.delete(ALICE, path)
        marks = live[path.startswith("/priv/")]
        del marks[path]
        assert event.digest == (await _log(store, path.startswith("/priv/"))).digest == fold(EMPTY, *marks.values())
    assert event.digest == EMPTY
