"""The judge of requests and answers by an OpenAPI description."""

from typing import Any

import pytest
from attrs import evolve

from tests.web.asked import DESCRIPTION, JSON, OPERATIONS
from tests.web.client import Answer
from tests.web.described import Broken

OK = Answer(200, [("content-type", "application/json"), ("cache-control", "no-store")], b'{"features":["a"]}')
INFO = OPERATIONS["getInfo"]
SESSION = {
    "homeserver": "h", "pubky": "p", "client_id": "c", "capabilities": ["/:rw"], "grant_id": "g",
    "token_expires_at": 1, "grant_expires_at": 2, "created_at": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (evolve(OK, status=404), "answers 404"),
        (evolve(OK, headers=OK.headers[:1]), "it lacks"),
        (evolve(OK, headers=[("content-type", "text/plain"), *OK.headers[1:]]), "a body of type text/plain"),
        (evolve(OK, body=b'{"features":"a"}'), "is no array"),
        (evolve(OK, body=b'{"features":[1]}'), "is no string"),
        (evolve(OK, body=b"{}"), "has no features"),
        (evolve(OK, body=b'{"features":[],"more":1}'), "has a more that nobody described"),
    ],
)
def test_a_broken_promise_is_seen(answer: Answer, complaint: str) -> None:
    """The judge accepts what is described and nothing else."""
    DESCRIPTION.check_answer(INFO, OK)
    with pytest.raises(Broken, match=complaint):
        DESCRIPTION.check_answer(INFO, answer)


@pytest.mark.parametrize(
    ("member", "value"),
    [("created_at", -1), ("created_at", 2**63), ("created_at", 1.5), ("created_at", True), ("capabilities", "/:rw")],
)
def test_a_wrong_member_is_seen(member: str, value: object) -> None:
    """Types and bounds hold in the depth of a JSON answer too."""
    schema = {"$ref": "#/components/schemas/GrantSessionResponse"}
    DESCRIPTION.check({"token": "t", "session": SESSION}, schema, "body")
    with pytest.raises(Broken, match=member):
        DESCRIPTION.check({"token": "t", "session": SESSION | {member: value}}, schema, "body")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "enum": ["valid", "used"]}, "new"),
        ({"type": "string", "format": "date-time"}, "2026-11-22 22:40:16"),
        ({"type": "string", "format": "date-time"}, "2026-11-22T22:40:16"),
        ({"type": "string", "format": "uuid"}, "x"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "abcd"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "a"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "A"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, 10),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"]),
        ({"type": "string", "oneOf": []}, "a"),
    ],
)
def test_each_word_of_a_schema_demands(schema: dict[str, Any], value: object) -> None:
    """Each word that the judge knows can fail, and one that it does not know does."""
    with pytest.raises(Broken):
        DESCRIPTION.check(value, schema, "value")


@pytest.mark.parametrize(
    ("operation", "target", "headers", "body", "complaint"),
    [
        ("getPathAddressedEntry", "/storage/short/pub/a", {}, None, "below minLength"),
        ("getPathAddressedEntry", f"/storage/{'l' * 52}/pub/a", {}, None, "is not"),
        ("getEntry", "/pub/?limit=0", {}, None, "below minimum"),
        ("getEntry", "/pub/?limit=x", {}, None, "is no integer"),
        ("getEntry", "/pub/?shallow=yes", {}, None, "is no boolean"),
        ("getEntry", "/pub/?more=1", {}, None, "has a more"),
        ("getClientEventStream", "/events-stream", {}, None, "there is no user"),
        ("getRoot", "/", {}, b"x", "a body that nobody described"),
        ("cookieSignin", "/session", {}, None, "there is no body"),
        ("createGrantSession", "/auth/grant/session", {}, b"x", "was not described"),
        ("createGrantSession", "/auth/grant/session", JSON, b'{"grant":"x"}', "has no pop"),
    ],
)
def test_a_request_that_is_not_invited_is_seen(
    operation: str, target: str, headers: dict[str, str], body: bytes | None, complaint: str
) -> None:
    """A row of the table above must be a request that the description invites."""
    with pytest.raises(Broken, match=complaint):
        DESCRIPTION.check_request(OPERATIONS[operation], target, headers, body)
