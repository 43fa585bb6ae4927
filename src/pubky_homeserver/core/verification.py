"""How far it was looked whether what is kept here is what it shall be."""

from attrs import define, field

MOST = 100
"""Accounts whose faults are told by name."""


@define
class Verification:
    """How far one is, and what it found."""

    pubky: str | None
    """The account that it is about; None for all."""
    began: int
    """Unix seconds."""
    ended: int = 0
    """Unix seconds; 0 while it goes on."""
    accounts: int = 0
    """Accounts and copies that are done."""
    of: int = 0
    """How many there are to do."""
    files: int = 0
    bytes: int = 0
    wrong: int = 0
    """Bodies that were not there, or had another hash."""
    different: int = 0
    """Files of copies that their primaries have otherwise."""
    missing: int = 0
    """Bodies that are missing at the end."""
    faults: dict[str, str] = field(factory=dict)
    """Of an account what is not well, or could not be looked at; not more than a hundred."""

    def note(self, pubky: str, fault: str) -> None:
        """Something is not well with an account."""
        if pubky in self.faults:
            self.faults[pubky] += f"; {fault}"
        elif len(self.faults) < MOST:
            self.faults[pubky] = fault
