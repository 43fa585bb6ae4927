"""Two homeserver processes on one Redis: who signs out at one is signed out at the other, open streams included."""

import threading
from functools import partial
from http.client import HTTPResponse
from pathlib import Path

from tests.network.test_outage import at, outside_redis
from tests.process import Node, Person, node_in, until


def test_across_processes(tmp_path: Path) -> None:
    """A private stream at one process ends when its session ends at the other; a Redis that is gone ends it too."""
    with outside_redis(_folder(tmp_path, "redis")) as redis:
        with node_in(_folder(tmp_path, "a"), at(redis)) as one, node_in(_folder(tmp_path, "b"), at(redis)) as two:
            one.start()
            two.start()
            person = one.sign_up()
            stream = _Stream(two, person)
            assert one.put(person, "/priv/a", b"x") == 201
            until(lambda: "/priv/a" in stream.text)
            answer, _ = one.ask("DELETE", "/session", headers={**person.headers, "pubky-host": person.pubky})
            assert answer.status == 200
            until(lambda: stream.has_ended, within=5)
            assert two.put(person, "/priv/b", b"x") == 401

            other = two.sign_up()
            private, public = _Stream(two, other), _Stream(two, other, path="/pub/")
            for path in ("/pub/a", "/pub/b"):
                # One that still reads its history when Redis goes ends with it: these two have come to what happens.
                assert two.put(other, path, b"x") == 201
                until(partial(public.shows, path))
            redis.kill()
            until(lambda: private.has_ended, within=5)
            assert not public.has_ended
            assert two.ask("GET", _query(other), headers=other.headers)[0].status == 503
            redis.start()
            until(lambda: one.put(other, "/pub/c", b"x") == 201)
            until(lambda: "/pub/c" in public.text, within=8, why=two.written)
            again = _Stream(two, other)
            assert one.put(other, "/priv/c", b"x") == 201
            until(lambda: "/priv/c" in again.text)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def _query(person: Person, path: str = "/priv/") -> str:
    return f"/events-stream?user={person.pubky}&path={path}&live=true"


class _Stream:
    """An open stream, read by a thread."""

    def __init__(self, node: Node, person: Person, path: str = "/priv/") -> None:
        connection = node.connect()
        connection.request("GET", _query(person, path), headers=person.headers)
        self._answer: HTTPResponse = connection.getresponse()
        assert self._answer.status == 200
        self.text = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def shows(self, path: str) -> bool:
        """Whether an event of this path came."""
        return path in self.text

    @property
    def has_ended(self) -> bool:
        """Whether the stream has ended."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while line := self._answer.readline():
                self.text += line.decode()
        except OSError:
            pass  # its homeserver is gone
