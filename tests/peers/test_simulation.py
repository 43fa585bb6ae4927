"""Whole homeservers in a simulated world: 2,000 seeded histories, each judged at every step and at rest.

What may happen is in `happenings.py`, who judges it in `trial.py`: there is the table of invariants and checks. A seed
that fails is named in the failure, with what failed; alone it is run again by

    SEED=17 script/test tests/peers/test_simulation.py -s

which tells what happens.
"""

import os
import sys
from collections import Counter
from random import Random

import pytest

from tests.peers import trial
from tests.peers.happenings import History
from tests.peers.themes import USUAL
from tests.peers.worlds import run

SEEDS, CHUNKS = 2000, 20

LENGTHS = range(5, 18)
"""Happenings of a history: many short ones find more than a few long ones."""

ALONE = os.environ.get("SEED")


@pytest.fixture(scope="module")
def looked() -> Counter[str]:
    """Invariant → how often all histories gave something to see; and happening → how often there was one."""
    return Counter()


def history(seed: int, looked: Counter[str]) -> BaseException | None:
    """Tell one; the failure, if it fails."""
    random = Random(seed)
    one = History(random)
    failure = run(one.tell(random.choice(LENGTHS)))
    looked += one.looked
    looked += one.happened
    if ALONE is not None or failure is not None:
        sys.stdout.write("\n".join(one.told) + "\n")
    return failure


@pytest.mark.parametrize("chunk", range(CHUNKS if ALONE is None else 1))
def test_histories(chunk: int, looked: Counter[str]) -> None:
    """Whatever happens, every invariant holds."""
    seeds = range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS)
    for seed in seeds if ALONE is None else [int(ALONE)]:
        failure = history(seed, looked)
        assert failure is None, f"seed {seed}: {failure!r}"


if ALONE is None:  # one history need not have everything

    def test_nothing_is_asserted_in_vain(looked: Counter[str]) -> None:
        """Each invariant had something to look at, and everything happened."""
        seed = 0
        while seed < 100 and not looked.keys() >= {*trial.NAMES, *trial.PARTS, *USUAL}:  # this test is run alone
            assert history(seed, looked) is None
            seed += 1
        assert {*trial.NAMES, *trial.PARTS, *USUAL} - {name for name, count in looked.items() if count} == set()
