"""The official Rust client against the test network, reached by TLS under public keys and nothing else."""

import re
import subprocess
import urllib.request

import pytest

from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket
from tests.interop import testnet as network_of
from tests.interop.crate import FOLDER, Programs

SCENARIOS = (
    "storage",
    "private_storage",
    "locks",
    "events",
    "private_events",
    "hundred_megabytes",
    "grants",
    "cookies",
    "keyless",
    "wrong_key",
    "relay",
    "record_on_the_dht",
    "publish_and_resolve",
)


def test_every_scenario_is_run() -> None:
    """The table above and the crate name the same scenarios."""
    named = set(re.findall(r'run\("(\w+)"', (FOLDER / "src" / "main.rs").read_text()))
    assert named == set(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_official_client(network: network_of.Testnet, programs: Programs, scenario: str) -> None:
    """Sign-up, sign-in, files, locks, events and the keyless flow work; an impostor is refused."""
    result = subprocess.run([programs.scenarios, scenario], capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}{network.news()}"
    assert f"ok {scenario} " in result.stdout


def test_our_client_finds_what_the_official_one_published(network: network_of.Testnet, programs: Programs) -> None:
    """A packet that the official client put to the DHT is found there by our node, through our relay."""
    result = subprocess.run(
        [programs.scenarios, "publish_and_resolve"], capture_output=True, text=True, timeout=60, check=True
    )
    published = re.search(r"published (\w+)", result.stdout)
    assert published is not None, result.stdout
    key = PublicKey.from_z32(published[1])
    relay = f"http://127.0.0.1:{network_of.PORTS['pkarr relay']}/{key.z32}?policy=NetworkOnly"
    with urllib.request.urlopen(relay, timeout=30) as answer:
        packet = SignedPacket.from_relay_payload(key, answer.read())
    assert [record.text for record in packet.lookup("_test")] == ["two"]
