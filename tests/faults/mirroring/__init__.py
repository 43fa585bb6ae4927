"""Homeservers that mirror each other, as real processes under faults."""
