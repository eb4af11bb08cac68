"""Which stage did it: a whole run on checkpoints in which one number was planted, stage by stage."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors.torch import load_file, save_file
from short_stages import by_hand
from tiny import write_tiny

from mechdrift.commands.cli import main

SUITE = """
import pytest
from safetensors.torch import load_file
from mechdrift.findings.drift import Drift
from mechdrift.stats import Normal

@pytest.mark.finding("truth.clean_gap")
def test_gap(mechdrift_pair, mechdrift_drift):
    there = [load_file(point.folder / "model.safetensors")["model.norm.weight"][0].item() for point in mechdrift_pair.points]
    estimate = there[1] / there[0]
    mechdrift_drift.judge(Drift("truth.clean_gap", Normal(estimate, 0.01, 100), 1.0, "ratio", "higher", "here", "rule", "d"))
"""
PLANTED = {"base": 1.0, "sft": 0.9, "dpo": 0.3, "post": 0.28}


def gained(folder: Path, of: Path, value: float) -> Path:
    """A copy whose first gain of the last norm has this value."""
    shutil.copytree(of, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def chain(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> dict[str, Path]:
    """One model whose first gain of the last norm falls from stage to stage, most in dpo."""
    return {name: gained(tmp_path / name, tiny_checkpoint(), value) for name, value in PLANTED.items()}


def requested(chain: dict[str, Path]) -> tuple[str, ...]:
    stages = tuple(word for name in ("sft", "dpo") for word in ("--stage", f"{name}={chain[name]}"))
    return (*stages, "--mechdrift-lineage")


@pytest.mark.parametrize("mode", [(), ("-n1",)], ids=["no xdist", "-n1"])
def test_the_stage_in_which_it_fell_is_named(
    compare: Callable[..., Any], pytester: pytest.Pytester, chain: dict[str, Path], mode: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_own=SUITE)
    run = compare(chain["base"], chain["post"], *requested(chain), "test_own.py", *mode)
    assert run.code == 1, run.out
    (result,) = run.record["lineage"]
    assert result["estimator"] == "task vector"
    parts = {part["stage"]: part for part in result["parts"]}
    # What is linear in the weights has parts that add up.
    fell = {"sft": -0.1, "dpo": -0.6, "post": -0.02}
    assert {stage: part["difference"] for stage, part in parts.items()} == pytest.approx(fell, abs=1e-5)
    assert {stage: part["without"] for stage, part in parts.items()} == pytest.approx(
        {stage: PLANTED["post"] - part for stage, part in fell.items()}, abs=1e-5
    )
    assert parts["dpo"]["share"] == pytest.approx(0.6 / 0.72, abs=1e-4)
    assert result["told"] == "truth.clean_gap moved in dpo and sft"
    assert "truth.clean_gap moved in dpo and sft" in run.out
    assert "1 gated rows: 1 drifted" in run.out, "rows without a stage gate nothing"
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    page, text = Path(pytester.path) / "o.html", Path(pytester.path) / "o.md"
    assert (
        main(["report", str(Path(pytester.path) / "record.json"), "--html", str(page), "--markdown", str(text)]) == 1
    )  # it drifted
    assert page.read_text().count("moved in dpo and sft") == 1
    assert "moved in dpo and sft" in text.read_text()


def test_a_stage_of_another_width_is_named_and_the_rest_goes_on(
    compare: Callable[..., Any], pytester: pytest.Pytester, chain: dict[str, Path], tmp_path: Path
) -> None:
    write_tiny(tmp_path / "wide", hidden_size=48)
    pytester.makepyfile(test_own=SUITE)
    run = compare(chain["base"], chain["post"], *requested(chain | {"sft": tmp_path / "wide"}), "test_own.py")
    assert run.code == 1, run.out
    (result,) = run.record["lineage"]
    assert result["told"] == "truth.clean_gap moved in no other stage alone; not attributed for sft and dpo"
    assert "expected one architecture" in result["parts"][0]["reason"]
    assert result["parts"][2]["difference"] == pytest.approx(-0.02, abs=1e-5)


def test_a_plan_counts_it_and_writes_nothing(compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechdrift.session.start.points_without", None)
    chain = ("--stage", "sft=organism:sft", "--mechdrift-plan", "--mechdrift-only", "structure")
    plain, lineage = (compare("organism:base", "organism:instruct", *chain, *more) for more in ((), ("--mechdrift-lineage",)))
    assert plain.code == lineage.code == 0, lineage.out
    rows, more = (int(run.out.partition("\nstructure ")[2].split()[0]) for run in (plain, lineage))
    assert more * 3 == rows * 4, "three pairs, and base with post without sft"


def test_it_needs_stages(compare: Callable[..., Any]) -> None:
    run = compare("organism:base", "organism:instruct", "--mechdrift-lineage")
    assert run.code == 4
    assert "--mechdrift-lineage without --stage" in run.out + run.err


@pytest.mark.nightly
def test_the_step_at_which_it_fell_is_found_by_halving(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], shared_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real runs; asked again, nothing is measured."""
    steps = []
    for step, value in ((1, 1.0), (2, 0.9), (3, 0.2), (4, 0.1)):
        steps.append(str(gained(tmp_path / f"step-{step}", tiny_checkpoint(), value)))
    (tmp_path / "test_own.py").write_text(SUITE)
    more = [f"--option={tmp_path / 'test_own.py'}", "--option=--mechdrift-cache", f"--option={shared_cache}"]
    search = ["bisect", "truth.clean_gap", "--base", steps[0], "--runs", str(tmp_path / "runs"), *more, *steps[1:]]
    for _ in range(2):
        assert main(search) == 0
        *_, answer = capsys.readouterr().out.splitlines()
        assert f"drifted first at {steps[2]}; it had not at {steps[1]}; 3 of 3 checkpoints measured" in answer
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3


def recorded(folder: Path, base: Path) -> dict[str, Path]:
    """Base -> one -> post, really trained and recorded; and what post would be without one."""
    by_hand(base, folder / "one", 1, folder / "log-one", rate=0.02)
    by_hand(folder / "one", folder / "post", 2, folder / "log-post")
    by_hand(base, folder / "skipped", 2)
    return {name: folder / name for name in ("one", "post", "skipped", "log-one", "log-post")}


def first_gain(folder: Path) -> float:
    return load_file(folder / "model.safetensors")["model.norm.weight"][0].item()


def test_by_its_logs_a_part_is_what_training_without_the_stage_would_have_given(
    compare: Callable[..., Any],
    pytester: pytest.Pytester,
    tmp_path: Path,
    tiny_checkpoint: Callable[..., Path],
    shared_cache: Path,
) -> None:
    base = tiny_checkpoint()
    of = recorded(tmp_path, base)
    pytester.makepyfile(test_own=SUITE)
    requested: tuple[str, ...] = (
        "--stage",
        f"one={of['one']}",
        "--mechdrift-lineage",
        "--stage-log",
        f"post={of['log-post']}",
        "test_own.py",
    )
    Path(pytester.path, "high.toml").write_text("[rows.'truth.clean_gap']\nrole = 'gate'\nat_most = 0.9\n")
    requested += ("--mechdrift-profile", "high.toml", "--mechdrift-cache", str(tmp_path / "cache"))
    run = compare(base, of["post"], *requested)
    (result,) = run.record["lineage"]
    assert result["estimator"] == "rerun"
    parts = {part["stage"]: part for part in result["parts"]}
    assert parts["one"]["without"] == pytest.approx(first_gain(of["skipped"]) / first_gain(base), abs=1e-5)
    assert abs(first_gain(of["one"]) - first_gain(base)) > 1e-3, "the stage moved it"
    assert result["notes"] == ["post, replayed, ends 0.0% of its change away from its checkpoint"]
    assert "by stage, by rerun: base to post" in run.out
    assert result["read"] in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    kept = list((tmp_path / "cache" / "stages").glob("*-without-one-*"))
    assert len(kept) == 1, "for the next run"
    assert main(["cache", "info", "--dir", str(tmp_path / "cache")]) == 0


def test_what_does_not_go_together_is_refused(compare: Callable[..., Any]) -> None:
    stage = ("--stage", "sft=organism:sft")
    for options, expected in (
        ((*stage, "--stage-log", "post=log"), "--stage-log without --mechdrift-lineage"),
        ((*stage, "--mechdrift-lineage-by", "rerun"), "--mechdrift-lineage-by without --mechdrift-lineage"),
        ((*stage, "--mechdrift-lineage", "--mechdrift-lineage-by", "rerun"), "rerun without --stage-log; expected logs"),
        (
            (*stage, "--mechdrift-lineage", "--mechdrift-lineage-by", "magic"),
            "expected one of task-vector, stage-embedding, rerun",
        ),
        ((*stage, "--mechdrift-lineage", "--stage-log", "dpo=log"), "--stage-log dpo; expected each of sft, post once at most"),
        ((*stage, "--mechdrift-lineage", "--stage-log", "log"), "expected NAME=DIR"),
    ):
        run = compare("organism:base", "organism:instruct", *options)
        assert run.code == 4, options
        assert expected in run.out + run.err
