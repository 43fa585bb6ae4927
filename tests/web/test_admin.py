"""The operator's API: passwords, methods, numbers and signup tokens as the protocol says."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import yaml

from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Account, SignupToken
from pubky_homeserver.core.tokens import check_signup_token
from tests.web.operator import KEY, NOW, PASSWORD, Operator, operator

CREATED = 1_792_663_872_123_456
"""2026-10-22T10:11:12.123456, in microseconds."""

JSON = {"Content-Type": "application/json"}
GUARDED = ["/info", "/generate_signup_token", "/signup_tokens"]


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[Operator]:
    """An operator's port."""
    async with operator() as one:
        yield one


# --- who may ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_root_is_open(node: Operator) -> None:
    """The root says what this port is, to everybody."""
    answer = await node.ask("GET", "/")
    assert (answer.status, answer.text) == (200, "Homeserver - Admin Endpoint")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    head = await node.ask("HEAD", "/")
    assert (head.status, head.header("content-length"), head.body) == (200, "27", b"")


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({}, "Missing admin password"),
        ({"Authorization": "Basic YWRtaW46b3BlbiBzZXNhbWU="}, "Missing admin password"),
        ({"X-Admin-Password": "wrong"}, "Invalid admin password"),
        ({"X-Admin-Password": ""}, "Invalid admin password"),
        ({"X-Admin-Password": PASSWORD + "x"}, "Invalid admin password"),
        ({"X-Admin-Password": PASSWORD.upper()}, "Invalid admin password"),
        ({"X-Admin-Password": "pässword"}, "Invalid admin password"),
        ({"Authorization": "Bearer wrong"}, "Invalid admin password"),
        ({"Authorization": "Bearer"}, "Invalid admin password"),
        ({"X-Admin-Password": "wrong", "Authorization": f"Bearer {PASSWORD}"}, "Invalid admin password"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_without_the_password(node: Operator, path: str, headers: dict[str, str], text: str) -> None:
    """Nobody gets past a wrong or missing password, whatever the method; the answer has no content type."""
    for method in ("GET", "POST", "DELETE"):
        answer = await node.ask(method, path, headers)
        assert (answer.status, answer.text) == (401, text)
        assert answer.header("content-type") is None
    assert (await node.accounts.totals()).tokens == 0


@pytest.mark.parametrize(
    "headers",
    [{"X-Admin-Password": PASSWORD}, {"Authorization": f"Bearer {PASSWORD}"}, {"Authorization": f"bearer {PASSWORD}"}],
)
@pytest_twisted.ensureDeferred
async def test_with_the_password(node: Operator, headers: dict[str, str]) -> None:
    """The password opens as a header of its own and as a bearer token."""
    assert (await node.ask("GET", "/info", headers)).status == 200


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/", "POST", "GET,HEAD"),
        ("/healthz", "PUT", "GET,HEAD"),
        ("/readyz", "DELETE", "GET,HEAD"),
        ("/info", "PUT", "GET,HEAD"),
        ("/signup_tokens", "POST", "GET,HEAD"),
        ("/generate_signup_token", "HEAD", "GET, POST"),
        ("/generate_signup_token", "DELETE", "GET, POST"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_method(node: Operator, path: str, method: str, allow: str) -> None:
    """A method that a path does not have is 405 with those it has; HEAD makes no token."""
    answer = await node.command(method, path)
    assert (answer.status, answer.header("allow"), answer.body) == (405, allow, b"")
    assert (await node.accounts.totals()).tokens == 0


@pytest.mark.parametrize("path", ["/nowhere", "/info/", "/signup_tokens/JZY0-D6MY-ZFNG", "/INFO", "//info"])
@pytest_twisted.ensureDeferred
async def test_unknown_path(node: Operator, path: str) -> None:
    """Any other path is 404 and empty, with and without the password."""
    for answer in (await node.ask("GET", path), await node.command("POST", path)):
        assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/info", "GET,HEAD"), ("/generate_signup_token", "GET,HEAD,POST"), ("/nowhere", None)],
)
@pytest_twisted.ensureDeferred
async def test_options(node: Operator, path: str, allow: str | None) -> None:
    """Any OPTIONS is answered by CORS, without the password; a browser may send the password header."""
    asked = {
        "Origin": "https://dash.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-admin-password",
    }
    answer = await node.ask("OPTIONS", path, asked)
    assert (answer.status, answer.body, answer.header("allow")) == (200, b"", allow)
    assert answer.header("access-control-allow-headers") == "x-admin-password"
    assert answer.header("access-control-allow-methods") == "GET"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/info"), ("PUT", "/"), ("GET", "/nowhere"), ("GET", "/signup_tokens")]
)
@pytest_twisted.ensureDeferred
async def test_cors(node: Operator, method: str, path: str) -> None:
    """Every answer, refusals included, can be read by a page of any origin; no field is exposed beyond the usual."""
    answer = await node.ask(method, path, {"Origin": "https://dash.example"})
    assert answer.all("access-control-allow-origin") == ["https://dash.example"]
    assert answer.all("access-control-allow-credentials") == ["true"]
    assert answer.all("vary") == ["origin, access-control-request-method, access-control-request-headers"]
    assert answer.header("access-control-expose-headers") is None


# --- numbers ------------------------------------------------------------------------------------------------------


async def sign_up(node: Operator, pubky: str, token: str | None = None) -> None:
    """An account."""
    await node.store.sign_up(Account(pubky, CREATED), None, token, token is not None)


@pytest_twisted.ensureDeferred
async def test_info_of_an_empty_node(node: Operator) -> None:
    """Zeros, and what the node says of itself, in the protocol's order."""
    answer = await node.command("GET", "/info")
    assert answer.header("content-type") == "application/json"
    assert answer.text == (
        '{"num_users":0,"num_disabled_users":0,"total_disk_used_mb":0,"num_signup_codes":0,"num_unused_signup_codes":0,'
        f'"public_key":"{KEY}","pkarr_pubky_address":null,"pkarr_icann_domain":"localhost:6286","version":"0.1.0"}}'
    )


@pytest_twisted.ensureDeferred
async def test_info_counts(node: Operator) -> None:
    """Users, disabled users and tokens are counted."""
    token = (await node.accounts.new_signup_token(UserQuota())).token
    await node.accounts.new_signup_token(UserQuota())
    await sign_up(node, "a")
    await sign_up(node, "b", token)
    await node.store.set_disabled("b", True)
    info = json.loads((await node.command("GET", "/info")).body)
    assert (info["num_users"], info["num_disabled_users"]) == (2, 1)
    assert (info["num_signup_codes"], info["num_unused_signup_codes"]) == (2, 1)


@pytest.mark.parametrize(
    ("used", "shown"), [(0, 0), (524_287, 0), (524_288, 1), (1_572_863, 1), (1_572_864, 2), (10 * 1_048_576, 10)]
)
@pytest_twisted.ensureDeferred
async def test_disk_use_is_rounded(node: Operator, used: int, shown: int) -> None:
    """Megabytes are rounded to the nearest, halves up."""
    node.store.used = used
    assert json.loads((await node.command("GET", "/info")).body)["total_disk_used_mb"] == shown


@pytest_twisted.ensureDeferred
async def test_store_away(node: Operator) -> None:
    """Without the store there are no numbers: 503, and when to come back."""
    node.store.mood = "away"
    answer = await node.command("GET", "/info")
    assert (answer.status, answer.header("retry-after")) == (503, "1")


# --- making tokens ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_token_for_each_get(node: Operator) -> None:
    """Each GET makes a new token, of the protocol's form, with the server's defaults."""
    texts = set()
    for _ in range(3):
        answer = await node.command("GET", "/generate_signup_token")
        assert (answer.status, answer.header("content-type")) == (200, "text/plain; charset=utf-8")
        assert len(answer.text) == 14
        check_signup_token(answer.text)
        texts.add(answer.text)
    assert len(texts) == 3
    for text in texts:
        token = await node.store.signup_token(text)
        assert token is not None
        assert (token.quota, token.created) == (UserQuota(), int(NOW * 1_000_000))


@pytest_twisted.ensureDeferred
async def test_a_token_with_a_quota(node: Operator) -> None:
    """The quota of the POST comes back in the listing as it was sent."""
    quota = {
        "storage_quota_mb": 1024,
        "rate_read": "200mb/m",
        "rate_write": "unlimited",
        "rate_read_burst": 7,
        "allowed_write_paths": ["/pub/tokens/"],
    }
    made = await node.command("POST", "/generate_signup_token", JSON, json.dumps(quota).encode())
    assert made.status == 200
    listed = json.loads((await node.command("GET", "/signup_tokens")).body)
    assert listed["items"] == [
        {
            "token": made.text,
            "created_at": "2026-11-22T22:49:07",
            "used_at": None,
            "used_by": None,
            "quota": quota,
        }
    ]


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
@pytest_twisted.ensureDeferred
async def test_json_by_any_of_its_names(node: Operator, content_type: str) -> None:
    """A body is JSON if its type says so, parameters and suffix included; `{}` means the defaults."""
    answer = await node.command("POST", "/generate_signup_token", {"Content-Type": content_type}, b"{}")
    assert answer.status == 200


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/jsonl", "text/json", "application/+json"]
)
@pytest_twisted.ensureDeferred
async def test_not_json_by_name(node: Operator, content_type: str | None) -> None:
    """A body of another type is 415, however much it looks like JSON."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await node.command("POST", "/generate_signup_token", headers, b"{}")
    assert (answer.status, answer.text) == (415, "Expected request with `Content-Type: application/json`")
    assert (await node.accounts.totals()).tokens == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}{}", b"{'a':1}", b'{"a":NaN}', b'{"a":1e}', b"\xff{}", b"[" * 100_000, b"9" * 5000, b'{"a":"\n"}'],
    ids=lambda body: repr(body[:8]),
)
@pytest_twisted.ensureDeferred
async def test_not_json(node: Operator, body: bytes) -> None:
    """A body that does not parse is 400."""
    answer = await node.command("POST", "/generate_signup_token", JSON, body)
    assert answer.status == 400
    assert answer.text.startswith("Failed to parse the request body as JSON: ")
    assert (await node.accounts.totals()).tokens == 0


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'{"rate_read":"fast"}', b'{"rate_read":"1mb/s","rate_read_burst":0}', b'{"storage_quota_mb":-1}'],
)
@pytest_twisted.ensureDeferred
async def test_not_a_quota(node: Operator, body: bytes) -> None:
    """JSON with wrong types or values is 422, and makes no token."""
    answer = await node.command("POST", "/generate_signup_token", JSON, body)
    assert answer.status == 422
    assert answer.text.startswith("Failed to deserialize the JSON body into the target type: ")
    assert (await node.accounts.totals()).tokens == 0


@pytest_twisted.ensureDeferred
async def test_a_rule_broken(node: Operator) -> None:
    """A rule that a quota breaks is told in the protocol's words alone."""
    answer = await node.command("POST", "/generate_signup_token", JSON, b'{"rate_read_burst":5}')
    sentence = "rate_read_burst requires the corresponding rate to be set to a value"
    assert (answer.status, answer.text) == (422, sentence)


@pytest.mark.parametrize("chunked", [False, True])
@pytest_twisted.ensureDeferred
async def test_too_large(node: Operator, chunked: bool) -> None:
    """A body above 2 MiB is 413, announced or not."""
    size = 2 * 1024 * 1024 + 1
    headers, body = JSON, b" " * size
    if chunked:
        headers = {**JSON, "Transfer-Encoding": "chunked"}
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    answer = await node.command("POST", "/generate_signup_token", headers, body)
    assert answer.status == 413
    assert answer.text == "Failed to buffer the request body: length limit exceeded"


# --- listing tokens -----------------------------------------------------------------------------------------------


async def add_tokens(node: Operator, *texts: str) -> None:
    """Tokens of known texts."""
    for text in texts:
        await node.store.add_signup_token(SignupToken(text, CREATED))


async def listed(node: Operator, query: str) -> tuple[list[str], str | None]:
    """Texts of a page and the cursor of the next."""
    answer = await node.command("GET", "/signup_tokens" + query)
    assert answer.status == 200, answer.text
    page = json.loads(answer.body)
    return [item["token"] for item in page["items"]], page["next_cursor"]


@pytest_twisted.ensureDeferred
async def test_no_tokens(node: Operator) -> None:
    """An empty listing has all its keys."""
    answer = await node.command("GET", "/signup_tokens")
    assert (answer.header("content-type"), answer.text) == ("application/json", '{"items":[],"next_cursor":null}')


@pytest_twisted.ensureDeferred
async def test_pages(node: Operator) -> None:
    """Ordered by text; the cursor is the page's last token, and null when nothing follows."""
    first, second, third = texts = [f"0000-0000-000{number}" for number in (1, 2, 3)]
    await add_tokens(node, third, first, second)
    assert await listed(node, "") == (texts, None)
    assert await listed(node, "?limit=2") == ([first, second], second)
    assert await listed(node, f"?limit=2&cursor={second}") == ([third], None)
    assert await listed(node, "?limit=3") == (texts, None)
    assert await listed(node, "?cursor=0000-0000-000Z&limit=65535&unknown=x") == ([], None)


@pytest_twisted.ensureDeferred
async def test_largest_page(node: Operator) -> None:
    """A page has 100 tokens if nothing else is asked for, and never more than 1000."""
    await add_tokens(node, *(f"0000-0000-{number:04}" for number in range(1001)))
    texts, cursor = await listed(node, "")
    assert (len(texts), cursor) == (100, "0000-0000-0099")
    texts, cursor = await listed(node, "?limit=5000")
    assert (len(texts), cursor) == (1000, "0000-0000-0999")


@pytest_twisted.ensureDeferred
async def test_states(node: Operator) -> None:
    """Used tokens tell when and by whom; the state filters."""
    await add_tokens(node, "AAAA-AAAA-AAAA", "BBBB-BBBB-BBBB")
    await sign_up(node, KEY, "BBBB-BBBB-BBBB")
    assert await listed(node, "?state=unused") == (["AAAA-AAAA-AAAA"], None)
    assert await listed(node, "?state=used") == (["BBBB-BBBB-BBBB"], None)
    assert await listed(node, "?state=all") == (["AAAA-AAAA-AAAA", "BBBB-BBBB-BBBB"], None)
    used = json.loads((await node.command("GET", "/signup_tokens?state=used")).body)["items"]
    time = "2026-10-22T10:11:12.123456"
    assert used == [{"token": "BBBB-BBBB-BBBB", "created_at": time, "used_at": time, "used_by": KEY, "quota": {}}]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=0", "limit: number would be zero for non-zero type"),
        ("limit=", "limit: cannot parse integer from empty string"),
        ("limit=-1", "limit: invalid digit found in string"),
        ("limit=abc", "limit: invalid digit found in string"),
        ("limit=1.5", "limit: invalid digit found in string"),
        ("limit=%D9%A1", "limit: invalid digit found in string"),
        ("limit=65536", "limit: number too large to fit in target type"),
        ("limit=" + "9" * 9000, "limit: number too large to fit in target type"),
        ("state=", "state: unknown variant ``, expected one of `all`, `used`, `unused`"),
        ("state=Used", "state: unknown variant `Used`, expected one of `all`, `used`, `unused`"),
        ("cursor=", "cursor: Invalid signup code id"),
        ("cursor=JZY0D6MYZFNG", "cursor: Invalid signup code id"),
        ("cursor=JZY0-D6MY-ZFNU", "cursor: Invalid signup code id"),
        ("state=all&state=all", "duplicate field `state`"),
        ("state=x&limit=0", "state: unknown variant `x`, expected one of `all`, `used`, `unused`"),
    ],
    ids=lambda text: text[:30],
)
@pytest_twisted.ensureDeferred
async def test_bad_queries(node: Operator, query: str, reason: str) -> None:
    """A bad query is 400 and names the key; the first mistake is told."""
    answer = await node.command("GET", f"/signup_tokens?{query}")
    assert (answer.status, answer.text) == (400, f"Failed to deserialize query string: {reason}")


# --- the contract -------------------------------------------------------------------------------------------------

CONTRACT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent.parent / "openapi" / "openapi-admin.yml").read_text("utf-8")
)

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}


def check(value: Any, schema: dict[str, Any]) -> None:
    """Assert that a value is what a schema of the contract describes."""
    while "$ref" in schema:
        schema = CONTRACT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for part in schema.get("allOf", []):
        check(value, part)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert not kinds or any(isinstance(value, TYPES[kind]) for kind in kinds), (value, schema)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value)
        for name, member in value.items():
            if "properties" in schema:
                assert name in schema["properties"]
                check(member, schema["properties"][name])
    if isinstance(value, list):
        for item in value:
            check(item, schema["items"])


@pytest.mark.parametrize(
    ("method", "path", "target", "body"),
    [
        ("GET", "/", "/", None),
        ("GET", "/info", "/info", None),
        ("GET", "/generate_signup_token", "/generate_signup_token", None),
        ("POST", "/generate_signup_token", "/generate_signup_token", b'{"storage_quota_mb":"unlimited"}'),
        ("POST", "/generate_signup_token", "/generate_signup_token", b'{"rate_read":5}'),
        ("GET", "/signup_tokens", "/signup_tokens?limit=1", None),
        ("GET", "/signup_tokens", "/signup_tokens?limit=0", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_contract(node: Operator, method: str, path: str, target: str, body: bytes | None) -> None:
    """Status, media type and JSON of each answer are among those that the official description promises."""
    await add_tokens(node, "AAAA-AAAA-AAAA", "BBBB-BBBB-BBBB")
    await sign_up(node, KEY, "AAAA-AAAA-AAAA")
    described = CONTRACT["paths"][path][method.lower()]["responses"]
    answer = await node.command(method, target, JSON if body else None, body)
    content = described[str(answer.status)].get("content")
    if content is None:
        return
    media = (answer.header("content-type") or "").partition(";")[0]
    assert media in content
    if media == "application/json":
        check(json.loads(answer.body), content[media]["schema"])
    if "401" in described:
        assert (await node.ask(method, target)).status == 401


@pytest_twisted.ensureDeferred
async def test_the_password_is_not_in_a_repr(node: Operator) -> None:
    """What a log might show of the site does not hold the password."""
    assert "AdminSite" in repr(node.site)
    assert PASSWORD not in repr(node.site)
