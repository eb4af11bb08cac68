"""How a run ends: the rows that did not come, the exit code, what is written."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.errors import InputError
from mechdrift.run_record import record_of
from mechdrift.tiers import is_selected
from mechdrift.verdict.failing import fails
from mechdrift.verdict.row import Row
from mechdrift.verdict.run_verdict import MILDER, NO_GATE, run_verdict

if TYPE_CHECKING:
    from mechdrift.run import ComparingRun

NOT_FINISHED = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)

# --collect-only, --fixtures, --fixtures-per-test, --cache-show: pytest's own exit code stands, and there is no record.
SHOWN_ONLY = ("collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow")


def finish(run: "ComparingRun", session: pytest.Session, exitstatus: int) -> None:
    """Complete the rows, set the exit code, write record and baselines; of a session that only shows something nothing."""
    if any(getattr(run.config.option, name, None) for name in SHOWN_ONLY):
        return
    for requested in run.expected:
        if requested.label not in run.rows:
            run.rows[requested.label] = run.unmeasured(requested, "unmeasurable", "its test never ran")
            run.never_ran.add(requested.label)
    for between in run.ends:
        there = [row for row in run.rows.values() if row.between == between.names]
        for row in run.baselines.forgotten(there, between):
            if _is_selected(run, row):
                run.rows[row.label] = row
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.exitstatus = exit_code(run)
    if not run.points:
        return
    run.warnings += run.baselines.warnings(record_of(run, int(session.exitstatus)))
    if session.exitstatus not in NOT_FINISHED:
        _write_baselines(run, session)
    if run.settings.record:
        _write_record(run, session)
    run.verdict = run_verdict(record_of(run, int(session.exitstatus)))


def _is_selected(run: "ComparingRun", row: Row) -> bool:
    """Whether this run should have measured a row that a baseline has.

    Paths choose the findings of their tests. Whoever chooses tests one by one has chosen what is not asked.
    """
    if not run.tier.includes(row.finding):
        return False
    option = run.config.option
    one_by_one = ("keyword", "markexpr", "deselect", "lf", "stepwise")
    if any("::" in argument for argument in run.config.args) or any(getattr(option, name, None) for name in one_by_one):
        return False
    if run.config.args_source == pytest.Config.ArgsSource.ARGS:
        return row.finding in {requested.finding.name for requested in run.expected}
    return is_selected(row.label, run.settings.only)


def exit_code(run: "ComparingRun") -> int:
    """Exit code of a run that pytest itself finished; 0 needs a gate that was measured and held, or leave of the user."""
    if run.bad_input:
        return int(pytest.ExitCode.USAGE_ERROR)
    if run.unexpected:
        return int(pytest.ExitCode.TESTS_FAILED)
    if not run.rows:
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    failing = set().union(*(fails(row, run.settings.fail_on) for row in run.rows.values()))
    if not failing:
        return _code_where_none_fails(run)
    milder = [code for verdict, code in MILDER.items() if verdict in failing]
    return milder[0] if failing <= MILDER.keys() else 1


def _code_where_none_fails(run: "ComparingRun") -> int:
    """A waiver and --mechdrift-fail-on speak of what was measured: neither lets a gate pass whose test never ran."""
    gates = {label for label, row in run.rows.items() if row.role == "gate"}
    if run.settings.update:
        return int(pytest.ExitCode.TESTS_FAILED)
    if not gates and run.profile.gated_as_shipped:
        run.messages.append(f"mechdrift: {NO_GATE}")
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    return MILDER["unmeasurable"] if gates & run.never_ran else 0


def _write_record(run: "ComparingRun", session: pytest.Session) -> None:
    """Write the record; what cannot be written is said and is a usage error, never a green run without its record."""
    from mechdrift.report.record_file import WrittenMeanwhile, to_json, write_over, write_record

    record = record_of(run, int(session.exitstatus))
    data = to_json(record)  # hooks are given JSON data, and may add to a part of it
    run.config.hook.pytest_mechdrift_record(config=run.config, record=data)
    record = replace(record, extra=data["extra"])
    path = Path(str(run.settings.record))
    try:
        if run.settings.device == TENSOR_PARALLEL:  # several processes are one run
            write_record(path, record)
        else:
            write_over(path, record, run.record_before)
        run.messages.append(f"record: {path}")
    except WrittenMeanwhile as error:
        run.messages.append(f"record {path} not written: {error.strerror}; give each run a record of its own")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
    except OSError as error:
        run.messages.append(f"record {run.settings.record} not written: {error.strerror}; make room or name another place")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)


def _write_baselines(run: "ComparingRun", session: pytest.Session) -> None:
    """Write them; what cannot be written is said and is a usage error."""
    try:
        run.messages += run.baselines.write(record_of(run, int(session.exitstatus)))
    except OSError as error:
        run.messages.append(f"baseline not written: {error.strerror}; make room, or make its folder writable")
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
    except InputError as error:
        run.messages.append(str(error))
        session.exitstatus = int(pytest.ExitCode.USAGE_ERROR)
