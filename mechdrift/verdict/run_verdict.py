"""The verdict of a whole run, from its record: the one place that says whether an exit code of 0 stands for gates that held."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mechdrift.verdict.failing import fails, holds
from mechdrift.verdict.record import Inputs, Record, RunVerdictName, StoredRecord
from mechdrift.verdict.row import JudgedRow

AnyRecord = Record | StoredRecord
WORST_FIRST: tuple[RunVerdictName, ...] = (
    "error", "drifted", "undecided", "unmeasurable", "identical", "ungated", "allowed", "held",
)  # fmt: skip
MILDER: dict[str, int] = {"undecided": 6, "unmeasurable": 7}
"""Exit codes of a run where nothing worse makes it fail, the first of them first."""
NOTHING_GATED = 5
NO_GATE = "no gate was selected: choose one, or type --mechdrift-profile report"


@dataclass(frozen=True)
class RunVerdict:
    """What came of a run."""

    verdict: RunVerdictName
    """`held`: gates were measured, and all held. `allowed`: some did not, and a waiver or --mechdrift-fail-on lets them pass.
    `ungated`: the profile has no gates. `identical`: base and post are the same files. `error`: no verdict on the gates."""
    message: str
    """Why, in a few words; empty where the counts of the gates say it."""

    @property
    def passes(self) -> bool:
        """Whether it is none of the failures."""
        return WORST_FIRST.index(self.verdict) > WORST_FIRST.index("unmeasurable")

    def exit_code(self, own: int) -> int:
        """0, 1, 5, 6 or 7; own: that of the run, which says whether an error was that nothing was gated."""
        if self.passes:
            return 0
        return NOTHING_GATED if self.verdict == "error" and own in (0, NOTHING_GATED) else MILDER.get(self.verdict, 1)


def run_verdict(record: AnyRecord) -> RunVerdict:
    """The verdict of a record of any version; an exit code that its rows do not bear out is an error."""
    code, rows, fail_on = record.exit_code, record.rows, record.settings.fail_on
    if why := record.extra.get("no_record"):
        return RunVerdict("error", f"no record: {why}")
    failing = set().union(*(fails(row, fail_on) for row in rows))
    gates = [row for row in rows if row.role == "gate"]
    if code == 0:
        return _passed(record, gates, failing)
    if code == 1:
        return RunVerdict("drifted", "") if "drifted" in failing else RunVerdict("error", _why_1(failing))
    for name, its_code in MILDER.items():
        if code == its_code:
            # A gate whose test never ran is unmeasurable whatever --mechdrift-fail-on says.
            borne_out = name in failing or (name == "unmeasurable" and any(row.verdict == name for row in gates))
            return RunVerdict(_name(name), "") if borne_out else RunVerdict("error", f"exit code {code}, and no gate is {name}")
    return RunVerdict("error", NO_GATE if code == NOTHING_GATED and rows else "")


def _passed(record: AnyRecord, gates: Sequence[JudgedRow], failing: Collection[str]) -> RunVerdict:
    """Of a run that ended with 0."""
    settings = record.settings
    if failing:
        return RunVerdict("error", f"exit code 0, and a gate is {min(failing)}")
    if not gates and settings.gated_as_shipped:
        return RunVerdict("error", NO_GATE)
    if settings.identity_shortcut and (names := _same_as_base(record.inputs)):
        return RunVerdict("identical", f"{' and '.join(names)} are the same files: nothing was compared")
    if not gates:
        return RunVerdict("ungated", f"profile {settings.profile} has no gates")
    if why := allowed_by(gates, settings.fail_on):
        return RunVerdict("allowed", f"{sum(map(holds, gates))} of {len(gates)} gates held; passes by {why}")
    return RunVerdict("held", "")


def _same_as_base(inputs: Inputs) -> list[str]:
    """Names of base and of the posts that have its content; none where no post has."""
    posts = [point.name for point in inputs.posts] or ["post"]
    for names in inputs.same_files or ([["base", "post"]] if inputs.identical else []):
        if "base" in names and (found := [name for name in posts if name in names]):
            return ["base", *found]
    return []


def allowed_by(gates: Iterable[JudgedRow], fail_on: Collection[str]) -> str:
    """By what gates pass that do not hold: `--mechdrift-fail-on drifted and 2 waivers`; empty where all hold."""
    passing = [row for row in gates if not holds(row) and not fails(row, fail_on)]
    waived = sum(row.waiver is not None for row in passing)
    by_option = [f"--mechdrift-fail-on {','.join(fail_on)}"] if waived < len(passing) else []
    return " and ".join([*by_option, *([f"{waived} waiver{'s' if waived > 1 else ''}"] if waived else [])])


def _why_1(failing: Collection[str]) -> str:
    """What ended a run with 1 that is no drift."""
    return "a gate ended with an error" if "error" in failing else "a test failed, or a baseline was updated"


def _name(name: str) -> RunVerdictName:
    (found,) = (each for each in WORST_FIRST if each == name)
    return found
