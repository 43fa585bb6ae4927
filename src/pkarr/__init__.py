"""Public keys as addresses: Ed25519 keys, DNS records signed by them, and where to publish and find them (PKARR)."""
