"""A pytest plugin for runs beside a training run, by `-p`: the run's step, and how many gates it collected."""

import os
from pathlib import Path
from typing import Any

import pytest

STEP = "MECHDRIFT_STEP"  # the environment variable that has the number
COLLECTED = "MECHDRIFT_COLLECTED"  # that of the file which gets the number of gates


def pytest_mechdrift_record(record: dict[str, Any]) -> None:
    """`extra.step`, by which reports order the records of a training run."""
    record["extra"]["step"] = int(os.environ[STEP])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the callback how many gates there will be, before a step is trained."""
    from mechdrift.session.marks import requested_by
    from mechdrift.session.state import STATE

    state = session.config.stash.get(STATE, None)
    if state is not None and COLLECTED in os.environ:
        requested = [requested_by(item, state.profile) for item in session.items]
        gates = {one.label for one in requested if one and one.rule(state.profile).role == "gate"}
        Path(os.environ[COLLECTED]).write_text(str(len(gates)))
