r"""Storage paths: `/pub/…` for everybody, `/priv/…` for who may, and nothing else is stored.

A path is *decoded* text; a percent sign in it is a character like any other. Canonical form: it begins with
a slash, has no empty segment, no `.` and no `..`, and no control character or backslash; a segment has at
most 255 bytes of UTF-8 and the whole path 972; the whole path does not end in whitespace. If it ends in a
slash it names a **directory**, else a **file**: `/pub/app/` and `/pub/app` are different paths. Two paths
are the same if their bytes are: no case folding, no Unicode normalisation.

Two parsers make canonical paths, and every other function here takes one. `parse_path` takes only what is
canonical already; `normalize_path` takes what a URL may hold (`//`, `.`, `..`) and resolves it. Both raise
`InvalidPath` with the rule that was broken, and in the same order as the reference, as clients read the
text. Nearly all paths are plain ASCII in canonical form: one regular expression takes those, everything
else goes the long way.
"""

import re
from urllib.parse import quote

from pubky_homeserver.core.errors import InvalidPath

MAX_SEGMENT = 255
"""Bytes of one segment: the longest name of common file systems."""

MAX_PATH = 972
"""Bytes of a path: after the 52 characters of a key it fits the 1,024 bytes of an object store's key."""

PUBLIC = "/pub/"
PRIVATE = "/priv/"

_CANONICAL = re.compile(r"(?=/)(?:/(?!\.\.?(?:/|\Z))[ -.0-\[\]-~]{1,255})*+(?:(?<! )|/)")
r"""Canonical paths of printable ASCII. The first class is U+0020 to U+007E without slash and backslash."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Unicode category Cc."""


def parse_path(text: str) -> str:
    """`text` itself if it is a canonical path. Raises `InvalidPath`."""
    if _is_plain(text):
        return text
    if not text.startswith("/"):
        raise InvalidPath("path must be absolute")
    _check_length(text)
    segments = text[1:].split("/")
    if segments[-1] == "":
        del segments[-1]
    for segment in segments:
        if segment == "":
            raise InvalidPath("path contains an empty segment")
        if segment in {".", ".."}:
            raise InvalidPath(f"path contains a `{segment}` segment")
        _check_segment(segment)
    _check_end(text)
    return text


def normalize_path(text: str) -> str:
    """The canonical path that `text` means: `//` and `.` dropped, `..` resolved. Raises `InvalidPath`.

    Every segment is checked, also one that a later `..` removes. A last `.` or `..` names a directory.
    """
    if _is_plain(text):
        return text
    if not text.startswith("/"):
        raise InvalidPath("path must be absolute")
    kept: list[str] = []
    segments = text.split("/")
    for segment in segments:
        if segment in {"", "."}:
            continue
        if segment == "..":
            if not kept:
                raise InvalidPath("path traverses above root")
            kept.pop()
        else:
            _check_segment(segment)
            kept.append(segment)
    if kept and segments[-1] in {"", ".", ".."}:
        kept.append("")
    path = "/" + "/".join(kept)
    _check_length(path)
    _check_end(path)
    return path


def is_directory(path: str) -> bool:
    """Whether the path names a directory; the root does."""
    return path.endswith("/")


def is_public(path: str) -> bool:
    """Whether everybody may read the path. `/pub` itself, without the slash, is outside."""
    return path.startswith(PUBLIC)


def is_private(path: str) -> bool:
    """Whether only a session with the right capability may read the path."""
    return path.startswith(PRIVATE)


def covers(scope: str, path: str) -> bool:
    """Whether a scope, itself a path, holds `path`: a directory holds itself and all below, a file itself."""
    return path == scope or (scope.endswith("/") and path.startswith(scope))


def ancestors(path: str) -> list[str]:
    """The folders that `path` lies in, without their slashes, nearest first: `/pub/a`, `/pub` of `/pub/a/b`.

    None of them may be an entry if `path` is one. The root is not among them.
    """
    found = []
    end = path.rfind("/", 0, len(path) - 1)
    while end > 0:
        found.append(path[:end])
        end = path.rfind("/", 0, end)
    return found


def url_encode(path: str) -> str:
    """The path in a URL: `%XX` for every byte but ASCII letters and digits, `-`, `_`, `.`, `~` and `/`."""
    return quote(path, safe="/")


def _is_plain(text: str) -> bool:
    """Whether the quick expression takes the path; the length is in bytes because it is ASCII then."""
    return len(text) <= MAX_PATH and _CANONICAL.fullmatch(text) is not None


def _length(text: str) -> int:
    """Bytes of UTF-8. Half a surrogate pair, which JSON can spell, is refused: it has no bytes."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidPath("path is not valid UTF-8") from None


def _check_length(path: str) -> None:
    if (length := _length(path)) > MAX_PATH:
        raise InvalidPath(f"path is {length} bytes; maximum is {MAX_PATH}")


def _check_segment(segment: str) -> None:
    if (length := _length(segment)) > MAX_SEGMENT:
        raise InvalidPath(f"path segment is {length} bytes; maximum is {MAX_SEGMENT}")
    if _CONTROL.search(segment):
        raise InvalidPath("path contains a control character")
    if "\\" in segment:
        raise InvalidPath("path must not contain a backslash")


def _check_end(path: str) -> None:
    if path[-1].isspace():
        raise InvalidPath("path must not end in whitespace")


def revocation_of(grant_id: str) -> str:
    """The name under which an account's public log says that a grant is revoked. Like all names of what is no file it
    has no slash in front, so no reader can ask for it, and no listing comes to it.
    """
    return f"revoked:{grant_id}"


TAKEDOWN = "takedown"
"""The name under which an account's public log says that the operator of its homeserver has taken it down."""


def revoked_by(name: str) -> str | None:
    """The grant that a name says is revoked; None if it says something else."""
    grant_id = name.removeprefix(revocation_of(""))
    return grant_id if grant_id != name else None


def is_name(path: str) -> bool:
    """Whether this names something in a log that is no file."""
    return not path.startswith("/")
