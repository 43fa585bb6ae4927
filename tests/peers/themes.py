"""What histories are about: how often what happens, and who trusts whom.

Each history has a theme that some happenings are more likely in; all can happen in each.
"""

from random import Random
from typing import Any

from pubky_homeserver.core.peers import ALL, NONE
from tests.peers.worlds import mutual

SKEWS = (-3590.0, -1800.0, -200.0, 0.0, 0.0, 200.0, 1800.0, 3590.0)
"""Seconds by which clocks are wrong."""

USUAL = {
    "write": 30, "storm": 4, "write_elsewhere": 6, "read": 10, "punctual": 0, "move": 4, "claim": 2, "point": 1,
    "flip": 1, "renew": 1, "two_claims": 1, "crash": 3, "restart": 3, "stop": 1, "back_up": 2, "rewind": 1,
    "lose": 1, "newcomer": 1, "partition": 2, "one_way": 2, "heal": 3, "network": 1, "weather": 2, "clocks": 1,
}  # fmt: skip
"""How often each happens, of all."""

THEMES: tuple[dict[str, int], ...] = (
    {"storm": 15, "weather": 6, "crash": 6, "newcomer": 6},
    {"move": 14, "claim": 4, "two_claims": 3, "write_elsewhere": 14, "point": 3},
    {"flip": 8, "renew": 3, "write_elsewhere": 14, "network": 4},
    {"lose": 10, "back_up": 8, "rewind": 6, "storm": 6},
    {"crash": 20, "restart": 6, "move": 8},
    {"partition": 8, "one_way": 8, "move": 8, "write_elsewhere": 10},
    {"clocks": 6, "move": 6},
    {"punctual": 40, "weather": 0, "partition": 0, "one_way": 0, "stop": 0, "crash": 1, "clocks": 0},
)


def trust_of(random: Random, is_bad: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """Three who trust each other; perhaps a fourth one whom only one trusts, and a bad one."""
    trust = mutual("a", "b", "c")
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    if random.random() < 0.4:
        trust["d"] = {"b": {"follow": ALL, "offer": ALL}}
        trust["b"]["d"] = {"follow": ALL, "offer": random.choice([ALL, ALL, NONE])}
        if random.random() < 0.3:
            trust["d"]["b"]["max_bytes"] = random.choice([2000, 8000, 20_000])
        pairs.append(("b", "d"))
    consents = random.choice([0.0, 0.5, 1.0, 1.0])
    for one, other in pairs:
        is_private = random.random() < consents
        for here, there in ((one, other), (other, one)):
            trust[here][there] = {**trust[here][there], "private": is_private or random.random() < 0.1}
    if is_bad or random.random() < 0.15:
        for settings in trust.values():
            settings["x"] = {"follow": ALL, "offer": ALL}
        trust["x"] = {}
    return trust
