"""What a run compares, how rows of it are named, and where in a chain a row moved."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import row

from mechdrift.checkpoints.chain import BASE_TO_POST, Between, compared
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.settings.values import parse_post, post_name
from mechdrift.verdict.limits import Limit, Profile, Rule
from mechdrift.verdict.moves import moves

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True).filter(lambda name: name not in ("base", "post"))
ROWS = st.builds(
    lambda name, value: f"{name}[kind={value}]" if value else name,
    st.from_regex(r"[a-z]\w*\.[a-z]\w*", fullmatch=True),
    st.text(max_size=20),
)


@given(ROWS, NAMES, NAMES | st.just("post"))
def test_a_label_gives_its_row_back(row: str, earlier: str, later: str) -> None:
    label = Between(earlier, later).label(row)
    assert label != row
    assert row_of(label) == row_of(row) == row
    assert finding_of(label) == row.partition("[")[0]


@given(st.lists(NAMES, max_size=5, unique=True))
def test_a_chain_is_walked_step_by_step_from_base_to_post(stages: list[str]) -> None:
    first, *steps = compared(stages, ["post"])
    assert first == BASE_TO_POST
    assert len(steps) == (len(stages) + 1 if stages else 0)
    assert all(before.later == after.earlier for before, after in pairwise(steps))
    assert not steps or (steps[0].earlier, steps[-1].later) == ("base", "post")
    assert all(step.step for step in steps)
    # Files beside the record are told apart by these.
    assert len({between.file for between in (first, *steps)}) == len(steps) + 1


def test_several_posts_are_each_compared_with_base() -> None:
    assert compared([], ["a", "b"]) == (Between("base", "a"), Between("base", "b"))


def test_a_profile_has_one_rule_for_any_two_checkpoints() -> None:
    rule = Rule("gate", Limit(0.5, None, "user"))
    profile = Profile("ours", {"a.b[form=cloze]": rule}, 1)
    assert profile.rule("a.b[form=cloze] sft -> post") == rule
    assert profile.rule("a.b sft -> post").limit is None


VERDICTS = st.sampled_from(["held", "drifted", "undecided", "unmeasurable", "error", "reported"])


@given(VERDICTS, st.lists(VERDICTS, min_size=2, max_size=4), st.sampled_from(["gate", "report"]), st.randoms())
def test_the_sentence_names_every_step_that_drifted_and_no_other(end: str, verdicts: list[str], role: str, rng: Any) -> None:
    steps = compared([f"s{number}" for number in range(len(verdicts) - 1)], ["post"])[1:]
    rows = [
        row("a.b", 0.5, end, role=role),
        *(row(step.label("a.b"), 0.5, each, role="report") for step, each in zip(steps, verdicts, strict=True)),
    ]
    rng.shuffle(rows)  # rows of workers come in any order
    (result,) = moves(rows, steps)
    assert [step.between for step in result.steps] == [step.names for step in steps]
    assert [step.verdict for step in result.steps] == verdicts
    if (end, role) != ("drifted", "gate"):
        assert result.sentence is None
        return
    assert result.sentence
    output, _, unknown = result.sentence.partition("; not measured")
    for step, verdict in zip(steps, verdicts, strict=True):
        words = f"between {step.earlier} and {step.later}"
        assert (words in output) == (verdict == "drifted")
        assert (words in unknown) == (verdict in ("unmeasurable", "error"))
    assert ("in no step alone" in output) == ("drifted" not in verdicts)


def test_a_row_that_no_step_has_does_not_hide_those_after_it() -> None:
    steps = compared(["sft"], ["post"])[1:]
    (result,) = moves([row("a.a"), row("a.b"), row("a.b sft -> post", role="report")], steps)
    assert result.label == "a.b"


def test_a_step_whose_test_was_not_asked_is_not_told_of() -> None:
    steps = compared(["sft"], ["post"])[1:]
    (result,) = moves([row("a.b"), row("a.b sft -> post", role="report"), row("a.c")], steps)
    assert [step.between for step in result.steps] == [["sft", "post"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/post", (None, "runs/post")),
        ("dpo=runs/post", ("dpo", "runs/post")),
        ("dpo=runs/lr=0.1", ("dpo", "runs/lr=0.1")),
        ("runs/lr=0.1", (None, "runs/lr=0.1")),
        ("organism:drift-x@0.5", (None, "organism:drift-x@0.5")),
        ("lr=0.1", (None, "lr=0.1")),  # a folder that is there
        ("lr=0.2", ("lr", "0.2")),
        ("", (None, "")),
    ],
)
def test_a_name_is_what_stands_before_the_first_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str | None, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    assert parse_post(text) == expected


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("organism:instruct", "instruct"),
        ("organism:drift-x@0.5", "drift-x-0.5"),
        ("runs/dpo/checkpoint-500/", "checkpoint-500"),
        ("org/name@main", "name-main"),
        ("organism:base+runs/lora", "lora"),
        ("runs/base", ""),
        ("runs/a b", ""),
        ("..", ""),
    ],
)
def test_a_post_without_a_name_is_named_by_its_last_part(spec: str, name: str) -> None:
    assert post_name(spec) == name
