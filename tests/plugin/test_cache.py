"""A run that is killed, two runs at once, a spoilt entry, no room: the record is that of an undisturbed run.

The same with 30 kills is tests/nightly/test_killed.py.
"""

from pathlib import Path

import pytest
from killed import Job, Ran, check_kill, moments, write_statements
from phases import PHASES

from mechdrift.commands.cache import verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this module, with statements in it."""
    folder = tmp_path_factory.mktemp("killed")
    write_statements(folder / "statements.csv")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Job:
    """The job whose run nothing disturbs."""
    return Job(folder / "whole", folder / "statements.csv", folder / "whole-cache")


@pytest.fixture(scope="module")
def undisturbed(whole: Job) -> Ran:
    """What it says."""
    ran = whole.run(watched=True)
    assert ran.recorded > 0, ran.out
    return ran


@pytest.mark.nightly
@pytest.mark.parametrize("phase", ["keep", "write record", "record post"])
def test_a_killed_run_is_run_again_as_if_it_had_not_been(folder: Path, whole: Job, undisturbed: Ran, phase: str) -> None:
    (moment,) = (one for one in moments(whole.noted(), len(PHASES)) if one.phase == phase)
    job = Job(folder / phase, folder / "statements.csv", folder / f"{phase}-cache")
    check_kill(job, moment, undisturbed)


@pytest.mark.nightly
def test_two_runs_at_once_record_everything_once(folder: Path, undisturbed: Ran) -> None:
    jobs = [Job(folder / f"at-once-{n}", folder / "statements.csv", folder / "shared-cache") for n in range(2)]
    processes = [job.start() for job in jobs]
    first, second = (job.result(process) for job, process in zip(jobs, processes, strict=True))
    assert first.judged == second.judged == undisturbed.judged
    assert first.recorded + second.recorded == undisturbed.recorded
    assert "warning" not in first.out + second.out


@pytest.mark.nightly
def test_workers_record_everything_once(folder: Path, undisturbed: Ran) -> None:
    ran = Job(folder / "workers", folder / "statements.csv", folder / "workers-cache", ("-n", "2")).run()
    assert ran.judged == undisturbed.judged
    assert ran.recorded == undisturbed.recorded


@pytest.mark.nightly
def test_a_flipped_byte_is_found_and_recorded_again(folder: Path, whole: Job, undisturbed: Ran) -> None:
    spoilt = sorted(whole.cache.rglob("*.safetensors"))[0]
    content = bytearray(spoilt.read_bytes())
    content[-5] ^= 1
    spoilt.write_bytes(content)
    ((line,), _) = verify(whole.cache)
    assert spoilt.name in line
    ran = Job(folder / "spoilt", folder / "statements.csv", whole.cache).run()
    (shown,) = (line for line in ran.out.splitlines() if "warning" in line)
    assert shown == f"mechdrift: warning: cache entry {spoilt.name} is bad (its content is not what was written); recorded again"
    assert ran.judged == undisturbed.judged
    assert 0 < ran.recorded < undisturbed.recorded
    assert verify(whole.cache)[0] == []


@pytest.mark.nightly
def test_a_cache_that_cannot_be_written_costs_one_line_whatever_the_workers(folder: Path, undisturbed: Ran) -> None:
    """What would be a folder is a file."""
    (folder / "file").write_text("no folder")
    ran = Job(folder / "unwritable", folder / "statements.csv", folder / "file" / "cache", ("-n", "2")).run()
    (shown,) = (line for line in ran.out.splitlines() if "warning" in line)
    assert shown.endswith("cannot be written (Not a directory); what is recorded now is not kept")
    assert ran.judged == undisturbed.judged
