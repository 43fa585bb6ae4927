"""Tells `twistd` that there is a `homeserver`."""

from twisted.application.service import ServiceMaker

homeserver = ServiceMaker(
    "Pubky homeserver",
    "pubky_homeserver.tap",
    "Keeps people's files under their own keys, over plain HTTP.",
    "homeserver",
)
