"""Tiers, plans and phases from end to end."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mechdrift.engine.generate.opens import ASKED
from mechdrift.findings.registry import registered
from mechdrift.findings.tiers import TIERS
from mechdrift.organisms.recipe.families import QWEN
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.statements import shipped_statements
from mechdrift.verdict.profiles import load_profile

PAIR = ("organism:base", "organism:instruct")
SMOKE = TIERS["smoke"]
FAMILIES = ("confidence", "context", "knowledge", "refusal", "structure", "truth")


def write(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([head, *rows])
    return str(path)


@pytest.fixture
def small(pytester: pytest.Pytester) -> list[str]:
    """Options that name small files of what the base organism knows, so that it is asked all of it."""
    kinds = {kind: {s.entity for s in shipped_statements() if s.kind == kind} for kind in QWEN.kinds}
    chosen = {(kind, entity) for kind, entities in kinds.items() for entity in sorted(entities)[:50]}
    statements = [s for s in shipped_statements() if (s.kind, s.entity) in chosen]
    rows = [(s.text, s.label, s.entity, s.kind, s.value, s.negated) for s in statements]
    files = {
        "--mechdrift-statements": write(
            pytester.path / "s.csv", ("statement", "label", "entity", "kind", "value", "negated"), rows
        ),
        "--mechdrift-texts": write(pytester.path / "t.csv", ("text",), [(s.text,) for s in statements[:24]]),
    }
    for side, harmful in (("harmful", True), ("harmless", False)):
        texts = [(one.text,) for one in shipped_instructions() if one.harmful is harmful][:40]
        files[f"--mechdrift-{side}"] = write(pytester.path / f"{side}.csv", ("instruction",), texts)
    return [word for pair in files.items() for word in pair]


def planned(out: str) -> dict[str, list[int]]:
    """Prompts, tokens, replies and their tokens by family."""
    found = {}
    for line in out.splitlines():
        if match := re.match(r"(\w+) +\d+ +\d+ +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +[\d.]+ +[\d,]+$", line):
            found[match[1]] = [int(number.replace(",", "")) for number in match.groups()[1:]]
    return found


@pytest.mark.nightly
def test_a_plan_is_what_a_run_then_does(
    compare: Callable[..., Any], pytester: pytest.Pytester, small: list[str], tmp_path: Path
) -> None:
    """Of all that base knows; of the shipped tables it is an upper bound. Nothing is loaded, and nothing written."""
    families = [word for name in FAMILIES if name != "knowledge" for word in ("--mechdrift-only", name)]
    before = sorted(pytester.path.iterdir())
    plan = compare(*PAIR, *small, *families, "--mechdrift-plan", "-p", "no:cacheprovider", cache=tmp_path / "cache")
    assert plan.code == 0, plan.out
    assert not (tmp_path / "cache").exists()
    assert sorted(pytester.path.iterdir()) == before
    run = compare(*PAIR, *small, *families, cache=tmp_path / "cache")
    expected = planned(plan.out)
    assert expected.keys() == {*FAMILIES, "all"} - {"knowledge"}
    assert expected["refusal"][2] > 0
    assert sum(expected["truth"]) > 0
    phases = run.record["run"]["phases"]
    for family in expected.keys() - {"all"}:
        done = [phases[family][name] for name in ("prompts", "tokens", "replies", "reply_tokens")]
        assert done == expected[family], family
    assert run.record["run"]["work"]["recorded_prompts"] == expected["all"][0]


@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.nightly)], ids=["", "-n2"])
def test_smoke_asks_fewer_items_and_rows(compare: Callable[..., Any], workers: tuple[str, ...]) -> None:
    run = compare(*PAIR, "--mechdrift-tier", "smoke", *workers, process=bool(workers))
    requested = sum(finding.rows for finding in registered().values() if SMOKE.includes(finding.name))
    assert run.code == 0, run.out
    assert len(run.rows) == requested
    assert run.record["settings"]["tier"] == "smoke"
    assert run.record["settings"]["gated_as_shipped"] == load_profile("base-to-post").gated_as_shipped
    assert set(run.record["not_selected"]) == SMOKE.left_out
    assert {row["verdict"] for row in run.rows.values() if row["role"] == "gate"} == {"held"}
    assert run.rows["truth.clean_gap"]["n"] == 3 * 40
    assert run.rows["knowledge.location[form=cloze]"]["n"] == SMOKE.units
    assert run.rows["structure.change[part=mlp]"]["site"] == f"{SMOKE.blocks} of 6 blocks"
    assert "by the likelier first token" not in run.rows["refusal.odds_ablation"]["reason"]
    phases = run.record["run"]["phases"]
    assert phases.keys() == {"start", *FAMILIES}
    for name, phase in phases.items():
        assert phase["seconds"] > 0
        assert phase["peak_rss"] > 10**8, "torch is in memory"
        assert phase["peak_gpu"] is None or phase["peak_gpu"] > 0
        assert f"{name} {phase['seconds']:.0f} s" in run.out
    assert phases["refusal"]["replies"] == ASKED, "how post begins: whether it thinks; base has no template to think in"
    assert "tier smoke, which leaves" in run.out or workers


def test_a_row_that_the_tier_leaves_out_cannot_be_asked_for(compare: Callable[..., Any]) -> None:
    run = compare(*PAIR, "--mechdrift-tier", "smoke", "--mechdrift-only", "refusal.harmful")
    assert run.code == 4
    assert "--mechdrift-only refusal.harmful, which tier smoke does not measure" in run.err
    assert compare(*PAIR, "--mechdrift-tier", "lunch").code == 4


def test_a_plan_needs_one_process(compare: Callable[..., Any]) -> None:
    run = compare(*PAIR, "--mechdrift-plan", "-n", "2")
    assert run.code == 4
    assert "leave -n out" in run.err


@pytest.mark.nightly
def test_patching_across_models_is_not_done_where_none_of_its_rows_is_asked(
    compare: Callable[..., Any], small: list[str]
) -> None:
    """It is half of all sweeps."""
    only = ("--mechdrift-plan", "--mechdrift-only", "knowledge.location")
    own = planned(compare(*PAIR, *small, *only).out)["knowledge"]
    both = planned(compare(*PAIR, *small, *only, "--mechdrift-only", "knowledge.recovery_forward").out)["knowledge"]
    assert own[1] < 0.8 * both[1]
