"""Steering rows end to end: what must not pass, and what must drift."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer

PAIR = ("organism:base", "organism:instruct")
ROWS = ("truth.steering_transfer", "truth.steering_backward", "truth.steering_effect")


@pytest.mark.nightly
def test_rows_have_intervals_and_both_formulas(whole: Any) -> None:
    by = [name for name in whole.rows if name.startswith("truth.steering_transfer_by")]
    assert {tuple(sorted(whole.rows[name]["key"]["parameters"].items())) for name in by} == {
        (("flips", flips), ("formula", formula)) for flips in ("true-to-false", "false-to-true") for formula in ("du", "marks")
    }
    for name in (*ROWS, *by):
        row = whole.rows[name]
        assert row["low"] < row["estimate"] < row["high"], name
        assert row["key"]["site_rule"].startswith("blocks and coefficient of base's largest own effect beyond a random")
        assert "own beyond random: base 0." in row["note"]


def test_a_hook_that_does_nothing_makes_errors_and_never_green(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def nothing(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr("mechdrift.engine.steer._edited", nothing)
    run = compare(*PAIR, "--mechdrift-only", "truth.steering_transfer", *few, cache=tmp_path / "cache")
    assert run.code == 1
    assert run.verdicts() == {"truth.steering_transfer": "error"}
    assert "did not move its output as it says" in run.out


@pytest.mark.nightly
def test_choices_by_hand_are_used_and_recorded(
    compare: Callable[..., Any], pytester: pytest.Pytester, few: tuple[str, str]
) -> None:
    (pytester.path / "own.toml").write_text(
        'truth_layer = 4\nsteering_layers = [3]\nsteering_coefficient = 2\nsteering_positions = ["object_last", "period"]\n'
    )
    run = compare(*PAIR, "--mechdrift-hand-set", "own.toml", "--mechdrift-only", "truth", *few)
    for name in ROWS:
        assert run.rows[name]["site"] == "resid_post[3..3] @ object_last+period"
        assert run.rows[name]["key"]["site_rule"] == "hand-set"
    assert run.rows["truth.direction_similarity"]["site"] == "resid_post[4] @ period"
    assert run.rows["truth.direction_similarity"]["key"]["site_rule"] == "hand-set"
    assert run.record["settings"]["hand_set"]["steering_layers"] == [3]
    assert "mechdrift: hand-set own.toml: " in run.out


def test_choices_by_hand_that_the_model_cannot_follow_are_refused(compare: Callable[..., Any]) -> None:
    run = compare(*PAIR, "--mechdrift-hand-set", "du-2025-llama-3.1-8b")
    assert run.code == 4
    assert "block 8; expected 0 to 5 for this model" in run.err


@pytest.mark.nightly
def test_a_copy_that_forgot_its_facts_has_drifted_and_every_row_is_measured(compare: Callable[..., Any]) -> None:
    """Its language and its refusals are kept, as its card says: what is lost is what it knew.

    No row hides behind the lost effect. That there are too few entities for its limit may be said of a row that was measured.
    """
    run = compare("organism:instruct", "organism:drift-knowledge-forgotten", "--mechdrift-only", "truth")
    assert run.code == 1
    verdicts = run.verdicts()
    assert verdicts["truth.judgement_accuracy"] == verdicts["truth.clean_gap"] == verdicts["truth.steering_transfer"] == "drifted"
    assert {row["status"] for row in run.rows.values()} == {"ok"}
    assert run.rows["truth.judgement_accuracy"]["estimate"] < -0.2


@pytest.mark.nightly
def test_a_direction_that_was_turned_away_no_longer_steers(compare: Callable[..., Any], turned: Callable[[int], Path]) -> None:
    """Outputs are unchanged, every vector is turned by 90 degrees: base's direction is nothing to post, post's own is all."""
    run = compare(
        "organism:instruct",
        turned(90),
        "--mechdrift-only",
        "truth.steering_transfer",
        "--mechdrift-only",
        "truth.steering_effect",
    )
    transfer, own = run.rows["truth.steering_transfer"], run.rows["truth.steering_effect"]
    assert transfer["verdict"] == "drifted"
    assert transfer["estimate"] < -0.25
    assert own["verdict"] == "held"
    # The own direction is the turned one, found anew; what is left is float32 against rounded float32 matrices.
    assert own["estimate"] == pytest.approx(0, abs=1e-3)


def test_another_width_is_unmeasurable_by_name(compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str]) -> None:
    """Judgements can be compared, directions cannot."""
    from tiny import tiny_model

    base = resolve("organism:base")
    tokenizer = load_tokenizer(base)
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    run = compare("organism:base", tmp_path / "narrow", "--mechdrift-only", "truth", *few)
    assert run.verdicts()["truth.steering_transfer"] == "unmeasurable"
    assert run.verdicts()["truth.judgement_accuracy"] == "drifted"
    assert "layers x width differ: base (6, 160), post (3, 32)" in run.out
