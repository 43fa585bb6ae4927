"""Every line of the protocol's catalogue of behaviours has tests, or a reason why not."""

import ast
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
CATALOGUE = tomllib.loads((ROOT / "tests" / "behaviours.toml").read_text())
FILES: dict[str, str] = CATALOGUE["files"]
LINES: dict[str, list[str]] = CATALOGUE["lines"]

COUNTS = {
    **{"A1": 4, "A2": 6, "A3": 6, "A4": 4, "A5": 3, "A6": 4, "A7": 1, "B": 12, "C1": 9, "C2": 5, "C3": 5, "C4": 1},
    **{"D1": 10, "D2": 2, "D3": 4, "D4": 5, "D5": 1, "D6": 15, "E": 8, "F": 10, "G": 8, "H1": 5, "H2": 2, "H3": 4},
    **{"H4": 3, "I1": 6, "I2": 13, "I3": 9, "I4": 2, "J": 17, "K": 13, "L1": 5, "L2": 6, "L3": 4, "L4": 7, "L5": 4},
    **{"L6": 3, "L7": 3, "M1": 10, "M2": 4, "M3": 3, "M4": 5, "N": 6, "O1": 2, "O2": 8, "O3": 5, "O4": 3, "O5": 4},
    **{"O6": 3, "O7": 1, "P": 4, "Q": 5, "R": 16, "S": 9},
}
"""Lines of each section of the catalogue."""


def names_in(file: str) -> set[str]:
    """The names of the tests that a file defines."""
    tree = ast.parse((ROOT / file).read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def named(line: str) -> list[tuple[str, str]]:
    """File and name of the tests of a line; none if it gives a reason instead."""
    _, *tests = LINES[line]
    if tests[0] == "-":
        return []
    parted = [test.partition(":") for test in tests]
    return [(FILES[letter], f"test_{name}") for letter, _, name in parted]


def left_out() -> dict[str, str]:
    """Lines without tests, and why."""
    return {line: said[2] for line, said in LINES.items() if said[1] == "-"}


def test_every_line_is_there() -> None:
    """No line of the catalogue is missing, none is there twice."""
    numbers = {section: list(range(1, count + 1)) for section, count in COUNTS.items()}
    found: dict[str, list[int]] = {}
    for line in LINES:
        section, _, number = line.partition(".")
        found.setdefault(section, []).append(int(number))
    assert found == numbers


def test_every_named_test_is_there() -> None:
    """Each line names tests that exist, or says why it has none."""
    known = {file: names_in(file) for file in FILES.values() if (ROOT / file).exists()}
    missing = [(line, *test) for line in LINES for test in named(line) if test[1] not in known.get(test[0], ())]
    assert missing == []
    assert all(reason for reason in left_out().values())


def summary(passed: set[str]) -> list[str]:
    """What a run of all tests says at its end. The official clients run apart from it, and count by being there."""
    without = left_out()
    failed = [
        line
        for line in LINES
        if not all(f"{file}::{name}" in passed or "interop" in file for file, name in named(line))
    ]
    count = len(LINES) - len(without) - len(failed)
    told = [f"{count} of {len(LINES)} lines have tests that passed; {len(without)} are left out:"]
    for reason in Counter(without.values()):
        told.append(f"  {reason}: {', '.join(line for line in without if without[line] == reason)}")
    if failed:
        told.append(f"NOT PASSED: {', '.join(failed)}")
    return told
