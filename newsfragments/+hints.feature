Under load a homeserver tells its followers of many changes at once, so that a follower costs its primary far less.
