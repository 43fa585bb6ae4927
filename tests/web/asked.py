"""Requests of the client API, with the status that each has: every operation of its description, every outcome."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from pkarr.keys import Keypair
from pubky_homeserver.core.grants import GRANT_TYPE, sign_jws
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.tokens import sign_auth_token
from tests.web.described import Description
from tests.web.served import Granted, Served, User

DESCRIPTION = Description.read(Path(__file__).parent.parent / "openapi" / "openapi-client.yml")
OPERATIONS = DESCRIPTION.operations

JSON = {"Content-Type": "application/json"}
LIMIT = 20_000
"""Bytes that an account may use here."""

UNKNOWN = Keypair(b"\x77" * 32)
"""Somebody without an account."""


@define
class World:
    """A homeserver with some accounts, and what they hold."""

    server: Served
    alice: User
    bob: User
    scoped: User
    """Alice, with a session for some paths only."""
    disabled: User
    bearers: dict[str, Granted]
    lock: str
    """The token of a lock on Alice's `/pub/locked.txt`."""
    names: dict[str, str] = field(factory=dict)
    """What a target or a header may name, in braces."""
    used: tuple[str, str] = ("", "")
    """A grant and a proof that was shown before."""
    revoked: tuple[str, Keypair] = ("", UNKNOWN)
    """A grant that was revoked, and its client."""

    def token(self, keypair: Keypair) -> bytes:
        """A sign-in token."""
        self.server.clock.advance(0.001)
        return sign_auth_token(keypair, "/:rw", int(self.server.clock.seconds() * 1_000_000))

    def note(self, user: Keypair, client: Keypair | None = None, prover: Keypair | None = None, **claims: Any) -> bytes:
        """A grant and a proof of possession, by its client or by another."""
        client = client or Keypair.random()
        return self.shown(self.server.grant(user, client, **claims), prover or client)

    def signup(self, user: Keypair, prover: Keypair | None = None, **claims: Any) -> bytes:
        """A grant for signing up, and its proof."""
        soon = int(self.server.clock.seconds()) + 60
        return self.note(user, user, prover, **({"client_id": "pubky.signup", "exp": soon} | claims))

    def shown(self, grant: str, client: Keypair, pop: str | None = None) -> bytes:
        """A grant and a proof as JSON."""
        return json.dumps({"grant": grant, "pop": pop or self.server.proof(grant, client)}).encode()

    def credentials(self, who: str, scheme: str) -> dict[str, str]:
        """What somebody shows."""
        if scheme == "bearerAuth":
            return self.bearers[who].headers
        users = {"alice": self.alice, "bob": self.bob, "scoped": self.scoped, "disabled": self.disabled}
        return {"Cookie": users[who].cookie}


async def world(server: Served, signup_token: str | None) -> World:
    """Sign everybody up and in. `signup_token`: whether signing up costs one."""

    async def token() -> str | None:
        return None if signup_token is None else (await server.accounts.new_signup_token(UserQuota())).token

    alice, bob, disabled = [await server.sign_up(token=await token()) for _ in range(3)]
    keys = {name: Keypair((at + 1).to_bytes(32, "big")) for at, name in enumerate(("alice", "bob", "disabled"))}
    scoped = await server.sign_in(keys["alice"], "/pub/app/:rw")
    bearers = {name: await server.sign_in_by_grant(keypair) for name, keypair in keys.items()}
    bearers["scoped"] = await server.sign_in_by_grant(keys["alice"], "/pub/app/:rw")
    home = f"/storage/{alice.pubky}"
    for path in ("/pub/a.txt", "/pub/dir/b.png", "/priv/a.txt", "/priv/dir/b", "/pub/locked.txt"):
        body = b"\x89PNG\r\n\x1a\n" if path.endswith("png") else b"hello"
        assert (await server.ask("PUT", home + path, alice.headers, body)).status == 201
    locked = await server.ask("LOCK", f"{home}/pub/locked.txt", alice.headers)
    tag = (await server.ask("GET", f"{home}/pub/a.txt")).header("etag")
    assert (await server.ask("PUT", f"/storage/{disabled.pubky}/pub/a.txt", disabled.headers, b"x")).status == 201
    await server.store.set_disabled(disabled.pubky, True)
    lock = (locked.header("lock-token") or "").strip("<>")
    made = World(server, alice, bob, scoped, disabled, bearers, lock)
    names = {name: user.pubky for name, user in (("alice", alice), ("bob", bob), ("disabled", disabled))}
    made.names = names | {
        "unknown": UNKNOWN.public_key.z32,
        "lock": lock,
        "tag": tag or "",
        "alices_grant": bearers["alice"].grant_id,
        "bobs_grant": bearers["bob"].grant_id,
        "fresh": signup_token or "AAAA-AAAA-AAAA",
        "spent": "AAAA-AAAA-AAAA",
    }
    client = Keypair.random()
    grant = server.grant(keys["alice"], client)
    proof = server.proof(grant, client)
    made.used = (grant, proof)
    assert (await server.ask("POST", "/auth/grant/session", JSON, made.shown(grant, client, proof))).status == 200
    revoked = await server.sign_in_by_grant(keys["alice"])
    await server.send_grant("DELETE", "/auth/grant/session", revoked.grant, revoked.client)
    made.revoked = (revoked.grant, revoked.client)
    if signup_token is not None:
        spent = next(one for one in server.store._tokens.values() if one.used is not None)
        made.names["spent"] = spent.token
    return made


ALICE, BOB, NEW = (Keypair(number.to_bytes(32, "big")) for number in (1, 2, 999))


@frozen
class Row:
    """A request, and the status of its answer."""

    operation: str
    status: int
    target: str
    """With names in braces. Of a file: `name:/path`, spelled as the operation's addressing wants it."""
    who: str | None = None
    """Whose credentials come along."""
    headers: dict[str, str] = field(factory=dict)
    body: bytes | Callable[[World], bytes] | None = None
    lacks: frozenset[str] = frozenset()
    """Fields that the description shows, and that come with some of these answers only."""
    closed: bool = False
    """Whether signing up costs a signup token."""
    scheme: str | None = None
    """How the credentials are shown, if not in every way that the description names."""

    @property
    def schemes(self) -> list[str | None]:
        """The ways to play it."""
        if self.who is None:
            return [None]
        return [self.scheme] if self.scheme else [one for one in OPERATIONS[self.operation].security if one]


def grant_rows() -> Iterator[Row]:
    """Sign-up, sign-in and sessions by grant."""
    yield Row("grantSignup", 204, "/auth/grant/signup", headers=JSON, body=lambda w: w.signup(NEW))
    signup = "/auth/grant/signup?signup_token="
    yield Row("grantSignup", 204, signup + "{fresh}", headers=JSON, body=lambda w: w.signup(NEW), closed=True)
    for status, query, closed, body in (
        (400, "", True, lambda w: w.signup(NEW)),
        (400, "?signup_token=x", False, lambda w: w.signup(NEW)),
        (400, "", False, lambda w: b'{"grant":"a.b.c","pop":"a.b.c"}'),
        (400, "", False, lambda w: b"{"),
        (400, "", False, lambda w: w.signup(NEW, client_id="app.example")),
        (401, "", False, lambda w: w.signup(NEW, exp=1)),
        (401, "", False, lambda w: w.signup(NEW, iss=ALICE.public_key.z32)),
        (401, "", False, lambda w: w.signup(NEW, prover=BOB)),
        (401, "?signup_token=BBBB-BBBB-BBBB", True, lambda w: w.signup(NEW)),
        (401, "?signup_token={spent}", True, lambda w: w.signup(NEW)),
        (403, "", False, lambda w: w.signup(NEW, caps=["/pub/:rw"])),
        (409, "", False, lambda w: w.signup(ALICE)),
        (413, "", False, lambda w: b" " * (2 << 20) + b"{}"),
        (422, "", False, lambda w: b'{"grant":"ab","pop":"c"}'),
    ):  # fmt: skip
        yield Row("grantSignup", status, f"/auth/grant/signup{query}", headers=JSON, body=body, closed=closed)
    yield Row("grantSignup", 415, "/auth/grant/signup", body=lambda w: w.signup(NEW))
    for status, body in (
        (200, lambda w: w.note(ALICE)),
        (400, lambda w: b'{"grant":"a.b.c","pop":"a.b.c"}'),
        (400, lambda w: w.shown(sign_jws(ALICE, GRANT_TYPE, {"iss": "x"}), BOB, "a.b.c")),
        (401, lambda w: w.note(ALICE, iss=BOB.public_key.z32)),
        (401, lambda w: w.note(ALICE, exp=1)),
        (401, lambda w: w.note(ALICE, BOB, NEW)),
        (401, lambda w: w.shown(w.used[0], ALICE, w.used[1])),
        (401, lambda w: w.shown(*w.revoked)),
        (403, lambda w: w.note(BOB, jti=w.bearers["alice"].grant_id)),
        (404, lambda w: w.note(UNKNOWN)),
        (413, lambda w: b" " * (2 << 20) + b"{}"),
        (422, lambda w: b"[]"),
    ):
        yield Row("createGrantSession", status, "/auth/grant/session", headers=JSON, body=body)
    yield Row("createGrantSession", 415, "/auth/grant/session", body=lambda w: w.note(ALICE))
    yield Row("getGrantSession", 200, "/auth/grant/session", "alice")
    yield Row("getGrantSession", 401, "/auth/grant/session")
    cookie = {"pubky-host": "{alice}"}
    yield Row("getGrantSession", 401, "/auth/grant/session", "alice", cookie, scheme="cookieAuth")
    yield Row("deleteGrantSession", 200, "/auth/grant/session", "alice")
    yield Row("deleteGrantSession", 200, "/auth/grant/session")
    for status, body in (
        (400, lambda w: b"{"),
        (401, lambda w: w.shown(w.used[0], ALICE, w.used[1])),
        (403, lambda w: w.note(BOB, jti=w.bearers["alice"].grant_id)),
        (404, lambda w: w.note(ALICE)),
        (413, lambda w: b" " * (2 << 20) + b"{}"),
        (422, lambda w: b"[]"),
    ):
        yield Row("deleteGrantSession", status, "/auth/grant/session", headers=JSON, body=body)
    yield Row("deleteGrantSession", 415, "/auth/grant/session", headers={"Content-Type": "x/y"}, body=b"")
    yield Row("listGrants", 200, "/auth/grant/sessions", "alice")
    yield Row("listGrants", 401, "/auth/grant/sessions")
    yield Row("listGrants", 403, "/auth/grant/sessions", "scoped")
    for status, grant, who in (
        (200, "{alices_grant}", "alice"),
        (400, "not-an-id-for-it-is-too-long", "alice"),
        (401, "{alices_grant}", None),
        (403, "{alices_grant}", "scoped"),
        (403, "{bobs_grant}", "alice"),
        (404, "unknown", "alice"),
    ):
        yield Row("revokeGrant", status, f"/auth/grant/session/{grant}", who)


def cookie_rows() -> Iterator[Row]:
    """Sign-up, sign-in and sessions by cookie, signup tokens, and what the homeserver says of itself."""
    yield Row("getRoot", 200, "/")
    yield Row("getInfo", 200, "/info")
    yield Row("getSignupToken", 200, "/signup_tokens/{fresh}", closed=True)
    yield Row("getSignupToken", 200, "/signup_tokens/{spent}", closed=True)
    yield Row("getSignupToken", 400, "/signup_tokens/{fresh}")
    yield Row("getSignupToken", 400, "/signup_tokens/x", closed=True)
    yield Row("getSignupToken", 404, "/signup_tokens/BBBB-BBBB-BBBB", closed=True)
    yield Row("cookieSignup", 200, "/signup", body=lambda w: w.token(NEW))
    yield Row("cookieSignup", 200, "/signup?signup_token={fresh}", body=lambda w: w.token(NEW), closed=True)
    yield Row("cookieSignup", 400, "/signup", body=b"no token")
    yield Row("cookieSignup", 400, "/signup?signup_token=x", body=lambda w: w.token(NEW))
    yield Row("cookieSignup", 400, "/signup", body=lambda w: w.token(NEW), closed=True)
    yield Row("cookieSignup", 401, "/signup?signup_token=BBBB-BBBB-BBBB", body=lambda w: w.token(NEW), closed=True)
    yield Row("cookieSignup", 401, "/signup?signup_token={spent}", body=lambda w: w.token(NEW), closed=True)
    yield Row("cookieSignup", 409, "/signup", body=lambda w: w.token(ALICE))
    yield Row("cookieSignup", 413, "/signup", body=b"x" * ((2 << 20) + 1))
    yield Row("cookieSignin", 200, "/session", body=lambda w: w.token(ALICE))
    yield Row("cookieSignin", 400, "/session", body=b"")
    yield Row("cookieSignin", 404, "/session", body=lambda w: w.token(UNKNOWN))
    yield Row("cookieSignin", 413, "/session", body=b"x" * ((2 << 20) + 1))
    here = {"pubky-host": "{alice}"}
    yield Row("getCookieSession", 200, "/session", "alice", here)
    yield Row("getCookieSession", 401, "/session", None, here)
    yield Row("getCookieSession", 401, "/session", "alice", scheme="bearerAuth")
    yield Row("cookieSignout", 200, "/session", "alice", here)
    yield Row("cookieSignout", 200, "/session", None, here)
    yield Row("cookieSignout", 400, "/session")


def file_rows(get: str, head: str, put: str, delete: str) -> Iterator[Row]:
    """Reads and writes in one of the two addressings."""
    of_a_file = frozenset(("ETag", "Last-Modified"))
    for path, who, lacks in (
        ("/pub/a.txt", None, frozenset()),
        ("/pub/dir/b.png", "bob", frozenset()),
        ("/priv/a.txt", "alice", frozenset()),
        ("/pub/", None, of_a_file | {"Cache-Control"}),
        ("/pub/?shallow=true&reverse=false&limit=1&cursor={alice}/pub/a.txt", None, of_a_file | {"Cache-Control"}),
        ("/priv/dir/", "alice", of_a_file),
    ):
        yield Row(get, 200, f"alice:{path}", who, lacks=lacks)
    for path, who in (("/pub/a.txt", None), ("/priv/a.txt", "alice")):
        yield Row(get, 304, f"alice:{path}", who, {"If-None-Match": "{tag}"})
        yield Row(get, 304, f"alice:{path}", who, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"})
        yield Row(head, 200, f"alice:{path}", who)
        yield Row(head, 304, f"alice:{path}", who, {"If-None-Match": "{tag}"})
    yield Row(get, 206, "alice:/pub/a.txt", headers={"Range": "bytes=1-2"})
    yield Row(get, 416, "alice:/pub/a.txt", headers={"Range": "bytes=9-"})
    yield Row(get, 400, "alice:/pub/?cursor=x")
    for operation in (get, head):
        yield Row(operation, 400, "alice:/pub/%00")
        yield Row(operation, 401, "alice:/priv/a.txt")
        yield Row(operation, 403, "alice:/elsewhere")
        yield Row(operation, 403, "alice:/priv/a.txt", "scoped")
        yield Row(operation, 403, "alice:/priv/a.txt", "bob", scheme="bearerAuth")
        yield Row(operation, 404, "alice:/pub/missing", lacks=_private_only(operation))
        yield Row(operation, 404, "unknown:/pub/a.txt", lacks=_private_only(operation))
        yield Row(operation, 404, "alice:/priv/missing", "alice")
    yield Row(get, 404, "alice:/pub/missing/", lacks=_private_only(get))
    yield Row(get, 404, "alice:/priv/missing/", "alice")
    locked = {"If": "(<{lock}>)"}
    stale = {"If": "(<opaquelocktoken:00000000-0000-4000-8000-000000000000>)"}
    for operation, done, body in ((put, 201, b"new"), (delete, 204, None)):
        yield Row(operation, done, "alice:/pub/a.txt", "alice", body=body)
        yield Row(operation, done, "alice:/priv/a.txt", "alice", body=body)
        yield Row(operation, done, "alice:/pub/locked.txt", "alice", locked, body)
        yield Row(operation, 400, "alice:/pub/a/../../../x", "alice", body=body)
        yield Row(operation, 400, "alice:/pub/dir/", "alice", body=body)
        yield Row(operation, 401, "alice:/pub/a.txt", body=body)
        yield Row(operation, 401, "alice:/pub/a.txt", "bob", body=body, scheme="cookieAuth")
        yield Row(operation, 403, "alice:/pub/a.txt", "bob", body=body, scheme="bearerAuth")
        yield Row(operation, 403, "alice:/pub/a.txt", "scoped", body=body)
        yield Row(operation, 403, "alice:/elsewhere", "alice", body=body)
        yield Row(operation, 412, "alice:/pub/a.txt", "alice", stale, body)
        yield Row(operation, 412, "alice:/pub/locked.txt", "alice", stale, body)
        yield Row(operation, 423, "alice:/pub/locked.txt", "alice", body=body)
    yield Row(put, 201, "alice:/pub/app/new", "scoped", body=b"")
    yield Row(put, 403, "disabled:/pub/a.txt", "disabled", body=b"x")
    yield Row(delete, 204, "disabled:/pub/a.txt", "disabled")
    yield Row(put, 409, "alice:/pub/dir", "alice", body=b"x")
    yield Row(put, 409, "alice:/pub/a.txt/b", "alice", body=b"x")
    yield Row(put, 507, "alice:/pub/large", "alice", body=b"x" * LIMIT)
    yield Row(delete, 404, "alice:/pub/missing", "alice")


def _private_only(operation: str) -> frozenset[str]:
    """The description of this status shows a field that public answers do not carry."""
    described = OPERATIONS[operation].responses[404].get("headers", {})
    return frozenset({"Cache-Control"} & described.keys())


def addressed_rows() -> Iterator[Row]:
    """What only paths below `/storage/` can get wrong."""
    for operation in ("get", "head", "put", "delete"):
        name = f"{operation}PathAddressedEntry"
        body = b"x" if operation == "put" else None
        yield Row(name, 400, "/storage/nobody/pub/a.txt", body=body)
        yield Row(name, 400, "/storage/pubky{alice}/pub/a.txt", body=body)


def event_rows() -> Iterator[Row]:
    """The feed and the streams."""
    yield Row("getEventFeed", 200, "/events/")
    yield Row("getEventFeed", 200, "/events/?limit=2&cursor=0")
    yield Row("getEventFeed", 400, "/events/?cursor=x")
    stream = "/events-stream"
    for status, query, who in (
        (200, "?user={alice}", None),
        (200, "?user={alice}:0&user={bob}&limit=1&reverse=true&live=false&path=/pub/", None),
        (200, "?user={alice}&live=true&limit=1", None),
        (200, "?user={alice}&path=/priv/&path=/pub/a.txt", "alice"),
        (400, "", None),
        (400, "?user=nobody", None),
        (400, "?user={alice}:x", None),
        (400, "?user={alice}&limit=0", None),
        (400, "?user={alice}&limit=65536", None),
        (400, "?user={alice}&live=true&reverse=true", None),
        (400, "?user={alice}&path=/pub/../..", None),
        (400, "".join("?&"[at > 0] + "user={alice}" for at in range(51)), None),
        (401, "?user={alice}&path=/priv/", None),
        (403, "?user={alice}&path=/priv/", "scoped"),
        (403, "?user={alice}&path=/elsewhere", None),
        (404, "?user={unknown}", None),
    ):
        yield Row("getClientEventStream", status, stream + query, who)
    yield Row("getClientEventStream", 403, f"{stream}?user={{alice}}&path=/priv/", "bob", scheme="bearerAuth")


ROWS = [
    *grant_rows(),
    *cookie_rows(),
    *file_rows("getPathAddressedEntry", "headPathAddressedEntry", "putPathAddressedEntry", "deletePathAddressedEntry"),
    *file_rows("getEntry", "headEntry", "putEntry", "deleteEntry"),
    *addressed_rows(),
    *event_rows(),
]
