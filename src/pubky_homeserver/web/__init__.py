"""HTTP: who answers what, on Klein over llhttp."""
