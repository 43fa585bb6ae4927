An account takes writes at one homeserver only: as soon as a newer record names another one, this one refuses them and says where the account lives.
