"""One test network and one installed client for all tests here."""

import sys
from collections.abc import Iterator

import pytest

from tests.interop.crate import Programs, build_programs
from tests.interop.javascript import install_client
from tests.interop.testnet import Testnet, running_testnet


@pytest.fixture(scope="package")
def testnet() -> Iterator[Testnet]:
    """A running test network."""
    with running_testnet() as testnet:
        yield testnet


@pytest.fixture(scope="package")
def client() -> None:
    """The official JavaScript client in node_modules."""
    install_client()


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The official client and relay, built."""
    return build_programs()


@pytest.fixture
def network(testnet: Testnet) -> Iterator[Testnet]:
    """The running test network; what it writes during a test is shown if the test fails."""
    testnet.news()
    yield testnet
    sys.stdout.write(testnet.news())
