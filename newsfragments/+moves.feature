An account moves to a homeserver that keeps a copy of it by the ordinary sign-up and a new record: what the old one has more is fetched, the new one opens, and the old one follows.
