"""Requests between homeservers, signed: HTTP message signatures (RFC 9421) with the homeserver's Ed25519 key.

A signature covers the method, path and query as they were sent, the date, whom the request is from, whom it is for,
and the digest of the body if there is one (RFC 9530). Scheme and host are left out, for proxies change them; that a
request is for nobody else says the receiver's key. There is no nonce: whoever repeats a request within its time gets
the same answer once more, over a connection of his own, and every request is safe to repeat.

    Date: Mon, 23 Nov 2026 12:00:00 GMT
    Pubky-Peer: <z32 of the sender>
    Pubky-Receiver: <z32 of the receiver>
    Content-Digest: sha-256=:<base64>:                       (with a body only)
    Signature-Input: sig1=("@method" "@path" …);created=…;keyid="<z32 of the sender>";alg="ed25519";tag="pubky-peer"
    Signature: sig1=:<base64>:
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

from attrs import field, frozen
from http_message_signatures import (
    ContentDigest,
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
)
from http_message_signatures import InvalidSignature as Refused

from pkarr.keys import InvalidPublicKey, InvalidSignature, Keypair, PublicKey

WINDOW = 300
"""Seconds that the clocks of two homeservers may be apart, and a request be on its way."""

TAG = "pubky-peer"
"""What the key says it signs for (RFC 9421, 2.3): no signature for something else can be shown here."""

LABEL = "sig1"
COVERED = ("@method", "@path", "@query", "date", "pubky-peer", "pubky-receiver")
DIGEST = "content-digest"

LONGEST = {
    "date": 40,
    "pubky-peer": 52,
    "pubky-receiver": 52,
    DIGEST: 200,
    "signature-input": 512,
    "signature": 256,
}
"""The fields of a request that matter here, and bytes that each may have: with some room above what `sign` writes."""

MAX_TARGET = 8192
"""Bytes of path and query."""

_TARGET = re.compile(r"/[\x21-\x22\x24-\x7e]*", re.ASCII)  # no blank and no #
_PLAIN = re.compile(
    rf'{LABEL}=(?P<params>\((?P<covered>[^()]*)\);created=(?P<created>[0-9]{{1,12}});keyid="(?P<key>[a-z0-9]{{52}})"'
    rf';alg="ed25519";tag="{TAG}")',
    re.ASCII,
)  # the form that `sign` gives it
_SIGNATURE = re.compile(rf"{LABEL}=:([A-Za-z0-9+/]{{86}}==):", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]*", re.ASCII)


class BadSignature(ValueError):
    """A request that is not signed as it must be; the text says what is wrong, for the operator of the sender."""


@frozen
class Head:
    """The head of a request, as far as it is signed."""

    method: str
    target: str
    """Path and query, as sent."""
    fields: Mapping[str, Sequence[str]]
    """The values of each field by its lower-case name: those in `LONGEST` are looked at."""
    has_body: bool = False


@frozen
class Signed:
    """A request whose head a peer has signed."""

    sender: str
    """The peer's key."""
    _digest: str | None = None

    def check(self, body: bytes) -> None:
        """Return if this is the body that was signed. Raises `BadSignature`."""
        if self._digest is None and not body:
            return
        try:
            ContentDigest.verify(self._digest or "", body)
        except Refused as error:
            raise BadSignature(str(error)) from None


def sign(keypair: Keypair, receiver: str, method: str, target: str, now: float, body: bytes = b"") -> dict[str, str]:
    """The fields that sign a request at a time, in seconds since the epoch."""
    sender, created = keypair.public_key.z32, int(now)
    added = {"Date": formatdate(created, usegmt=True), "Pubky-Peer": sender, "Pubky-Receiver": receiver}
    if body:
        ContentDigest.add(added, body)
    signer = HTTPMessageSigner(signature_algorithm=Ed25519)
    prepared = signer.prepare(
        _Message(method, target, added),
        key_id=sender,
        created=datetime.fromtimestamp(created, UTC),
        label=LABEL,
        tag=TAG,
        covered_component_ids=(*COVERED, DIGEST) if body else COVERED,
        use_existing_digest=bool(body),
    )
    signature = b64encode(keypair.sign(prepared.signature_base)).decode("ascii")
    return {
        **added,
        "Signature-Input": f"{LABEL}={prepared.signature_params}",
        "Signature": f"{LABEL}=:{signature}:",
    }


def verify(head: Head, receiver: str, peers: Container[str], now: float) -> Signed:
    """Who signed a request, if that is one of these peers and it is for us. Raises `BadSignature`.

    All that is cheap to see comes first, so strangers cost next to nothing.
    """
    found = _fields(head)
    sender = found.get("pubky-peer", "")
    if found.get("pubky-receiver") != receiver:
        raise BadSignature("The request is not for this homeserver")
    if sender not in peers:
        raise BadSignature("This homeserver does not know the sender as a peer")
    if head.has_body and DIGEST not in found:
        raise BadSignature("The body has no digest")
    required = (*COVERED, DIGEST) if DIGEST in found else COVERED
    created = _created_plainly(head, found, sender, required)
    if created is not None:
        _check_time({"created": created}, found["date"], now)
        return Signed(sender, found.get(DIGEST))
    verifier = _Verifier(signature_algorithm=Ed25519, key_resolver=_Keys(sender))
    try:
        results = verifier.verify(
            _Message(head.method, head.target, found), max_age=None, expect_tag=TAG, require_components=required
        )
    except HTTPMessageSignaturesException as error:
        raise BadSignature(str(error)) from None
    if len(results) != 1:
        raise BadSignature("One signature is enough")
    _check_time(results[0].parameters, found["date"], now)
    return Signed(sender, found.get(DIGEST))


def _fields(head: Head) -> dict[str, str]:
    """The fields that matter, each once and short."""
    if len(head.target) > MAX_TARGET or not _TARGET.fullmatch(head.target):
        raise BadSignature("The target is too long, or not written as one")
    found: dict[str, str] = {}
    for name, longest in LONGEST.items():
        values = head.fields.get(name, ())
        if len(values) > 1 or any(len(value) > longest or not _PRINTABLE.fullmatch(value) for value in values):
            raise BadSignature(f"The field {name} is there twice, too long, or not text")
        if values:
            found[name] = values[0]
    return found


def _created_plainly(head: Head, found: Mapping[str, str], sender: str, required: Sequence[str]) -> int | None:
    """When a request was signed that is signed as `sign` does it, and rightly; None if the library has to look at it.

    Nearly all requests are, and the library takes three times as long to see that.
    """
    match = _PLAIN.fullmatch(found.get("signature-input", ""))
    signature = _SIGNATURE.fullmatch(found.get("signature", ""))
    covered = " ".join(f'"{name}"' for name in required)
    if match is None or signature is None or match["covered"] != covered or match["key"] != sender:
        return None
    path, _, query = head.target.partition("?")
    values = {**found, "@method": head.method, "@path": path, "@query": f"?{query}"}
    if not values.keys() >= set(required):
        return None
    lines = [f'"{name}": {values[name]}' for name in required]
    base = "\n".join((*lines, f'"@signature-params": {match["params"]}'))
    try:
        PublicKey.from_z32(sender).verify(base.encode(), b64decode(signature[1]))
    except (InvalidSignature, InvalidPublicKey, ValueError):
        return None
    return int(match["created"])


def _check_time(parameters: Mapping[str, Any], date: str, now: float) -> None:
    """When a signature was made, as it says of itself."""
    created, expires = parameters.get("created"), parameters.get("expires")
    if not isinstance(created, int):
        raise BadSignature("The signature does not say when it was made")
    if abs(now - created) > WINDOW:
        raise BadSignature(f"The date is more than {WINDOW} s from this homeserver's clock: see the field Date")
    if formatdate(created, usegmt=True) != date:
        raise BadSignature("The signature was made at another time than the date says")
    if isinstance(expires, int) and expires < now:
        raise BadSignature("The signature has expired")


@frozen
class _Message:
    """A request as the library wants to see it. Its host is not covered, and so can be any."""

    method: str
    _target: str
    headers: Mapping[str, str]
    url: str = field(init=False)

    @url.default
    def _place(self) -> str:
        return f"https://{TAG}{self._target}"


class Ed25519(HTTPSignatureAlgorithm):
    """Ed25519 (RFC 9421, 3.3.6) with the keys of this house."""

    algorithm_id = "ed25519"

    def __init__(self, public_key: PublicKey | None = None, private_key: Keypair | None = None) -> None:
        self._public_key, self._private_key = public_key, private_key

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        assert self._private_key is not None
        return self._private_key.sign(message)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if the signature is the key's; `pkarr.keys.InvalidSignature` if not."""
        assert self._public_key is not None
        self._public_key.verify(message, signature)


@frozen
class _Keys(HTTPSignatureKeyResolver):
    """The key of the sender, under its name; no other."""

    sender: str

    def resolve_public_key(self, key_id: str) -> PublicKey | None:
        return PublicKey.from_z32(key_id) if key_id == self.sender else None


class _Verifier(HTTPMessageVerifier):
    """The library's, but for the clock: `_check_time` looks at the time."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Leave it."""
