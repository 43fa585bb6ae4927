"""Settings of all tests."""

import os
from typing import Any

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """After a run of everything: how many lines of the catalogue of behaviours have tests that passed, which not."""
    from tests.test_behaviours import FILES, summary

    passed = {report.nodeid.partition("[")[0] for report in terminalreporter.getreports("passed")}
    files = {node.partition("::")[0] for node in passed}
    if all(file in files for file in FILES.values() if "interop" not in file):
        terminalreporter.section("behaviours")
        for line in summary(passed):
            terminalreporter.write_line(line)
