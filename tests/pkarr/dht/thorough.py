"""How often the readers of foreign bytes are tried."""

from hypothesis import settings

THOROUGHLY = settings(max_examples=10_000 if settings.get_current_profile_name() == "ci" else 500)
"""Ten thousand inputs before a change lands; some when a developer runs the tests."""
