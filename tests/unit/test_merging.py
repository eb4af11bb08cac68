"""Rows of workers come in any order: the record and the exit code do not know it."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from recorded import row

from mechdrift.session.finish import exit_code
from mechdrift.session.rows import to_worker_data, worse_of
from mechdrift.session.run import Hooks
from mechdrift.session.state import State
from mechdrift.verdict.failing import NOT_HELD, WORSE
from mechdrift.verdict.row import Row

ROWS = st.builds(
    lambda label, verdict, role, estimate: row(label, float(estimate), verdict, role=role),
    st.sampled_from(["a.a", "a.b", "a.c"]),  # so few that some come twice
    st.sampled_from(WORSE),
    st.sampled_from(["gate", "report"]),
    st.integers(0, 3),
)


def merged(rows: list[Row]) -> State:
    """A controller's run after these rows' reports, one by one."""
    result: Any = SimpleNamespace(hook=SimpleNamespace(pytest_mechdrift_row=lambda **_: None))
    settings: Any = SimpleNamespace(fail_on=NOT_HELD, update=False)
    profile: Any = SimpleNamespace(gated_as_shipped=3)
    request: Any = SimpleNamespace(settings=settings, profile=profile)
    state = State(result, request)
    for one in rows:
        report: Any = SimpleNamespace(
            failed=one.verdict == "error", mechdrift={"row": to_worker_data(one), "bad_input": False, "expected": []}
        )
        Hooks(state).pytest_runtest_logreport(report)
    return state


@given(st.lists(ROWS, max_size=8), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_rows_and_exit_code(rows: list[Row], random: Any) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    one, other = merged(rows), merged(shuffled)
    assert one.rows == other.rows
    assert exit_code(one) == exit_code(other)


@given(st.lists(ROWS, min_size=1, max_size=8), st.integers(0, 8))
def test_any_partition_gives_what_the_whole_gives(rows: list[Row], cut: int) -> None:
    """Each worker's rows merged by themselves, and then with the other's."""
    parts = [list(merged(part).rows.values()) for part in (rows[:cut], rows[cut:])]
    assert merged([one for part in parts for one in part]).rows == merged(rows).rows


@given(ROWS, ROWS)
def test_a_second_row_of_one_name_never_makes_the_first_better(first: Row, second: Row) -> None:
    kept = worse_of(first, second)
    assert kept in (first, second)
    assert WORSE.index(kept.verdict) == max(WORSE.index(first.verdict), WORSE.index(second.verdict))


def test_a_drifted_row_is_not_hidden_by_a_held_one_of_its_name() -> None:
    """As it was once: the first row stood, and the run was green."""
    assert exit_code(merged([row("a.a", 1.0, "held"), row("a.a", 1.0, "drifted")])) == 1
