Metrics for Prometheus, with the names and labels of the official homeserver.
