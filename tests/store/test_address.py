"""`store/address.py`: where a Redis is, from a URL."""

import pytest

from pubky_homeserver.store.address import ALLOWED, RedisAddress


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("redis://localhost", RedisAddress("localhost"), "redis://localhost:6379/0"),
        ("redis://localhost/", RedisAddress("localhost"), "redis://localhost:6379/0"),
        ("redis://10.0.0.1:7000/3", RedisAddress("10.0.0.1", 7000, database=3), "redis://10.0.0.1:7000/3"),
        ("redis://[::1]:7000", RedisAddress("::1", 7000), "redis://[::1]:7000/0"),
        ("rediss://r.example", RedisAddress("r.example", tls=True), "rediss://r.example:6379/0"),
        ("redis://:s%40%3A@h", RedisAddress("h", password="s@:"), "redis://h:6379/0"),
        ("redis://me:secret@h", RedisAddress("h", username="me", password="secret"), "redis://h:6379/0"),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock"), "unix:///run/redis.sock"),
        ("unix:///run/a%20b?db=2", RedisAddress(path="/run/a b", database=2), "unix:///run/a b?db=2"),
        ("unix://:secret@/r.sock", RedisAddress(path="/r.sock", password="secret"), "unix:///r.sock"),
        (
            "sentinel://me:secret@a,b:7,[::1]:8/main/3",
            RedisAddress(
                sentinels=(("a", 26379), ("b", 7), ("::1", 8)),
                service="main",
                database=3,
                username="me",
                password="secret",
            ),
            "sentinel://a:26379,b:7,::1:8/main/3",
        ),
        ("unix:///" + "x" * 106, RedisAddress(path="/" + "x" * 106), "unix:///" + "x" * 106),
    ],
)
def test_urls(url: str, address: RedisAddress, shown: str) -> None:
    """A URL means this address, and what is shown of it has neither user nor password."""
    parsed = RedisAddress.parse(url)
    assert parsed == address
    assert str(parsed) == shown
    assert "secret" not in repr(parsed)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis:///1",
        "redis://:secret@",
        "redis://h:secret",
        "redis://h:99999",
        "redis://h/secret",
        "redis://h/-1",
        "redis://h/1/2",
        "redis://h/123456",
        "redis://h?db=1",
        "redis://h/0#secret",
        "redis://[::1",
        "sentinel://",
        "sentinel://a",
        "sentinel://a/",
        "sentinel:///main",
        "sentinel://a,/main",
        "sentinel://a:secret/main",
        "sentinel://a/main/x",
        "sentinel://a/main?x=1",
        "unix://run/redis.sock",
        "unix://",
        "unix:///r?database=1",
        "unix:///r?db=x",
        "unix:///r%00",
        "unix:///" + "x" * 107,
        "unix:///" + "ü" * 60,
    ],
)
def test_bad_urls(url: str) -> None:
    """Anything else is a sentence that says what is allowed, and does not repeat a password."""
    with pytest.raises(ValueError) as caught:
        RedisAddress.parse(url)
    assert ALLOWED in str(caught.value) or "107 bytes" in str(caught.value)
    assert ":secret" not in str(caught.value)
