"""Where mutants are run: in a clone of HEAD, whose environment has no other mechdrift, by the tests that ran their lines."""

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from bisect import bisect
from collections import defaultdict
from contextlib import suppress
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import libcst
from coverage import CoverageData

from mutation.faults import Mutant

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".mutants"
TREE, ENVIRONMENT, TRACE = WORK / "tree", WORK / "venv", WORK / "trace"
PYTHON = ENVIRONMENT / "bin" / "python"
TESTS = ("unit", "plugin", "power", "oracle", "browser")
BUDGET = 120.0
"""Seconds that the tests of one mutant may take, as they took when they were traced."""
PATIENCE = 240.0
"""More seconds before they are stopped: a fixture that many tests share is counted to the first of them alone."""


def call(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with its output."""
    return subprocess.run([*map(str, command)], check=True, text=True, capture_output=True, **more)  # noqa: S603


def prepare() -> str:
    """The clone at HEAD, its environment, and which lines its tests run; the hash of its tree."""
    if not TREE.is_dir():
        call("git", "clone", "--quiet", "--no-checkout", ROOT, TREE)
    call("git", "fetch", "--quiet", ROOT, "HEAD", cwd=TREE)
    call("git", "checkout", "--quiet", "--force", "FETCH_HEAD", cwd=TREE)
    tree = call("git", "rev-parse", "HEAD^{tree}", cwd=TREE).stdout.strip()
    if not PYTHON.is_file():
        make_environment()
    return tree


def make_environment() -> None:
    """All that the environment of this process has, but for mechdrift, which is the clone's."""
    venv.create(ENVIRONMENT, symlinks=True)
    site = next(ENVIRONMENT.glob("lib/python*/site-packages"))
    packages = Path(libcst.__file__).parents[1]
    (site / "packages.pth").write_text(f"{packages}\n")  # its .pth files, by which mechdrift would be ROOT's, do not count
    (site / "traced.pth").write_text("import coverage; coverage.process_startup()\n")
    for script in Path(sys.executable).parent.iterdir():
        head, _, rest = script.read_bytes().partition(b"\n")
        if head.startswith(f"#!{Path(sys.executable).parent}/python".encode()):
            (PYTHON.parent / script.name).write_bytes(f"#!{PYTHON}\n".encode() + rest)
            (PYTHON.parent / script.name).chmod(0o755)
    call(PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", TREE)


def trace(tree: str) -> None:
    """Which lines every test runs; not again for the same tree."""
    done = TRACE / "tree"
    if done.is_file() and done.read_text() == tree:
        return
    shutil.rmtree(TRACE, ignore_errors=True)
    for name in TESTS:
        print(f"tracing tests/{name}", flush=True)
        in_clone(["trace", TRACE / name, f"tests/{name}"], WORK / f"trace-{name}.log", None)
    done.write_text(tree)


def in_clone(words: list[object], log: Path, limit: float | None) -> int | None:
    """Exit code of inside.py in the clone; None where it took too long."""
    shutil.rmtree(WORK / "cache", ignore_errors=True)  # what a fault spoiled is no other's
    settings = {"XDG_CACHE_HOME": str(WORK / "cache"), "OMP_NUM_THREADS": "1"}
    if words[0] == "chosen":
        settings["PYTHONDONTWRITEBYTECODE"] = "1"  # nor is a fault's bytecode
    command = [*map(str, (PYTHON, Path(__file__).with_name("inside.py"), *words))]
    environment = os.environ | settings
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=TREE, env=environment, stdout=out, stderr=out, start_new_session=True)  # noqa: S603
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()


class Tests:
    """What the trace says of the tests."""

    def __init__(self) -> None:
        self.data, self.tests = [], dict[str, dict[str, Any]]()
        for name in TESTS:
            self.data.append(CoverageData(str(TRACE / name / "coverage")))
            self.data[-1].read()
            self.tests |= json.loads((TRACE / name / "tests.json").read_text())
        self.lines, self.special = cache(self._lines), cache(self._special)

    def _lines(self, file: str) -> dict[int, set[str]]:
        """Which tests ran each line of a file."""
        found: dict[int, set[str]] = {}
        for data in self.data:
            for line, contexts in data.contexts_by_lineno(str(TREE / file)).items():
                found.setdefault(line, set()).update(*map(self._named, contexts))
        return found

    def _named(self, context: str) -> set[str]:
        """A test, or all that have a fixture."""
        if not context.startswith("fixture "):
            return {context} & self.tests.keys()
        fixture, _, base = context.removeprefix("fixture ").partition(" of ")
        return {name for name, test in self.tests.items() if fixture in test["fixtures"] and name.startswith(base)}

    def of(self, mutant: Mutant) -> tuple[list[str], float]:
        """The tests of a mutant, and how long they take."""
        lines = self.lines(mutant.file)
        places = [set().union(*(lines.get(line, ()) for line in range(first, last + 1))) for first, last in mutant.places]
        names: set[str] = next(filter(None, places), set().union(*lines.values()))
        took = {name: self.tests[name]["seconds"] for name in names if self.tests[name]["passed"]}
        worth = {name: self.special(mutant.file)[name] / (took[name] + 0.1) for name in took}
        ordered = sorted(took, key=lambda name: (-worth[name], name))
        unit = [name for name in ordered if name.startswith("tests/unit/")]
        other = [name for name in ordered if name not in unit]
        chosen: list[str] = []
        for kind, most in ((unit, BUDGET / 2), (other, BUDGET), (unit, BUDGET)):
            more = [name for name in kind if name not in chosen]
            until = [*accumulate((took[name] for name in more), initial=sum(took[name] for name in chosen))][1:]
            chosen += more[: bisect(until, most)]
        chosen = chosen or ordered[:1]
        return chosen, sum(took[name] for name in chosen)

    def _special(self, file: str) -> dict[str, float]:
        """How much of a file each test runs, a line that few tests run counting for more."""
        found = defaultdict[str, float](float)
        for names in self.lines(file).values():
            for name in names:
                found[name] += 1 / len(names)
        return found


def tried(code: str, path: Path, names: list[str], seconds: float) -> tuple[str, str]:
    """What comes of running tests on a module with this text: killed, timed out or survived; and by which test."""
    if not names:
        return "survived", ""
    before, times = path.read_text(), path.stat()
    listed, log = WORK / "chosen.txt", WORK / "chosen.log"
    listed.write_text("\n".join(names))
    try:
        path.write_text(code)
        result = in_clone(["chosen", listed], log, PATIENCE + 3 * seconds)
    finally:
        path.write_text(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if result is None:
        return "timed out", ""
    failed = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED ", "ERROR "))]
    by = failed[-1].partition(" ")[2].partition(" - ")[0] if failed else f"exit code {result}"
    return ("survived", "") if result in (0, 5) else ("killed", by)
