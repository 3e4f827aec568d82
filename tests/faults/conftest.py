"""`pytest tests/faults --full` runs every count that the README's reliability table names; without it, CI's counts."""

import os
from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the full counts of the fault tests, hours on one core")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full", default=False):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # a full count takes as long as it takes


@pytest.fixture(scope="session")
def count(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`count(ci, full)`: how often a trial is to be made."""
    full = request.config.getoption("--full", default=False)
    return lambda ci, all_of_it: all_of_it if full else ci


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only processes die, flushing changes nothing; `test_power_loss` has a disk of its own that forgets."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
