"""A Pubky homeserver: keeps people's files under their own keys and tells others when they change."""
