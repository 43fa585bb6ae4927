r"""Where reading a directory begins and ends.

An account's files are members of one sorted set with equal scores, so they lie in the order of their bytes: path, NUL,
record. A path holds no control character. So the member of a path lies between `path\0` and `path\1`, all below a
directory between `directory/` and `directory0` (`0` is the character after the slash), and the order of members is
that of their paths. Redis compares bytes; Lua compares by the locale, so bounds are made here.

A **shallow** listing shows a folder once, by its path with a slash, and a cursor is compared with what is shown. The
line of a folder stands for all that lies in it: going on after the line means going on after the folder.
"""

from pubky_homeserver.core.paths import PRIVATE, PUBLIC


def whole(directory: str) -> tuple[str, str]:
    """All that lies below a directory, as `ZRANGE … BYLEX` wants it."""
    return f"[{directory}", f"({_end(directory)}"


def beyond(directory: str, after: str, reverse: bool, shallow: bool) -> tuple[str, str]:
    """What lies below a directory and comes after a cursor, any path or empty; reverse: from the greater end."""
    first, last = directory, _end(directory)
    folder = _folder(directory, after) if shallow else ""
    if reverse and after:
        # The line of the folder that the cursor lies in is smaller than the cursor, unless it is the cursor.
        bound = _end(folder) if folder not in {"", after} else after + "\0" * (not folder)
        last = max(first, min(last, bound))
    elif after:
        first = min(last, max(first, _end(folder) if folder else after + "\1"))
    return (f"({last}", f"[{first}") if reverse else (f"[{first}", f"({last}")


def in_log(private: bool, after: str) -> tuple[str, str]:
    """The files of a log after a path, any text or empty. The private one has what lies below `/priv/`.

    The public one has all that is above: what lies below `/pub/`, and names without a slash.
    """
    if private:
        return beyond(PRIVATE, after, False, False)
    return f"[{max(PUBLIC, after + chr(1))}", "+"


def page_of_log(private: bool, upto: str) -> tuple[str, str]:
    """Where a log begins, and the bound behind a path in it, or behind all of it if the path lies beyond."""
    stop = upto + "\1"
    return (PRIVATE, f"({min(stop, _end(PRIVATE))}") if private else (PUBLIC, f"({stop}")


def _end(directory: str) -> str:
    """The smallest text above all that begin with a directory."""
    return directory[:-1] + "0"


def _folder(directory: str, path: str) -> str:
    """The child folder of a directory in which a path lies, or which it is; empty if it lies in none."""
    if not path.startswith(directory):
        return ""
    return path[: path.find("/", len(directory)) + 1]
