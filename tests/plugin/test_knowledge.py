"""Knowledge rows end to end, on checkpoints whose knowledge lies where it is known to lie."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tiny import write_tiny

from mechdrift.checkpoints.resolve import resolve
from mechdrift.findings.registry import registered
from mechdrift.organisms.matrix import expected_verdicts

KNOWLEDGE = ("--mechdrift-only", "knowledge")
ABSOLUTE = {f"knowledge.{name}[form={form}]" for name in ("accuracy", "clean_gap") for form in ("judged", "cloze")}


def gates(run: Any) -> dict[str, str]:
    return {label: row["verdict"] for label, row in run.rows.items() if row["role"] == "gate"}


def as_planted(run: Any, drift: str) -> bool:
    """Whether every gated row has a verdict that the drift matrix allows."""
    found = gates(run)
    return all(found[label] in allowed for label, allowed in expected_verdicts(drift, found).items())


@pytest.mark.nightly
def test_base_to_instruct_stays_where_it_was(whole: Any) -> None:
    assert whole.code == 0, whole.out
    assert set(gates(whole).values()) == {"held"}
    rows = [row for row in whole.rows.values() if row["finding"].startswith("knowledge.")]
    requested = Counter(row["finding"] for row in rows)
    assert requested == {name: finding.rows for name, finding in registered().items() if finding.family == "knowledge"}
    for row in rows:
        assert row["low"] <= row["estimate"] <= row["high"], row["label"]
        assert "; pairs: animal_classes " in row["note"]
    for form in ("judged", "cloze"):
        asymmetry = whole.rows[f"knowledge.recovery_asymmetry[form={form}]"]
        assert (": as published" in asymmetry["note"]) == (asymmetry["low"] > 0)
        assert "published binned r" in whole.rows[f"knowledge.location[form={form}]"]["note"]
        depths = whole.rows[f"knowledge.depth_shift[form={form}]"]["curve"]
        assert {"last", "subject[-1]"} <= {point["site"] for point in depths}
    beside = load_file(whole.folder / "record.items.safetensors")
    layers = resolve("organism:base").layers
    for label, name in (("location", "base"), ("location", "post"), ("recovery_forward", "base in post")):
        row = whole.rows[f"knowledge.{label}[form=judged]"]
        columns = {each["name"]: each["columns"] for each in row["maps"]}[name]
        values = beside[f"{row['label']}/map/{name}"]
        assert values.shape == (layers, len(columns))
        # The last token of the last block is all that the answer is read from: with the model's own, all is recovered.
        assert columns[-1] == "last"
        if label == "location":
            assert values[-1, -1] == pytest.approx(1.0, abs=1e-5)
            assert values[-1, :-1] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.nightly
def test_knowledge_that_was_moved_drifts_and_is_still_there(compare: Callable[..., Any]) -> None:
    """The same answers from later blocks: what the published comparison does not see."""
    run = compare("organism:instruct", "organism:drift-knowledge-relocated", *KNOWLEDGE)
    assert run.code == 1
    assert as_planted(run, "knowledge-relocated")
    assert {gates(run)[label] for label in ABSOLUTE} == {"held"}
    assert run.rows["knowledge.depth_shift[form=judged]"]["low"] > 0
    assert run.rows["knowledge.published[form=judged]"]["estimate"] > 0.99


@pytest.mark.nightly
def test_knowledge_that_is_gone_has_drifted_and_is_not_unmeasurable(compare: Callable[..., Any]) -> None:
    run = compare("organism:instruct", "organism:drift-knowledge-forgotten", *KNOWLEDGE)
    assert run.code == 1
    assert as_planted(run, "knowledge-forgotten")
    assert set(gates(run).values()) == {"drifted", "undecided", "held"}


@pytest.mark.nightly
def test_models_of_which_nothing_can_be_said_are_told_by_name(compare: Callable[..., Any], tmp_path: Path) -> None:
    """Random weights know nothing."""
    blank = write_tiny(tmp_path / "blank")
    run = compare(blank, blank, *KNOWLEDGE, "--mechdrift-no-identity-shortcut")
    assert run.code == 7
    assert {row["verdict"] for row in run.rows.values()} == {"unmeasurable"}


def test_a_tokenizer_of_bytes_gives_other_pairs(compare: Callable[..., Any], tmp_path: Path) -> None:
    run = compare("organism:base", write_tiny(tmp_path / "blank"), "--mechdrift-only", "knowledge.location")
    assert run.code == 7
    assert "base and post read the pairs as other tokens: compare checkpoints of one tokenizer" in run.out
