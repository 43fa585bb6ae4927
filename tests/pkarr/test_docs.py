"""The examples of the library's page, run as they stand."""

import re
from collections.abc import AsyncIterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor

from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.pkarr_relay import PkarrRelay

PAGE = Path(__file__).parents[2] / "docs" / "pkarr.md"
RELAY = "http://127.0.0.1:15411"
EXAMPLES = re.findall(
    r"^## \d\. ([^\n]+).*?^```python\n(.*?)^```\n\n^```text\n(.*?)^```", PAGE.read_text(), re.M | re.S
)
reactor: Any = global_reactor  # a module in the eyes of the type checker


@pytest_twisted.async_yield_fixture
async def relay() -> AsyncIterator[str]:
    """A relay on loopback."""
    factory = HTTPFactory(PkarrRelay(reactor).answer, reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await port.stopListening()
    await factory.drain(0)


def test_there_are_five_examples() -> None:
    """Every Python block of the page has its output, and there are five."""
    assert len(EXAMPLES) == 5
    assert PAGE.read_text().count("```python") == 5


@pytest.mark.parametrize(("code", "output"), [example[1:] for example in EXAMPLES], ids=[one[0] for one in EXAMPLES])
@pytest_twisted.ensureDeferred
async def test_examples(relay: str, code: str, output: str) -> None:
    """Whoever copies an example gets what the page says, but for the port of the relay."""
    names: dict[str, Any] = {"__name__": "example"}
    with redirect_stdout(StringIO()) as said:
        exec(compile(code.replace(RELAY, relay), str(PAGE), "exec"), names)
        if "main" in names:
            await names["main"](reactor)
    assert said.getvalue().replace(relay, RELAY) == output
