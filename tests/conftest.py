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

    def ended(*outcomes: str) -> set[str]:
        reports = (report for outcome in outcomes for report in terminalreporter.getreports(outcome))
        return {report.nodeid.partition("[")[0] for report in reports}

    passed, failed = ended("passed"), ended("failed", "error")
    files = {node.partition("::")[0] for node in passed | failed | ended("skipped")}
    whole = all(file in files for file in FILES.values() if "interop" not in file)
    if whole and not terminalreporter.stats.get("deselected"):
        terminalreporter.section("behaviours")
        for line in summary(passed, failed):
            terminalreporter.write_line(line)
