"""TLS 1.3 between public keys (RFC 7250): no certificates, no names; who holds the key is the server."""
