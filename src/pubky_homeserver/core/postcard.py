"""The encoding of sign-in tokens and session records: postcard, as far as they need it.

Fields follow each other without names or types. Numbers are varints (LEB128: seven bits a byte, low ones
first, the top bit says that more follow), texts are their length and their UTF-8, and arrays of a fixed
length are bare bytes. The errors are the official library's own words, since they reach clients.
"""

from attrs import define, field

_VARINT_LENGTH = 10
"""Bytes: 64 bits in groups of seven."""


class Malformed(ValueError):
    """Bytes that do not decode."""


@define
class Reader:
    """Takes one field after the other from the front of some bytes. What is left at the end is not its business."""

    _encoded: bytes = field(repr=False)
    _position: int = 0

    def take(self, length: int) -> bytes:
        """The next bytes. Raises `Malformed` if there are fewer."""
        end = self._position + length
        if end > len(self._encoded):
            raise Malformed("Hit the end of buffer, expected more data")
        taken = self._encoded[self._position : end]
        self._position = end
        return taken

    def number(self) -> int:
        """A varint of up to 64 bits. Raises `Malformed`."""
        value = 0
        for index in range(_VARINT_LENGTH):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                break
        if byte >= 0x80 or value >> 64:
            raise Malformed("Found a varint that didn't terminate. Is the usize too big for this platform?")
        return value

    def text(self) -> str:
        """A length and that many bytes of UTF-8. Raises `Malformed`."""
        taken = self.take(self.number())
        try:
            return taken.decode()
        except UnicodeDecodeError:
            raise Malformed("Tried to parse invalid utf-8") from None


def encode_number(value: int) -> bytes:
    """A varint; `value` has at most 64 bits."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_text(text: str) -> bytes:
    """A length and the text's UTF-8."""
    encoded = text.encode()
    return encode_number(len(encoded)) + encoded
