"""A disk that fills up under a Redis of our own."""

from pathlib import Path

import pytest_twisted
from twisted.internet.error import ConnectionClosed
from twisted.logger import LogLevel, capturedLogs

from pubky_homeserver.store.process import EmbeddedRedis
from tests.small_disk import free, small_disk
from tests.store.embedded import ask, reactor, until


async def fill(redis: EmbeddedRedis) -> int:
    """Write until Redis ends; returns how many writes it acknowledged."""
    acknowledged = 0
    while True:
        try:
            assert await ask(redis.socket, "SET", f"key{acknowledged}", "x" * 50_000) == b"OK"
        except ConnectionClosed:
            return acknowledged
        acknowledged += 1


@pytest_twisted.ensureDeferred
async def test_redis_on_a_full_disk(tmp_path: Path) -> None:
    """Redis ends when its log meets a full disk; with room again it is back, with all that it acknowledged."""
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        directory = disk / "redis"
        directory.mkdir(mode=0o700)
        redis = EmbeddedRedis.prepare(reactor, directory)
        redis.startService()
        await redis.whenReady()
        (disk / "ballast").write_bytes(bytes(free(disk) - (1 << 20)))
        with capturedLogs() as logs:
            acknowledged = await fill(redis)
            await until(lambda: redis.restarts > 0)
        assert acknowledged > 0
        warnings = [event["text"] for event in logs if event["log_level"] == LogLevel.warn]
        assert any("Can't recover from AOF write error" in text for text in warnings), warnings
        (disk / "ballast").unlink()
        await redis.whenReady()
        assert await ask(redis.socket, "DBSIZE") in (acknowledged, acknowledged + 1)
        assert await ask(redis.socket, "SET", "after", "x" * 50_000) == b"OK"
        await redis.stopService()
