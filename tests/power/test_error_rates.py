"""The tables say what the records say."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rates import kept
from rates.bars import Judged
from rates.curves import curves, power_picture
from rates.flips import flip_runs, flip_table
from rates.monotone import in_letters, majorities, milder_when_stronger
from rates.null import benign_runs, broken_bounds, null_table, rounded_runs
from rates.power import STRENGTHS, name_of, points_of, power_runs, power_table
from rates.symmetry import symmetry_runs, symmetry_table

from mechdrift.organisms.matrix import bounds, claims_of, must_drift, read_matrix
from mechdrift.session.many_runs import Run
from mechdrift.verdict.profiles import load_profile

SEEDS = 5
ROOT = Path(__file__).parents[2]

ORIGIN = {score: {"all": 0.5} for score in bounds()} | {"weights moved": {"all": 0.0}}


def row(label: str, verdict: str, estimate: float | None, role: str = "gate", **more: Any) -> dict[str, Any]:
    evidence = {"kind": "normal", "estimate": estimate, "standard_error": 0.01, "n": 100}
    limit = {"at_least": 0.8, "at_most": None, "provenance": "by hand"}
    usual = {"role": role, "limit": limit, "null": 1.0, "evidence": evidence if estimate is not None else None}
    return {"label": label, "verdict": verdict, "estimate": estimate} | usual | more


def leave(folder: Path, run: Run | str, *rows: dict[str, Any]) -> None:
    name = run if isinstance(run, str) else run.name
    (folder / f"{name}.json").write_text(json.dumps({"rows": rows, "settings": {"gated_as_shipped": 1}}))


def line_of(text: str, begin: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {begin} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_false_alarms_are_counted_and_retrains_that_are_none_are_dropped(tmp_path: Path) -> None:
    score, bound = next(iter(bounds().items()))
    moved = {0: 0.0, 1: bound / 4, 2: bound * 2}  # perplexity, were it that, as a share of a half
    verdicts = {0: "held", 1: "undecided", 2: "drifted"}
    (tmp_path / "outputs-instruct.json").write_text(json.dumps(ORIGIN))
    for run, seed in zip(benign_runs(4), range(3), strict=False):  # the fourth has not run
        leave(tmp_path, run, row("truth.a", verdicts[seed], 0.9), row("truth.b", "drifted", 0.1, role="report"))
        scores = ORIGIN | {score: {"all": 0.5 + moved[seed]}, "weights moved": {"all": 0.007}}
        (tmp_path / f"outputs-retrained@{seed}.json").write_text(json.dumps(scores))
    leave(tmp_path, rounded_runs(tmp_path)[0], row("truth.a", "held", 1.0))
    result = null_table(tmp_path, 4)
    assert "3 retrains measured, 1 dropped" in result
    assert line_of(result, "organism:instruct and a benign retrain")[1:] == ["1 of 2 [1.3%, 98.7%]", "truth.a undecided 1"]
    assert line_of(result, "all")[1].startswith("1 of 3 ")
    assert line_of(result, "organism:retrained@2")[1] == "0.0070"
    assert score in line_of(result, "organism:retrained@2")[2]


def test_bounds_are_those_of_the_matrix() -> None:
    for score, bound in bounds().items():
        scale = 0.5 if score.startswith("perplexity") else 1.0
        assert broken_bounds(ORIGIN, ORIGIN | {score: {"all": 0.5 + scale * bound * 0.99}}) == []
        assert len(broken_bounds(ORIGIN, ORIGIN | {score: {"all": 0.5 - scale * bound * 1.01}})) == 1


def test_the_picture_of_power_has_a_mark_for_each_strength(tmp_path: Path) -> None:
    label = "truth.direction_similarity"  # limit .8: at strength .5 the row is three quarters of the way there
    for strength in STRENGTHS:
        verdict = "drifted" if strength == 1 else "held"
        leave(tmp_path, name_of("truth-rotated", strength, 0), row(label, verdict, 1 - 0.3 * strength))
    (curve,) = curves(tmp_path, "truth-rotated", 1)
    assert [strength for strength, _, _ in curve.points] == list(STRENGTHS)
    assert [gone for _, gone, _ in curve.points] == pytest.approx([1.5 * strength for strength in STRENGTHS])
    assert [caught for _, _, caught in curve.points] == [strength == 1 for strength in STRENGTHS]
    drawn = ElementTree.fromstring(power_picture(tmp_path, 1))  # noqa: S314 - our own
    marks = [shape.get("class") for shape in drawn.iter("{http://www.w3.org/2000/svg}circle")]
    assert (marks.count("drifted"), marks.count("held")) == (1, len(STRENGTHS) - 1 + 1), "and one in the legend"
    assert "truth-rotated" in "".join(drawn.itertext())


def test_power_says_from_what_strength_a_row_drifts(tmp_path: Path) -> None:
    assert len(power_runs(1)) < len(power_runs(3)) < 3 * len(power_runs(1))
    label = "truth.direction_similarity"
    for strength in STRENGTHS:
        for seed in (0, 1):
            caught = strength > 0.3 or (strength == 0.3 and seed == 0)
            verdict = "drifted" if caught else "held"
            leave(tmp_path, name_of("truth-rotated", strength, seed), row(label, verdict, 1 - 0.5 * strength))
    found = line_of(power_table(tmp_path, 2), label)
    assert found[2:9] == [
        "0.975 (0/2)",
        "0.950 (0/2)",
        "0.900 (0/2)",
        "0.850 (1/2)",
        "0.750 (2/2)",
        "0.650 (2/2)",
        "0.500 (2/2)",
    ]
    assert found[9] == "hhhhDDD", "of two verdicts as frequent the milder"
    assert found[10] == "0.5"
    # One gate: .8 less 1.645 and 1.282 standard errors of .01; the estimate is 1 - .5 x strength.
    assert float(found[11]) == pytest.approx(0.8 - 0.02927, abs=1e-3)
    assert float(found[12]) == pytest.approx(2 * (0.2 + 0.02927), abs=0.01)


def test_an_exact_row_is_caught_at_its_limit_and_one_without_a_limit_is_shown(tmp_path: Path) -> None:
    exact = {"kind": "normal", "estimate": 0.2, "standard_error": 0.0, "n": 0}
    leave(
        tmp_path, name_of("entropy-neurons-swapped", 1.0, 0), row("confidence.overlap", "drifted", 0.2, "report", evidence=exact)
    )
    leave(tmp_path, name_of("benign-noise", 1.0, 0), row("structure.gap_ratio[kind=o]", "reported", 1.0, "report", limit=None))
    result = power_table(tmp_path, 1)
    assert line_of(result, "confidence.overlap") == [
        "confidence.overlap",
        ">= 0.8",
        "0.200 (1/1)",
        "D",
        "1",
        "0.800",
        "too few strengths",
    ]
    assert line_of(result, "structure.gap_ratio[kind=o]")[1:] == ["none", "1.000 (0/1)", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("verdicts", "milder"),
    [
        (["held", "undecided", "drifted", "drifted"], []),
        (["held", "drifted", "undecided", "drifted"], [3]),
        (["undecided", "held", "drifted", "drifted"], []),  # not above the first that is caught
        (["drifted", "unmeasurable", "held", "drifted"], [2, 3]),
    ],
)
def test_a_stronger_drift_with_a_milder_verdict_is_named(verdicts: list[str], milder: list[float]) -> None:
    found = {float(strength): verdict for strength, verdict in enumerate(verdicts, 1)}
    assert milder_when_stronger(found) == milder


def test_flips_are_the_seeds_off_the_most_frequent_verdict(tmp_path: Path) -> None:
    for seed, verdict in enumerate(("held", "held", "undecided", "held")):
        null, real = flip_runs(4)[2 * seed : 2 * seed + 2]
        leave(tmp_path, null, row("truth.a", verdict, 0.9), row("truth.b", "held", 0.9))
        leave(tmp_path, real, row("truth.a", "held", 0.9))
    of_nulls, of_posts = flip_table(tmp_path, 4).split("organism:base and organism:instruct, 4 seeds")
    assert line_of(of_nulls, "truth.a")[1:3] == ["held 3, undecided 1", "1 of 4 [0.6%, 80.6%]"]
    assert line_of(of_nulls, "1 gates")[1:3] == ["held at all", "0 of 4 [0.0%, 60.2%]"]
    assert "4 seeds; runs with a gated row not held: 1 of 4 [0.6%, 80.6%]." in of_nulls
    assert "runs with a gated row not held: 0 of 4" in of_posts
    assert "| truth.a |" not in of_posts


def test_a_change_of_coordinates_is_told_by_the_rows_that_move(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    same, first, *_ = symmetry_runs(tmp_path)
    assert first.base == same.post
    leave(tmp_path, same, row("truth.a", "held", 1.0), row("truth.b", "held", 1.0), row("truth.c", "held", 0.5))
    leave(tmp_path, first, row("truth.a", "drifted", 0.5), row("truth.b", "held", 1.0005), row("truth.c", "unmeasurable", None))
    result = symmetry_table(tmp_path)
    assert line_of(result, "truth.a")[1] == "1.000 -> 0.500 drifted"
    assert line_of(result, "truth.c")[1] == "0.500 -> no number unmeasurable"
    assert "| truth.b |" not in result
    assert "1 of 3 rows" in result


def test_a_row_of_a_record_is_judged_by_its_own_limit() -> None:
    judged = Judged.of_row(row("truth.a", "held", 0.9), 1, 0.01)
    assert (judged.bounds, judged.origin, judged.n) == ([0.8], 1.0, 100)
    with pytest.raises(ValueError, match="nothing is sampled"):
        Judged("a", judged.limit, 1, 1.0, "spread", 0).rates(0.9)


def test_what_is_kept_is_read_where_nothing_was_measured_and_the_newer_goes_over_the_older(tmp_path: Path) -> None:
    file, of = tmp_path / "kept.jsonl", [run for run in flip_runs(3) if run.name.startswith("null")]
    for name, verdict, runs in (("first", "held", of[:2]), ("second", "drifted", of[1:])):
        (tmp_path / name).mkdir()
        for run in runs:
            leave(tmp_path / name, run, row("truth.a", verdict, 0.123456789123))
        kept.pack(tmp_path / name, file)
    (tmp_path / "third").mkdir()
    leave(tmp_path / "third", of[2], row("truth.a", "undecided", 0.5))
    kept.unpack(tmp_path / "third", file)
    result = flip_table(tmp_path / "third", 3)
    assert line_of(result, "truth.a")[1] == "held 1, drifted 1, undecided 1", "what is in the folder stays"
    record = json.loads((tmp_path / "third" / f"{of[0].name}.json").read_text())
    measured = row("truth.a", "held", 0.123456789)
    assert Judged.of_row(record["rows"][0], record["settings"]["gated_as_shipped"], 0.01).n == 100
    assert {name: record["rows"][0][name] for name in ("estimate", "verdict", "role", "null")} == {
        name: measured[name] for name in ("estimate", "verdict", "role", "null")
    }


def test_numbers_that_are_no_records_are_kept_as_they_are(tmp_path: Path) -> None:
    file, result = tmp_path / "kept.jsonl", {"refused, harmful": {"all": 0.5}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "outputs-instruct.json").write_text(json.dumps(result))
    kept.pack(tmp_path / "runs", file)
    kept.unpack(tmp_path / "other", file)
    assert json.loads((tmp_path / "other" / "outputs-instruct.json").read_text()) == result


def test_no_plant_that_was_measured_is_judged_more_mildly_the_stronger_it_is(tmp_path: Path) -> None:
    """By what is kept: the rows that drifts.toml wants to see drift, over all seeds that there are."""
    kept.unpack(tmp_path)
    looked_at = 0
    for drift in filter(must_drift, read_matrix()):
        points = points_of(tmp_path, drift, SEEDS)
        assert len(points[1.0]) == SEEDS
        for label in {row["label"] for records in points.values() for record in records for row in record["rows"]}:
            verdicts = majorities(points, label)
            if claims_of(drift, label) and "reported" not in verdicts.values():
                looked_at += 1
                assert not milder_when_stronger(verdicts), (drift, label, in_letters(verdicts))
    assert looked_at > 8


def test_what_the_page_shows_was_judged_by_the_limits_that_are_shipped(tmp_path: Path) -> None:
    """Who changes a limit measures again (`--again`), or says on the page what has changed since."""
    kept.unpack(tmp_path)
    profile, other = load_profile("base-to-post"), set()
    for path in tmp_path.glob("*.json"):
        for row in json.loads(path.read_bytes()).get("rows", []):
            rule = profile.rule(row["label"])
            today = (rule.role, rule.limit and (rule.limit.at_least, rule.limit.at_most))
            limit = row["limit"]
            if today != (row["role"], limit and (limit["at_least"], limit["at_most"])):
                other.add(row["label"])
    assert other == {"truth.probe_accuracy", "refusal.ablation"}
    since = (
        (ROOT / "docs" / "error-rates.md")
        .read_text(encoding="utf-8")
        .partition("**Changed since some of these runs.**")[2]
        .partition("\n\n")[0]
    )
    assert all(f"`{label}`" in since for label in other)
