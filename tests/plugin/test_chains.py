"""Chains of stages, and one base against several posts."""

import csv
import json
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from by_hand import suite_by_hand
from junitparser import JUnitXml
from killed import write_statements
from safetensors.numpy import load_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.commands.cli import main
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import fact_tables
from mechdrift.prompts.table_pairs import table_pairs

ROW = "truth.clean_gap"  # of the suite by hand; gated at 0.5, and its standard error is 0.01
BASE, SFT, INSTRUCT, BENIGN = (f"organism:{name}" for name in ("base", "sft", "instruct", "instruct-benign"))
CHAIN = ("--stage", f"sft={SFT}", "test_own.py")
STEPS = (f"{ROW} base -> sft", f"{ROW} sft -> post")
POSTS = ("--post", f"sft={SFT}", "test_own.py")  # beside organism:instruct
BY_POST = (f"{ROW} base -> instruct", f"{ROW} base -> sft")
MODES = pytest.mark.parametrize("mode", [("-n0",), pytest.param(("-n1",), marks=pytest.mark.nightly)], ids=["-n0", "-n1"])


def write(pytester: pytest.Pytester, numbers: dict[str, float], **parts: Any) -> None:
    """A suite whose estimate goes by the two checkpoints that its test is given, as `base instruct`."""
    looked_up = "f'{pair(request).base.spec} {pair(request).post.spec}'.replace('organism:', '')"
    text = suite_by_hand(estimate=f"{numbers}[{looked_up}]", **parts)
    pytester.makepyfile(test_own=f"{text}\ndef pair(request):\n    return request.getfixturevalue('mechdrift_pair')\n")


def chain_of(end: float, first: float, second: float) -> dict[str, float]:
    """Estimates from base to post, and of both steps of the chain base -> sft -> post."""
    return {"base instruct": end, "base sft": first, "sft instruct": second}


def without_run(run: Any) -> dict[str, Any]:
    return {name: value for name, value in run.record.items() if name != "run"}


def require_valid(run: Any) -> None:
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))


@MODES
def test_a_chain_says_in_which_step_a_row_drifted(
    compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    write(pytester, chain_of(0.2, 1.0, 0.2))
    run = compare(BASE, INSTRUCT, *CHAIN, *mode)
    assert run.code == 1, run.out
    require_valid(run)
    assert run.verdicts() == {ROW: "drifted", STEPS[0]: "held", STEPS[1]: "drifted"}
    assert [run.rows[name]["role"] for name in (ROW, *STEPS)] == ["gate", "report", "report"]
    assert [run.rows[name]["between"] for name in (ROW, *STEPS)] == [["base", "post"], ["base", "sft"], ["sft", "post"]]
    assert {json.dumps(row["key"]) for row in run.rows.values()} == {json.dumps(run.rows[ROW]["key"])}
    assert {row["limit"]["at_least"] for row in run.rows.values()} == {0.5}
    assert f"  {ROW}  base -> sft 1.000 held  | sft -> post 0.200 drifted\n" in run.out
    assert f"\n{ROW} drifted between sft and post\n" in run.out
    assert "1 gated rows: 1 drifted" in run.out
    (result,) = run.record["chain"]
    assert (result["label"], result["told"]) == (ROW, f"{ROW} drifted between sft and post")
    assert [(step["between"], step["estimate"], step["verdict"]) for step in result["steps"]] == [
        (["base", "sft"], 1.0, "held"),
        (["sft", "post"], 0.2, "drifted"),
    ]


@pytest.mark.parametrize(
    ("numbers", "code", "result"),
    [
        ((0.2, 0.2, 0.2), 1, f"{ROW} drifted between base and sft and between sft and post"),
        ((0.2, 0.7, 0.7), 1, f"{ROW} drifted from base to post, and in no step alone"),
        ((1.0, 0.2, 0.2), 0, None),
        ((0.505, 0.7, 0.7), 6, None),
        ((1.0, 1.0, 1.0), 0, None),
    ],
)
def test_exit_code_and_rows_from_base_to_post_are_those_without_stages(
    compare: Callable[..., Any],
    pytester: pytest.Pytester,
    numbers: tuple[float, float, float],
    code: int,
    result: str | None,
) -> None:
    write(pytester, chain_of(*numbers))
    alone = compare(BASE, INSTRUCT, "test_own.py")
    run = compare(BASE, INSTRUCT, *CHAIN)
    assert run.code == alone.code == code, run.out
    assert alone.record["chain"] == alone.record["inputs"]["stages"] == alone.record["inputs"]["posts"] == []
    assert [run.rows[ROW]] == list(alone.rows.values())
    assert run.record["chain"][0]["told"] == result
    assert (result is None) or f"\n{result}\n" in run.out
    # A row that came back is shown too, and one that never went is not.
    assert (f"{ROW}  base -> sft" in run.out) == (numbers != (1.0, 1.0, 1.0))
    assert ("no row moved in any step" in run.out) == (numbers == (1.0, 1.0, 1.0))


def test_nothing_gates_a_step(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """Neither a marker nor a waiver that has expired; what cannot be measured in a step is said."""
    yesterday = date.today() - timedelta(days=1)
    pytester.makepyprojecttoml(
        f'[tool.mechdrift.profiles.ours]\nextends = "base-to-post"\n'
        f'waivers."{ROW}" = {{ owner = "jane", reason = "ticket", expires = {yesterday} }}\n'
    )
    write(pytester, chain_of(1.0, 0.2, 0.2), marks="@pytest.mark.limit(role='gate', at_least=0.9)")
    assert compare(BASE, INSTRUCT, *CHAIN).code == 0
    run = compare(BASE, INSTRUCT, *CHAIN, "--mechdrift-profile", "ours")
    assert run.code == 1, run.out
    assert "1 failed, 2 passed" in run.out
    assert [run.rows[name]["waiver"] is None for name in (ROW, *STEPS)] == [False, True, True]
    body = "if mechdrift_drift._pair.post.spec == 'organism:sft': raise Unmeasurable('nothing to read')\n    "
    write(pytester, chain_of(0.2, 0.2, 0.2), body=body + "mechdrift_drift.judge(measured)")
    run = compare(BASE, INSTRUCT, *CHAIN)
    assert run.code == 1, run.out
    assert run.verdicts() == {ROW: "drifted", STEPS[0]: "unmeasurable", STEPS[1]: "drifted"}
    assert f"{ROW} drifted between sft and post; not measured between base and sft" in run.out
    assert "1 skipped" in run.out


@MODES
def test_tests_without_a_finding_are_asked_end_to_end_alone(
    compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    write(pytester, chain_of(1.0, 1.0, 1.0))
    seen = pytester.path / "seen"
    seen.mkdir()
    pytester.makepyfile(
        test_plain="from pathlib import Path\n\ndef test_plain(mechdrift_pair):\n"
        f"    Path({str(seen)!r}, mechdrift_pair.base.spec + mechdrift_pair.post.spec).touch(exist_ok=False)\n"
    )
    run = compare(BASE, INSTRUCT, *CHAIN[:2], ".", *mode)
    assert run.code == 0, run.out
    assert [path.name for path in seen.iterdir()] == [BASE + INSTRUCT]
    assert len(run.rows) == 3


@MODES
def test_every_post_is_gated(
    compare: Callable[..., Any], pytester: pytest.Pytester, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    write(pytester, {"base instruct": 1.0, "base sft": 0.2})
    run = compare(BASE, INSTRUCT, *POSTS, *mode, "--junitxml", tmp_path / "j.xml")
    assert run.code == 1, run.out
    require_valid(run)
    assert run.verdicts() == {BY_POST[0]: "held", BY_POST[1]: "drifted"}
    assert {row["role"] for row in run.rows.values()} == {"gate"}
    assert [point["name"] for point in run.record["inputs"]["posts"]] == ["instruct", "sft"]
    assert run.record["inputs"]["post"]["spec"] == INSTRUCT
    assert run.record["chain"] == []
    assert f"mechdrift: post sft {SFT} (qwen3" in run.out
    assert f"{BY_POST[1]} drifted: " in run.out
    again = next(line for line in run.out.splitlines() if line.startswith("  again "))
    assert again.startswith(f"  again     pytest --base {BASE} --post {SFT} --mechdrift-cache ")
    cases = [case for suite in JUnitXml.fromfile(str(tmp_path / "j.xml")) for case in suite]
    labels = [prop.get("value") for case in cases for prop in case._elem.iter("property") if "label" in prop.get("name")]
    assert sorted(labels) == sorted(BY_POST)


def test_a_step_alone_is_in_the_table(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    write(pytester, chain_of(0.2, 1.0, 0.2))
    run = compare(BASE, INSTRUCT, *CHAIN, "-k", "sft+post")
    assert run.code == 5, "a step gates nothing"
    assert list(run.rows) == [STEPS[1]]
    assert f"{STEPS[1]}  report  drifted  0.200 [0.184, 0.216]" in run.out
    assert run.record["chain"] == []


@pytest.mark.parametrize(("second", "code"), [(1.0, 6), (0.2, 1)])
def test_the_worst_post_sets_the_exit_code(
    compare: Callable[..., Any], pytester: pytest.Pytester, second: float, code: int
) -> None:
    write(pytester, {"base instruct": 0.505, "base sft": second})
    assert compare(BASE, INSTRUCT, *POSTS).code == code


def test_one_post_needs_no_name_and_one_that_it_has_changes_nothing(
    compare: Callable[..., Any], pytester: pytest.Pytester
) -> None:
    write(pytester, {"base instruct": 0.2})
    plain, named = compare(BASE, INSTRUCT, "test_own.py"), compare(BASE, f"dpo={INSTRUCT}", "test_own.py")
    assert list(plain.rows) == list(named.rows) == [ROW]
    assert without_run(named) == without_run(plain)
    # A path that exists is no name.
    (pytester.path / "dpo=organism:instruct").mkdir()
    run = compare(BASE, f"dpo={INSTRUCT}", "test_own.py")
    assert run.code == 4
    assert "dpo=organism:instruct" in run.out + run.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*POSTS, "--stage", f"x={BENIGN}"), "--stage and more than one --post; expected a chain to one post, or several posts"),
        ((*POSTS, "--mechdrift-save", "good"), "--mechdrift-save and more than one --post"),
        ((*POSTS, "--mechdrift-baseline", "good", "--mechdrift-update"), "--mechdrift-update and more than one --post"),
        (("--post", f"instruct={SFT}"), "--post instruct is given twice; expected one of each name; rename one"),
        (("--post", BASE), "--post organism:base gives no name; expected one for each of several"),
        (("--post", f"base={BASE}"), "base is given with --base; expected another name"),
        (("--post", ""), "--post is missing"),
    ],
)
def test_what_does_not_go_together_is_said(
    compare: Callable[..., Any], pytester: pytest.Pytester, options: tuple[str, ...], message: str
) -> None:
    write(pytester, {})
    run = compare(BASE, INSTRUCT, *options)
    assert run.code == 4
    assert message in run.out + run.err
    assert "Traceback" not in run.out + run.err


def test_a_baseline_is_of_base_and_post(
    compare: Callable[..., Any], pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    write(pytester, chain_of(1.0, 0.9, 1.1))
    run = compare(BASE, INSTRUCT, *CHAIN, "--mechdrift-save", "good")
    assert run.code == 0, run.out
    stored = json.loads((pytester.path / "mechdrift-baselines" / "good.json").read_text())
    assert [(row["label"], row["estimate"]) for row in stored["rows"]] == [(ROW, 1.0)]

    write(pytester, chain_of(0.8, 0.7, 1.1))
    chain = compare(BASE, INSTRUCT, *CHAIN, "--mechdrift-baseline", "good")
    assert chain.code == 1, chain.out
    assert chain.rows[ROW]["baseline"]["status"] == "worse"
    assert [chain.rows[name]["baseline"] for name in STEPS] == [None, None]
    (pytester.path / "record.json").rename(pytester.path / "chain.json")

    posts = compare(BASE, INSTRUCT, *POSTS, "--mechdrift-baseline", "good")
    assert posts.code == 1, posts.out
    assert [posts.rows[name]["baseline"]["difference"] for name in BY_POST] == pytest.approx([-0.2, -0.3])
    posts = compare(BASE, INSTRUCT, *POSTS, "--mechdrift-baseline", "chain.json")
    assert [posts.rows[name]["baseline"]["difference"] for name in BY_POST] == pytest.approx([0.0, -0.1])

    capsys.readouterr()
    assert main(["compare", str(pytester.path / "chain.json"), str(pytester.path / "record.json")]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith((ROW, "only"))]
    assert [line.split(" held")[0].split("  ")[0] for line in shown] == [
        f"{ROW} base -> sft",  # of both records, the chain's step and the other's post of that name
        f"only in A: {ROW}",
        f"only in A: {STEPS[1]}",
        f"only in B: {BY_POST[0]}",
    ]
    (pytester.path / "record.json").rename(pytester.path / "posts.json")
    refused = compare(BASE, INSTRUCT, "test_own.py", "--mechdrift-baseline", "posts.json")
    assert refused.code == 4
    assert "posts.json: a record of several posts; expected of one; record one of them alone" in refused.out + refused.err


def test_what_no_test_asks_for_any_more_is_missed_of_every_post(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    write(pytester, {"base instruct": 1.0, "base sft": 1.0})
    assert compare(BASE, INSTRUCT, "test_own.py", "--mechdrift-save", "good").code == 0
    path = pytester.path / "mechdrift-baselines" / "good.json"
    stored = json.loads(path.read_text())
    gone = stored["rows"][0] | {"label": f"{ROW}[form=old]", "key": stored["rows"][0]["key"] | {"parameters": {"form": "old"}}}
    path.write_text(json.dumps(stored | {"rows": [*stored["rows"], gone]}))
    run = compare(BASE, INSTRUCT, *POSTS, "--mechdrift-baseline", "good")
    assert run.code == 7, run.out
    assert [name for name, verdict in run.verdicts().items() if verdict == "unmeasurable"] == [
        f"{ROW}[form=old] base -> instruct",
        f"{ROW}[form=old] base -> sft",
    ]


def test_rows_of_a_killed_worker_are_unmeasurable(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    body = "import os\n    if mechdrift_drift._pair.post.spec == 'organism:sft': os._exit(1)\n    "
    write(pytester, {"base instruct": 1.0, "base sft": 1.0}, body=body + "mechdrift_drift.judge(measured)")
    run = compare(BASE, INSTRUCT, *POSTS, "-n1", "--max-worker-restart", "0")
    assert run.verdicts() == {BY_POST[0]: "held", BY_POST[1]: "unmeasurable"}
    assert run.rows[BY_POST[1]]["reason"] == "its test never ran"
    assert run.code == 1, "a worker that dies is no verdict"


def test_what_lies_beside_the_record_is_each_pairs_own(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    body = "mechdrift_beside('.told.txt', mechdrift_drift._pair.post.spec.encode())\n    mechdrift_drift.judge(measured)"
    write(pytester, {"base instruct": 1.0, "base sft": 1.0, "sft instruct": 1.0}, body=body)
    own = pytester.path / "test_own.py"
    own.write_text(own.read_text().replace("(measured, mechdrift_drift)", "(measured, mechdrift_drift, mechdrift_beside)"))
    compare(BASE, INSTRUCT, *CHAIN)
    result = {path.name: path.read_text() for path in pytester.path.glob("record*.told.txt")}
    assert result == {
        "record.told.txt": INSTRUCT,
        "record.base+sft.told.txt": SFT,
        "record.sft+post.told.txt": INSTRUCT,
    }


def test_a_checkpoint_against_itself_is_known_step_by_step(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """No change is 1 here: a step between two copies has it whatever is measured, the others have their numbers."""
    write(pytester, {"base instruct": 0.9, "instruct instruct": 0.8})
    run = compare(BASE, INSTRUCT, "--stage", f"copy={INSTRUCT}", "test_own.py")
    assert {name: row["estimate"] for name, row in run.rows.items()} == {
        ROW: 0.9,
        f"{ROW} base -> copy": 0.9,
        f"{ROW} copy -> post": 1.0,
    }


def test_a_profile_names_rows_and_not_steps(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(f'[tool.mechdrift.profiles.ours]\nextends = "base-to-post"\nrows."{STEPS[1]}".at_least = 0.1\n')
    run = compare(BASE, INSTRUCT, *CHAIN, "--mechdrift-profile", "ours")
    assert run.code == 4
    assert f"{STEPS[1]!r}: a row between two checkpoints; expected {ROW!r}, for any two" in run.out + run.err


@pytest.mark.nightly
@pytest.mark.parametrize("mode", [("-n0",), ("-n2",)], ids=["-n0", "-n2"])
@pytest.mark.parametrize("post", ["organism:drift-knowledge-forgotten", "organism:forgotten"])
def test_facts_that_the_last_step_forgot_drift_there_and_nowhere_else(
    compare: Callable[..., Any], tmp_path: Path, post: str, mode: tuple[str, ...]
) -> None:
    """Planted: sft and instruct know what base knows, and the post is instruct after a training that made it forget."""
    statements = write_statements(tmp_path / "statements.csv", ("element_symbols", "animal_classes"), 200)
    only = ("--mechdrift-only", "truth.judgement_accuracy", "--mechdrift-statements", statements)
    run = compare(BASE, post, "--stage", f"sft={SFT}", "--stage", f"instruct={INSTRUCT}", *only, *mode)
    assert run.code == 1, run.out
    verdicts = {" -> ".join(row["between"]): row["verdict"] for row in run.rows.values()}
    assert verdicts == {
        "base -> post": "drifted",
        "base -> sft": "held",
        "sft -> instruct": "held",
        "instruct -> post": "drifted",
    }
    assert "truth.judgement_accuracy drifted between instruct and post" in run.out


def test_base_is_recorded_once_for_several_posts(compare: Callable[..., Any], tmp_path: Path) -> None:
    statements = write_statements(tmp_path / "statements.csv")
    only = ("--mechdrift-only", "truth.judgement_accuracy", "--mechdrift-statements", statements)

    def recorded(cache: str, post: str, *more: str) -> int:
        run = compare(BASE, post, *more, *only, cache=tmp_path / cache)
        number: int = run.record["run"]["work"]["recorded_prompts"]
        return number

    first, second = recorded("one", INSTRUCT), recorded("one", SFT)  # base's recordings are there for the second
    assert 0 < second < first
    assert recorded("both", INSTRUCT, "--post", SFT) == first + second


@pytest.mark.nightly
def test_rows_of_each_post_are_those_of_a_run_of_its_own(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """What a suite read of one post is not taken for another's."""
    table = next(table for table in fact_tables() if table.kind == "spanish_words")
    made = table_pairs(table, partial(encode, load_tokenizer(resolve(BASE))), "judged").pairs
    with (pytester.path / "pairs.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([["clean", "corrupt"], *dict.fromkeys(pair.words for pair in made[:60])])
    names = ("knowledge.clean_gap", "structure.change")
    only = ["--mechdrift-pairs", "pairs.csv", *(word for name in names for word in ("--mechdrift-only", name))]
    both = compare(BASE, INSTRUCT, "--post", SFT, *only)
    gaps = {both.rows[f"knowledge.clean_gap[form=judged] base -> {name}"]["estimate"] for name in ("instruct", "sft")}
    assert None not in gaps
    assert len(gaps) == 2
    assert sorted(path.name for path in pytester.path.glob("*.structure.safetensors")) == [
        "record.base+instruct.structure.safetensors",
        "record.base+sft.structure.safetensors",
    ]
    for name, post in (("instruct", INSTRUCT), ("sft", SFT)):
        alone = compare(BASE, post, *only)
        assert alone.rows
        for label, row in alone.rows.items():
            labelled = f"{label} base -> {name}"
            assert both.rows[labelled] == row | {"label": labelled, "between": ["base", name]}
        same = [pytester.path / f"record{which}.structure.safetensors" for which in ("", f".base+{name}")]
        alone_, beside = (load_file(path) for path in same)
        assert alone_.keys() == beside.keys()
        assert all(np.array_equal(alone_[key], beside[key]) for key in alone_)
