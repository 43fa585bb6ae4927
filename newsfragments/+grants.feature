Sign-in by grant: sign-up, bearers with proof of possession, lists of sessions, and sign-out in its three forms, next to cookies on every route.
