Accounts of an official homeserver can be copied, too: `official = true` in its `[peers.NAME]`, with their keys in `follow`.
