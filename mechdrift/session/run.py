"""pytest's hooks of a comparing run."""

from contextlib import AbstractContextManager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.findings.tiers import is_selected
from mechdrift.report import text
from mechdrift.report.record_file import stamp
from mechdrift.report.terminal import chain, parts, seconds_by_phase, table, title
from mechdrift.session import fixtures
from mechdrift.session.finish import finish
from mechdrift.session.header import header
from mechdrift.session.judge import add_row, again, without_number
from mechdrift.session.marks import between_of, request_data, request_from, requested_by
from mechdrift.session.phases import START, phase
from mechdrift.session.plan import plan_lines
from mechdrift.session.record import chain_of, lineage_of
from mechdrift.session.request import request_of
from mechdrift.session.rows import RequestedRow, from_worker_data, to_json, to_worker_data
from mechdrift.session.start import refuse_settings_of_checkpoints, start
from mechdrift.session.state import INPUTS, ROW, STATE, State
from mechdrift.session.work import agreements_found, streams_found, warnings_given, work_done, work_so_far
from mechdrift.session.xdist import Workers, hand_over, take_over
from mechdrift.settings import Settings
from mechdrift.verdict.failing import fails
from mechdrift.verdict.row import Row


def configure(config: pytest.Config, settings: Settings) -> None:
    """Set up a comparing run: choose what is collected, read profile and baselines, register hooks and fixtures."""
    refuse_settings_of_checkpoints(config, settings)
    if config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args = [str(files("mechdrift.suites"))]
        config.option.importmode = "importlib"
    state = State(config, request_of(config, settings))
    config.stash[STATE] = state
    config.pluginmanager.register(Hooks(state), "mechdrift-run")
    config.pluginmanager.register(fixtures, "mechdrift-fixtures")
    if settings.plan and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("mechdrift: --mechdrift-plan with -n; expected one process; leave -n out")
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Workers(state), "mechdrift-xdist")


class Hooks:
    """Before, during and after the tests."""

    def __init__(self, state: State) -> None:
        """Of one run."""
        self.state = state

    # Before the tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Read all checkpoints through, so that nothing starts on a broken one."""
        state = self.state
        if state.settings.record:
            state.record_before = stamp(Path(state.settings.record))
        with self._phase(START):
            state.config.stash[INPUTS] = take_over(state) if state.is_worker else start(state.config, state.request)
        state.warnings += state.inputs.warnings

    def _phase(self, name: str) -> AbstractContextManager[None]:
        """What goes on inside is part of a phase."""
        return phase(self.state.phases, name, lambda: work_so_far(self.state.config))

    def pytest_report_header(self) -> list[str]:
        """What is compared, and how."""
        return header(self.state)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Ask every test that looks at base and post of everything that is compared."""
        betweens = self.state.request.betweens
        if len(betweens) > 1 and "mechdrift_pair" in metafunc.fixturenames:
            names = [between.file for between in betweens]
            metafunc.parametrize("mechdrift_pair", betweens, indirect=True, ids=names, scope="session")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests of requested rows; the rest of a stranger's tests stay, which no step of a chain may fail.

        Raises UsageError for a label that no row has.
        """
        state = self.state
        labels = {row_of(requested.label) for item in items if (requested := requested_by(item, state.profile))}
        for name in map(row_of, state.settings.only):
            # A worker that raised would crash; there the run ends with no test collected.
            if "[" in name and not state.is_worker and not any(is_selected(label, [name]) for label in labels):
                raise pytest.UsageError(
                    f"mechdrift: --mechdrift-only {name!r}: no such row; expected a label as the table of a run has it; "
                    f"type --mechdrift-only {finding_of(name)} for all rows of that finding"
                )
        dropped = [
            item
            for item in items
            if ((requested := requested_by(item, state.profile)) and not self._is_requested(requested))
            or (not requested and between_of(item).step)
        ]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]

    def _is_requested(self, requested: RequestedRow) -> bool:
        """Whether --mechdrift-only and the tier leave a row in."""
        selected = self.state.request.findings
        return requested.finding.name in selected and is_selected(requested.label, self.state.settings.only)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which rows must come."""
        state = self.state
        if not state.config.option.collectonly:
            state.expected = {requested for item in session.items if (requested := requested_by(item, state.profile))}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """A plan runs no test."""
        if not self.state.settings.plan:
            return None
        self.state.messages += plan_lines(self.state)
        return True

    # During the tests

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """A test, with the fixtures that it is the first to need, is part of its family's phase."""
        requested = requested_by(item, self.state.profile)
        with self._phase(requested.finding.family) if requested else nullcontext():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Attach the row to the report, and turn what stopped it into one."""
        report: pytest.TestReport = yield
        state = self.state
        requested = requested_by(item, state.profile)
        if requested is None or call.when == "teardown":
            return report
        error = call.excinfo.value if call.excinfo else None
        row = item.stash.get(ROW, None)
        if row is None and (error is not None or call.when == "call"):
            row = without_number(state, requested, error)
            if isinstance(error, Unmeasurable) and not fails(row, state.settings.fail_on):
                report.outcome = "skipped"
                why = f"unmeasurable: {row.reason}" if row.role == "report" else text.let_pass(row)
                report.longrepr = (str(item.path), item.location[1] or 0, why)
            else:
                report.outcome = "failed"
                if error is None or isinstance(error, Unmeasurable | InputError):
                    report.longrepr = text.missing(row, again(state, requested))
        if row is not None:
            data = {
                "row": to_worker_data(row),
                "bad_input": isinstance(error, InputError),
                "expected": [request_data(one) for one in state.expected],
            }
            report.mechdrift = data  # type: ignore[attr-defined]
            item.user_properties += row_properties(row)  # JUnit takes them from the teardown report
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect rows, on the controller from all workers."""
        state = self.state
        data: dict[str, Any] = getattr(report, "mechdrift", {"row": None, "bad_input": False, "expected": []})
        row = data["row"] and from_worker_data(data["row"])
        if row is not None and add_row(state, row) and not state.is_worker:
            state.config.hook.pytest_mechdrift_row(config=state.config, row=to_json(row))
        state.bad_input |= data["bad_input"]
        # The controller of workers collects no tests; it learns from their reports what was to come.
        state.expected |= {request_from(*one) for one in data["expected"]}
        if report.failed and (row is None or row.verdict == "error"):
            state.unexpected = True

    # After the tests

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Complete the rows, set the exit code, write the record."""
        state = self.state
        for name, amount in work_done(state.config).items():
            state.work[name] = state.work.get(name, 0) + amount
        state.warnings += warnings_given(state.config)
        state.streams |= streams_found(state.config)
        state.agreements |= agreements_found(state.config)
        if state.is_worker:
            hand_over(state)
        elif not state.settings.plan:
            finish(state, session, exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table."""
        state = self.state
        ends = [between.names for between in state.request.ends]  # of a step where -k leaves nothing else, the table has the row
        rows = [row for row in state.rows.values() if row.between in ends or row_of(row.label) not in state.rows]
        if rows:
            head, markup = title(state.verdict, rows)
            terminalreporter.section(f"mechdrift: {head}", "=", **markup)
            table(rows, terminalreporter.write)
            chain(chain_of(state), terminalreporter.write)
            parts(lineage_of(state), terminalreporter.write)
            terminalreporter.write_line(f"mechdrift: time: {seconds_by_phase(state.phases)}")
        for warning in dict.fromkeys(state.warnings):
            terminalreporter.write_line(f"mechdrift: warning: {text.printable(warning)}", yellow=True)
        for line in state.messages:
            terminalreporter.write_line(text.printable(line))


def row_properties(row: Row) -> list[tuple[str, object]]:
    """A row's numbers as JUnit properties."""
    names = ("label", "finding", "role", "verdict", "estimate", "low", "high", "n", "unit", "site", "p_value", "reason")
    values = {name: getattr(row, name) for name in names} | {
        side: getattr(row.limit, side, None) for side in ("at_least", "at_most")
    }
    return [(f"mechdrift.{name}", text.printable(str(value))) for name, value in values.items() if value is not None]
