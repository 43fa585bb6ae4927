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

PARTLY = "~ "
"""Begins what a line's tests do not cover."""


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
    parted = [test.partition(":") for test in tests if not test.startswith(PARTLY)]
    return [(FILES[letter], f"test_{name}") for letter, _, name in parted]


def left_out() -> dict[str, str]:
    """Lines without tests, and why."""
    return {line: said[2] for line, said in LINES.items() if said[1] == "-"}


def missing_parts() -> dict[str, str]:
    """Lines of which a part has no test: which part, and why."""
    return {line: said[-1].removeprefix(PARTLY) for line, said in LINES.items() if said[-1].startswith(PARTLY)}


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
    assert [line for line in LINES if not named(line) and line not in left_out()] == []


def test_every_file_is_used() -> None:
    """No file is listed that no line names: a letter that stands for nothing."""
    assert {file for line in LINES for file, _ in named(line)} == set(FILES.values())


def test_a_line_counts_when_all_its_tests_passed() -> None:
    """A test of which one case failed has not passed, nor has one that did not run; official clients run elsewhere."""
    everything = {f"{file}::{name}" for line in LINES for file, name in named(line) if "interop" not in file}
    done = f"{len(LINES) - len(left_out())} of {len(LINES)} lines"
    assert summary(everything, set())[0].startswith(done)
    assert not any("NOT PASSED" in said for said in summary(everything, set()))
    some = f"{FILES['P']}::test_url_encoding"
    for passed, failed in ((everything - {some}, set[str]()), (everything, {some})):
        assert summary(passed, failed)[-1] == "NOT PASSED: A5.2, S.2"


def summary(passed: set[str], failed: set[str]) -> list[str]:
    """What a run of all tests says at its end, of the tests of which a case passed, and those of which one did not.

    The official clients run apart from it, and count by being there.
    """
    without, parts, good = left_out(), missing_parts(), passed - failed
    wrong = [
        line for line in LINES if not all(f"{file}::{name}" in good or "interop" in file for file, name in named(line))
    ]
    count = len(LINES) - len(without) - len(wrong)
    told = [
        f"{count} of {len(LINES)} lines have tests that passed, {len(parts)} of them in part: {len(without)} left out"
    ]
    told += ["in part:", *(f"  {line}: {part}" for line, part in parts.items()), "left out:"]
    for reason in Counter(without.values()):
        told.append(f"  {reason}: {', '.join(line for line in without if without[line] == reason)}")
    if wrong:
        told.append(f"NOT PASSED: {', '.join(wrong)}")
    return told
