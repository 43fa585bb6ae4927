"""What is answered for a file whose body the disk has lost."""

import pytest
import pytest_twisted

from pubky_homeserver.core.records import Entry
from tests.web.client import Answer
from tests.web.served import served
from tests.web.somebody import somebody

FILE = "/pub/website/_/index.html"


@pytest.mark.parametrize("target", ["/storage/{key}" + FILE, FILE, "/"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_lost(target: str) -> None:
    """It is 404; or 503 if somebody can bring it back, who is told of it. So it is on a website."""
    lost: list[tuple[str, str]] = []

    async def lose(owner: str, entry: Entry) -> None:
        lost.append((owner, entry.path))

    async with served() as server:
        alice = await somebody(server)
        assert await alice.put(FILE, b"x" * 10_000) == 201
        entry = await server.store.entry(alice.key, FILE)
        assert entry is not None
        assert entry.blob is not None
        await server.blobs.remove([entry.blob])

        async def ask(method: str) -> Answer:
            if target == "/":
                return await server.ask(method, "/", host=alice.key)
            return await server.ask(method, target.format(key=alice.key), {"pubky-host": alice.key})

        for method in ("GET", "HEAD"):
            assert (await ask(method)).status == 404
        stop = server.storage.on_loss(lose)
        for method in ("GET", "HEAD"):
            answer = await ask(method)
            assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert lost == [(alice.key, FILE)] * 2
        stop()
        assert (await ask("GET")).status == 404
