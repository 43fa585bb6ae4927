"""What a process of a homeserver does. By default it is one process, which does all."""

from enum import StrEnum


class Role(StrEnum):
    """What one of several processes does that are a homeserver together, on one Redis."""

    ALL = "all"
    WEB = "web"
    """It answers clients and peers. There may be several."""
    BACKGROUND = "background"
    """It publishes, follows peers, sweeps, and answers the operator. There is one."""

    @property
    def serves(self) -> bool:
        """Whether it answers clients and peers."""
        return self is not Role.BACKGROUND

    @property
    def works(self) -> bool:
        """Whether it does what is done in the background, once for all processes."""
        return self is not Role.WEB
