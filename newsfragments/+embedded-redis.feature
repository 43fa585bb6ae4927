Without `redis.url` the homeserver runs a Redis of its own in the data directory: supervised, stopped last, and never two on one directory, even after the homeserver was killed.
