"""A peer whose accounts have a million of everything, made up while it is asked: it keeps next to nothing itself."""

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field
from blake3 import blake3

from pubky_homeserver.core.digests import EMPTY, fold, mark

MILLION = 1_000_000
PAGE = 1000  # files that are told at once
FEWER = 100  # events
LOG_ID = "5" * 32
TYPE = "text/plain"
FEW = 50  # paths that are overwritten again and again


@define
class Endless:
    """One account. `kind`: `names` (each event a new path), `versions` (of a few paths), or `list` (no events)."""

    pubky: str
    kind: str
    begun: int = field(factory=lambda: time.time_ns() // 1000 - 2 * MILLION)
    """Microseconds; event k has the id that is k more."""
    asked: int = 0
    """The position after which it was asked for events last."""
    _digests: dict[int, bytes] = field(factory=lambda: {0: EMPTY})
    # Position → digest there, where it was asked for.

    def path(self, number: int) -> str:
        """What event or file k is about."""
        return f"/pub/{number % FEW if self.kind == 'versions' else number:07}"

    def body(self, number: int) -> bytes:
        """What it holds then."""
        return b"%07d" % number * 100

    def _facts(self, number: int) -> dict[str, Any]:
        body = self.body(number)
        facts = {"path": self.path(number), "hash": _base64(blake3(body).digest()), "length": len(body)}
        return {**facts, "type": TYPE, "modified": self.begun + number, "seq": number}

    def _mark(self, number: int) -> bytes:
        body = self.body(number)
        return mark(self.path(number), blake3(body).digest(), len(body), self.begun + number, TYPE)

    def standing(self, seq: int) -> dict[str, Any]:
        """Where the log is, or was."""
        event_id = self.begun + seq if seq else 0
        told = {"log_id": LOG_ID, "seq": seq, "id": event_id, "digest": _base64(self._digests.get(seq, EMPTY))}
        return {**told, "reigns": [[LOG_ID, 1]], "floor": 0, "used": 0}

    def entries(self, after: str) -> dict[str, Any]:
        """A page of the list; of what has events it is as it was in the beginning."""
        if self.kind != "list":
            return {"standing": self.standing(0), "entries": []}
        first = int(after.removeprefix("/pub/")) + 1 if after else 1
        return {
            "standing": self.standing(MILLION),
            "entries": [self._facts(number) for number in range(first, min(first + PAGE, MILLION + 1))],
        }

    def events(self, seq: int) -> dict[str, Any]:
        """The events after a position that was told before."""
        self.asked, digest, told = seq, self._digests[seq], []
        for number in range(seq + 1, min(seq + FEWER, MILLION) + 1):
            old = number - FEW
            digest = fold(
                digest, self._mark(number), *([self._mark(old)] if self.kind == "versions" and old > 0 else [])
            )
            event = {"id": self.begun + number, "op": "PUT", "digest": _base64(digest)}
            told.append({**self._facts(number), **event, "body": _base64(self.body(number))})
        self._digests[seq + len(told)] = digest
        return {"reigns": [[LOG_ID, 1]], "events": told, "end": MILLION}


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that ends is no news."""


@contextmanager
def endless(accounts: Mapping[str, Endless]) -> Iterator[int]:
    """A server that offers them; its port."""
    over = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            """Nothing can be told."""
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(404, {})

        def do_GET(self) -> None:
            """Answer what a homeserver of our kind does."""
            parts = urlsplit(self.path)
            query, (what, *more) = dict(parse_qsl(parts.query)), parts.path.removeprefix("/peer/v1/").split("/")
            if what == "hello":
                self._answer(200, {"version": 1, "features": [], "limits": {}, "epoch": "e"})
            elif what == "changes":
                self._tell_nothing()
            elif what == "accounts" and not more:
                offered = [{"pubky": one.pubky, "term": 1, "pub": one.standing(MILLION)} for one in accounts.values()]
                self._answer(200, {"accounts": offered, "next": None})
            elif what == "accounts" and more[-1] == "entries":
                self._answer(200, accounts[more[0]].entries(query.get("after", "")))
            elif what == "accounts" and more[-1] == "events":
                self._answer(200, accounts[more[0]].events(int(query["seq"])))
            else:
                self._answer(404, {})

        def _answer(self, status: int, told: Any) -> None:
            body = json.dumps(told).encode()
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def _tell_nothing(self) -> None:
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"event: epoch\ndata: e\n\n")
                while not over.wait(1):
                    self.wfile.write(b"event: beat\ndata: 0\n\n")
            self.close_connection = True

    with _Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            over.set()
            server.shutdown()
            thread.join()
