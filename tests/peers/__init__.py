"""Homeservers that follow each other."""
