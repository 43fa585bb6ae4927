"""The client API against its OpenAPI description: each operation, each status that is listed for it, over real sockets.

Every status of every operation has a row in `asked.ROWS`, or stands in `UNPROVOKED` with the reason; what is answered
beyond the description stands in `BEYOND`. So neither can be forgotten. Where the description lets a client show a
bearer or a cookie, a row is played with each.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import frozen

from pubky_homeserver.core.quotas import UserQuota
from tests.web.asked import DESCRIPTION, LIMIT, OPERATIONS, ROWS, Row, World, world
from tests.web.client import Answer
from tests.web.served import served

UNPROVOKED: dict[tuple[str, int], str] = {}
"""Operation and status that no row shows → why not."""

_NOTE = "the official homeserver answers so too, its description is silent"
_RANGES = "ranges work here"
_CONDITIONS = "HEAD honours conditions as GET does"
BEYOND: dict[tuple[str, int], str] = {
    **{
        (operation, status): _NOTE
        for operation, statuses in {
            "grantSignup": (403, 413, 415, 422),
            "createGrantSession": (413, 415, 422),
            "deleteGrantSession": (400, 401, 403, 404, 413, 415, 422),
            "cookieSignup": (413,),
            "cookieSignin": (413,),
            "cookieSignout": (400,),
            "headEntry": (400,),
            "putEntry": (400,),
            "deleteEntry": (400,),
        }.items()
        for status in statuses
    },
    ("createGrantSession", 403): "a grant's id that another account or client used is not accepted",
    ("getPathAddressedEntry", 206): _RANGES,
    ("getPathAddressedEntry", 416): _RANGES,
    ("getEntry", 206): _RANGES,
    ("getEntry", 416): _RANGES,
    ("headPathAddressedEntry", 304): _CONDITIONS,
    ("headEntry", 304): _CONDITIONS,
}
"""Operation and status that are answered though the description does not list them → why."""

MORE_METHODS: dict[str, set[str]] = {
    "/": {"HEAD"},
    "/info": {"HEAD"},
    "/session": {"HEAD"},
    "/auth/grant/session": {"HEAD"},
    "/auth/grant/sessions": {"HEAD"},
    "/events/": {"HEAD"},
    "/storage/{user_z32}/{path}": {"LOCK", "UNLOCK"},
}
"""Methods of a path that stand in the description's prose, or go without saying."""


@frozen
class Play:
    """A row, and how its credentials are shown."""

    row: Row
    scheme: str | None

    def __str__(self) -> str:
        said = f"{self.row.operation} {self.row.status} {self.row.target}"
        return f"{said} {self.row.who} {self.scheme}" if self.scheme else said


def spelled(row: Row, names: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Target and fields of a row's request."""
    headers = {name: value.format(**names) for name, value in row.headers.items()}
    owner, colon, path = row.target.partition(":/")
    if not colon or "/" in owner:
        return row.target.format(**names), headers
    path = "/" + path.format(**names)
    if OPERATIONS[row.operation].path.startswith("/storage/"):
        return f"/storage/{names[owner]}{path}", headers
    return path, headers | {"pubky-host": names[owner]}


@asynccontextmanager
async def new_world(closed: bool) -> AsyncIterator[World]:
    """A world of one's own; `closed`: signing up costs a token."""
    async with served(token_required=closed, default_limit=LIMIT) as server:
        yield await world(server, (await server.accounts.new_signup_token(UserQuota())).token if closed else None)


@pytest_twisted.async_yield_fixture(scope="module")
async def shared() -> AsyncIterator[dict[bool, World]]:
    """Two worlds for all that changes nothing: open and closed."""
    async with new_world(False) as opened, new_world(True) as closed:
        yield {False: opened, True: closed}


async def play(there: World, row: Row, scheme: str | None) -> tuple[str, dict[str, str], bytes | None, Answer]:
    """Ask what a row asks: the request and the answer."""
    target, headers = spelled(row, there.names)
    body = row.body(there) if callable(row.body) else row.body
    shown = there.credentials(row.who, scheme) if row.who and scheme else {}
    answer = await there.server.ask(OPERATIONS[row.operation].method, target, headers | shown, body)
    return target, headers, body, answer


@pytest.mark.parametrize("case", [Play(row, scheme) for row in ROWS for scheme in row.schemes], ids=str)
@pytest_twisted.ensureDeferred
async def test_an_answer_is_as_described(case: Play, shared: dict[bool, World]) -> None:
    """What is answered has the status, the type, the fields and the JSON that the official description promises."""
    row, operation = case.row, OPERATIONS[case.row.operation]
    if row.status >= 300 or operation.method in ("GET", "HEAD"):
        target, headers, body, answer = await play(shared[row.closed], row, case.scheme)
    else:
        async with new_world(row.closed) as there:
            target, headers, body, answer = await play(there, row, case.scheme)
    assert answer.status == row.status, answer
    if row.status not in operation.responses:
        assert (row.operation, row.status) in BEYOND
        return
    if row.status < 400:
        DESCRIPTION.check_request(operation, target, headers, body)
    DESCRIPTION.check_answer(operation, answer, row.lacks)


def test_no_operation_and_no_status_is_forgotten() -> None:
    """Each status of each operation is provoked or has a reason; so has each that is answered beyond."""
    described = {(one.name, status) for one in OPERATIONS.values() for status in one.responses}
    provoked = {(row.operation, row.status) for row in ROWS}
    assert described - provoked == UNPROVOKED.keys()
    assert provoked - described == BEYOND.keys()


@pytest.mark.parametrize("path", list(DESCRIPTION.document["paths"]))
@pytest_twisted.ensureDeferred
async def test_a_path_has_the_methods_that_are_described(path: str) -> None:
    """Every other method is 405, and `Allow` names those that there are."""
    methods = {one.method for one in OPERATIONS.values() if one.path == path} | MORE_METHODS.get(path, set())
    async with served() as server:
        user = await server.sign_up()
        target = path.format(user_z32=user.pubky, path="pub/a", token="AAAA-AAAA-AAAA", gid="abc")
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "LOCK", "UNLOCK", "PROPFIND"):
            answer = await server.ask(method, target, user.headers, b"" if method in ("PUT", "POST") else None)
            assert (answer.status == 405) == (method not in methods), (method, answer)
            if answer.status == 405:
                assert {one.strip() for one in (answer.header("allow") or "").split(",")} == methods
                assert not answer.body
