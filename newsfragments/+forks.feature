`homeserver mirror status` names the accounts of which two homeservers have different histories, at both of them, and the newest moves; both survive a restart.
