"""Runs that measure, gate or compare nothing, or not all, typed to pytest and to gate.sh: none may pass for gates that held."""

from collections.abc import Callable
from pathlib import Path

from by_hand import suite_by_hand
from stand_in import StandIn

from .case import UNMEASURABLE, USAGE, Case

Make = Callable[[Path, StandIn], tuple[str, ...]]
PAIR = {"BASE": "organism:base", "POST": "organism:instruct"}
TYPED = ("--base", PAIR["BASE"], "--post", PAIR["POST"])
NOTHING, DRIFTED = 5, 1
NO_RECORD = "mechdrift: verdict error, exit code 5: no record was left: nothing was measured"
NO_GATE = "no gate was selected: choose one, or type --mechdrift-profile report"
NEVER_RAN = {"code": UNMEASURABLE, "message": "truth.clean_gap unmeasurable"}
UNGATED = "@pytest.mark.limit(role='report')"


def own(*arguments: str, suite: str = "", **written: str) -> Make:
    """One test in the user's own folder, by default of a gate that holds; written: further files, `conftest_py`."""

    def make(folder: Path, _: StandIn) -> tuple[str, ...]:
        (folder / "test_own.py").write_text(suite or suite_by_hand())
        for name, text in written.items():
            (folder / name.replace("_", ".")).write_text(text)
        return "test_own.py", *arguments

    return make


def typed(*arguments: str, suite: str = "", **written: str) -> Make:
    """The same with the pair, as pytest is given it."""
    inner = own(*arguments, suite=suite, **written)
    return lambda folder, server: (*inner(folder, server), *TYPED)


def nothing(name: str, make: Make, message: str = NO_RECORD, code: int = NOTHING, slow: bool = True) -> Case:
    """gate.sh where nothing was measured. pytest's own help may say `passed`, and of another pair's rows some are held."""
    return Case("gate.sh, nothing", name, make, message, code, PAIR, may_hold=True, gate=True, slow=slow)


def verdict(name: str, make: Make, message: str, code: int = 0, slow: bool = True) -> Case:
    """gate.sh where something was."""
    return Case("gate.sh, measured", name, make, message, code, PAIR, may_hold=True, gate=True, slow=slow)


EXIT_0 = "import os\ndef pytest_collection_modifyitems(items):\n    os._exit(0)\n"
SAYS_0 = "import pytest\n@pytest.hookimpl(wrapper=True)\ndef pytest_cmdline_main(config):\n    yield\n    return 0\n"
PYTEST_EXIT = "import pytest\ndef pytest_runtest_setup(item):\n    pytest.exit('enough', returncode=0)\n"
SKIPPED = suite_by_hand(marks="@pytest.mark.skip(reason='not today')")

CASES = (
    nothing("--collect-only", own("--collect-only")),
    nothing("--mechdrift-plan left over", own("--mechdrift-plan")),
    nothing("--mechdrift-list", own("--mechdrift-list"), slow=False),
    nothing("--version", own("--version"), slow=False),
    nothing("-h", own("-h"), slow=False),
    nothing("--markers", own("--markers"), slow=False),
    nothing("--fixtures", own("--fixtures")),
    nothing("--cache-show", own("--cache-show")),
    nothing("addopts = --co in pytest.ini", own(pytest_ini="[pytest]\naddopts = --co\n")),
    nothing("a conftest that ends with 0", own(conftest_py=EXIT_0)),
    nothing("the record goes elsewhere", own("--mechdrift-record=elsewhere.json")),
    nothing("--post in ARGS", own("--post=organism:sft"), "organism:sft, expected organism:base and organism:instruct"),
    nothing("--base in ARGS", own("--base=organism:sft"), "the record is of organism:sft and organism:instruct"),
    nothing(
        "a conftest that makes every exit code 0",
        own(suite=suite_by_hand(estimate=0.2), conftest_py=SAYS_0),
        "the record says exit code 1, the process ended with 0",
    ),
    nothing("--setup-only", own("--setup-only"), "mechdrift: verdict unmeasurable, exit code 7", UNMEASURABLE),
    nothing("--setup-plan", own("--setup-plan"), "mechdrift: verdict unmeasurable, exit code 7", UNMEASURABLE),
    nothing("-p no:mechdrift", own("-p", "no:mechdrift"), "mechdrift: verdict error, exit code 4", USAGE, slow=False),
    nothing("rows that gate nothing", own(suite=suite_by_hand(marks=UNGATED)), f"exit code 5: {NO_GATE}"),
    verdict("a gate that holds", own(), "mechdrift: verdict held, exit code 0", slow=False),
    verdict("one that drifted", own(suite=suite_by_hand(estimate=0.2)), "mechdrift: verdict drifted, exit code 1", DRIFTED),
    verdict(
        "one let pass",
        own("--mechdrift-fail-on=drifted", suite=suite_by_hand(estimate=0.5)),
        "verdict allowed, exit code 0: 0 of 1 gates held; passes by --mechdrift-fail-on drifted",
    ),
    verdict(
        "a profile without gates",
        own("--mechdrift-profile=report"),
        "mechdrift: verdict ungated, exit code 0: profile report has no gates",
    ),
    Case(
        "nothing gated",
        "--mechdrift-only structure",
        lambda *_: (*TYPED, "--mechdrift-only", "structure.scale"),
        NO_GATE,
        5,
        may_hold=True,
    ),
    Case(
        "nothing gated",
        "a stranger's test that only reports",
        typed(suite=suite_by_hand(marks=UNGATED)),
        NO_GATE,
        5,
        may_hold=True,
    ),
    Case("nothing gated", "-k leaves none", typed("-k", "not test_gap"), "1 deselected", 5),
    Case("nothing gated", "--deselect", typed("--deselect", "test_own.py::test_gap", pytest_ini="[pytest]\n"), "1 deselected", 5),
    Case("nothing ran", "--setup-only", typed("--setup-only"), "its test never ran", UNMEASURABLE),
    Case(
        "nothing ran",
        "--setup-plan --mechdrift-fail-on drifted",
        typed("--setup-plan", "--mechdrift-fail-on=drifted"),
        "its test never ran",
        UNMEASURABLE,
    ),
    Case("nothing ran", "pytest.exit with returncode 0", typed(conftest_py=PYTEST_EXIT), "its test never ran", UNMEASURABLE),
    Case("nothing ran", "a test that is skipped", typed(suite=SKIPPED), "1 gated rows: 1 unmeasurable", UNMEASURABLE),
    Case(
        "let pass",
        "0 of 1 gates held",
        typed("--mechdrift-fail-on=drifted", suite=SKIPPED),
        "= mechdrift: 0 of 1 gates held; passes by --mechdrift-fail-on drifted =",
        0,
    ),
    Case(
        "let pass",
        "profile report",
        typed("--mechdrift-profile=report"),
        "= mechdrift: not gated: profile report has no gates =",
        0,
        may_hold=True,
    ),
    Case(
        "same files",
        "one organism twice",
        lambda *_: (
            "--base",
            "organism:base",
            "--post",
            "organism:base",
            "--mechdrift-only",
            "truth.clean_gap",
            "--mechdrift-tier",
            "smoke",
        ),
        "= mechdrift: identical: base and post are the same files: nothing was compared =",
        0,
        may_hold=True,
    ),
)
