"""An sdist, the wheel that is built from it, and that wheel in an environment of its own: in an empty folder and in a project."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from known import ROWS

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20


def call(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.nightly
def test_an_sdist_becomes_a_wheel_that_runs_the_packaged_suites(tmp_path: Path, shared_cache: Path) -> None:
    """The environment has mechdrift from the wheel; its dependencies are those of this one, by a .pth file."""
    # From here an sdist, and from that, with nothing else, the wheel: as pip does where it is given an sdist.
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.stat().st_size < 20 * MEGABYTE
    assert wheel.stat().st_size < 20 * MEGABYTE
    packed = zipfile.ZipFile(wheel).namelist()
    for folder, package in (("suites", "mechdrift/suites"), ("fixtures", "mechdrift/data")):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        # Some organisms, and what the tables were made with, stay in a clone; what a run needs of them is needed below.
        files = [path for path in files if not {"__pycache__", "organisms"} & set(path.parts) and path.parent.name != "facts"]
        assert files
        assert {f"{package}/{path.as_posix()}" for path in files} <= set(packed)
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    where = call(
        python,
        "-c",
        "import mechdrift.suites, mechdrift.data; print(mechdrift.suites.__file__, mechdrift.data.__file__)",
        cwd=empty,
    )
    assert where.stdout.count(str(site)) == 2, where.stdout
    pair = ("--base", "organism:base", "--post", "organism:instruct")
    options = (
        "--mechdrift-only",
        "truth.judgement_accuracy",
        "--mechdrift-cache",
        shared_cache,
        "--mechdrift-record",
        "record.json",
    )
    call(python, "-m", "pytest", *pair, *options, cwd=empty)
    record = json.loads((empty / "record.json").read_text())
    assert record["exit_code"] == 0
    assert [row["label"] for row in record["rows"]] == ["truth.judgement_accuracy"]
    call(tmp_path / "venv" / "bin" / "mechdrift", "report", "record.json", "--html", "report.html", cwd=empty)
    assert "<svg" in (empty / "report.html").read_text()
    everything = call(python, "-m", "pytest", "--collect-only", "-q", *pair, cwd=empty)
    assert everything.stdout.count("::") == ROWS

    stranger = tmp_path / "stranger"
    (stranger / "tests").mkdir(parents=True)
    (stranger / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nfilterwarnings = ["error"]\ntestpaths = ["tests"]\naddopts = "--strict-markers"\n'
    )
    (stranger / "tests" / "test_own.py").write_text("raise SystemExit('not to be run')\n")
    (stranger / "conftest.py").write_text("import pytest\n\n@pytest.fixture\ndef pair():\n    return 'theirs'\n")
    call(python, "-m", "pytest", *pair, *options, cwd=stranger)
    again = json.loads((stranger / "record.json").read_text())
    assert [row["verdict"] for row in again["rows"]] == [row["verdict"] for row in record["rows"]]
    assert again["run"]["work"]["recorded_prompts"] == 0, "the first run's cache serves it"
