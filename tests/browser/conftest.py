"""One test network, one Chromium and one web server of an app for all tests here."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.app import AppFiles
from tests.browser.person import Person
from tests.interop.javascript import install_client
from tests.interop.testnet import Testnet, running_testnet

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def testnet() -> Iterator[Testnet]:
    """A running test network."""
    with running_testnet() as testnet:
        yield testnet


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A headless Chromium with an empty profile."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing. `script/test tests/browser` installs it on Debian, as root.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def app() -> Iterator[int]:
    """The port of an app's web server: its page and the official client, for every host name."""
    install_client()
    with ThreadingHTTPServer(("127.0.0.1", 0), AppFiles) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def network(testnet: Testnet) -> Iterator[Testnet]:
    """The running test network; what it writes during a test is shown if the test fails."""
    testnet.news()
    yield testnet
    sys.stdout.write(testnet.news())


@pytest.fixture
def newcomer(network: Testnet, chromium: Browser, app: int) -> Iterator[Callable[..., Person]]:
    """Makes people who open the app, each in a browser of their own. Nothing may have been refused to them unseen."""
    people: list[Person] = []

    def newcomer(host: str = "localhost") -> Person:
        people.append(Person.opens(chromium, f"http://{host}:{app}/"))
        return people[-1]

    yield newcomer
    complaints = [complaint for person in people for complaint in person.complaints]
    for person in people:
        person.leave()
    assert complaints == []
