"""Which room a clone's pytest collects: tests/ by default, suites/ with --base. The plugin does the rest."""

from pathlib import Path

import pytest

HOUSE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With a pair given leave tests/ out, without one leave suites/ out, whatever path was typed."""
    comparing = config.getoption("mechdrift_base") is not None
    closed = HOUSE / ("tests" if comparing else "suites")
    return True if collection_path == closed or closed in collection_path.parents else None
