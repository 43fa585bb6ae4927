"""What clients say about locks, and what they read of them."""

import re
from time import perf_counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.core.locks import (
    MAX_LOCKINFO,
    check_lockinfo,
    describe,
    granted_seconds,
    lock_token,
    new_token,
    timeout_header,
    tokens_in,
)
from pubky_homeserver.core.records import Lock

ONE, TWO = "opaquelocktoken:one", "opaquelocktoken:two"

LOCKINFO = (
    '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype></D:lockinfo>"
)


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        ([f'<http://x/a> (Not <{ONE}> ["etag"]) (<{TWO}>) (<urn:other>)'], [ONE, TWO]),
        ([f"(<{ONE}>)"], [ONE]),
        ([f"(< {ONE} >)"], [ONE]),
        ([f"(<{ONE}>)", f"(<{TWO}>)"], [ONE, TWO]),
        ([f"(<{ONE}>) <{TWO}"], [ONE]),
        ([f"<unterminated (<{ONE}>)"], []),
        ([f"<{ONE}"], []),
        ([f"({ONE})"], []),
        (['(["etag"])', "", "<>", "<", ">", "><"], []),
        (["(<OPAQUELOCKTOKEN:one>)"], []),
        (["(<opaquelocktoken:>)"], ["opaquelocktoken:"]),
        ([], []),
    ],
)
def test_tokens_of_if(lines: list[str], tokens: list[str]) -> None:
    """The tokens count, in all lines; lists, tags, `Not` and entity tags do not, and a `<` without end ends it."""
    assert tokens_in(lines) == tokens


@pytest.mark.parametrize("header", [f"<{ONE}>", ONE, f" <{ONE}> ", f"< {ONE} >", f"x <{ONE}> <{TWO}>", f" {ONE}"])
def test_lock_token(header: str) -> None:
    """A token in angle brackets or bare; of several the first in brackets."""
    assert lock_token(header) == ONE


@pytest.mark.parametrize(
    "header", [None, "", "<>", "<urn:x>", "urn:x", f"<{ONE}", f"<urn:x> <{ONE}>", "one", f"x{ONE}"]
)
def test_lock_token_refused(header: str | None) -> None:
    """Without a token of the scheme there is nothing to give back."""
    with pytest.raises(InvalidRequest, match=r"^Missing or malformed Lock-Token header$"):
        lock_token(header)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 30),
        ("", 30),
        ("Second-10", 10),
        ("Second-99999", 60),
        ("Infinite, Second-10", 60),
        ("infinite", 60),
        ("INFINITE", 60),
        ("Second-0", 1),
        ("Second--5", 1),
        ("Second-+5", 5),
        ("Second-1", 1),
        ("Second-60", 60),
        ("Second-61", 60),
        ("Second-007", 7),
        (" Second-7 ,Second-9", 7),
        ("nonsense", 30),
        ("nonsense, Second-9", 9),
        ("second-9", 30),
        ("Second-", 30),
        ("Second- 9", 30),
        ("Second-9.5, Second-8", 8),
        ("Second-1_0", 30),
        ("Second-٣", 30),
        (f"Second-{2**63 - 1}", 60),
        (f"Second--{2**63}", 1),
        (f"Second-{2**63}", 30),
        ("Second-" + "9" * 60_000, 30),
        ("Second-" + "0" * 60_000 + "5", 5),
    ],
)
def test_granted_seconds(header: str | None, seconds: int) -> None:
    """The first wish that can be read counts, from 1 to 60 seconds; without one it is 30."""
    assert granted_seconds(header) == seconds


@pytest.mark.parametrize(
    "lockinfo",
    [
        "",
        LOCKINFO,
        LOCKINFO.replace("D:", "").replace("xmlns:D", "xmlns"),
        LOCKINFO.replace("D:", "any-thing.else:"),
        "\ufeff" + LOCKINFO,
        "<exclusive></exclusive><write></write>",
        "<exclusive attribute='>'/>\n<write\n/>",
        LOCKINFO.replace("</D:lockinfo>", "<D:owner>shared, and &lt;shared/></D:owner></D:lockinfo>"),
        LOCKINFO + "<!-- <shared/> -->",
        LOCKINFO + "<![CDATA[ <shared/> ]]>",
        LOCKINFO + "<?shared <shared/> ?>",
        LOCKINFO + "</shared><owner a='<shared/>' b=\"<shared/>\"/>",
        LOCKINFO + "<sharedlock/><sha/><ex:sharedx/>",
    ],
)
def test_exclusive_write_locks(lockinfo: str) -> None:
    """Elements count, by their names without prefix; text, comments and values of attributes do not."""
    check_lockinfo(lockinfo.encode())


@pytest.mark.parametrize(
    "lockinfo",
    [
        b"<D:lockinfo/>",
        b" ",
        b"exclusive write",
        b"<exclusive/>",
        b"<write/>",
        b"</exclusive></write>",
        b"<exclusive/><write",
        b"<exclusive/><Write/>",
        b"<!--<exclusive/><write/>-->",
        b"<!--<exclusive/><write/>",
        b"<![CDATA[<exclusive/><write/>",
        b"<?xml <exclusive/><write/>",
        b"<a b='<exclusive/><write/>'/>",
        LOCKINFO.replace("exclusive", "shared").encode(),
        (LOCKINFO + "<D:shared/>").encode(),
        (LOCKINFO + "<x:y:shared a='1'>").encode(),
        LOCKINFO.encode() + b"\xff",
        LOCKINFO.encode("utf-16"),
    ],
)
def test_other_locks(lockinfo: bytes) -> None:
    """Neither shared locks, nor those of another kind, nor what says not what it wants."""
    with pytest.raises(InvalidRequest, match=r"^Only exclusive write locks are supported$"):
        check_lockinfo(lockinfo)


@pytest.mark.parametrize(
    "piece", ["<", "<a", "<a ", '<a "', "<a '\"", "<!--", "<![CDATA[", "<?", "<a b='c' ", "<a '<a \"", "<>", "<<>"]
)
def test_no_text_takes_long(piece: str) -> None:
    """Time grows with the length of what is read and not with its square: ten milliseconds, not seconds."""
    began = perf_counter()
    with pytest.raises(InvalidRequest):
        check_lockinfo((piece * MAX_LOCKINFO)[:MAX_LOCKINFO].encode())
    assert tokens_in([piece * 60_000]) == []
    assert perf_counter() - began < 1


@given(st.binary(max_size=200), st.text(max_size=200))
def test_anything_can_be_read(body: bytes, text: str) -> None:
    """Whatever arrives is read or refused with a sentence."""
    for read in (lambda: check_lockinfo(body), lambda: check_lockinfo(text.encode()), lambda: lock_token(text)):
        try:
            read()
        except InvalidRequest:
            pass
    assert all(token.startswith("opaquelocktoken:") for token in tokens_in([text]))
    assert 1 <= granted_seconds(text) <= 60


def test_a_lock_as_xml() -> None:
    """The answer says everything of the lock, in one line, and nothing in the path is taken for markup."""
    lock = Lock(ONE, 17)
    root = '/storage/x/pub/a&b<c>"d"%20'
    body = describe(lock, root)
    assert body == (
        b'<?xml version="1.0" encoding="utf-8"?><D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock>'
        b"<D:locktype><D:write/></D:locktype><D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth>"
        b"<D:timeout>Second-17</D:timeout><D:locktoken><D:href>opaquelocktoken:one</D:href></D:locktoken>"
        b"<D:lockroot><D:href>/storage/x/pub/a&amp;b&lt;c&gt;&quot;d&quot;%20</D:href></D:lockroot>"
        b"</D:activelock></D:lockdiscovery></D:prop>"
    )
    found = ElementTree.fromstring(body).find("{DAV:}lockdiscovery/{DAV:}activelock/{DAV:}lockroot/{DAV:}href")
    assert found is not None
    assert found.text == root
    assert timeout_header(lock) == "Second-17"


def test_tokens_are_new() -> None:
    """A token is a random UUID (version 4) in the scheme, and no record shows it in a log."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert re.fullmatch(
            r"opaquelocktoken:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", token
        )
        assert token not in repr(Lock(token, 1))
