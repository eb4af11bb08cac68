"""Measures of the context: counts, and means in closed form."""

import numpy as np
import pytest

from mechdrift.checkpoints.config_changes import Change
from mechdrift.findings.context.reach import late_loss, settings


def test_settings_are_counted_and_named() -> None:
    drift = settings([Change("sliding_window", 64, 32), *(Change(f"layer_types.{n}", "a", "b") for n in range(4))], "window")
    assert (drift.estimate, tuple(drift.interval), drift.null) == (5.0, (5.0, 5.0), 0.0)
    assert drift.note.startswith("sliding_window: base 64, post 32; ")
    assert drift.note.endswith("; and 2 more")
    assert settings([], "rope").estimate == 0.0


def test_late_loss_is_the_mean_of_the_last_quarter() -> None:
    """Post loses 1 nat from token 48 of 64 on, .5 of it in the documents of even number; before that it gains 3."""
    base = np.full((10, 63), 2.0, dtype=np.float32)
    post = base - 3.0
    post[:, 47:] = 3.0
    post[::2, 47:] = 2.5
    drift = late_loss(base, post, "words")
    assert drift.estimate == pytest.approx(0.75)
    # Of 5 ones and 5 halves: standard deviation .25 * sqrt(10 / 9), over sqrt(10).
    half = 1.6449 * 0.25 * np.sqrt(10 / 9) / np.sqrt(10)
    assert drift.interval == pytest.approx((0.75 - half, 0.75 + half), rel=1e-4)
    assert [point.site for point in drift.curve] == ["tokens 1 to 16", "tokens 17 to 32", "tokens 33 to 47", "tokens 48 to 63"]
    assert [point.estimate for point in drift.curve] == pytest.approx([-3.0, -3.0, -3.0, 0.75])
