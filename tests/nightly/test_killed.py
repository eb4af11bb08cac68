"""A run killed at 30 moments, spread over every phase, and run again."""

from collections import Counter
from pathlib import Path

import pytest
from killed import Job, check_kill, moments, write_statements
from phases import PHASES

MOMENTS = 30


def test_a_run_killed_at_any_moment_is_run_again_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statements = write_statements(tmp_path / "statements.csv")
    whole = Job(tmp_path / "whole", statements, tmp_path / "whole-cache")
    undisturbed = whole.run(watched=True)
    assert undisturbed.recorded > 0, undisturbed.out
    chosen = moments(whole.noted(), MOMENTS)
    assert len(chosen) == MOMENTS
    hit: Counter[str] = Counter()
    for number, moment in enumerate(chosen):
        # The cache is not in the folder, so that what is left beside the record can be seen.
        job = Job(tmp_path / str(number), statements, tmp_path / f"{number}-cache")
        phase = check_kill(job, moment, undisturbed)
        hit[phase] += 1
        with capsys.disabled():
            print(f"\nkilled in {phase!r} (meant: {moment.phase!r}, {moment.seconds:.2f} s after entry {moment.entry})", end="")
    with capsys.disabled():
        print(f"\n{sum(hit.values())} kills: " + ", ".join(f"{phase} {number}" for phase, number in sorted(hit.items())))
    assert set(PHASES) <= set(hit)
