"""Private files at a homeserver that is not entitled to them: not a word of them anywhere, whatever is looked at."""

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mirroring.world import Link, Somebody, World, world

WORD, NAME = b"gallimaufry", "borborygmus"
"""In each private body, and in each private path: words that no program uses."""

SECRETS = (WORD, NAME.encode())


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """They mirror each other, and Alice would let Bob have private files; Bob has not asked for them."""
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {"private": True}}
    with world(tmp_path, chance, links) as here:
        yield here


def everything_said(here: World, user: Somebody, node: str) -> Iterator[tuple[str, bytes]]:
    """What a homeserver tells anybody: strangers, its user's old session, its operator, and its log."""
    at = here.nodes[node]
    asked = [
        f"/storage/{user.pubky}/pub/", f"/storage/{user.pubky}/priv/", f"/storage/{user.pubky}/priv/{NAME}/1",
        f"/storage/{user.pubky}/", f"/events-stream?user={user.pubky}", "/events/", "/events-stream", "/info",
        f"/events-stream?user={user.pubky}&path=/priv/",
    ]  # fmt: skip
    for headers in ({}, {"Cookie": user.cookies["alice"]}):
        for target in asked:
            answer, body = at.ask("GET", target, None, headers)
            # A refusal may name the path that was asked for, as its target does.
            yield f"{target} {answer.status}", str(answer.getheaders()).encode() + body.replace(target.encode(), b"")
    password = {"X-Admin-Password": "open sesame"}
    for target in ("/mirrors", "/mirrors/check", "/conflicts", f"/conflicts?pubky={user.pubky}", "/info", "/metrics"):
        yield target, at.ask("GET", target, None, password, "admin API")[1]
    yield "log", at.written().encode()


def carried(here: World) -> list[tuple[str, bytes]]:
    """What was asked on the ways between homeservers, heads and all."""
    return [(f"{one} to {other}", head) for (one, other), way in here.ways.items() for _, head in way.requests]


def without_own_paths(said: bytes) -> bytes:
    """A log without its lines about what we ourselves asked for above."""
    return b"\n".join(line for line in said.splitlines() if b"GET /storage/" not in line)


@pytest.mark.parametrize("rewinds", [False, True], ids=["in peace", "rewound"])
def test_nothing_private_is_told(both: World, rewinds: bool) -> None:
    """I14: paths and bodies of private files are in no answer, list, feed, metric, log or database of a mirror.

    Nor on the way there; nor when histories were compared and late writes offered, for the primary was rewound.
    """
    seen: list[tuple[str, bytes]] = []

    def listen(data: bytes) -> bytes:
        seen.append(("the wire", data))
        return data

    both.ways["bob", "alice"].alter = listen
    user = both.somebody("alice")
    client = both.client(user, "alice")
    for number in range(30):
        assert client.put(f"/priv/{NAME}/{number}", WORD * (number * 30 + 1)) == 201
        if number % 5 == 0:
            assert client.put(f"/pub/{number}", b"x") == 201
    assert client.delete(f"/priv/{NAME}/3") == 204
    both.until_equal(user, "alice", "bob")
    if rewinds:
        backup = both.nodes["alice"].folder / "backup"
        both.nodes["alice"].stop()
        shutil.copytree(both.nodes["alice"].data / "redis", backup)
        both.start("alice")
        client = both.client(user, "alice")
        assert client.put(f"/priv/{NAME}/late", WORD) == 201
        assert client.put("/pub/late", b"x") == 201
        both.until_equal(user, "alice", "bob")
        both.nodes["alice"].kill()
        shutil.rmtree(both.nodes["alice"].data / "redis")
        shutil.copytree(backup, both.nodes["alice"].data / "redis")
        both.start("alice")
        both.until(lambda: both.shelf("alice", user))
        both.until_equal(user, "alice", "bob", moved=True)
    time.sleep(1)  # time for what must not be said
    copy = both.copy("bob", user)
    assert copy is not None
    assert copy["seq"] in (6, 7)
    assert copy["used"] == 6 * 257, "no byte of private files counts here"
    said = [(where, without_own_paths(text)) for where, text in everything_said(both, user, "bob")]
    assert len(said) > 20
    assert seen
    assert carried(both)
    both.nodes["bob"].stop()
    files = [file for file in both.nodes["bob"].data.rglob("*") if file.is_file()]
    assert any(b"/pub/5" in file.read_bytes() for file in files), "it would be found in the database"
    said += [(str(file), file.read_bytes()) for file in files]
    for where, text in (*said, *seen, *carried(both)):
        for secret in SECRETS:
            assert secret not in text, (where, text[max(0, text.find(secret) - 300) :][:600])


def consent(here: World, node: str, says: bool) -> None:
    """The operator changes their mind about private files, and restarts."""
    here.nodes[node].stop()
    settings = here.nodes[node].settings
    text = settings.read_text()
    before, after = f"private = {str(not says).lower()}", f"private = {str(says).lower()}"
    assert before in text
    settings.write_text(text.replace(before, after))
    here.start(node)


@pytest.mark.parametrize("node", ["alice", "bob"])
def test_consent_comes_and_goes(tmp_path: Path, chance: random.Random, node: str) -> None:
    """I14: private files come while both agree, and not a word of what is written after one does not any more.

    The public ones go on, and when both agree again nothing is missing. A stranger never sees any.
    """
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {"private": True}, ("alice", "bob"): {"private": True}}
    with world(tmp_path, chance, links) as here:
        user = here.somebody("alice")
        client = here.client(user, "alice")
        assert client.put("/priv/first", b"first") == 201
        here.until(lambda: (copy := here.copy("bob", user)) and copy["used"] == 5 + 256 and not copy["missing"])
        consent(here, node, says=False)
        client = here.client(user, "alice")
        assert client.put(f"/priv/{NAME}", WORD * 1000) == 201
        assert client.put("/pub/after", b"public") == 201
        here.until_equal(user, "alice", "bob")
        time.sleep(1)  # time for what must not be said
        said = [one for one in everything_said(here, user, "bob") if one[0] != "log"]
        said += [("log", without_own_paths(here.nodes["bob"].written().encode())), *carried(here)]
        for where, text in said:
            for secret in SECRETS:
                assert secret not in text, where
        assert not any(
            WORD in file.read_bytes() for file in (here.nodes["bob"].data / "blobs").rglob("*") if file.is_file()
        )
        copy = here.copy("bob", user)
        assert copy is not None
        assert copy["used"] == 5 + 256 + 6 + 256, "what was copied with consent is a backup, and stays"
        consent(here, node, says=True)
        whole = 5 + 256 + 6 + 256 + len(WORD) * 1000 + 256
        here.until(lambda: (copy := here.copy("bob", user)) and copy["used"] == whole and not copy["missing"])
        for headers in ({}, {"Cookie": user.cookies["alice"]}):
            answer, body = here.nodes["bob"].ask("GET", f"/storage/{user.pubky}/priv/{NAME}", None, headers)
            assert answer.status in (401, 403)
            assert WORD not in body
