"""One comparing run: what it compares, and the rows that come in."""

import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mechdrift import fixtures
from mechdrift.baselines import Baselines
from mechdrift.chains import BASE_TO_POST, POST, WITHOUT, Between, compared, moves, neighbours
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings import Finding, registered
from mechdrift.hand_set import HandSet, load_hand_set
from mechdrift.marks import between_of, request_data, request_from, requested_by
from mechdrift.phases import START, Phase, phase
from mechdrift.report import text
from mechdrift.report.record_file import Stamp, stamp
from mechdrift.rows import RequestedRow, from_worker_data, to_json, to_worker_data, unmeasured_row, worse_of
from mechdrift.run_end import finish
from mechdrift.run_header import header
from mechdrift.run_start import refuse_settings_of_checkpoints, resolve_all
from mechdrift.settings import Settings
from mechdrift.stages.lineage import lineage
from mechdrift.tiers import TIERS, Tier, is_selected, selected
from mechdrift.verdict.failing import fails
from mechdrift.verdict.limits import Profile, finding_of, row_of
from mechdrift.verdict.profiles import load_profile, project_at
from mechdrift.verdict.record import Move, Traced
from mechdrift.verdict.row import Row, Verdict
from mechdrift.verdict.run_verdict import RunVerdict

if TYPE_CHECKING:
    from mechdrift.checkpoints.classifier import ReplyClassifier
    from mechdrift.checkpoints.config_changes import Change
    from mechdrift.checkpoints.resolve import Checkpoint
    from mechdrift.prompts.instructions import Instructions
    from mechdrift.prompts.statements import Statement
    from mechdrift.prompts.texts import Texts
    from mechdrift.prompts.written_pairs import WrittenPair

RUN = pytest.StashKey["ComparingRun"]()
ROW = pytest.StashKey[Row]()


def start(config: pytest.Config, settings: Settings) -> None:
    """Set up a comparing run: choose what is collected, read profile and statements, register hooks and fixtures."""
    refuse_settings_of_checkpoints(config, settings)
    if config.args_source != pytest.Config.ArgsSource.ARGS:
        from importlib.resources import files

        config.args = [str(files("mechdrift.suites"))]
        config.option.importmode = "importlib"
    try:
        project = project_at(config.invocation_params.dir)
        profile = load_profile(settings.profile, project)
        baselines = Baselines(settings, project, profile)
        run = ComparingRun(
            config, settings, profile, baselines, selected(settings.only, TIERS[settings.tier]), load_hand_set(settings.hand_set)
        )
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error
    config.stash[RUN] = run
    config.pluginmanager.register(run, "mechdrift-run")
    config.pluginmanager.register(fixtures, "mechdrift-fixtures")
    if settings.plan and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("mechdrift: --mechdrift-plan with -n; expected one process; leave -n out")
    if config.pluginmanager.hasplugin("xdist"):
        from mechdrift import xdist

        config.pluginmanager.register(xdist.Workers(run), "mechdrift-xdist")


@dataclass(eq=False)  # pytest keeps plugins in sets
class ComparingRun:
    """The state of the run and its pytest hooks."""

    config: pytest.Config
    settings: Settings
    profile: Profile
    baselines: Baselines
    findings: dict[str, Finding]
    """Those selected."""
    hand_set: HandSet
    """Choices that are not left to their rules."""
    points: "dict[str, Checkpoint]" = field(default_factory=dict)
    """All checkpoints by name: base, stages, posts, post without a stage; none before they are resolved."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why post without a stage cannot be had, by its name."""
    config_changes: "dict[Between, tuple[Change, ...]]" = field(default_factory=dict)
    """Settings that are not the same in two checkpoints that are compared; where there are some."""
    lineage_notes: list[str] = field(default_factory=list)
    """How far the replays of training logs can be trusted."""
    statements: "tuple[Statement, ...]" = ()
    pairs: "tuple[WrittenPair, ...]" = ()
    """The user's; none where the shipped tables' are asked."""
    instructions: "Instructions | None" = None
    reply_classifier: "ReplyClassifier | None" = None
    texts: "Texts | None" = None
    store_folder: Path | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    """By label."""
    expected: set[RequestedRow] = field(default_factory=set)
    """What the collected tests ask."""
    never_ran: set[str] = field(default_factory=set)
    """Labels of rows whose tests did not run."""
    work: dict[str, int] = field(default_factory=dict)
    """Loads, recorded prompts, cache hits and misses, summed over workers."""
    phases: dict[str, Phase] = field(default_factory=dict)
    """Time, memory and work by family, of all workers."""
    warnings: list[str] = field(default_factory=list)
    """What a user should know and no row says; each once, whichever worker found it."""
    unexpected: bool = False
    """A test, ours or a stranger's, failed otherwise than by a verdict."""
    bad_input: bool = False
    """A checkpoint turned out unusable while it was loaded."""
    record_before: Stamp | None = None
    """The stamp of what lay in the record's place when the run began."""
    started: float = field(default_factory=time.time)
    verdict: RunVerdict | None = None
    """What came of the run; none before it ends."""
    messages: list[str] = field(default_factory=list)
    """What was written, and what could not be."""

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")

    @cached_property
    def betweens(self) -> tuple[Between, ...]:
        """What is compared with what, in order."""
        return compared(self.stages, [name for name, _ in self.settings.posts], self.settings.lineage)

    @property
    def stages(self) -> list[str]:
        """Names of the checkpoints between base and post."""
        return [name for name, _ in self.settings.stages]

    @property
    def ends(self) -> list[Between]:
        """Base with each post."""
        return [between for between in self.betweens if not between.step]

    def betweens_within(self, names: Collection[str]) -> list[Between]:
        """What is compared among these checkpoints alone."""
        return [between for between in self.betweens if {*between.names} <= {*names}]

    def pair(self, between: Between) -> fixtures.Pair:
        """The two checkpoints. Raises Unmeasurable where post without a stage cannot be had."""
        if why := self.absent.get(between.later):
            raise Unmeasurable(why)
        return fixtures.Pair(self.points[between.earlier], self.points[between.later], between=between)

    @property
    def tier(self) -> Tier:
        """How many items are used."""
        return TIERS[self.settings.tier]

    @property
    def asking(self) -> Tier:
        """The tier without what --mechdrift-only leaves out, so that nothing is read for rows that nobody asks."""
        return replace(self.tier, left_out=self.tier.left_out | (registered().keys() - self.findings.keys()))

    # Before the tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Read all checkpoints through, so that nothing starts on a broken one."""
        if self.settings.record:
            self.record_before = stamp(Path(self.settings.record))
        with self._phase(START):
            if self.is_worker:
                from mechdrift import xdist

                xdist.take_over(self)
            else:
                resolve_all(self)

    def _phase(self, name: str) -> AbstractContextManager[None]:
        """What goes on inside is part of a phase."""
        return phase(self.phases, name, lambda: fixtures.work_so_far(self.config))

    @property
    def estimator(self) -> str:
        """The name of what post without a stage is made by."""
        return (self.settings.lineage_by or ("rerun" if self.settings.stage_logs else "task-vector")).replace("-", " ")

    def pytest_report_header(self) -> list[str]:
        """What is compared, and how."""
        return header(self)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Ask every test that looks at base and post of everything that is compared."""
        if len(self.betweens) > 1 and "mechdrift_pair" in metafunc.fixturenames:
            names = [between.file for between in self.betweens]
            metafunc.parametrize("mechdrift_pair", self.betweens, indirect=True, ids=names, scope="session")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests of requested rows; the rest of a stranger's tests stay, which no step of a chain may fail.

        Raises UsageError for a label that no row has.
        """
        labels = {row_of(requested.label) for item in items if (requested := requested_by(item, self.profile))}
        for name in map(row_of, self.settings.only):
            # A worker that raised would crash; there the run ends with no test collected.
            if "[" in name and not self.is_worker and not any(is_selected(label, [name]) for label in labels):
                raise pytest.UsageError(
                    f"mechdrift: --mechdrift-only {name!r}: no such row; expected a label as the table of a run has it; "
                    f"type --mechdrift-only {finding_of(name)} for all rows of that finding"
                )
        dropped = [
            item
            for item in items
            if ((requested := requested_by(item, self.profile)) and not self._is_requested(requested))
            or (not requested and between_of(item).step)
        ]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]

    def _is_requested(self, requested: RequestedRow) -> bool:
        """Whether --mechdrift-only and the tier leave a row in."""
        return requested.finding.name in self.findings and is_selected(requested.label, self.settings.only)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which rows must come."""
        if not self.config.option.collectonly:
            self.expected = {requested for item in session.items if (requested := requested_by(item, self.profile))}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """A plan runs no test."""
        if not self.settings.plan:
            return None

        from mechdrift.plan import plan_lines

        self.messages += plan_lines(self)
        return True

    # During the tests

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """A test, with the fixtures that it is the first to need, is part of its family's phase."""
        requested = requested_by(item, self.profile)
        with self._phase(requested.finding.family) if requested else nullcontext():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Attach the row to the report, and turn what stopped it into one."""
        report: pytest.TestReport = yield
        requested = requested_by(item, self.profile)
        if requested is None or call.when == "teardown":
            return report
        error = call.excinfo.value if call.excinfo else None
        row = item.stash.get(ROW, None)
        if row is None and (error is not None or call.when == "call"):
            row = self._row_without_number(requested, error)
            again = self.again(requested)
            if isinstance(error, Unmeasurable) and not fails(row, self.settings.fail_on):
                report.outcome = "skipped"
                why = f"unmeasurable: {row.reason}" if row.role == "report" else text.let_pass(row)
                report.longrepr = (str(item.path), item.location[1] or 0, why)
            else:
                report.outcome = "failed"
                if error is None or isinstance(error, Unmeasurable | InputError):
                    report.longrepr = text.missing(row, again)
        if row is not None:
            data = {
                "row": to_worker_data(row),
                "bad_input": isinstance(error, InputError),
                "expected": [request_data(one) for one in self.expected],
            }
            report.mechdrift = data  # type: ignore[attr-defined]
            item.user_properties += row_properties(row)  # JUnit takes them from the teardown report
        return report

    def again(self, requested: RequestedRow) -> str:
        """The command that measures one finding again, on the same commits of the two checkpoints."""
        between = (
            BASE_TO_POST if WITHOUT in requested.between.later else requested.between
        )  # post without a stage ends with its run
        base, post = (point.pinned for point in self.pair(between).points)
        baseline = None if between.step else self.settings.baseline
        return replace(self.settings, base=base, posts=(("post", post),), baseline=baseline).command(row_of(requested.label))

    def _row_without_number(self, requested: RequestedRow, error: BaseException | None) -> Row:
        """A row for a test that gave none."""
        if error is None:
            return self.unmeasured(requested, "error", "the test ended without a verdict")
        if isinstance(error, Unmeasurable | pytest.skip.Exception):
            return self.unmeasured(requested, "unmeasurable", str(error))
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return self.unmeasured(requested, "error", reason)

    def unmeasured(self, requested: RequestedRow, verdict: Verdict, reason: str) -> Row:
        """The row of a test that gave no number."""
        return self.against_baseline(requested, unmeasured_row(requested, self.profile, verdict, reason))

    def against_baseline(self, requested: RequestedRow, row: Row) -> Row:
        """The row with what its baseline says of it; of a step none does."""
        return row if requested.between.step else self.baselines.against(row, requested.rule(self.profile))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect rows, on the controller from all workers."""
        data: dict[str, Any] = getattr(report, "mechdrift", {"row": None, "bad_input": False, "expected": []})
        row = data["row"] and from_worker_data(data["row"])
        known = row and self.rows.get(row.label)
        if row is not None and row != known and worse_of(known or row, row) == row:
            self.rows[row.label] = row
            if not self.is_worker:
                self.config.hook.pytest_mechdrift_row(config=self.config, row=to_json(row))
        self.bad_input |= data["bad_input"]
        # The controller of workers collects no tests; it learns from their reports what was to come.
        self.expected |= {request_from(*one) for one in data["expected"]}
        if report.failed and (row is None or row.verdict == "error"):
            self.unexpected = True

    # After the tests

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Complete the rows, set the exit code, write the record."""
        for name, amount in fixtures.work_done(self.config).items():
            self.work[name] = self.work.get(name, 0) + amount
        self.warnings += fixtures.warnings_given(self.config)
        if self.is_worker:
            from mechdrift import xdist

            xdist.hand_over(self)
            return
        if not self.settings.plan:
            finish(self, session, exitstatus)

    def lineage(self) -> list[Traced]:
        """What each stage did to what drifted; none where it was not requested."""
        if not self.settings.lineage:
            return []
        return lineage(self.rows.values(), self.stages, POST, self.estimator, self.lineage_notes)

    def moves(self) -> list[Move]:
        """What each step of the chain did to each row."""
        return moves(self.rows.values(), neighbours(self.stages, [between.later for between in self.ends]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table."""
        from mechdrift.report.terminal import chain, parts, seconds_by_phase, table, title

        ends = [between.names for between in self.ends]  # of a step where -k leaves nothing else, the table has the row
        rows = [row for row in self.rows.values() if row.between in ends or row_of(row.label) not in self.rows]
        if rows:
            head, markup = title(self.verdict, rows)
            terminalreporter.section(f"mechdrift: {head}", "=", **markup)
            table(rows, terminalreporter.write)
            chain(self.moves(), terminalreporter.write)
            parts(self.lineage(), terminalreporter.write)
            terminalreporter.write_line(f"mechdrift: time: {seconds_by_phase(self.phases)}")
        for warning in dict.fromkeys(self.warnings):
            terminalreporter.write_line(f"mechdrift: warning: {text.printable(warning)}", yellow=True)
        for line in self.messages:
            terminalreporter.write_line(text.printable(line))


def row_properties(row: Row) -> list[tuple[str, object]]:
    """A row's numbers as JUnit properties."""
    names = ("label", "finding", "role", "verdict", "estimate", "low", "high", "n", "unit", "site", "p_value", "reason")
    values = {name: getattr(row, name) for name in names} | {
        side: getattr(row.limit, side, None) for side in ("at_least", "at_most")
    }
    return [(f"mechdrift.{name}", text.printable(str(value))) for name, value in values.items() if value is not None]
