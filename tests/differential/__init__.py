"""Questions that the protocol's pages leave open, and what the official homeserver answers."""
