The library `pkarr` has a builder of packets, and a client that asks relays and the DHT together and never goes back to an older packet.
