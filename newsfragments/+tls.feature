TLS with raw public keys (`pkarr.tls`): server factory, client endpoint and agent, over GnuTLS.
