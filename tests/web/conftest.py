"""What the tests of the web room share."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_twisted

from pubky_homeserver.web.channel import Limits
from tests.web.served import FAMILY
from tests.web.sockets import Handler, Served


@pytest_twisted.async_yield_fixture
async def serve() -> AsyncIterator[Callable[..., Served]]:
    """Serves a handler on a loopback port until the test is over."""
    all_served = []

    def start(answer: Handler, limits: Limits | None = None) -> Served:
        served = Served(answer, limits or Limits())
        all_served.append(served)
        return served

    yield start
    for served in all_served:
        await served.stop()


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Iterator[str]:
    """How users sign in during a test, by default with a cookie."""
    chosen: str = getattr(request, "param", "cookie")
    FAMILY.name = chosen
    yield chosen
    FAMILY.name = "cookie"
