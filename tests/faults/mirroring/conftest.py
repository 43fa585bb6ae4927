"""Chance, from a seed: a failed test prints it. `MIRROR_SEED` is the first one, `MIRROR_ROUNDS` how many there are."""

import os
import random

import pytest

SEED = int(os.environ.get("MIRROR_SEED", "1"))
ROUNDS = int(os.environ.get("MIRROR_ROUNDS", "1"))


@pytest.fixture(params=range(SEED, SEED + ROUNDS))
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Where chance comes from."""
    print(f"MIRROR_SEED={request.param}")  # noqa: T201 - shown when the test fails
    return random.Random(request.param)
