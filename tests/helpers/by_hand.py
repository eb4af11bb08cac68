"""A suite of somebody's whose one row has the number that is requested."""

from typing import Any

SUITE = """
import pytest
from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item
from mechdrift.stats import Normal

@pytest.fixture
def measured(request):
    if {raises!r}:
        raise {raises}
    return Drift({measure!r}, Normal({estimate}, 0.01, 100), 1.0, "ratio", "higher", "here", "by hand", "none", items={items})

@pytest.mark.finding({finding!r})
{marks}
def test_gap(measured, mechdrift_drift):
    {body}
"""

USUAL = {
    "raises": "",
    "estimate": 1.0,
    "finding": "truth.clean_gap",
    "marks": "",
    "items": "()",
    "body": "mechdrift_drift.judge(measured)",
}


def suite_by_hand(**parts: Any) -> str:
    """The text of a test module.

    estimate: of the finding, with a standard error of 0.01, were there nothing to raise; measure: the drift's, the finding's if
    not given.
    """
    usual = USUAL | parts
    return SUITE.format(**{"measure": usual["finding"]} | usual)
