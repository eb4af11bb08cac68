"""Refusal: how often both models refuse, and the direction that refusal lies in (Du et al. 2025, Arditi et al. 2024)."""

import pytest

from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.refusal.claims import REFUSAL
from mechdrift.findings.refusal.readings import Refusal, read
from mechdrift.session.fixtures import Beside
from mechdrift.session.judge import Judge
from mechdrift.session.marks import claimed


@pytest.fixture(scope="session")
def readings(mechdrift_inputs: Inputs, mechdrift_beside: Beside | None) -> Refusal:
    """Replies and directions of both models; post's direction lies beside the record, and replies if that is requested."""
    found = read(mechdrift_inputs)
    if mechdrift_beside and (direction := found.direction_file(mechdrift_inputs.pair)):
        mechdrift_beside(".refusal-direction.safetensors", direction)
    if mechdrift_beside and mechdrift_inputs.keep_replies:
        mechdrift_beside(".replies.jsonl", found.replies_file())
    return found


@claimed(REFUSAL)
def test_refusal_works_and_stays_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about refusal."""
    drift.judge(measured)
