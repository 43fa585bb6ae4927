A file gets its content type from its first bytes, else from its name, by the same two tables as on the official homeserver.
