"""The plugin as a guest: other projects, other plugins, and runs that are none of its business."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import suite_by_hand
from known import ROWS

from mechdrift.verdict.profiles import load_profile

PAIR = ("--base", "organism:base", "--post", "organism:instruct")


@pytest.mark.parametrize("arguments", [["--help"], ["-q"], ["--mechdrift-list"]])
def test_without_a_pair_neither_torch_nor_transformers_is_imported(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    program = (
        f"import sys, pytest; code = pytest.main({arguments!r}); "
        "heavy = {'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys(); print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


def test_help_lists_every_option_once(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_inprocess("--help").stdout.str()
    section = text[text.index("mechdrift: compare two checkpoints") :]
    for option in (
        "--base=SPEC, --mechdrift-base=SPEC",
        "--post=[NAME=]SPEC, --mechdrift-post=[NAME=]SPEC",
        "--stage=NAME=SPEC, --mechdrift-stage=NAME=SPEC",
        "--mechdrift-profile=NAME|FILE.toml",
        "--mechdrift-only=NAME",
        "--mechdrift-statements=FILE",
        "--mechdrift-harmful=FILE[:COLUMN]",
        "--mechdrift-harmless=FILE[:COLUMN]",
        "--mechdrift-hand-set=NAME|FILE.toml",
        "--mechdrift-device=DEVICE",
        "--mechdrift-dtype=DTYPE",
        "--mechdrift-batch=TOKENS",
        "--mechdrift-seed=N",
        "--mechdrift-generator=NAME",
        "--mechdrift-vllm-args=JSON",
        "--mechdrift-keep-replies",
        "--mechdrift-cache=DIR|off",
        "--mechdrift-record=FILE.json",
        "--mechdrift-no-identity-shortcut",
        "--mechdrift-list",
    ):
        assert section.count(option) == 1, option


def test_list_shows_roles_and_limits(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--mechdrift-list")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"profile base-to-post: {load_profile('base-to-post').gated_as_shipped} gated rows",
            "truth.direction_similarity: gate, >= 0.8 (provisional)",
            "*arXiv 2504.02904*",
        ]
    )


@pytest.mark.nightly
def test_in_a_strangers_project_with_errors_for_warnings(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """Its conftest, its ini file and its tests stay out of the way."""
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\ntestpaths = tests\nxfail_strict = true\n")
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef drift():\n    return 'the stranger has one too'\n")
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_own.py").write_text("def test_own():\n    raise SystemExit('not to be run')\n")
    run = compare("organism:base", "organism:instruct", process=True)
    assert run.code == 0, run.out
    assert len(run.rows) == ROWS
    assert "test_own" not in run.out


def test_a_strangers_tests_beside_ours_keep_their_say(
    compare: Callable[..., Any], pytester: pytest.Pytester, few: tuple[str, str]
) -> None:
    pytester.makepyfile(test_own="def test_own():\n    assert False, 'the stranger failed'\n")
    suite = Path(__file__).parents[2] / "suites" / "test_truth.py"
    chosen = "-k", "own or judgement_accuracy or clean_gap"
    run = compare("organism:base", "organism:instruct", "test_own.py", suite, *chosen, *few)
    assert run.code == 1
    assert "the stranger failed" in run.out
    assert set(run.verdicts().values()) == {"held"}


def test_another_plugin_may_have_taken_the_short_forms(pytester: pytest.Pytester, compare: Callable[..., Any]) -> None:
    pytester.makepyfile(
        other="def pytest_addoption(parser):\n    parser.addoption('--base', default='theirs')\n"
        "    parser.addoption('--post')\n    parser.addoption('--stage')\n"
    )
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-p", "other", "--help")
    assert "--mechdrift-base=SPEC" in result.stdout.str()
    assert "--mechdrift-stage=NAME=SPEC" in result.stdout.str()
    for name in ("base", "post", "stage"):
        assert f"(--{name} is another plugin's here)" in " ".join(result.stdout.str().split())
    long_form = ["--mechdrift-base", "./no/such", "--mechdrift-post", "organism:base"]
    result = pytester.runpytest_subprocess("-p", "other", *long_form)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*no/such: no such folder*"])


@pytest.mark.parametrize(
    ("suite", "code", "verdict", "printed"),
    [
        ({}, 0, "held", "1 held"),
        ({"estimate": 0.2}, 1, "drifted", "0.300 beyond"),
        ({"estimate": 0.505}, 6, "undecided", "would decide"),
        ({"raises": "Unmeasurable('nothing to read')"}, 7, "unmeasurable", "because   nothing to read"),
        ({"raises": "pytest.skip.Exception('not today')"}, 7, "unmeasurable", "not today"),
        ({"raises": "RuntimeError('a bug')"}, 1, "error", "RuntimeError: a bug"),
        ({"body": "pass"}, 1, "error", "the test ended without a verdict"),
        ({"body": "assert False, 'before judging'"}, 1, "error", "before judging"),
        ({"estimate": "float('nan')"}, 7, "unmeasurable", "the estimate is nan"),
        (
            {"finding": "truth.probe_accuracy", "measure": "truth.clean_gap"},
            1,
            None,
            "the test is not marked finding('truth.clean_gap'), which it judges",
        ),
    ],
)
def test_exit_codes(
    compare: Callable[..., Any],
    pytester: pytest.Pytester,
    suite: dict[str, Any],
    code: int,
    verdict: str | None,
    printed: str,
) -> None:
    pytester.makepyfile(test_own=suite_by_hand(**suite))
    run = compare("organism:base", "organism:instruct", "test_own.py")
    assert run.code == code, run.out
    assert run.verdicts().get("truth.clean_gap") == verdict
    assert printed in run.out


def test_an_unknown_finding_is_a_usage_error(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=suite_by_hand(finding="truth.nope", body="pass"))
    run = compare("organism:base", "organism:instruct", "test_own.py")
    assert run.code == 4
    assert "is marked finding('truth.nope',); expected one of confidence." in run.out + run.err


def test_parameters_make_rows_of_their_own(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """One finding asked of two kinds is two rows, and a third that never ran is one too."""
    suite = suite_by_hand()
    marks = ", ".join(f"pytest.param(marks=pytest.mark.finding('truth.clean_gap', kind='{kind}'))" for kind in "abc")
    suite = suite.replace("@pytest.mark.finding('truth.clean_gap')", f"@pytest.mark.parametrize([], [{marks}])")
    pytester.makepyfile(test_own=suite)
    run = compare("organism:base", "organism:instruct", "test_own.py", "--maxfail", "1")
    assert run.code == 0, run.out
    labels = [row["label"] for row in run.record["rows"]]
    assert labels == [f"truth.clean_gap[kind={kind}]" for kind in "abc"]
    assert [row["key"]["parameters"] for row in run.record["rows"]] == [{"kind": kind} for kind in "abc"]


def test_no_tests_is_exit_code_5(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    (pytester.path / "empty").mkdir()
    assert compare("organism:base", "organism:instruct", "empty").code == 5


def test_only_reported_rows_never_fail_but_zero_gates_are_seen(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    profile = pytester.path / "own.toml"
    profile.write_text('[rows."truth.clean_gap"]\nrole = "report"\nat_least = 0.5\n')
    pytester.makepyfile(test_own=suite_by_hand(estimate=0.1))
    run = compare("organism:base", "organism:instruct", "test_own.py", "--mechdrift-profile", profile)
    assert run.code == 0
    assert run.verdicts() == {"truth.clean_gap": "drifted"}
    assert f"not gated: profile {profile} has no gates" in run.out


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "1")])
def test_a_row_exists_for_a_test_that_never_ran(
    compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    """-x stops after the first failure; the gate behind it is unmeasurable, not forgotten."""
    first = suite_by_hand(estimate=0.2)
    never = (
        "\n@pytest.mark.finding('truth.judgement_accuracy')\ndef test_later(mechdrift_drift):\n    raise RuntimeError('ran')\n"
    )
    pytester.makepyfile(test_own=first + never)
    more = ("--dist", "loadfile") if "-n" in mode else ()
    run = compare("organism:base", "organism:instruct", "test_own.py", "-x", *mode, *more)
    assert run.code == (2 if "-n" in mode else 1), run.out  # xdist ends -x as an interruption
    assert run.verdicts() == {"truth.clean_gap": "drifted", "truth.judgement_accuracy": "unmeasurable"}
    assert "its test never ran" in run.out


def test_hooks_see_rows_and_may_add_to_the_record(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "seen = []\n"
        "def pytest_mechdrift_row(row):\n    seen.append(row['finding'])\n"
        "def pytest_mechdrift_record(record):\n    record['extra']['seen'] = sorted(seen)\n"
    )
    pytester.makepyfile(test_own=suite_by_hand())
    run = compare("organism:base", "organism:instruct", "test_own.py")
    assert run.record["extra"] == {"seen": ["truth.clean_gap"]}
