`homeserver takedown add|lift|list`: an account, or the copy of one, is shown to nobody any more (451), by no way to
read; copies elsewhere obey what is decided where the account lives.
