"""Confidence rows end to end: on the organisms, on planted drifts, and on checkpoints that were given real entropy neurons."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from tiny import write_tiny

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.last_mlp import neuron_table, read_last_mlp
from mechdrift.findings.confidence.entropy_neurons import choose
from mechdrift.findings.registry import registered
from mechdrift.models.load import load_model
from mechdrift.organisms.plants import untie
from mechdrift.prompts.statements import shipped_statements

CONFIDENCE = ("--mechdrift-only", "confidence")
PAIR = ("organism:base", "organism:instruct")
NEEDS_EFFECT = ("confidence.entropy_gap_explained", "confidence.calibration_gap_explained")
ENTITIES = 40  # of each of two kinds


@pytest.fixture
def measured(compare: Callable[..., Any], pytester: pytest.Pytester) -> Callable[..., Any]:
    """A run of the confidence rows on a few statements."""
    requested: Counter[str] = Counter()
    with (pytester.path / "few.csv").open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow(["statement", "label", "entity", "kind"])
        for one in shipped_statements():
            if one.kind in ("animal_classes", "spanish_words") and not one.negated and requested[one.kind] < 2 * ENTITIES:
                requested[one.kind] += 1
                out.writerow([one.text, one.label, one.entity, one.kind])
    return lambda base, post, *more: compare(base, post, *CONFIDENCE, "--mechdrift-statements", "few.csv", *more)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Path]:
    """An organism whose head reads nothing along one direction of the stream, to which ten neurons of its last MLP also write."""

    def make(name: str, length: float) -> Path:
        folder = tmp_path_factory.mktemp(f"{name}-entropy-")
        checkpoint = resolve(f"organism:{name}")
        model = load_model(checkpoint, torch.float32, "cpu")
        untie(model)
        with torch.no_grad():
            head, gain = model.get_output_embeddings().weight, model.get_decoder().norm.weight
            direction = torch.linalg.svd(head * gain, full_matrices=False).Vh[-1]
            read = gain * direction
            head -= torch.outer(head @ read, read) / read.square().sum()
            down = model.get_decoder().layers[-1].mlp.down_proj.weight
            down[:, choose(neuron_table(read_last_mlp(model, len(head))).numpy()).neurons] += length * direction[:, None]
        model.save_pretrained(folder)
        load_tokenizer(checkpoint).save_pretrained(folder)
        return folder

    return make


def test_every_row_is_told(measured: Callable[..., Any]) -> None:
    run = measured(*PAIR)
    assert run.code == 5, run.out
    requested = Counter(row["finding"] for row in run.rows.values())
    assert requested == {name: finding.rows for name, finding in registered().items() if finding.family == "confidence"}
    for label, row in run.rows.items():
        assert row["role"] == "report"
        if label in NEEDS_EFFECT:  # the organisms' entropy neurons are so by their weights alone
            assert row["verdict"] == "unmeasurable"
            assert "base's entropy neurons work through the norm no more than their controls: " in row["reason"]
        else:
            assert row["status"] == "ok", row["reason"]
            assert row["low"] <= row["estimate"] <= row["high"]
    overlap = run.rows["confidence.overlap"]
    assert overlap["n"] == 0
    assert overlap["low"] == overlap["high"], "exact"
    shared = int(overlap["note"].split()[0])
    assert overlap["estimate"] == pytest.approx(shared / (20 - shared))
    assert run.rows["confidence.calibration_gap"]["n"] == 48, "entities of the test split"
    assert run.record["settings"]["texts"]["file"] == "statements and instructions"
    assert run.record["settings"]["texts"]["used"] == 48 + 128


def test_neurons_that_changed_places_are_found_and_told_from_others(measured: Callable[..., Any]) -> None:
    run = measured("organism:instruct", "organism:drift-entropy-neurons-swapped")
    assert run.code == 5, "reported only"
    overlap, by_direction = run.rows["confidence.overlap"], run.rows["confidence.overlap_by_direction"]
    assert (overlap["verdict"], by_direction["verdict"]) == ("drifted", "held")
    assert overlap["estimate"] < 0.1
    assert "unlike published" in overlap["note"]
    assert by_direction["estimate"] == 1.0
    for name in ("entropy_gap", "calibration_gap"):
        assert abs(run.rows[f"confidence.{name}"]["estimate"]) < 1e-5
        assert run.rows[f"confidence.{name}"]["verdict"] == "held"


def test_scaled_confidence_is_seen_and_is_not_the_neurons(measured: Callable[..., Any]) -> None:
    run = measured("organism:instruct", "organism:drift-confidence-scaled")
    assert run.rows["confidence.entropy_gap"]["verdict"] == "drifted"
    assert run.rows["confidence.entropy_gap"]["high"] < -0.5
    for name in ("overlap", "overlap_by_direction"):
        assert (run.rows[f"confidence.{name}"]["estimate"], run.rows[f"confidence.{name}"]["verdict"]) == (1.0, "held")


@pytest.mark.parametrize("more", [(), ("--mechdrift-no-identity-shortcut",)], ids=["known", "measured"])
def test_identical_checkpoints(measured: Callable[..., Any], more: tuple[str, ...]) -> None:
    run = measured("organism:base", "organism:base", *more)
    for name, null in (("overlap", 1.0), ("overlap_by_direction", 1.0), ("entropy_gap", 0.0), ("calibration_gap", 0.0)):
        row = run.rows[f"confidence.{name}"]
        assert row["estimate"] == pytest.approx(null, abs=1e-6 if more else 0.0)
        assert row["verdict"] == "held"
    effects = [run.rows[f"confidence.neuron_effect[model={model}]"]["estimate"] for model in ("base", "post")]
    assert effects[0] == effects[1]


def test_real_entropy_neurons_have_their_effect_and_their_part_in_a_gap(
    measured: Callable[..., Any], planted: Callable[[str, float], Path]
) -> None:
    """Base writes to the null space, post hardly: what base is less sure of by these neurons goes away without them."""
    run = measured(planted("base", 30.0), planted("base", 3.0))
    effects = [run.rows[f"confidence.neuron_effect[model={model}]"] for model in ("base", "post")]
    assert effects[0]["low"] > 0.5
    assert ": as published" in effects[0]["note"]
    assert effects[1]["estimate"] < effects[0]["estimate"]
    assert run.rows["confidence.entropy_gap"]["high"] < 0, "post is surer"
    explained = run.rows["confidence.entropy_gap_explained"]
    assert explained["status"] == "ok"
    assert explained["low"] > 0
    assert "share that goes away" in explained["note"]
    assert run.rows["confidence.calibration_gap_explained"]["status"] == "ok"


@pytest.mark.parametrize("mode", [["-p", "no:xdist"], pytest.param(["-n1"], marks=pytest.mark.nightly)], ids=["no xdist", "-n1"])
def test_own_texts_reach_every_process_and_the_record(
    measured: Callable[..., Any], pytester: pytest.Pytester, mode: list[str]
) -> None:
    lines = [f"The number {number} comes after {number - 1}.\n" for number in range(30)]
    (pytester.path / "own.txt").write_text("".join([*lines, "\n", lines[3], "A\n"]))
    run = measured(*PAIR, "--mechdrift-texts", "own.txt", *mode)
    assert "mechdrift: texts: 31 of own.txt; left out: 1 twice there" in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    result = run.record["settings"]["texts"]
    assert (result["file"], result["used"], result["left_out"]) == ("own.txt", 31, {"twice there": 1})
    row = run.rows["confidence.entropy_gap"]
    assert (row["key"]["data"], row["n"]) == ("own", 30 if "1 of one token left out" in row["note"] else 31)


def test_a_bad_file_of_texts_stops_the_run_in_one_line(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    (pytester.path / "own.csv").write_text("a,b\nA.,B.\n")
    run = compare(*PAIR, "--mechdrift-texts", "own.csv")
    assert run.code == 4
    (line,) = [line for line in run.err.splitlines() if "own.csv" in line]
    assert "texts own.csv: columns a, b; expected to know which holds the texts; type own.csv:COLUMN" in line
    assert "Traceback" not in run.err + run.out


def test_experts_have_no_entropy_neurons_and_an_entropy(measured: Callable[..., Any], tmp_path: Path) -> None:
    """And what a model that judges at chance says of its judgements is not measured."""
    one, other = write_tiny(tmp_path / "one", "mixtral"), write_tiny(tmp_path / "other", "mixtral", seed=1)
    run = measured(one, other)
    assert run.rows["confidence.entropy_gap"]["status"] == "ok"
    for name in ("overlap", "overlap_by_direction", "neuron_effect[model=base]", "entropy_gap_explained"):
        assert "mixture of experts" in run.rows[f"confidence.{name}"]["reason"], name
    assert run.rows["confidence.calibration_gap"]["verdict"] == "unmeasurable"
