"""What the official homeserver answered to 220 requests, asked of ours again.

The recorded requests are sent as they are, at the time of their tokens and proofs; only what is random by nature
(session secrets, bearers, signup tokens, ports) is translated. What differs on purpose is listed with its reason.
"""

import json
import re
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest_twisted

from pubky_homeserver.core.records import SignupToken
from pubky_homeserver.core.tokens import decode_session
from tests.web.client import Answer
from tests.web.served import Served, served

VECTORS = Path(__file__).parent.parent / "vectors"
TOKEN_TIME = slice(75, 83)

DIFFERENT = {
    "jti reuse by another user": (403, "a grant's id lets nobody act as whoever used it first"),
    "jti reuse: who am I": (401, "there is no such bearer"),
    "jti reuse: victim bearer": (200, "the first user's bearer lives on"),
}
"""Requests that are answered differently on purpose: our status, and why."""

LATE = {"bearer after grant expiry": 1_795_387_746}
"""When requests without a time of their own were sent, in seconds."""


def _load(file: str, part: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((VECTORS / file).read_text())[part]
    return records


class Replay:
    """Sends recorded requests and keeps the translation of what is random."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.ours: dict[str, str] = {}
        # Recorded secret → our secret.

    async def send(self, record: dict[str, Any]) -> Answer:
        """Ask what was asked."""
        request = record["request"]
        body = self._body(record["name"], request)
        self._move_clock(record, body)
        headers = {name: self._translate(value) for name, value in request["headers"].items()}
        answer = await self.server.ask(request["method"], request["path"], headers, body, request["host"])
        self._learn(record["response"], answer)
        return answer

    def _body(self, name: str, request: dict[str, Any]) -> bytes | None:
        if request.get("body_hex") is not None:
            return bytes.fromhex(request["body_hex"])
        if request.get("body_text") is not None:
            return str(request["body_text"]).encode()
        return bytes(2 * 1024 * 1024 + 1) if name == "big body" else None

    def _move_clock(self, record: dict[str, Any], body: bytes | None) -> None:
        name = record["name"]
        seconds = LATE.get(name, 0.0)
        if re.search(r" (bad|pop) (old|future)", name) or body is None:
            pass
        elif re.match(rb'{"grant": ?"ey', body):
            seconds = max(_claims(json.loads(body)["pop"]).get("iat", 0), _issued(record["response"]))
        elif 116 <= len(body) <= 1000 and not body.startswith(b"{"):
            seconds = int.from_bytes(body[TOKEN_TIME], "big") / 1_000_000
        if seconds > self.server.clock.seconds():
            self.server.clock.advance(seconds - self.server.clock.seconds())

    def _translate(self, value: str) -> str:
        for recorded, ours in self.ours.items():
            value = value.replace(recorded, ours)
        return value

    def _learn(self, recorded: dict[str, Any], answer: Answer) -> None:
        theirs = dict(map(tuple, recorded["headers"])).get("set-cookie", "")
        ours = answer.header("set-cookie") or ""
        if theirs and ours:
            self.ours[_secret(theirs)] = _secret(ours)
        told = _BEARER.search(recorded["body_text"] or "")
        bearer = recorded.get("bearer") or (told and told[1])
        if bearer and (ours_too := _BEARER.search(answer.text)):
            self.ours[bearer] = ours_too[1]


_BEARER = re.compile(r'"token":"([^"]{43})"')


def _claims(jws: str) -> dict[str, Any]:
    """What a JWS claims."""
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(jws.split(".")[1] + "=="))
    return claims if isinstance(claims.get("iat", 0), int) else {}


def _issued(response: dict[str, Any]) -> int:
    """When the bearer in an answer was made."""
    found = re.search(r'"created_at":([0-9]+)', response["body_text"] or "")
    return int(found[1]) if found else 0


def _secret(cookie: str) -> str:
    return cookie.partition("=")[2].partition(";")[0]


def _plain(name: str, value: str) -> str:
    """A header's value without what is random or depends on the day."""
    if name == "set-cookie":
        value = re.sub(r"=[0-9A-Z]{26};", "=<secret>;", value)
        value = re.sub(r"Expires=[^;]*", "Expires=<date>", value)
    if name == "last-modified":
        return "<date>"
    return value


def compare(record: dict[str, Any], answer: Answer) -> None:
    """Status, every header and the body are the recorded ones."""
    expected = record["response"]
    assert answer.status == expected["status"], answer
    ours = sorted((name, _plain(name, value)) for name, value in answer.headers if name not in ("date", "connection"))
    extra = {"accept-ranges", "x-content-type-options"} if answer.header("etag") else set()
    ours = [pair for pair in ours if pair[0] not in extra]
    assert ours == sorted((name, _plain(name, value)) for name, value in expected["headers"])
    if expected["body_text"] is not None:
        assert _undated(answer.text) == _undated(expected["body_text"])
    elif expected["body_hex"] is not None:
        ours_record, theirs = decode_session(answer.body), decode_session(bytes.fromhex(expected["body_hex"]))
        assert (ours_record[0], ours_record[2]) == (theirs[0], theirs[2])
        assert len(str(ours_record[1])) == len(str(theirs[1])), "microseconds where they are, seconds where they are"


def _undated(text: str) -> str:
    text = _BEARER.sub('"token":"<bearer>"', text)
    return re.sub(r'"created_at":"[^"]*\+00:00"', '"created_at":"<date>"', text)


@pytest_twisted.ensureDeferred
async def test_cookie_transcripts() -> None:
    """With open sign-up, sign-in by token and cookie answers as the official homeserver did."""
    records = _load("http_cookie_transcripts.json", "cookie_and_general")
    async with served(token_required=False) as server:
        server.clock.rightNow = 0
        await _replay(server, records)
    assert len(records) > 50


@pytest_twisted.ensureDeferred
async def test_grant_transcripts() -> None:
    """Sign-up, sign-in, sessions and sign-out by grant answer as the official homeserver did."""
    records = _load("http_grant_transcripts.json", "grant")
    async with served(token_required=False) as server:
        server.clock.rightNow = 0
        await _replay(server, records)
    assert len(records) > 100


@pytest_twisted.ensureDeferred
async def test_what_the_official_client_sends() -> None:
    """The requests that the official client 0.17.1 sends over TLS, byte for byte, get the recorded answers."""
    records = [_from_wire(one) for one in json.loads((VECTORS / "sdk_0_17_1_requests.json").read_text())["requests"]]
    sent = next(
        one["request"]["headers"]["authorization"] for one in records if "authorization" in one["request"]["headers"]
    )
    exchange = next(one for one in records if one["name"] == "POST /auth/grant/session")
    exchange["response"]["bearer"] = sent.removeprefix("Bearer ")
    async with served(token_required=False) as server:
        server.clock.rightNow = 0
        await _replay(server, records)
    assert len(records) == 14


def _from_wire(recorded: dict[str, Any]) -> dict[str, Any]:
    """A record like those of the transcripts."""
    request_line, *lines = recorded["request_head"].strip().split("\r\n")
    method, path, _ = request_line.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    status_line, *lines = recorded["response_head"].strip().split("\r\n")
    answered = [line.split(": ", 1) for line in lines if not line.startswith(("date:", "connection:"))]
    body = recorded["request_body"]
    host = headers.pop("host")
    headers.pop("content-length", None)
    return {
        "name": f"{method} {path}",
        "request": {
            "method": method,
            "path": path,
            "host": host,
            "headers": headers,
            "body_text": body.get("text") or None,
            "body_hex": body.get("hex"),
        },
        "response": {
            "status": int(status_line.split(" ")[1]),
            "headers": answered,
            "body_text": None,
            "body_hex": None,
        },
    }


@pytest_twisted.ensureDeferred
async def test_token_mode_transcripts() -> None:
    """With signup tokens, sign-up, the look-up of tokens and both addressings of storage answer as recorded."""
    records = _load("http_token_mode_transcripts.json", "tokens_hosts_authorization")
    async with served(token_required=True) as server:
        server.clock.rightNow = 0
        for token in ("AKG0-6AGW-9EP0", "VN0J-F1WV-WVVG"):
            await server.store.add_signup_token(SignupToken(token, 1_795_387_746_876_455))
        await _replay(server, records)
    assert len(records) > 30


async def _replay(server: Served, records: list[dict[str, Any]]) -> None:
    replay = Replay(server)
    for record in records:
        if record["name"] == "disabled put":
            await server.store.set_disabled(record["request"]["headers"]["pubky-host"], True)
        if record["name"] == "put ok":
            await server.store.set_disabled(record["request"]["headers"]["pubky-host"], False)
        answer = await replay.send(record)
        if record["name"] in DIFFERENT:
            assert answer.status == DIFFERENT[record["name"]][0], answer
        else:
            try:
                compare(record, answer)
            except AssertionError as error:
                raise AssertionError(f"{record['name']}: {error}") from error
