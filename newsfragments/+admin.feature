The operator's API on its own port: `/info`, signup tokens with and without a quota and their listing, `/healthz` and `/readyz`; the password also works as a bearer token.
