Behind a proxy that speaks the PROXY protocol (1 or 2) clients are told apart by the address that it names: `drive.icann_client_identity`.
