"""JUnit files of real runs against the schema that CI servers read them by: Jenkins's, which pytest's own sources carry."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import xmlschema
from recorded import HOSTILE, full, record, row, written

from mechdrift.commands.cli import main
from mechdrift.report.junit import junit
from mechdrift.report.series import view
from mechdrift.report.whole import read_whole

PAIR = ("--base", "organism:base", "--post", "organism:instruct")
SUITES = Path(__file__).parents[2] / "suites"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> xmlschema.XMLSchema10:
    """`junit-10.xsd` of the release of pytest that runs here."""
    folder = tmp_path_factory.mktemp("pytest-sources")
    source = f"pytest=={pytest.__version__}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "pytest"]
    subprocess.run([*pip, "--dest", str(folder), source], check=True)
    (archive,) = folder.glob("pytest-*.tar.gz")
    with tarfile.open(archive) as files:
        (name,) = (name for name in files.getnames() if name.endswith("/junit-10.xsd"))
        found = files.extractfile(name)
        assert found is not None
        return xmlschema.XMLSchema10(found.read().decode())


def test_the_schema_refuses(schema: xmlschema.XMLSchema10) -> None:
    assert not schema.is_valid("<testsuites><testsuite name='a'><testcase/></testsuite></testsuites>")


def test_hostile_records(schema: xmlschema.XMLSchema10, tmp_path: Path) -> None:
    wholes = [full(tmp_path / "all.json", HOSTILE)]
    wholes.append(read_whole(written(tmp_path / "none.json", record())))
    wholes.append(read_whole(written(tmp_path / "error.json", record(row("a.fault", None, "error")))))
    schema.validate(junit(view(wholes)))


@pytest.mark.parametrize("mode", ["-n0", "-n2"])
def test_real_runs(schema: xmlschema.XMLSchema10, tmp_path: Path, mode: str) -> None:
    result, out = tmp_path / "record.json", tmp_path / "out.xml"
    run = [sys.executable, "-m", "pytest", *PAIR, str(SUITES / "test_structure.py"), mode, "--mechdrift-record", str(result)]
    run += ["--mechdrift-profile", "report"]
    assert subprocess.run(run, cwd=tmp_path, check=False).returncode == 0
    assert main(["report", str(result), f"--junit={out}"]) == 0
    schema.validate(str(out))
