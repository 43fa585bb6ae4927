"""The engines under test: the system's GnuTLS, and the OpenSSL inside a package, for Debian 12's own is too old."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pkarr.tls import gnutls, openssl
from pkarr.tls.session import IEngine

NAMES = ("gnutls", "openssl")


@cache
def installed(name: str) -> IEngine:
    """An engine by its name."""
    if name == "gnutls":
        return gnutls.load()
    found = find_spec("psycopg_binary")
    assert found is not None, "psycopg-binary, whose OpenSSL is tested, is not installed"
    assert found.origin is not None
    (library,) = Path(found.origin).parents[1].glob("psycopg_binary.libs/libssl-*.so.3")
    return openssl.load(str(library))
