"""The official JavaScript client under Node. Each file of `js/` is run whole; its tests are named there."""

import pytest

from pkarr.keys import Keypair
from pkarr.recovery import create_recovery_file, open_recovery_file
from tests.interop.javascript import FOLDER, run

TESTS = sorted(path.name for path in FOLDER.glob("*.test.mjs"))


def test_all_files_are_run() -> None:
    """The list of files is not empty by accident."""
    assert TESTS == ["auth.test.mjs", "events.test.mjs", "storage.test.mjs"]


@pytest.mark.usefixtures("client", "network")
@pytest.mark.parametrize("file", TESTS)
def test_official_client(file: str) -> None:
    """What the official client does against its own network, it does against ours."""
    report = run("node", "--test", "--test-timeout=120000", "--test-reporter=spec", file, seconds=300)
    assert "ℹ fail 0" in report, report
    assert "ℹ skipped 0" in report, report


@pytest.mark.usefixtures("client")
def test_recovery_files_are_the_same() -> None:
    """The official client opens our recovery file, and we open the one that it makes."""
    ours = create_recovery_file(Keypair(bytes(range(32))), "pass phrase")
    theirs = run("node", "recovery.mjs", ours.hex(), "pass phrase", "another, in Umlauten: äöü", seconds=60)
    assert open_recovery_file(bytes.fromhex(theirs), "another, in Umlauten: äöü").seed == bytes(range(32))
