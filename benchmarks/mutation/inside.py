"""The tests as mutants.py runs them, in the environment of its clone: traced once, then chosen ones for each mutant.

`inside.py trace FOLDER PATH`: which lines each test runs, and how long it takes.
`inside.py chosen FILE`: the tests that this file names, by id or as whole files, in its order, up to the first that fails.
"""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

# Processes that a test starts are traced too, under the name that the environment has at that moment.
SETTINGS = """[run]
data_file = {folder}/coverage
parallel = true
sigterm = true
context = ${{MUTANTS_CONTEXT-}}
disable_warnings = no-data-collected, module-not-measured, couldnt-parse
include =
    {tree}/mechdrift/*
"""


class Traced:
    """A plugin: names the lines that run by the test, or by the fixture of several tests, that runs them."""

    def __init__(self, tracer: coverage.Coverage, file: Path) -> None:
        self.tracer, self.file, self.now = tracer, file, ""
        self.tests: dict[str, dict[str, Any]] = {}

    def switch(self, name: str) -> str:
        """Trace under another name from here on; returns the one before."""
        before, self.now = self.now, name
        os.environ["MUTANTS_CONTEXT"] = name
        self.tracer.switch_context(name)
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test, with the fixtures that it has to itself."""
        self.tests[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": getattr(item, "fixturenames", [])}
        before = self.switch(item.nodeid)
        try:
            return (yield)
        finally:
            self.switch(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """A fixture that several tests share is not only the first one's."""
        if fixturedef.scope == "function":
            return (yield)
        before = self.switch(f"fixture {fixturedef.argname} of {fixturedef.baseid}")
        try:
            return (yield)
        finally:
            self.switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How long it took, and whether it is fit to find faults."""
        test = self.tests[report.nodeid]
        test["seconds"] += report.duration
        test["passed"] = test["passed"] and report.outcome == "passed"

    def pytest_sessionfinish(self) -> None:
        """Keep what is known of the tests."""
        self.file.write_text(json.dumps(self.tests))


class Chosen:
    """A plugin: runs these tests only, in this order."""

    def __init__(self, names: list[str]) -> None:
        self.order = {name: place for place, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Not by arguments: there a test that is not found cannot be told from a module that cannot be imported."""
        items[:] = sorted((item for item in items if self.place(item) is not None), key=lambda item: self.place(item) or 0)

    def place(self, item: pytest.Item) -> int | None:
        """Where a test, or its whole file, stands in the list."""
        return self.order.get(item.nodeid, self.order.get(item.nodeid.partition("::")[0]))


def trace(folder: Path, tests: str) -> int:
    """Run tests with every line traced; pytest's exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "coveragerc"
    settings.write_text(SETTINGS.format(folder=folder, tree=Path.cwd()))
    os.environ |= {"COVERAGE_PROCESS_START": str(settings), "MUTANTS_CONTEXT": ""}
    tracer = coverage.Coverage(config_file=str(settings))
    tracer.start()
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not nightly", tests], [Traced(tracer, folder / "tests.json")])
    tracer.stop()
    tracer.save()
    whole = coverage.Coverage(data_file=str(folder / "coverage"), config_file=False)  # a tracer of parallel runs saves beside it
    whole.combine([str(folder)])
    whole.save()
    return int(code)


def chosen(names: list[str]) -> int:
    """Run these tests up to the first that fails; pytest's exit code."""
    files = sorted({name.partition("::")[0] for name in names})
    return int(pytest.main(["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-m", "not nightly", *files], [Chosen(names)]))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    sys.exit(trace(Path(rest[0]), rest[1]) if what == "trace" else chosen(Path(rest[0]).read_text().split("\n")))
