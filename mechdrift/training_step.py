"""A pytest plugin that writes into a run's record after which step of a training run it was: `-p mechdrift.training_step`."""

import os
from typing import Any

STEP = "MECHDRIFT_STEP"  # the environment variable that has the number


def pytest_mechdrift_record(record: dict[str, Any]) -> None:
    """`extra.step`, by which reports order the records of a training run."""
    record["extra"]["step"] = int(os.environ[STEP])
