"""How many files may be open, asked in processes of their own."""

import subprocess
import sys

import pytest

from pubky_homeserver.descriptors import ASIDE, ENOUGH, FEWEST, client_connections, handshakes

RAISE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from pubky_homeserver.descriptors import raise_limit
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard"), [(256, 1024), (1024, 1024), (512, 4096)])
def test_the_soft_limit_goes_up_to_the_hard_one(soft: int, hard: int) -> None:
    """As many files may be open as the system allows; the number that is told is the one that holds."""
    said = subprocess.run(
        [sys.executable, "-c", RAISE.format(soft=soft, hard=hard)], check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == [str(hard)] * 3


@pytest.mark.parametrize("files", [1024, 4096, 5000, 6000, 20_000, ENOUGH])
def test_a_body_for_each_connection(files: int) -> None:
    """Each connection can have a body open, others can shake hands, and there is some left over for everything else."""
    connections = client_connections(files)
    assert connections >= FEWEST
    assert files - 4 < 2 * connections + handshakes(connections) + ASIDE <= files


def test_there_is_always_some_room() -> None:
    """However few files may be open, some clients are served."""
    assert client_connections(256) == FEWEST
