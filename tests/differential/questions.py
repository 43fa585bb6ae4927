"""The questions: requests in an order, to a homeserver where two users signed up and one of them has some files.

`{u}` and `{v}` are the users' keys, `{c}` is the cookie secret of the first, `{b}` a bearer of the first, `{g}` the id
of its grant. What is random or a time is masked in the answers.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from secrets import token_urlsafe
from typing import Any

from attrs import define, frozen

from pkarr.keys import Keypair
from pubky_homeserver.core.grants import GRANT_TYPE, POP_TYPE, sign_jws
from pubky_homeserver.core.tokens import sign_auth_token
from tests.web.client import Answer

Ask = Callable[[str, str, dict[str, str], bytes | None], Awaitable[Answer]]
"""Sends method, target, fields and body."""

FIRST, SECOND = Keypair(bytes([71]) * 32), Keypair(bytes([72]) * 32)

FILES = ("/pub/a.txt", "/pub/dir/a", "/pub/dir/b", "/pub/dir/c/d", "/pub/dir/c/e", "/priv/a.txt")


@frozen
class Question:
    """One request."""

    name: str
    method: str
    target: str
    fields: dict[str, str]
    body: bytes | None = None


def questions() -> Iterator[Question]:
    """All of them, in their order."""
    counted: dict[str, int] = {}

    def ask(
        group: str, method: str, target: str, fields: dict[str, str] | None = None, body: bytes | None = None
    ) -> Question:
        counted[group] = counted.get(group, 0) + 1
        return Question(f"{group} {counted[group]}", method, target, fields or {}, body)

    cookie = {"Cookie": "{u}={c}"}
    for text in JSON_BODIES:
        yield ask("json", "POST", "/auth/grant/session", {"Content-Type": "application/json"}, text.encode())
    for kind in (
        "application/json;x",
        "APPLICATION/JSON",
        "application/x+JSON",
        "text/json",
        "application/json, a",
        "",
    ):
        yield ask("content type", "POST", "/auth/grant/session", {"Content-Type": kind}, b"{}")
        yield ask("content type of a sign-out", "DELETE", "/auth/grant/session", {"Content-Type": kind}, b"")
    yield ask(
        "query", "POST", "/auth/grant/signup?signup_token=a&signup_token=b", {"Content-Type": "application/json"}, b"{}"
    )
    yield ask("query", "POST", "/auth/grant/signup?signup_token=%FF", {"Content-Type": "application/json"}, b"{}")
    yield ask("query", "POST", "/signup?signup_token=a&signup_token=b", {}, b"")
    for path in PATHS:
        for method in ("GET", "PUT"):
            fields = cookie | ({"pubky-host": "{u}"} if not path.startswith("/storage") else {})
            if method == "PUT" and "s" * 255 in path:
                continue  # the names of files on the official homeserver's disk are shorter
            yield ask(f"path {method}", method, path, fields, b"x" if method == "PUT" else None)
    for query in LISTINGS:
        yield ask("listing", "GET", f"/storage/{{u}}/pub/dir/?{query}")
    for query in FEEDS:
        yield ask("feed", "GET", f"/events/?{query}")
    for query in STREAMS:
        yield ask("stream", "GET", f"/events-stream?{query}")
    for path in ROUTES:
        for method in ("HEAD", "POST", "PATCH", "LOCK", "UNLOCK", "OPTIONS"):
            yield ask(f"method {method}", method, path, {"Origin": "https://app.example"})
    for value in COOKIES:
        yield ask("cookie", "GET", "/session", {"Cookie": value, "pubky-host": "{u}"})
    for value in BEARERS:
        yield ask("bearer", "GET", "/auth/grant/session", {"Authorization": value})
    for fields in CONDITIONS:
        yield ask("condition", "GET", "/storage/{u}/pub/a.txt", fields)
    for fields, body in LOCKS:
        yield ask("lock", "LOCK", "/storage/{u}/pub/locked", cookie | fields, body)
        yield ask("lock again", "LOCK", "/storage/{u}/pub/locked", cookie, LOCKINFO)
        yield ask("refresh", "LOCK", "/storage/{u}/pub/locked", cookie | {"If": "({l})"} | fields)
        yield ask("unlock", "UNLOCK", "/storage/{u}/pub/locked", cookie | {"Lock-Token": "{l}"})
    for value in TOKENS:
        yield ask("unlock nothing", "UNLOCK", "/storage/{u}/pub/free", cookie | {"Lock-Token": value})
    for value in IFS:
        yield ask("write naming a lock", "PUT", "/storage/{u}/pub/free", cookie | {"If": value}, b"x")
        yield ask("delete naming a lock", "DELETE", "/storage/{u}/pub/free", cookie | {"If": value})


JSON_BODIES = (
    '{"grant":"a.b.c","grant":"a.b.c","pop":"a.b.c"}',
    '{"grant":"a.b"',
    '{"grant":[',
    '{"grant":{"a":1}}',
    '{"grant":1.5,',
    '{"grant":1e3,',
    '{"grant":-1,',
    '{"grant":18446744073709551616,',
    '{"grant":true,',
    '{"pop":"a.b.c"}',
    '["a.b.c"]',
    '["a.b.c",1]',
    '["a.b.c","a.b.c","a.b.c"]',
    '["a.b.c","a.b.c",]',
    '["a.b.c","a.b.c"',
    '"a"',
    "1",
    "null",
    "tru",
    "nul",
    "-",
    "NaN",
    '{"grant":"a.b.c",}',
    '{"grant":"a.b.c"',
    '{"grant":"a.b.c",',
    '{"grant"',
    '{"grant":',
    '{"grant":"a.b.c" "pop"',
    '{"grant" "a.b.c"}',
    "{grant",
    "{1",
    '{"grant":\n\n"ä',
    '{"grant":"\\ud800a"}',
    '{"grant":"\\x"}',
    '{"grant":"a\tb"}',
    '{"z":NaN}',
    '{"z":[1,]}',
    '{"z":[1 2]}',
    '{"z":{"a" 1}}',
    '{"z":01}',
    '{"z":1.}',
    '{"z":[',
    '{"z":"',
    "\ufeff{}",
)

PATHS = (
    "/storage/{u}/pub/a.txt",
    "/storage/{u}/pub//a.txt",
    "/storage/{u}/pub/./a.txt",
    "/storage/{u}/pub/x/../a.txt",
    "/storage/{u}/pub/%2e%2e/pub/a.txt",
    "/storage/{u}/pub/../../a",
    "/storage/{u}/pub/a%2Fb",
    "/storage/{u}/pub/a%00",
    "/storage/{u}/pub/%FF",
    "/storage/{u}/pub/a%5Cb",
    "/storage/{u}/pub/a%20",
    "/storage/{u}/pub/a%C2%A0",
    "/storage/{u}/pub/%C3%BC%20b",
    "/storage/{u}/pub/a%",
    "/storage/{u}/pub/a%zz",
    "/storage/{u}/pub/a+b",
    "/storage/{u}/pub/a;b=c",
    "/storage/{u}/pub/a?b#c",
    "/storage/{u}/pub",
    "/storage/{u}/pub/",
    "/storage/{u}/priv",
    "/storage/{u}/other/x",
    "/storage/{u}",
    "/storage/{u}/",
    "/storage/{u}//pub/a.txt",
    "/storage//pub/a.txt",
    "/storage/",
    "/storage",
    "/storage/pubky{u}/pub/a.txt",
    "/storage/{v}/pub/a.txt",
    "/storage/{v}/priv/a.txt",
    "/storage/" + "y" * 52 + "/pub/a.txt",
    "/storage/" + "0" * 52 + "/pub/a.txt",
    "/storage/{u}/pub/" + "s" * 255,
    "/storage/{u}/pub/" + "s" * 256,
    "/storage/{u}/pub/" + "/".join(["s" * 200] * 5),
    "/pub/a.txt",
    "/pub//a.txt",
    "/pub/../priv/a.txt",
    "/pub/%2e%2e/priv/a.txt",
    "/pub/a%00",
    "/pub/%FF",
    "/pub",
    "/priv",
    "/priv/",
    "/privstuff",
    "/../x",
    "/other",
    "//",
    "//pub/a.txt",
    "/info/",
    "/session/",
    "/signup/",
    "/signup_tokens/",
    "/signup_tokens/a/b",
    "/events",
    "/events-stream/",
    "/auth/grant/session/",
    "/auth/grant/session/a/b",
    "/auth",
    "/Info",
)

LISTINGS = (
    "limit=0",
    "limit=-1",
    "limit=abc",
    "limit=65535",
    "limit=65536",
    "limit=%202",
    "limit=2&limit=1",
    "limit=+2",
    "reverse",
    "reverse=",
    "reverse=TRUE",
    "reverse=2",
    "shallow",
    "shallow=1&reverse=yes",
    "shallow=on",
    "cursor=a",
    "cursor=/pub/dir/a",
    "cursor=pubky://{u}/pub/dir/a",
    "cursor=pubky{u}/pub/dir/a",
    "cursor=pubky://{v}/pub/dir/a",
    "cursor=c/",
    "cursor=c/d",
    "cursor=c/&shallow",
    "cursor=zzz",
    "cursor=..",
    "cursor=%FF",
    "cursor=",
    "cursor=b&reverse",
    "cursor=pubky://",
    "nonsense=1",
)

FEEDS = (
    "",
    "limit=0",
    "limit=2",
    "limit=-1",
    "limit=65536",
    "limit=x",
    "cursor=0",
    "cursor=",
    "cursor=-1",
    "cursor=1.5",
    "cursor=x",
    "cursor=pubky://0",
    "cursor=+0",
    "cursor=00",
    "cursor=0000000000000",
    "cursor=9223372036854775807",
    "reverse=x",
    "shallow=x",
    "reverse&limit=1",
    "cursor=x&cursor=0",
)

STREAMS = (
    "",
    "user=",
    "user=x",
    "user=pubky{u}",
    "user=pk:{u}",
    "user={u}&limit=1",
    "user={u}&limit=0",
    "user={u}&limit=+1",
    "user={u}&limit=",
    "user={u}&limit=x",
    "user={u}&limit=65536",
    "user={u}&limit=2&limit=1",
    "user={u}:",
    "user={u}:x",
    "user={u}:0",
    "user={u}:-1",
    "user={u}:9223372036854775807",
    "user={u}&user={u}:9223372036854775807",
    "user={u}:9223372036854775807&user={u}",
    "user={v}",
    "user=" + "y" * 52,
    "user={u}&path=/pub/dir/",
    "user={u}&path=pub/dir/",
    "user={u}&path=/pub/dir",
    "user={u}&path=/pub/a.txt",
    "user={u}&path=/pub/x/../dir/",
    "user={u}&path=//pub//dir/",
    "user={u}&path=/",
    "user={u}&path=/pub",
    "user={u}&path=/priv",
    "user={u}&path=/other/",
    "user={u}&path=/priv/",
    "user={u}&path=",
    "user={u}&path=/pub/a%5Cb",
    "user={u}&path=/..",
    "user={u}&path=/pub/&path=/priv/",
    "user={u}&path=/pub/dir/&path=/pub/a.txt",
    "user={u}&user={v}&path=/priv/",
    "user={u}&live=true&reverse=true",
    "user={u}&reverse=TRUE",
    "user={u}&reverse=1",
    "user={u}&live=yes&limit=1",
    "user={u}&live=true&limit=1",
    "user={u}&nonsense=1",
    "&".join(["user={u}"] * 50),
    "&".join(["user={u}"] * 51),
    "&".join(["user={u}"] * 50 + ["user="]),
    "user={u}%3A0",
)

ROUTES = (
    "/",
    "/info",
    "/signup",
    "/session",
    "/signup_tokens/x",
    "/events/",
    "/events-stream",
    "/auth/grant/signup",
    "/auth/grant/session",
    "/auth/grant/sessions",
    "/auth/grant/session/x",
    "/storage/{u}/pub/a.txt",
    "/pub/a.txt",
    "/nothing",
)

COOKIES = (
    "{u}={c}",
    "a=b;{u}={c}",
    "a=b;  {u}={c} ; c=d",
    '{u}="{c}"',
    "{u} = {c}",
    "{u}={c};{u}=" + "A" * 26,
    "{u}=" + "A" * 26 + "; {u}={c}",
    "{u}=",
    "{u}",
    "{v}={c}",
    "{u}={c}x",
    "{u}=%30{c}",
    "{u}={c}, a=b",
)

BEARERS = (
    "Bearer {b}",
    "Bearer  {b}",
    "Bearer {b} ",
    "bearer {b}",
    "BEARER {b}",
    "Bearer {b}x",
    "Bearer\t{b}",
    "Bearer",
    "{b}",
    "Basic {b}",
)

CONDITIONS = (
    {"If-None-Match": "{etag}"},
    {"If-None-Match": "W/{etag}"},
    {"If-None-Match": '"x", {etag}'},
    {"If-None-Match": "*"},
    {"If-None-Match": '"x"'},
    {"If-None-Match": "x"},
    {"If-None-Match": ""},
    {"If-Modified-Since": "Sun, 22 Nov 2099 00:00:00 GMT"},
    {"If-Modified-Since": "Sun, 22 Nov 2015 00:00:00 GMT"},
    {"If-Modified-Since": "nonsense"},
    {"If-Modified-Since": "2099-01-01"},
    {"If-None-Match": '"x"', "If-Modified-Since": "Sun, 22 Nov 2099 00:00:00 GMT"},
)

LOCKINFO = (
    b'<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
)

LOCKS: tuple[tuple[dict[str, str], bytes | None], ...] = (
    ({}, LOCKINFO),
    ({"Timeout": "Second-5"}, LOCKINFO),
    ({"Timeout": "Second-0"}, LOCKINFO),
    ({"Timeout": "Second-99999999"}, LOCKINFO),
    ({"Timeout": "Second-"}, LOCKINFO),
    ({"Timeout": "second-5"}, LOCKINFO),
    ({"Timeout": "Infinite"}, LOCKINFO),
    ({"Timeout": "Infinite, Second-5"}, LOCKINFO),
    ({"Timeout": "Second-5, Second-9"}, LOCKINFO),
    ({"Timeout": "5"}, LOCKINFO),
    ({"Timeout": ""}, LOCKINFO),
    ({"Depth": "0"}, LOCKINFO),
    ({"Depth": "1"}, LOCKINFO),
    ({"Depth": "infinity"}, LOCKINFO),
    ({"Depth": "x"}, LOCKINFO),
    ({}, None),
    ({}, b"x"),
    ({}, b"<a/>"),
    ({}, LOCKINFO.replace(b"exclusive", b"shared")),
    ({}, LOCKINFO.replace(b"<D:write/>", b"")),
    ({}, LOCKINFO.replace(b"DAV:", b"dav:")),
    ({}, LOCKINFO[:-5]),
    ({"Content-Type": "application/json"}, LOCKINFO),
    ({"If": "(<opaquelocktoken:x>)"}, None),
)

TOKENS = (
    "<opaquelocktoken:x>",
    "opaquelocktoken:x",
    "<x>",
    "<>",
    "",
    "<opaquelocktoken:00000000-0000-4000-8000-000000000000>",
)

IFS = (
    "(<opaquelocktoken:00000000-0000-4000-8000-000000000000>)",
    "<opaquelocktoken:00000000-0000-4000-8000-000000000000>",
    "(<x>)",
    "()",
    "",
    "(Not <DAV:no-lock>)",
    '(["etag"])',
    "</pub/free> (<opaquelocktoken:00000000-0000-4000-8000-000000000000>)",
)


@define
class Asking:
    """Asks a homeserver everything, and writes down what it says."""

    ask: Ask
    now: Callable[[], float]
    known: dict[str, str]

    @classmethod
    async def begin(cls, ask: Ask, now: Callable[[], float], homeserver: str) -> "Asking":
        """Sign both users up, and keep the files of the first."""
        asking = cls(ask, now, {"u": FIRST.public_key.z32, "v": SECOND.public_key.z32, "l": "<none>"})
        for keypair in (SECOND, FIRST):
            answer = await ask("POST", "/signup", {}, sign_auth_token(keypair, "/:rw", int(now() * 1_000_000)))
            assert answer.status == 200, answer
            asking.known["c"] = (answer.header("set-cookie") or "").partition("=")[2].partition(";")[0]
        for path in FILES:
            put = await asking._send(Question("", "PUT", f"/storage/{{u}}{path}", {"Cookie": "{u}={c}"}, path.encode()))
            assert put.status == 201, put
        await asking._sign_in_by_grant(homeserver)
        head = await asking._send(Question("", "HEAD", "/storage/{u}/pub/a.txt", {}))
        asking.known["etag"] = head.header("etag") or ""
        return asking

    async def all(self) -> dict[str, Any]:
        """Every question's name → the answer."""
        return {one.name: self._told(await self._send(one)) for one in questions()}

    async def _sign_in_by_grant(self, homeserver: str) -> None:
        self.known["hs"] = homeserver
        now, client = int(self.now()), Keypair(bytes([73]) * 32)
        claims = {"iss": self.known["u"], "client_id": "app.example", "caps": ["/pub/:r"], "cnf": client.public_key.z32}
        grant = sign_jws(FIRST, GRANT_TYPE, claims | {"jti": token_urlsafe(16), "iat": now, "exp": now + 3600})
        self.known["g"] = json.loads(urlsafe_b64decode(grant.split(".")[1] + "=="))["jti"]
        shown = {"aud": homeserver, "gid": self.known["g"], "nonce": token_urlsafe(16), "iat": now}
        body = json.dumps({"grant": grant, "pop": sign_jws(client, POP_TYPE, shown)}).encode()
        answer = await self.ask("POST", "/auth/grant/session", {"Content-Type": "application/json"}, body)
        self.known["b"] = json.loads(answer.body)["token"]

    async def _send(self, question: Question) -> Answer:
        fields = {name: self._filled(value) for name, value in question.fields.items()}
        answer = await self.ask(question.method, self._filled(question.target), fields, question.body)
        if question.method == "LOCK" and "If" not in question.fields:
            self.known["l"] = answer.header("lock-token") or self.known["l"]
        return answer

    def _filled(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.known[found[1]], text)

    def _told(self, answer: Answer) -> dict[str, Any]:
        fields = sorted([name, self._masked(value)] for name, value in answer.headers if name not in OMITTED)
        body = answer.body.decode("utf-8", "replace")
        if answer.header("content-type") == "application/octet-stream":
            body = "RECORD"
        return {"status": answer.status, "fields": fields, "body": self._masked(body)}

    def _masked(self, text: str) -> str:
        for pattern, mask in MASKS:
            text = re.sub(pattern, mask, text)
        for name in ("b", "c", "g", "hs"):
            text = text.replace(self.known.get(name, "?"), f"{{{name}}}")
        return text


OMITTED = {"date", "connection", "last-modified", "content-length", "accept-ranges", "x-content-type-options"}
"""Fields that say when, or that only we send."""

MASKS = (
    (r"cursor: \d+", "cursor: N"),
    (r"opaquelocktoken:[0-9a-f-]{36}", "opaquelocktoken:UUID"),
    (r'_at":\d+', '_at":N'),
)
