"""How a run ends: the rows that did not come, the exit code, what is written."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.errors import InputError
from mechdrift.findings.tiers import is_selected
from mechdrift.report.record_file import WrittenMeanwhile, to_json, write_over, write_record
from mechdrift.session.judge import unmeasured
from mechdrift.session.record import record_of
from mechdrift.session.state import State
from mechdrift.verdict.failing import fails
from mechdrift.verdict.row import Row
from mechdrift.verdict.run_verdict import MILDER, NO_GATE, run_verdict

NOT_FINISHED = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)

# --collect-only, --fixtures, --fixtures-per-test, --cache-show: pytest's own exit code stands, and there is no record.
SHOWN_ONLY = ("collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow")


def finish(state: State, session: pytest.Session, exitstatus: int) -> None:
    """Complete the rows, set the exit code, write record and baselines; of a session that only shows something nothing."""
    if any(getattr(state.config.option, name, None) for name in SHOWN_ONLY):
        return
    for requested in state.expected:
        if requested.label not in state.rows:
            state.rows[requested.label] = unmeasured(state, requested, "unmeasurable", "its test never ran")
            state.never_ran.add(requested.label)
    for between in state.request.ends:
        there = [row for row in state.rows.values() if row.between == between.names]
        for row in state.request.baselines.forgotten(there, between):
            if _is_selected(state, row):
                state.rows[row.label] = row
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.exitstatus = exit_code(state)
    if not state.has_started:
        return
    state.warnings += state.request.baselines.warnings(record_of(state, int(session.exitstatus)))
    if session.exitstatus not in NOT_FINISHED:
        _write_baselines(state, session)
    if state.settings.record:
        _write_record(state, session)
    state.verdict = run_verdict(record_of(state, int(session.exitstatus)))


def _is_selected(state: State, row: Row) -> bool:
    """Whether this run should have measured a row that a baseline has.

    Paths choose the findings of their tests. Whoever chooses tests one by one has chosen what is not asked.
    """
    if not state.request.tier.includes(row.finding):
        return False
    option = state.config.option
    one_by_one = ("keyword", "markexpr", "deselect", "lf", "stepwise")
    if any("::" in argument for argument in state.config.args) or any(getattr(option, name, None) for name in one_by_one):
        return False
    if state.config.args_source == pytest.Config.ArgsSource.ARGS:
        return row.finding in {requested.finding.name for requested in state.expected}
    return is_selected(row.label, state.settings.only)


def exit_code(state: State) -> int:
    """Exit code of a run that pytest itself finished; 0 needs a gate that was measured and held, or leave of the user."""
    if state.bad_input:
        return int(pytest.ExitCode.USAGE_ERROR)
    if state.unexpected:
        return int(pytest.ExitCode.TESTS_FAILED)
    if not state.rows:
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    failing = set().union(*(fails(row, state.settings.fail_on) for row in state.rows.values()))
    if not failing:
        return _code_where_none_fails(state)
    milder = [code for verdict, code in MILDER.items() if verdict in failing]
    return milder[0] if failing <= MILDER.keys() else 1


def _code_where_none_fails(state: State) -> int:
    """A waiver and --mechdrift-fail-on speak of what was measured: neither lets a gate pass whose test never ran."""
    gates = {label for label, row in state.rows.items() if row.role == "gate"}
    if state.settings.update:
        return int(pytest.ExitCode.TESTS_FAILED)
    if not gates and state.profile.gated_as_shipped:
        state.messages.append(f"mechdrift: {NO_GATE}")
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    return MILDER["unmeasurable"] if gates & state.never_ran else 0


def _write_record(state: State, session: pytest.Session) -> None:
    """Write the record; what cannot be written is said and is a usage error, never a green run without its record."""
    record = record_of(state, int(session.exitstatus))
    data = to_json(record)  # hooks are given JSON data, and may add to a part of it
    state.config.hook.pytest_mechdrift_record(config=state.config, record=data)
    record = replace(record, extra=data["extra"])
    path = Path(str(state.settings.record))
    try:
        if state.settings.device == TENSOR_PARALLEL:  # several processes are one run
            write_record(path, record)
        else:
            write_over(path, record, state.record_before)
        state.messages.append(f"record: {path}")
    except WrittenMeanwhile as error:
        state.messages.append(f"record {path} not written: {error.strerror}; give each run a record of its own")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
    except OSError as error:
        state.messages.append(f"record {state.settings.record} not written: {error.strerror}; make room or name another place")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)


def _write_baselines(state: State, session: pytest.Session) -> None:
    """Write them; what cannot be written is said and is a usage error."""
    try:
        state.messages += state.request.baselines.write(record_of(state, int(session.exitstatus)))
    except OSError as error:
        state.messages.append(f"baseline not written: {error.strerror}; make room, or make its folder writable")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
    except InputError as error:
        state.messages.append(str(error))
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
