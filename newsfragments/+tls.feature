TLS with raw public keys (`pkarr.tls`): endpoints for servers and clients, and an agent that finds keys, over OpenSSL 3.2 or newer, or GnuTLS.
