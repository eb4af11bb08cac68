"""What pipelines run: the gate's script, the nightly view's, and the examples of docs/pipelines.md, as they stand there."""

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from by_hand import suite_by_hand
from recorded import record, row, written

ROOT = Path(__file__).parents[2]
GATE = Path(str(files("mechdrift.integrations"))) / "gate.sh"
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
PAIR = {"BASE": "organism:base", "POST": "organism:instruct"}
UNMEASURABLE = {"raises": "Unmeasurable('no such layer')"}


def example(language: str, begin: str) -> str:
    """A code block of the page, by its language and the words in it."""
    [found] = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if begin in block]
    return str(found)


def bash(script: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script where our commands are the first to be found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script, "bash", *arguments],
        cwd=folder,
        env=inherited | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("parts", "args", "code", "verdict"),
    [
        pytest.param({}, "\n--mechdrift-fail-on\ndrifted\n", 0, "held", marks=pytest.mark.nightly),
        ({"estimate": 0.2}, "", 1, "drifted"),
        pytest.param({"body": "assert 1 == 2"}, "", 1, "error", marks=pytest.mark.nightly),
        pytest.param({"estimate": 0.5}, "", 6, "undecided", marks=pytest.mark.nightly),
        pytest.param(UNMEASURABLE, "", 7, "unmeasurable", marks=pytest.mark.nightly),
        ({}, "--mechdrift-only=no such; touch $(echo ran)", 4, "error"),
    ],
)
def test_a_gate_ends_with_the_verdict(parts: dict[str, object], args: str, code: int, verdict: str, tmp_path: Path) -> None:
    """An argument is one argument, whatever it has in it."""
    (tmp_path / "test_own.py").write_text(suite_by_hand(**parts))
    (tmp_path / "mechdrift-gate").mkdir()
    (tmp_path / "mechdrift-gate" / "record.json").write_text("of an earlier run")
    out = tmp_path / "output"
    result = bash(GATE.read_text(), tmp_path, **PAIR, ARGS=f"test_own.py\n{args}", GITHUB_OUTPUT=str(out))
    assert result.returncode == code, result.stdout + result.stderr
    assert out.read_text() == f"verdict={verdict}\nexit-code={code}\n"
    assert f"verdict {verdict}, exit code {code}" in result.stdout
    left = tmp_path / "mechdrift-gate" / "record.json"
    assert left.exists() is (code != 4)
    assert code == 4 or json.loads(left.read_text())["exit_code"] == code
    told_so = json.loads((tmp_path / "mechdrift-gate" / "verdict.json").read_text())
    assert (told_so["verdict"], told_so["exit_code"], told_so["recorded"]) == (verdict, code, code != 4)
    assert not (tmp_path / "ran").exists()


def test_a_gate_without_a_pair_is_a_usage_error(tmp_path: Path) -> None:
    result = bash(GATE.read_text(), tmp_path, BASE="organism:base")
    assert result.returncode == 4
    assert result.stderr == "mechdrift: no BASE or no POST; expected a spec in both; set them in the environment\n"


@pytest.mark.nightly
def test_a_gate_leaves_its_reports(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(suite_by_hand(estimate=0.2))
    summary = tmp_path / "summary"
    bash(GATE.read_text(), tmp_path, **PAIR, ARGS="test_own.py", GITHUB_STEP_SUMMARY=str(summary))
    left = {path.name for path in (tmp_path / "mechdrift-gate").iterdir()}
    assert {"record.json", "report.html", "summary.md", "junit.xml"} <= left
    assert r"truth\.clean\_gap" in summary.read_text()


@pytest.mark.nightly
def test_the_page_runs_the_gate_that_is_tested(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(suite_by_hand(finding="truth.judgement_accuracy"))
    result = bash(example("bash", "gate.sh"), tmp_path, PYTEST_ADDOPTS="test_own.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "verdict held, exit code 0" in result.stdout


@pytest.mark.nightly
def test_the_gitlab_job_is_one_and_ends_with_pytests_exit_code(tmp_path: Path) -> None:
    text = example("yaml", "gitlab-ci")
    (tmp_path / ".gitlab-ci.yml").write_text(text)
    check = "check-jsonschema --builtin-schema vendor.gitlab-ci .gitlab-ci.yml"
    checked = bash(check, tmp_path)
    assert checked.returncode == 0, checked.stdout
    job = yaml.safe_load(text)["mechdrift"]
    (tmp_path / "test_own.py").write_text(suite_by_hand(estimate=0.5))
    result = bash("set -e\n" + "\n".join(job["script"]), tmp_path, **PAIR, PYTEST_ADDOPTS="test_own.py")
    assert result.returncode == job["allow_failure"]["exit_codes"] == 6
    assert (tmp_path / job["artifacts"]["paths"][0] / "record.json").exists()
    after = bash("\n".join(job["after_script"]), tmp_path)
    assert after.returncode == 6, after.stderr
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).exists()


@pytest.mark.nightly
def test_a_slurm_task_measures_its_own_pair_and_keeps_the_record(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("sft organism:base organism:sft\ndpo organism:base organism:instruct\n")
    (tmp_path / "test_own.py").write_text(suite_by_hand(estimate=0.2))
    result = bash(example("bash", "#SBATCH"), tmp_path, SLURM_ARRAY_TASK_ID="2", PYTEST_ADDOPTS="test_own.py")
    assert result.returncode == 1, result.stdout + result.stderr
    measured = json.loads((tmp_path / "drift" / "dpo.json").read_text())
    assert measured["inputs"]["post"]["spec"] == "organism:instruct"
    assert not (tmp_path / "drift" / "sft.json").exists()


def nightly_view(folder: Path, *pairs: str) -> subprocess.CompletedProcess[str]:
    """The second night of a matrix."""
    script = (ROOT / ".github" / "nightly-view.sh").read_text()
    return bash(script, folder, "tonight", "history", "2026-01-02", *pairs, GITHUB_STEP_SUMMARY=str(folder / "summary.md"))


def first_night(folder: Path, *pairs: str) -> None:
    """Of pairs that held."""
    for pair in pairs:
        (folder / "history" / pair).mkdir(parents=True)
        written(folder / "history" / pair / "2026-01-01.json", record(row("a.b")))


def test_a_night_is_put_beside_the_nights_before(tmp_path: Path) -> None:
    first_night(tmp_path, "sft")
    items = [{"kind": "k", "name": "n", "base": 0.1, "post": 0.2, "contribution": 0.1}]
    for pair, left in (("sft", row("a.b", items=items)), ("dpo", row("a.b", 0.5, "drifted"))):
        (tmp_path / "tonight" / f"night-{pair}").mkdir(parents=True)
        written(tmp_path / "tonight" / f"night-{pair}" / "record.json", record(left))
    result = nightly_view(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    kept = {str(path.relative_to(tmp_path / "history")) for path in (tmp_path / "history").rglob("*.*")}
    assert {"sft/2026-01-02.json", "sft/2026-01-02.items.safetensors", "dpo/2026-01-02.json", "sft.html", "dpo.html"} <= kept
    assert "history/sft.html: passed (exit code 0): 1 gated rows: 1 held" in result.stdout
    assert "history/dpo.html: failed" in result.stdout
    assert (tmp_path / "summary.md").read_text().count("## mechdrift") == 2


def test_a_night_without_a_record_is_a_hole_and_not_the_green_of_the_night_before(tmp_path: Path) -> None:
    """One pair's gate left its verdict alone, one's job nothing, one is new in the matrix and never ran; one held."""
    first_night(tmp_path, "gate", "gone", "sound")
    for pair in ("gate", "sound"):
        (tmp_path / "tonight" / f"night-{pair}").mkdir(parents=True)
    written(tmp_path / "tonight" / "night-sound" / "record.json", record(row("a.b")))
    bash(GATE.read_text(), tmp_path, **PAIR, ARGS="--version", OUT="tonight/night-gate")
    result = nightly_view(tmp_path, "gate", "new")
    assert result.returncode == 5, result.stdout + result.stderr
    for pair, why in {
        "gate": "no record: no record was left: nothing was measured",
        "gone": "no record: its job left nothing",
        "new": "no record: its job left nothing",
        "sound": "passed (exit code 0): 1 gated rows: 1 held",
    }.items():
        assert f"history/{pair}.html: {why}" in result.stdout
        assert f"<title>mechdrift: {why}" in (tmp_path / "history" / f"{pair}.html").read_text()
    third = nightly_view(tmp_path)
    assert third.returncode == 5


def test_a_record_that_cannot_be_read_is_said_and_what_was_kept_stays(tmp_path: Path) -> None:
    first_night(tmp_path, "sft")
    (tmp_path / "tonight" / "night-sft").mkdir(parents=True)
    (tmp_path / "tonight" / "night-sft" / "record.json").write_text("{")
    result = nightly_view(tmp_path)
    assert result.returncode == 4
    assert "not whole, or no JSON" in result.stderr
    assert (tmp_path / "history" / "sft" / "2026-01-01.json").exists()
    assert (tmp_path / "history" / "sft" / "2026-01-02.json").read_text() == "{"


@pytest.mark.parametrize(("run", "requested"), [("", False), ("4711", True)], ids=["first night", "later"])
def test_the_history_is_fetched_where_there_is_one(run: str, requested: bool, tmp_path: Path) -> None:
    """`gh` is a stand-in; what its filter takes is written in GitHub's own terms and not tried here."""
    stand_in = f'gh() {{ if [[ $1 == api ]]; then echo "{run}"; else echo requested: "$@"; fi; }}\n'
    script = (ROOT / ".github" / "last-history.sh").read_text()
    result = bash(stand_in + script, tmp_path, "history", GITHUB_REPOSITORY="owner/name", BRANCH="main")
    assert result.returncode == 0, result.stderr
    assert (
        f"requested: run download {run} --repo owner/name --name mechdrift-history --dir history" in result.stdout
    ) is requested
    assert (tmp_path / "history").is_dir()
