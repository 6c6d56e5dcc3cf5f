"""What all tests share: settings of property tests, and engine tests that must not be skipped where promised."""

import os

# Linear algebra here is small; threads of its own would only take the cores from the other worker.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "gridpool", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("gridpool")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    required = os.environ.get("GRIDPOOL_REQUIRE_ENGINES") and item.get_closest_marker("engine")
    if required and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although GRIDPOOL_REQUIRE_ENGINES is set: {report.longrepr}"
    return report
