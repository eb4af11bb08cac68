"""How every suite measures: a row is computed from its family's readings, in a fixture: unmeasurable is no crash of a test."""

from typing import Any

import pytest

from mechdrift.findings.drift import Drift
from mechdrift.session.judge import Judge


@pytest.fixture
def measured(request: pytest.FixtureRequest, readings: Any) -> Drift:
    """The row that a test is parametrised with."""
    drift: Drift = request.param.drift(readings)
    return drift


@pytest.fixture
def drift(mechdrift_drift: Judge) -> Judge:
    """Gives the verdict."""
    return mechdrift_drift
