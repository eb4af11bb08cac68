"""Where users may step in."""

from typing import Any

import pytest


def pytest_mechdrift_row(config: pytest.Config, row: dict[str, Any]) -> None:
    """Called on the controller for every row as it comes in; a row is JSON data as in the record."""


def pytest_mechdrift_record(config: pytest.Config, record: dict[str, Any]) -> None:
    """Called once with the whole record before it is written; add what you like under record["extra"]."""
