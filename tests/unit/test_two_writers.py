"""Two runs that write one file at once: one is refused, and what lies beside the file is of the one that was not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from recorded import items, record, row, typed

from mechdrift.errors import InputError
from mechdrift.report.record_file import WrittenMeanwhile, stamp, write_over
from mechdrift.report.saved import read_saved, write_baseline
from mechdrift.verdict.record import Record

WRITERS = 8


def of(number: int) -> Record:
    """A record with a number of its own, in its row and in its items."""
    return typed(record(row("a.b", number / 10, items=items([0.0] * (number + 1), [1.0] * (number + 1)))))


def saves(path: Path, number: int) -> str:
    """What came of it."""
    try:
        return f"{write_baseline(path, of(number))} saved"
    except InputError as error:
        return str(error)


def test_of_many_that_save_one_name_one_does(tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "v1.json"
    with ThreadPoolExecutor(WRITERS) as pool:
        outcomes = list(pool.map(lambda number: saves(path, number), range(WRITERS)))
    (winner,) = [number for number, outcome in enumerate(outcomes) if outcome == "1 saved"]
    assert [outcome.partition(";")[0] for number, outcome in enumerate(outcomes) if number != winner] == [
        "baseline v1 was saved meanwhile, by another run"
    ] * (WRITERS - 1)
    (stored,) = read_saved(path).rows
    assert (stored.estimate, len(stored.items)) == (winner / 10, winner + 1)
    assert {found.name for found in path.parent.iterdir()} == {"v1.json", "v1.items.safetensors"}


def test_an_update_of_what_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    write_baseline(path, of(1))
    one, other = read_saved(path), read_saved(path)
    write_baseline(path, of(2), one)
    with pytest.raises(InputError, match="baseline v1 was changed meanwhile"):
        write_baseline(path, of(3), other)
    (stored,) = read_saved(path).rows
    assert stored.estimate == 0.2


def test_a_record_is_written_over_that_of_before_and_over_no_other(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    before = stamp(path)
    write_over(path, of(1), before)
    with pytest.raises(WrittenMeanwhile):
        write_over(path, of(2), before)
    assert read_saved(path).rows[0].estimate == 0.1
    write_over(path, of(2), stamp(path))
    path.unlink()
    write_over(path, of(3), before)
    assert read_saved(path).rows[0].estimate == 0.3
