The homeserver publishes its PKARR record at the configured relays and on the DHT when it starts and every hour, reads it back, and keeps trying while they are away.
