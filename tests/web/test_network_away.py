"""Relays and the DHT vanish for ten minutes and come back, while people go on writing and reading."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest_twisted
from attrs import define
from twisted.internet import reactor as _reactor

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.packets import Packets
from pubky_homeserver.publisher import LONGEST_DELAY, Advertised
from pubky_homeserver.records import Records
from pubky_homeserver.republisher import RETRY
from pubky_homeserver.web.admin import Admin, AdminSite
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.health import Health
from pubky_homeserver.web.records import NetworkRecords
from tests.pkarr.networks import Simulated
from tests.web.client import ask
from tests.web.operator import FACTS
from tests.web.served import NOW, Served, User, served

reactor: Any = _reactor

HOMESERVER = Keypair(bytes(32))
HOUR = 3600.0
AWAY = 600.0
USERS = 20
STEP = 0.5


@define
class House:
    """A homeserver that serves and publishes, and the networks around it."""

    home: Served
    relay: Simulated
    dht: Simulated
    records: Records
    admin: int
    """The operator's port."""
    users: list[User]
    written: int = 0

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.home.clock.pump([STEP] * int(seconds / STEP))

    def turn(self, is_away: bool) -> float:
        """Take the networks away, or bring them back; the time."""
        self.relay.is_away = self.dht.is_away = is_away
        return self.home.clock.seconds()

    async def checks(self) -> dict[str, Any]:
        """What `/readyz` says; the node is in service whatever becomes of the networks."""
        answer = await ask(reactor, self.admin, "GET", "/readyz")
        told = json.loads(answer.body)
        assert (answer.status, told["ready"]) == (200, True)
        checks: dict[str, Any] = told["checks"]
        return checks

    async def use(self) -> None:
        """Somebody writes and reads."""
        user, self.written = self.users[self.written % USERS], self.written + 1
        path, body = f"/storage/{user.pubky}/pub/{self.written}", b"%d" % self.written
        assert (await self.home.ask("PUT", path, user.headers, body)).status == 201
        assert (await self.home.ask("GET", path)).body == body

    def counted(self, name: str) -> dict[str, int]:
        """A counter of the metrics, by outcome."""
        text = self.home.metrics.render().decode()
        return {outcome: int(count) for outcome, count in re.findall(rf'{name}_total{{outcome="(\w+)".*}} (\d+)', text)}

    def ages(self) -> dict[str, float]:
        """How old the records are, as the metrics say."""
        text = self.home.metrics.render().decode()
        return {whose: float(age) for whose, age in re.findall(r"^(\w+)_age_seconds{.*} ([\d.]+)$", text, re.MULTILINE)}

    def taken_since(self, moment: float) -> dict[bytes, float]:
        """Whose records the DHT took since then, and when first."""
        taken = [(packet.public_key.raw, when) for when, packet in self.dht.published if when >= moment]
        return dict(reversed(taken))


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """A homeserver with users whose records are in the DHT."""
    async with served() as home:
        relay, dht = Simulated(home.clock, "relay"), Simulated(home.clock, "dht")
        users = [await home.sign_up() for _ in range(USERS)]
        for number in range(1, USERS + 1):
            keypair = Keypair(number.to_bytes(32, "big"))
            packet: SignedPacket = Builder().https("_pubky", 0, HOMESERVER.public_key.z32).sign(keypair, 1)
            dht.packets[packet.public_key.raw] = packet
        records = Records(
            keypair=HOMESERVER,
            advertised=Advertised(ip_address("127.0.0.1"), 6287, "localhost", 6286),
            relays=(relay,),
            dht=dht,
            accounts=home.store,
            packets=Packets(home.store.packets, HOMESERVER.public_key.z32),
            clock=home.clock,
            metrics=home.metrics,
            interval=HOUR,
            known=lambda: 0 if dht.is_away else dht.nodes,
        )
        health = Health(home.accounts, {}, records.checks, home.clock)
        known = NetworkRecords(records.survey, records.publish_now, home.clock)
        site = AdminSite(Admin(home.accounts, FACTS), health, "password", known)
        factory = HTTPFactory(site.answer, reactor)
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        records.startService()
        try:
            yield House(home, relay, dht, records, listening.getHost().port, users)
        finally:
            await records.stopService()
            await listening.stopListening()
            await factory.drain(1)


@pytest_twisted.ensureDeferred
async def test_ten_minutes_without_a_network() -> None:
    """All is served meanwhile, `/readyz` and metrics tell, and every record is back within one step of the backoff."""
    async with house() as one:
        one.pass_time(HOUR - 300)
        everybody = set(one.dht.packets)
        assert len(everybody) == USERS + 1
        before = await one.checks()
        assert all(before[name]["ok"] for name in ("record", "user records", "dht")), before
        one.home.metrics.ask(one.records.numbers)
        ages = one.ages()
        assert ages["record"] < HOUR
        assert ages["user_record"] < HOUR
        one.turn(is_away=True)
        for _minute in range(int(AWAY / 60)):
            one.pass_time(60)
            await one.use()
        during = await one.checks()
        assert during["record"]["detail"] == "relay: away; dht: away"
        assert not any(during[name]["ok"] for name in ("record", "user records", "dht")), during
        assert during["user records"]["detail"].endswith(f"{USERS} failed")
        assert one.counted("record_publish_count")["failed"] > 2
        assert one.counted("user_record_count")["failed"] >= USERS
        assert one.ages()["user_record"] == ages["user_record"] + AWAY  # the round that failed brought nothing out
        back = one.turn(is_away=False)
        one.pass_time(max(LONGEST_DELAY, RETRY))
        taken = one.taken_since(back)
        assert taken.keys() == everybody
        assert taken[HOMESERVER.public_key.raw] <= back + LONGEST_DELAY
        assert max(taken.values()) <= back + RETRY
        after = await one.checks()
        assert all(after[name]["ok"] for name in ("record", "user records", "dht")), after
        assert after["record"]["age"] <= LONGEST_DELAY
        published = re.search(r"record_published_timestamp_seconds{.*} ([\d.]+)", one.home.metrics.render().decode())
        assert published is not None
        assert back <= float(published[1]) <= back + LONGEST_DELAY
        assert float(published[1]) > NOW + HOUR
        assert one.ages()["user_record"] <= AWAY + LONGEST_DELAY
        assert one.ages()["record"] <= LONGEST_DELAY
