"""What is wrong with a JSON value: the first fault, named and placed as serde does."""

import re

from attrs import define, frozen

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9a-fA-F]{0,4}", re.ASCII)
_DIGITS = re.compile(r"[0-9]*", re.ASCII)
_IDENTS = {"t": "true", "f": "false", "n": "null"}


@frozen
class Fault:
    """Something that should not be there."""

    reason: str
    index: int
    """Of the character; the end of the text if something is missing there."""
    inside: str = "a value"
    """What the end of the text would be the end of."""


class _Found(Exception):  # it is no error
    def __init__(self, reason: str, index: int, inside: str = "a value") -> None:
        self.fault = Fault(reason, index, inside)


def fault_in(text: str, index: int) -> Fault | None:
    """The first fault of the value that begins at `index`; None if it is a value."""
    try:
        _Search(text, index).value()
    except _Found as found:
        return found.fault
    return None


@define
class _Search:
    """Walks through a value. Depth costs no recursion."""

    text: str
    index: int

    def value(self) -> None:
        """Go to the end of the value."""
        closers: list[str] = []
        while True:
            self._begin(closers)
            while True:  # a value has ended
                if not closers:
                    return
                if not self._goes_on(closers):
                    break

    def _begin(self, closers: list[str]) -> None:
        """Go past the value that begins here, or to the end of the first one inside; closers that are due are noted."""
        self._skip()
        while self._here() in ("[", "{"):
            closer = "]" if self._here() == "[" else "}"
            self.index += 1
            self._skip()
            if self._here() == closer:
                self.index += 1
                return
            if not self._here():
                raise _Found("", self.index, _inside(closer))
            closers.append(closer)
            if closer == "}":
                self._key()
                self._skip()
        match self._here():
            case '"':
                self._string()
            case "t" | "f" | "n" as letter:
                self._ident(_IDENTS[letter])
            case character if character == "-" or (character in "0123456789" and character):
                self._number()
            case _:
                raise _Found("expected value", self.index)

    def _goes_on(self, closers: list[str]) -> bool:
        """After a value: past the closer, or to the next value, which False tells."""
        self._skip()
        closer = closers[-1]
        if self._here() == closer:
            self.index += 1
            closers.pop()
            return True
        if self._here() != ",":
            raise _Found(f"expected `,` or `{closer}`", self.index, _inside(closer))
        self.index += 1
        self._skip()
        if closer == "}":
            if self._here() == "}":
                raise _Found("trailing comma", self.index)
            self._key()
        return False

    def _key(self) -> None:
        if self._here() != '"':
            raise _Found("key must be a string", self.index)
        self._string()
        self._skip()
        if self._here() != ":":
            raise _Found("expected `:`", self.index, "an object")
        self.index += 1

    def _string(self) -> None:
        self.index += 1
        while True:
            self._past(_PLAIN)
            match self._here():
                case '"':
                    self.index += 1
                    return
                case "\\":
                    self._escape()
                case _:
                    reason = r"control character (\u0000-\u001F) found while parsing a string"
                    raise _Found(reason, self.index, "a string")

    def _escape(self) -> None:
        self.index += 1
        letter = self._here()
        if letter not in '"\\/bfnrtu' or not letter:
            raise _Found("invalid escape", self.index, "a string")
        self.index += 1
        if letter == "u":
            begin = self.index
            self._past(_HEX)
            if self.index < begin + 4:
                raise _Found("invalid escape", self.index, "a string")
            if self.text[begin : begin + 2].lower() in ("d8", "d9", "da", "db") and self._here() != "\\":
                raise _Found("unexpected end of hex escape", self.index, "a string")

    def _number(self) -> None:
        if self._here() == "-":
            self.index += 1
        begin = self.index
        self._digits()
        if self.text[begin] == "0" and self.index > begin + 1:
            raise _Found("invalid number", begin + 1)
        if self._here() == ".":
            self.index += 1
            self._digits()
        if self._here() in ("e", "E"):
            self.index += 1
            if self._here() in ("+", "-"):
                self.index += 1
            self._digits()

    def _digits(self) -> None:
        begin = self.index
        self._past(_DIGITS)
        if self.index == begin:
            raise _Found("invalid number", self.index)

    def _ident(self, word: str) -> None:
        for letter in word:
            if self._here() != letter:
                raise _Found("expected ident", self.index)
            self.index += 1

    def _here(self) -> str:
        return self.text[self.index : self.index + 1]

    def _skip(self) -> None:
        self._past(_SPACE)

    def _past(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.index)
        self.index = found.end() if found else self.index


def _inside(closer: str) -> str:
    return "a list" if closer == "]" else "an object"
