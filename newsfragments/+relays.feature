A test network has a DHT on UDP port 6881, a PKARR relay and an http relay where the official clients look for them.
