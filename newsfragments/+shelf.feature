What a homeserver acknowledged and the winning history of an account lacks waits for 30 days on a conflict shelf: `homeserver conflicts list`, `show`, `apply` and `drop` look after it.
