"""What may happen in a world: a history is a handful of these, drawn from its seed, and then a rest."""

from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import Refused
from tests.peers.backups import back_up
from tests.peers.bad import BAD
from tests.peers.clients import Asked, ask, last_writes, session_of
from tests.peers.dumps import dump, words
from tests.peers.fuses import Fuse
from tests.peers.rest import come_to_rest
from tests.peers.themes import SKEWS, THEMES, USUAL, trust_of
from tests.peers.trial import MARKER, Trial
from tests.peers.verdict import in_step
from tests.peers.worlds import NOW, User, World

MOST_REWINDS = 2
"""Of one history: what is lost with all stores that had it is nobody's fault."""

STEPS = 12
"""Questions to the store after which, at most, a process is killed, for most kills."""


@define
class History:
    """One history, from its seed."""

    random: Random
    world: World = field(init=False)
    trial: Trial = field(init=False)
    told: list[str] = field(factory=list)
    """What happened, for whoever looks for the reason of a failure."""
    happened: Counter[str] = field(factory=Counter)
    users: list[User] = field(factory=list)
    weights: dict[str, int] = field(init=False)
    _backups: list[tuple[str, list[Any]]] = field(factory=list)
    _blank: dict[str, list[Any]] = field(factory=dict)
    # Node → its store before it knew anybody.
    _starting: dict[str, Deferred[None]] = field(factory=dict)
    # Node → its process that begins, perhaps for ever.
    _fuses: dict[str, Fuse] = field(factory=dict)
    # Node → that of its store.
    _ending: list[Deferred[None]] = field(factory=list)
    # Processes that end.

    def __attrs_post_init__(self) -> None:
        random = self.random
        self.weights = USUAL | random.choice(THEMES)
        self.world = World(random, trust_of(random, self.weights["punctual"] > 0))
        if "x" in self.world.nodes:
            self.world.bad["x"] = random.choice(BAD)(self.world.clock)
        self.users = [User(Keypair(bytes([1 + number]) * 32)) for number in range(random.choice([1, 1, 2]))]

    @property
    def names(self) -> list[str]:
        """Who is not bad."""
        return [name for name in self.world.nodes if name not in self.world.bad]

    async def tell(self, steps: int) -> None:
        """All of it."""
        world, random = self.world, self.random
        self._blank = {name: back_up(node.store) for name, node in world.nodes.items()}
        for user in self.users:
            await world.sign_up(user, random.choice("abc"))
        for name in world.nodes:
            await world.start(name)
        self.trial = Trial(world)
        if random.random() < 0.6:
            world.pass_time(random.choice([1, 5, 20]))
        for _ in range(steps):
            (name,) = random.choices([*self.weights], [*self.weights.values()])
            self.happened[name] += 1
            self._note(name)
            happen: Callable[[User], Awaitable[None]] = getattr(self, f"_{name}")
            await happen(random.choice(self.users))
            self.trial.observe()
            world.pass_time(random.choice([0, 0, 0.25, 1, 1, 5, 5, 20, 60]))
            self.trial.observe()
        await come_to_rest(self.world, self.trial, self.users, self._start, self._sign_up)
        assert all(ending.called for ending in self._ending), "a process does not end"
        for name in world.nodes:
            await world.kill(name)
        world.pass_time(1)
        assert not world.clock.getDelayedCalls(), "a timer is left"

    @property
    def looked(self) -> Counter[str]:
        """Invariant → how often there was something to see."""
        return self.trial.looked

    def _note(self, what: str) -> None:
        """Tell what happens, and how everybody is before it."""
        since = self.world.clock.seconds() - NOW
        self.told.append(f"{since:8.2f} {what}")
        for user in self.users:
            self.told.append(f"         {user.pubky[:4]} says {user.home}:")
            for name in self.names:
                node = self.world.nodes[name]
                known = words(dump(node.store, user.pubky), self.world)
                self.told.append(f"           {name}{' is down,' if node.peering is None else ''} has {known}")

    # --- users --------------------------------------------------------------------------------------------------------

    async def _ask(self, name: str, method: str, user: User, path: str, body: bytes | None = None) -> Asked:
        world, is_signed = self.world, method != "GET" or self.random.random() < 0.5
        if is_signed:
            try:
                await world.nodes[name].store.sign_in(session_of(user.pubky))
            except Refused:
                pass
        asked = Asked(name, method, user.pubky, path, body, world.clock.seconds(), len(self.trial.asked), is_signed)
        self.trial.asked.append(asked)
        self.told.append(f"         {method} {path} at {name} of {user.pubky[:4]}")
        ask(world.outer, asked)
        world.pass_time(0)
        return asked

    def _path(self) -> str:
        folder = self.random.choice(["/pub/", "/pub/", "/pub/a/", "/priv/"])
        return folder + self.random.choice("01234567a")

    async def _put(self, name: str, user: User, path: str) -> Asked:
        size = self.random.choice([5, 5, 30, 64, 65, 3000])
        body = (MARKER if path.startswith("/priv/") else b"") + self.random.randbytes(size)
        return await self._ask(name, "PUT", user, path, body)

    async def _change(self, name: str, user: User) -> None:
        path = self._path()
        if self.random.random() < 0.3:
            await self._ask(name, "DELETE", user, path)
        else:
            await self._put(name, user, path)

    def _home(self, user: User) -> str:
        return user.home if user.home in self.names else self.names[0]

    async def _write(self, user: User) -> None:
        """One or some changes, at home."""
        for _ in range(self.random.choice([1, 1, 2, 5])):
            await self._change(self._home(user), user)

    async def _storm(self, user: User) -> None:
        """The same few paths, again and again."""
        paths = [self._path() for _ in range(2)]
        for _ in range(self.random.randrange(5, 15)):
            path = self.random.choice(paths)
            if self.random.random() < 0.2:
                await self._ask(self._home(user), "DELETE", user, path)
            else:
                await self._put(self._home(user), user, path)
            if self.random.random() < 0.2:
                self.world.pass_time(0.05)

    async def _write_elsewhere(self, user: User) -> None:
        """By somebody who does not know that the account moved, or that it is not there yet."""
        await self._change(self.random.choice(self.names), user)

    async def _read(self, user: User) -> None:
        for _ in range(3):
            path = self.random.choice([self._path(), self._path(), "/pub/", "/pub/a/", "/priv/"])
            await self._ask(self.random.choice(self.names), "GET", user, path)

    async def _punctual(self, user: User) -> None:
        """A write in fair weather, and a second after it a look at the copies."""
        world = self.world
        if not world.is_fair or not world.bad or user.home not in self.names:
            return
        before = in_step(world, user.pubky)
        asked = await self._put(user.home, user, f"/pub/{self.random.randrange(8)}")
        if asked.is_acknowledged:
            world.pass_time(0.99)
            self.trial.punctual(user.pubky, before)

    # --- moves --------------------------------------------------------------------------------------------------------

    async def _sign_up(self, user: User, name: str) -> bool:
        world = self.world
        if name not in self.names or world.nodes[name].peering is None:
            return False
        store = world.nodes[name].store
        has_copy = store.copies._copies.get(user.pubky) is not None
        known = world.records.get(store.packets._packets.get(user.pubky, b""), (0, ""))[0]
        is_done = await world.claim(user, name)
        if is_done and not has_copy:
            self.trial.admitted[name, user.pubky] = max(known, world.nodes[name].microseconds)
        return is_done

    def _lag(self) -> float:
        return self.random.choice([0.0, 0.0, 0.0, 3.0, 40.0])

    async def _move(self, user: User) -> None:
        """As apps do it: sign up, then the record."""
        name = self.random.choice(self.names)
        if name == user.home or await self._sign_up(user, name):
            self.world.pass_time(self.random.choice([0, 0, 1, 10]))
            await self.world.point(user, name, self._lag())

    async def _claim(self, user: User) -> None:
        """A sign-up that no record follows."""
        await self._sign_up(user, self.random.choice(self.names))

    async def _two_claims(self, user: User) -> None:
        one, other = self.random.sample(self.names, 2)
        await self._sign_up(user, one)
        await self._sign_up(user, other)
        if self.random.random() < 0.7:
            await self.world.point(user, one, self._lag())

    async def _point(self, user: User) -> None:
        """A record alone, perhaps to a stranger."""
        await self.world.point(user, self.random.choice([*self.world.nodes]), self._lag())

    async def _flip(self, user: User) -> None:
        """There and back within seconds: a phone signs again what it remembers."""
        before = user.home
        name = self.random.choice([name for name in self.names if name != before])
        await self._sign_up(user, name)
        await self.world.point(user, name, self._lag())
        for _ in range(self.random.randrange(3)):
            await self._change(self.random.choice([name, self._home(user)]), user)
            self.world.pass_time(self.random.choice([0, 0.5, 2]))
        await self.world.point(user, before, self._lag())

    async def _renew(self, user: User) -> None:
        for _ in range(self.random.randrange(1, 5)):
            await self.world.point(user, user.home, self._lag())
            self.world.pass_time(0.5)

    # --- homeservers --------------------------------------------------------------------------------------------------

    async def _start(self, name: str, fuse: Fuse | None = None) -> None:
        self.trial.processes[name] += 1
        starting = self._starting[name] = Deferred.fromCoroutine(self.world.start(name, fuse))
        starting.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def _end(self, name: str) -> Deferred[None]:
        """End a process, at whatever it is."""
        starting, fuse = self._starting.pop(name, None), self._fuses.pop(name, None)
        if fuse is not None and fuse.is_blown:
            fuse.is_over = True
        if starting is not None:
            starting.cancel()
        ending = Deferred.fromCoroutine(self.world.kill(name))
        self._ending.append(ending)
        return ending

    async def _kill(self, name: str) -> None:
        ending = self._end(name)
        self.world.pass_time(0)
        assert ending.called, f"{name} does not stop"

    async def _restart(self, _user: User) -> None:
        name = self.random.choice(self.names)
        await self._kill(name)
        await self._start(name)

    async def _stop(self, _user: User) -> None:
        await self._kill(self.random.choice(self.names))

    async def _crash(self, _user: User) -> None:
        """A process that will be killed at some step of its store."""
        name = self.random.choice(self.names)
        await self._kill(name)
        fuse = Fuse(self.random.choice([self.random.randrange(STEPS), self.random.randrange(100)]))
        fuse.is_done = self.random.random() < 0.5
        fuse.blow = lambda: self._blow(name)
        self._fuses[name] = fuse
        await self._start(name, fuse)

    def _blow(self, name: str) -> None:
        self.trial.kills += 1
        self.world.clock.callLater(0, self._begin_again, name, self.random.choice([0, 1, 20]))

    def _begin_again(self, name: str, pause: float) -> None:
        self._end(name)
        self.world.clock.callLater(pause, self._revive, name)

    def _revive(self, name: str) -> None:
        if self.world.nodes[name].peering is None:
            Deferred.fromCoroutine(self._start(name))

    async def _back_up(self, user: User) -> None:
        name = self.random.choice([*self.names, self._home(user), self._home(user)])
        self._backups.append((name, back_up(self.world.nodes[name].store)))

    async def _rewind(self, _user: User) -> None:
        """A store has what it had once, under its homeserver or while that is down."""
        if self._backups and sum(self.trial.rewinds.values()) < MOST_REWINDS:
            await self._put_back(*self._backups.pop())

    async def _lose(self, user: User) -> None:
        """A home loses what it wrote last, under the eyes of copies that may have it."""
        name = self._home(user)
        backup = back_up(self.world.nodes[name].store)
        await self._write(user)
        self.world.pass_time(self.random.choice([0, 1, 5]))
        if sum(self.trial.rewinds.values()) < MOST_REWINDS:
            await self._put_back(name, backup)

    async def _newcomer(self, user: User) -> None:
        """A copy begins anew, slowly, and is read meanwhile."""
        name = self.random.choice([name for name in self.names if name != user.home])
        if sum(self.trial.rewinds.values()) >= MOST_REWINDS:
            return
        self.world.wires.weather.late = 1.0
        await self._put_back(name, self._blank[name])
        for _ in range(8):
            self.world.pass_time(0.3)
            self.trial.observe()
            written = sorted(path for path in last_writes(self.trial.asked, user.pubky) if path.startswith("/pub/"))
            path = self.random.choice(["/pub/", *written])
            await self._ask(name, "GET", user, path)
            self.trial.observe()

    async def _put_back(self, name: str, backup: list[Any]) -> None:
        is_up = self.world.nodes[name].peering is not None
        if is_up and self.random.random() < 0.5:
            await self._kill(name)
            self.trial.rewind(name, backup)
            await self._start(name)
        else:
            self.trial.rewind(name, backup)

    async def _clocks(self, _user: User) -> None:
        """Clocks go wrong, or right again."""
        is_right = any(node.clock.ahead for node in self.world.nodes.values()) and self.random.random() < 0.7
        for name in self.names:
            self.world.nodes[name].clock.ahead = 0.0 if is_right else self.random.choice(SKEWS)

    # --- what is between them -----------------------------------------------------------------------------------------

    async def _partition(self, _user: User) -> None:
        self.world.wires.cut_off(*self.random.sample(self.names, 2))

    async def _one_way(self, _user: User) -> None:
        self.world.wires.block(*self.random.sample(self.names, 2))

    async def _heal(self, _user: User) -> None:
        self.world.wires.calm()
        self.world.network.is_away = False

    async def _network(self, _user: User) -> None:
        network = self.world.network
        network.is_away, network.latency = self.random.random() < 0.5, self.random.choice([0.0, 0.0, 2.0])

    async def _weather(self, _user: User) -> None:
        random, weather = self.random, self.world.wires.weather
        weather.refused, weather.unanswered = random.choice([0, 0, 0.2]), random.choice([0, 0, 0.1])
        weather.cut, weather.doubled = random.choice([0, 0, 0.2]), random.choice([0, 0, 0.2])
        weather.spoilt, weather.late = random.choice([0, 0, 0.3]), random.choice([0.0, 0.0, 1.0])
