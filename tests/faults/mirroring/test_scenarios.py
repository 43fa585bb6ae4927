"""Every scenario of mirroring has tests, and every invariant is asserted by some."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
TABLE = tomllib.loads(Path(__file__).with_name("scenarios.toml").read_text())
FILES: dict[str, str] = TABLE["files"]
SCENARIOS: dict[str, list[str]] = TABLE["scenarios"]

WANTED = {*range(1, 23), *range(24, 27)}
INVARIANTS = {f"I{number}" for number in (1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 18, 20, 24)}
"""Those of the design that mirroring promises."""

PARTLY = "~ "
"""Begins what a scenario's tests do not show."""

_INVARIANT = re.compile(r"\bI\d+\b")


def rules_in(file: str) -> dict[str, set[str]]:
    """The tests that a file defines, and the invariants that the docstring of each names."""
    functions = [
        one
        for one in ast.parse((ROOT / file).read_text()).body
        if isinstance(one, ast.AsyncFunctionDef | ast.FunctionDef)
    ]
    return {
        one.name: {*_INVARIANT.findall(ast.get_docstring(one) or "")}
        for one in functions
        if one.name.startswith("test_")
    }


RULES = {file: rules_in(file) for file in FILES.values()}


def named(scenario: str) -> list[tuple[str, str]]:
    """File and name of the tests of a scenario."""
    _, _, *tests = SCENARIOS[scenario]
    parted = [test.partition(":") for test in tests if not test.startswith(PARTLY)]
    return [(FILES[letter], f"test_{name}") for letter, _, name in parted]


def test_every_scenario_has_tests() -> None:
    """No number is missing, and each has a test at least."""
    assert {int(scenario) for scenario in SCENARIOS} >= WANTED
    assert [scenario for scenario in SCENARIOS if not named(scenario)] == []


def test_every_named_test_is_there() -> None:
    """A test that is renamed is renamed in the table, too."""
    assert [one for scenario in SCENARIOS for one in named(scenario) if one[1] not in RULES[one[0]]] == []


def test_every_scenario_asserts_its_invariants() -> None:
    """What a scenario is about is what its tests say that they protect."""
    for scenario, (_, invariants, *_) in SCENARIOS.items():
        said = set().union(*(RULES[file][name] for file, name in named(scenario)))
        assert {*invariants.split()} <= said, scenario


def test_every_invariant_is_asserted() -> None:
    """None of them is asserted by no scenario."""
    assert INVARIANTS - {one for said in SCENARIOS.values() for one in said[1].split()} == set()


def test_every_test_of_this_folder_has_its_place() -> None:
    """No test is left out of the table."""
    here = {file.relative_to(ROOT).as_posix() for file in Path(__file__).parent.glob("test_*.py")} - {
        Path(__file__).relative_to(ROOT).as_posix()
    }
    assert here <= {*FILES.values()}
    placed = {one for scenario in SCENARIOS for one in named(scenario)}
    assert [(file, name) for file in sorted(here) for name in RULES[file] if (file, name) not in placed] == []
