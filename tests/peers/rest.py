"""The end of each history: everybody comes to rest, and all is well then."""

from collections.abc import Awaitable, Callable

from pubky_homeserver.peers.mirror import RARELY
from tests.peers.trial import Trial
from tests.peers.worlds import User, World

Start = Callable[[str], Awaitable[None]]
SignUp = Callable[[User, str], Awaitable[bool]]

RESTS = (15, 15, 60, 300, 700, 1400, 2 * RARELY)
"""Seconds after each of which it is looked whether all is well: whoever failed long waits long."""

QUIET = 30.0
"""Seconds in which nobody asks anything at rest."""


def good(world: World) -> list[str]:
    """Who is not bad."""
    return [name for name in world.nodes if name not in world.bad]


async def come_to_rest(world: World, trial: Trial, users: list[User], start: Start, sign_up: SignUp) -> None:
    """Fair weather, right clocks, all there: after a while all is well, and everybody is quiet."""
    world.wires.calm()
    world.network.is_away, world.network.latency = False, 0.0
    for node in world.nodes.values():
        node.clock.ahead = 0.0
    for name in good(world):
        if world.nodes[name].peering is None:
            await start(name)
    world.pass_time(RESTS[0])
    while any(world.nodes[name].peering is None for name in good(world)):
        world.pass_time(1)  # a crash that was to come has come, and who died is started again some time later
    for user in users:
        await _settle(world, user, sign_up)
    for pause in RESTS[1:]:
        world.pass_time(pause)
        trial.observe()
        await _operate(world, trial)
        try:
            _check(world, trial)
            break
        except AssertionError:
            if pause == RESTS[-1]:
                raise
    trial.looked["I13"] += 1
    trial.looked["I24"] += bool(trial.kills and not trial.operated)
    assert not world.wires.faults, world.wires.faults
    assert not world.outer.faults, world.outer.faults


def _check(world: World, trial: Trial) -> None:
    """All is well, and stays so without a word."""
    trial.check_rest()
    asked = len(world.wires.asked)
    world.pass_time(QUIET)
    # Who has no room looks every few minutes whether there is some.
    left = [one for one in world.wires.asked[asked:] if one[1] not in world.bad and not world.is_bounded(*one[:2])]
    assert not left, f"I13: there is no rest: {left[:5]}"
    trial.observe()
    trial.check_rest()


async def _settle(world: World, user: User, sign_up: SignUp) -> None:
    """A user whose record names nobody who took them in moves to somebody who does."""
    for name in [user.home, *"abc"]:
        if name in good(world) and _is_home(world, user, name):
            await world.point(user, name)  # who signed up anew where no copy was is shut by a newer one only
            return
    name = user.home if user.home in good(world) else world.random.choice("abc")
    await sign_up(user, name)
    await world.point(user, name)


def _is_home(world: World, user: User, name: str) -> bool:
    home = world.nodes[name].store._accounts.get(user.pubky)
    return home is not None and home.away is None


async def _operate(world: World, trial: Trial) -> None:
    """The operators let comparisons go on that braked."""
    for name in good(world):
        node = world.nodes[name]
        for pubky in world.users:
            if await node.store.copies.permit(pubky):
                trial.operated = True
                assert node.peering is not None
                for mirror in node.peering.mirrors:
                    if mirror.peer.key == node.store.copies._copies[pubky].primary:
                        mirror.hint(pubky, False)
                        mirror.hint(pubky, True)
