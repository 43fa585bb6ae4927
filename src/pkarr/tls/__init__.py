"""TLS 1.3 between public keys (RFC 7250): no certificates, no names; who holds the key is the server.

engines     find, the library of this machine that shows that it can
endpoint    TlsFactory and TlsServerEndpoint for servers, TlsClientEndpoint for clients
agent       an HTTP client for `https://<key>/`
connection  a protocol to the stream below, a transport to the protocol inside
session     what a library has to do; gnutls, openssl: the two that can
hello       the one look at what a client says, which GnuTLS needs
"""
