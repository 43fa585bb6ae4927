"""Sign-in by grant over HTTP: what the transcripts of the official homeserver do not show."""

import json

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.web.json_bodies import texts_in
from tests.web.client import Answer
from tests.web.served import HOMESERVER, Served, served

JSON = {"Content-Type": "application/json"}


async def who(server: Served, headers: dict[str, str]) -> Answer:
    """Ask who one is by grant."""
    return await server.ask("GET", "/auth/grant/session", headers)


@pytest_twisted.ensureDeferred
async def test_a_bearer_reads_and_writes_as_far_as_its_grant_allows() -> None:
    """On every storage route a bearer is its user with the grant's capabilities, whatever tenant the headers name."""
    async with served() as server:
        scoped = await server.sign_up_by_grant("/pub/app/:rw,/priv/app/:r")
        other = await server.sign_up_by_grant()
        for prefix, extra in ((f"/storage/{scoped.pubky}", {}), ("", {"pubky-host": scoped.pubky})):
            mine, theirs = scoped.headers | extra, other.headers | extra
            assert (await server.ask("PUT", f"{prefix}/pub/app/a", mine, b"x")).status == 201
            assert (await server.ask("PUT", f"{prefix}/pub/b", mine, b"x")).text == (
                "Session does not have write access to path"
            )
            assert (await server.ask("PUT", f"{prefix}/priv/app/a", mine, b"x")).status == 403
            assert (await server.ask("GET", f"{prefix}/priv/app/a", mine)).status == 404
            assert (await server.ask("GET", f"{prefix}/priv/other", mine)).status == 403
            for method in ("PUT", "DELETE"):
                answer = await server.ask(method, f"{prefix}/pub/app/a", theirs, b"x" if method == "PUT" else None)
                assert (answer.status, answer.text) == (403, "Session user does not match target tenant")
            assert (await server.ask("GET", f"{prefix}/priv/app/a", theirs)).status == 403
        sample = 'auth_method="grant",pubky_host_header="absent"'
        assert sample in server.metrics.render().decode()


@pytest_twisted.ensureDeferred
async def test_a_good_bearer_wins_and_a_bad_one_is_ignored() -> None:
    """Beside a cookie a valid bearer counts; one that means nothing leaves the cookie in force."""
    async with served() as server:
        user = await server.sign_up("/pub/a/:rw")
        granted = await server.sign_up_by_grant()
        both = user.headers | granted.headers
        assert json.loads((await who(server, both)).body)["pubky"] == granted.pubky
        assert (await server.ask("GET", "/session", both)).text == "Unauthorized"
        for bad in ("Bearer " + "A" * 43, "Bearer " + "A" * 42, "Bearer", "bearer " + granted.bearer, "Basic x"):
            headers = user.headers | {"Authorization": bad}
            assert (await server.ask("GET", "/session", headers)).status == 200
            assert (await who(server, headers)).text == "Unauthorized"


@pytest_twisted.ensureDeferred
async def test_sign_out_by_cookie_leaves_a_bearer() -> None:
    """`DELETE /session` with a bearer deletes nothing, not even the cookie's session, and takes the cookie back."""
    async with served() as server:
        user = await server.sign_up()
        granted = await server.sign_up_by_grant()
        answer = await server.ask("DELETE", "/session", user.headers | granted.headers)
        assert answer.status == 200
        assert (answer.header("set-cookie") or "").startswith(f"{user.pubky}=;")
        assert (await who(server, granted.headers)).status == 200
        assert (await server.ask("GET", "/session", user.headers)).status == 200


@pytest_twisted.ensureDeferred
async def test_a_bearer_ends_with_its_hour() -> None:
    """A bearer counts for an hour and not a second longer, and for less if its grant is over before."""
    async with served() as server:
        granted = await server.sign_up_by_grant()
        server.clock.advance(3599)
        assert (await who(server, granted.headers)).status == 200
        server.clock.advance(1)
        assert (await who(server, granted.headers)).text == "No authenticated session found"
        again = await server.send_grant("POST", "/auth/grant/session", granted.grant, granted.client)
        assert again.text == "Invalid grant: grant has expired"
        proof = await server.send_grant("DELETE", "/auth/grant/session", granted.grant, granted.client)
        assert (proof.status, proof.body) == (200, b""), "a grant can be given back when it is over"


@pytest_twisted.ensureDeferred
async def test_a_known_id_lets_nobody_in_as_somebody_else() -> None:
    """A grant with the id of another user's, or of another client's, is refused, and the first bearer lives on."""
    async with served() as server:
        alice, bob = await server.sign_up_by_grant(), await server.sign_up_by_grant()
        for user in (bob.user, alice.user):
            client = Keypair.random()
            stolen = server.grant(user, client, jti=alice.grant_id)
            answer = await server.send_grant("POST", "/auth/grant/session", stolen, client)
            assert (answer.status, answer.text) == (403, "Grant does not belong to authenticated user")
        assert json.loads((await who(server, alice.headers)).body)["pubky"] == alice.pubky


@pytest_twisted.ensureDeferred
async def test_a_proof_counts_once_everywhere() -> None:
    """A nonce is burned by whatever it was shown for, and stays burned for as long as its proof could be shown."""
    async with served() as server:
        granted = await server.sign_up_by_grant()
        proof = server.proof(granted.grant, granted.client)
        body = json.dumps({"grant": granted.grant, "pop": proof}).encode()
        assert (await server.ask("POST", "/auth/grant/session", JSON, body)).status == 200
        for method in ("POST", "DELETE"):
            server.clock.advance(80)
            answer = await server.ask(method, "/auth/grant/session", JSON, body)
            assert (answer.status, answer.text) == (401, "PoP nonce already used")


@pytest_twisted.ensureDeferred
async def test_signup_by_grant_follows_the_policy() -> None:
    """With signup tokens a grant needs one too, and spends it; the token's form is judged before the grant."""
    async with served(token_required=True) as server:
        keypair = Keypair.random()

        async def sign_up(query: str) -> tuple[int, str]:
            grant = server.grant(keypair, keypair, client_id="pubky.signup", exp=int(server.clock.seconds()) + 60)
            answer = await server.send_grant("POST", f"/auth/grant/signup{query}", grant, keypair)
            return answer.status, answer.text

        token = (await server.accounts.new_signup_token(UserQuota())).token
        assert await sign_up("") == (400, "Token required")
        assert await sign_up("?signup_token=") == (400, "Invalid signup token format: Invalid signup code id")
        assert await sign_up("?signup_token=AAAA-BBBB-CCCC") == (401, "Invalid token")
        twice = await sign_up(f"?signup_token={token}&signup_token={token}")
        assert twice[0] == 400
        assert twice[1].startswith("Failed to deserialize query string: ")
        assert await sign_up(f"?signup_token={token}") == (204, "")
        assert await sign_up(f"?signup_token={token}") == (409, "User already exists")
        assert "signup_count_total" in server.metrics.render().decode()


@pytest_twisted.ensureDeferred
async def test_a_disabled_user_can_still_sign_in() -> None:
    """Disabling shuts writing, not signing in."""
    async with served() as server:
        granted = await server.sign_up_by_grant()
        await server.store.set_disabled(granted.pubky, True)
        answer = await server.send_grant("POST", "/auth/grant/session", granted.grant, granted.client)
        assert answer.status == 200
        bearer = {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}
        assert (await server.ask("PUT", f"/storage/{granted.pubky}/pub/a", bearer, b"x")).text == "User is disabled"


@pytest_twisted.ensureDeferred
async def test_methods_and_unknown_paths() -> None:
    """Each path has its methods and no others; what is not exactly such a path is a storage path."""
    async with served() as server:
        for path, allow in (
            ("/auth/grant/signup", "POST"),
            ("/auth/grant/session", "POST,GET,HEAD,DELETE"),
            ("/auth/grant/sessions", "GET,HEAD"),
            ("/auth/grant/session/abc", "DELETE"),
        ):
            answer = await server.ask("PATCH", path)
            assert (answer.status, answer.header("allow"), answer.body) == (405, allow, b""), path
        for path in ("/auth/grant/session/", "/auth/grant/session/a/b", "/auth/grant/", "/auth/grant/Session"):
            assert (await server.ask("GET", path)).text == "Missing request tenant", path


@pytest_twisted.ensureDeferred
async def test_secrets_do_not_rest_in_the_store() -> None:
    """The store holds neither bearers nor cookies, only what they hash to."""
    async with served() as server:
        granted, user = await server.sign_up_by_grant(), await server.sign_up()
        kept = repr((server.store._sessions, server.store.grants._bearers, server.store.grants._grants))
        assert granted.bearer not in kept
        assert user.cookie.partition("=")[2] not in kept
        assert HOMESERVER not in kept


# --- bodies -------------------------------------------------------------------------------------------------------


def read(body: str) -> str:
    """What the reader makes of a body: its texts, or the refusal."""
    try:
        return repr(texts_in(body, "Pair", ("grant", "pop"), lambda text: "not even" if len(text) % 2 else None))
    except Refused as refusal:
        return str(refusal).partition(": ")[2]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"grant":"ab","pop":"cd"}', "['ab', 'cd']"),
        (' { "pop" : "cd" , "z" : [ { } ] , "grant" : "ab" } \r\n', "['ab', 'cd']"),
        ('["ab","cd"]', "['ab', 'cd']"),
        ('{"grant":"ab","grant":"ab","pop":"cd"}', "duplicate field `grant` at line 1 column 21"),
        ('{"grant":"abc"', "grant: not even at line 1 column 14"),
        ('{"grant":"ab"}', "missing field `pop` at line 1 column 14"),
        ('{"grant":[', "grant: invalid type: sequence, expected a string at line 1 column 9"),
        ('{"grant":1.5,', "grant: invalid type: floating point `1.5`, expected a string at line 1 column 12"),
        ('{"grant":true,', "grant: invalid type: boolean `true`, expected a string at line 1 column 13"),
        ('["ab"]', "invalid length 1, expected struct Pair with 2 elements at line 1 column 6"),
        ('["ab","cd","ef"]', "trailing characters at line 1 column 12"),
        ('"ab"', 'invalid type: string "ab", expected struct Pair at line 1 column 4'),
        ('{"grant":"ab",}', "trailing comma at line 1 column 15"),
        ('{"grant":"ab"', "EOF while parsing an object at line 1 column 13"),
        ('{"grant":"ab" "pop"', "expected `,` or `}` at line 1 column 15"),
        ('{"grant" "ab"}', "expected `:` at line 1 column 10"),
        ("{grant", "key must be a string at line 1 column 2"),
        ('{"grant":\n\n"ä', "grant: EOF while parsing a string at line 3 column 3"),
        ('{"z":tru', "z: EOF while parsing a value at line 1 column 8"),
        ('{"z":NaN}', "z: expected value at line 1 column 6"),
        ('{"grant":"\\ud800a"}', "grant: unexpected end of hex escape at line 1 column 17"),
        (
            '{"grant":"a\tb"}',
            "grant: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 12",
        ),
        ('{"z":' + "[" * 100_000, "z: recursion limit exceeded at line 1 column 5"),
        ('{"z":' + "9" * 10_000 + "}", "z: number out of range at line 1 column 5"),
    ],
)
def test_bodies(body: str, told: str) -> None:
    """What is wrong first is told, with line and column in bytes, as serde does."""
    assert read(body) == told
