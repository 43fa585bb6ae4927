The homeserver publishes its PKARR record at the configured relays when it starts and every hour, and keeps trying while they are away.
