`pkarr.dht` is a node of the Mainline DHT, over IPv4 and IPv6: it finds and publishes signed packets without relays.
