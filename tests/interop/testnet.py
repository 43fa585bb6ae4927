"""A test network as people start it, for clients that know nothing of Python."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest
from attrs import define

PORTS = {"homeserver": 6286, "homeserver by key": 6287, "admin port": 6288, "pkarr relay": 15411, "http relay": 15412}
RECORD = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"  # at the pkarr relay, where clients look first
START = 30.0  # seconds; a node needs one or two, a busy machine more
STOP = 20.0  # seconds; running requests may take 10 of them


@define
class Testnet:
    """The process, and what it wrote."""

    process: subprocess.Popen[bytes]
    output: Path
    _shown: int = 0
    # Bytes of the output that somebody has taken.

    def news(self) -> str:
        """What the process wrote since the last call."""
        written = self.output.read_bytes()[self._shown :]
        self._shown += len(written)
        return written.decode("utf-8", "replace")


@contextmanager
def running_testnet() -> Iterator[Testnet]:
    """A test network that answers; ended by SIGTERM, after which nothing of it is left."""
    for name, port in PORTS.items():
        if _listening(port):
            pytest.fail(f"Something listens on port {port} ({name}): is another test network running?")
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        testnet = _start(Path(folder), temporary)
        try:
            _wait_until_it_answers(testnet)
            yield testnet
        finally:
            _stop(testnet)
        assert testnet.process.returncode == 0, f"Stopped with {testnet.process.returncode}:\n{testnet.news()}"
        assert list(temporary.iterdir()) == [], "the test network forgets everything"
        assert b"Traceback" not in testnet.output.read_bytes(), testnet.output.read_text()


def _start(folder: Path, temporary: Path) -> Testnet:
    """Start it in an empty folder, where no settings of the developer reach it, as the leader of a process group."""
    output = folder / "output"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(temporary)}
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "homeserver", "--testnet"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Testnet(process, output)


def _wait_until_it_answers(testnet: Testnet) -> None:
    end = time.monotonic() + START
    for name, port in PORTS.items():
        while not _serves(name, port):
            try:
                code = testnet.process.wait(0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    pytest.fail(f"The {name} does not answer on port {port}:\n{testnet.news()}")
            else:
                pytest.fail(f"The test network ended with {code}:\n{testnet.news()}")


def _stop(testnet: Testnet) -> None:
    """End it as an operator does. Whatever is left of its process group is killed, and that is a failure."""
    testnet.process.terminate()
    try:
        testnet.process.wait(STOP)
        os.killpg(testnet.process.pid, 0)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        pass
    os.killpg(testnet.process.pid, signal.SIGKILL)
    testnet.process.wait()
    pytest.fail(f"Not everything stopped at SIGTERM:\n{testnet.news()}")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serves(name: str, port: int) -> bool:
    if port == PORTS["homeserver by key"]:
        return _listening(port)  # no ordinary client gets further
    return _answers(f"http://localhost:{port}/{RECORD if name == 'pkarr relay' else ''}")


def _answers(url: str) -> bool:
    """Whether there is something at an address."""
    try:
        with urllib.request.urlopen(url, timeout=START):
            return True
    except (URLError, ConnectionError):
        return False
