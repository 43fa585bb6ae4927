"""Base-32 without padding, in the two spellings of the Pubky protocol.

Both write five bits a character, most significant bit first, and fill the last character with zero bits. A reader
takes any number of characters and drops the bits that do not make a whole byte, so a last character with surplus
bits set is another spelling of the same bytes, not an error.
"""

from __future__ import annotations

from base64 import b32encode

from attrs import field, frozen

# The digits that Python's int(text, 32) reads, in order, and those that base64.b32encode writes (RFC 4648).
_PYTHON = b"0123456789abcdefghijklmnopqrstuv"
_RFC_4648 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@frozen
class Base32:
    """An alphabet of 32 ASCII characters. `aliases` are further characters that only the reader knows."""

    alphabet: str
    aliases: dict[str, str] = field(factory=dict)
    # Tables for bytes.translate, and the characters that the reader takes.
    _writer: bytes = field(init=False, repr=False, eq=False)
    _reader: bytes = field(init=False, repr=False, eq=False)
    _known: bytes = field(init=False, repr=False, eq=False)

    @_writer.default
    def _make_writer(self) -> bytes:
        return bytes.maketrans(_RFC_4648, self.alphabet.encode())

    @_reader.default
    def _make_reader(self) -> bytes:
        values = dict(zip(self.alphabet.encode(), _PYTHON, strict=True))
        values |= {ord(alias): values[ord(character)] for alias, character in self.aliases.items()}
        return bytes.maketrans(bytes(values), bytes(values.values()))

    @_known.default
    def _list_known(self) -> bytes:
        return (self.alphabet + "".join(self.aliases)).encode()

    def encode(self, raw: bytes) -> str:
        """Spell bytes: 8 characters for every 5 bytes, a shorter rest without padding."""
        length = (len(raw) * 8 + 4) // 5
        return b32encode(raw)[:length].translate(self._writer).decode()

    def decode(self, text: str) -> bytes:
        """Read bytes, 5 for every 8 characters. ValueError for a character outside the alphabet."""
        try:
            spelled = text.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("not in the base-32 alphabet") from None
        if spelled.translate(None, self._known):
            raise ValueError("not in the base-32 alphabet")
        if not spelled:
            return b""
        length, surplus = divmod(len(spelled) * 5, 8)
        number: int = int(spelled.translate(self._reader), 32)
        return (number >> surplus).to_bytes(length, "big")


# Of public keys: lower case only, without the easily confused l, v, 0 and 2.
Z_BASE_32 = Base32("ybndrfg8ejkmcpqxot1uwisza345h769")

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Of timestamps, session secrets and signup tokens: writes upper case, reads both, I and L as 1, O as 0, never U.
CROCKFORD = Base32(
    _CROCKFORD,
    {letter.lower(): letter for letter in _CROCKFORD if letter.isalpha()}
    | {"I": "1", "i": "1", "L": "1", "l": "1", "O": "0", "o": "0"},
)
