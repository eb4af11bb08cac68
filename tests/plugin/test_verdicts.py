"""The main job, end to end, on checkpoints whose truth is known."""

import json
import math
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from known import ALL, KNOWN
from tiny import tiny_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.profiles import load_profile, profile_names
from mechdrift.verdict.row import StoredRow

GATED = load_profile("base-to-post").gated_as_shipped
SIMILARITY = "truth.direction_similarity"
READ_OF_ONE = tuple(
    word
    for name in (
        "structure",
        *(f"knowledge.{row}" for row in ("accuracy", "clean_gap", "depth_shift")),
        *(
            f"truth.{row}"
            for row in ("direction_similarity", "judgement_accuracy", "clean_gap", "probe_accuracy", "two_directions")
        ),
    )
    for word in ("--mechdrift-only", name)
)
NEEDS_BASE = ("--mechdrift-only", "truth", "--mechdrift-only", "knowledge")


def write_blank(folder: Path) -> None:
    """A checkpoint of random weights that reads prompts as organism:base does."""
    base = resolve("organism:base")
    tokenizer = load_tokenizer(base)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": base.width, "num_hidden_layers": base.layers}
    tiny_model(seed=3, num_attention_heads=4, **dict[str, Any](sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def gates(run: Any) -> list[str]:
    """Verdicts of the gated rows."""
    return [row["verdict"] for row in run.rows.values() if row["role"] == "gate"]


def schema() -> Any:
    return json.loads((files("mechdrift.report") / "record.schema.json").read_text())


def with_numbers(run: Any) -> dict[str, Any]:
    """All rows but those of an effect that is not there.

    The organisms' entropy neurons do no more than others, and where nothing has changed there is no change to look at.
    """
    without = {name for name, verdict in run.verdicts().items() if verdict == "unmeasurable"}
    nothing = {"confidence.entropy_gap_explained", "confidence.calibration_gap_explained"}
    # Base's own truth direction moves hardly any answer that way.
    nothing |= {f"truth.steering_transfer_by[flips=false-to-true,formula={formula}]" for formula in ("du", "marks")}
    if run.record["inputs"]["identical"]:
        nothing |= {name for name in run.rows if name.startswith("structure.gap_ratio")}
    assert without == nothing & run.rows.keys()
    return {name: row for name, row in run.rows.items() if name not in without}


@pytest.mark.nightly
def test_base_to_instruct_holds(whole: Any) -> None:
    run = whole
    assert run.code == 0, run.out
    assert gates(run) == ["held"] * GATED
    for name, row in with_numbers(run).items():
        assert row["low"] <= row["estimate"] <= row["high"]
        if name.startswith("truth."):
            assert row["n"] == KNOWN
    jsonschema.validate(run.record, schema())
    assert "mechdrift: base organism:base (qwen3, 6 blocks x 160" in run.out
    assert re.search(rf"mechdrift: device cpu, dtype float32, cache .*, profile base-to-post \({GATED} gated rows\)", run.out)
    assert f"mechdrift: {GATED} gated rows: {GATED} held" in run.out


@pytest.mark.nightly
@pytest.mark.parametrize(("degrees", "verdict"), [(30, "held"), (60, "drifted")])
def test_a_turned_copy_shows_the_cosine_of_its_angle(
    compare: Callable[..., Any], turned: Callable[[int], Path], degrees: int, verdict: str
) -> None:
    """Outputs are unchanged, every vector of the stream is turned by the angle: only the direction may show it."""
    run = compare("organism:instruct", turned(degrees), *(NEEDS_BASE if degrees == 60 else NEEDS_BASE[:2]))
    row = run.rows[SIMILARITY]
    # The angle is exact; what is left is float32 against rounded float32 matrices.
    assert row["estimate"] == pytest.approx(math.cos(math.radians(degrees)), abs=1e-4)
    assert row["verdict"] == verdict
    assert run.verdicts()["truth.judgement_accuracy"] == "held"
    assert run.verdicts()["truth.clean_gap"] == "held"
    assert run.rows["truth.probe_accuracy"]["verdict"] == "held"
    assert run.code == (0 if set(gates(run)) == {"held"} else 1)
    # Where knowledge lies is no matter of coordinates; whether representations work in the other model is.
    located = [row for name, row in run.rows.items() if name.startswith("knowledge.") and row["role"] == "gate"]
    assert {row["verdict"] for row in located} == ({"held"} if degrees == 60 else set())


@pytest.mark.nightly
def test_a_failed_gate_says_by_how_much_against_which_limit_from_which_n(
    compare: Callable[..., Any], turned: Callable[[int], Path]
) -> None:
    run = compare("organism:instruct", turned(60), "--mechdrift-only", SIMILARITY)
    assert run.code == 1
    text = run.out[run.out.index(f"{SIMILARITY} drifted: The direction that tells true") :]
    wanted = [
        r"estimate  0\.500 \[0\.[45]\d\d, 0\.5\d\d\] cosine across disjoint entities; limit >= 0\.8: 0\.300 beyond",
        rf"no change \[\d\.\d{{3}}, \d\.\d{{3}}\] at this resolution; n = {KNOWN} entities",
        r"site      resid_post\[\d\] @ period \(layer of base's widest",
        r"note      plug-in cosine 0\.500",
        r"again     pytest --base organism:instruct --post \S+ --mechdrift-cache \S+ --mechdrift-only truth\.direction",
        r'accept    set at_least under \[rows\."truth\.direction_similarity"\] in a profile of your own, or',
    ]
    places = [re.search(pattern, text) for pattern in wanted]
    assert all(places), [pattern for pattern, place in zip(wanted, places, strict=True) if not place]
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts)
    assert "Traceback" not in run.out


def held_by_every_profile(run: Any) -> bool:
    """Whether all gates are held, by whatever shipped profile: the rows are measured once and judged again."""
    profiles = [load_profile(name) for name in profile_names()]
    rows = {label: msgspec.convert(row, StoredRow) for label, row in run.rows.items()}
    judged = [(profile.rule(label), judged_again(row, profile)) for profile in profiles for label, row in rows.items()]
    return {found.verdict for rule, found in judged if rule.role == "gate"} == {"held"}


@pytest.mark.nightly
def test_identical_checkpoints_are_exactly_no_change(compare: Callable[..., Any]) -> None:
    """Of rows that rest on what the whole run has recorded; of all rows, without the short cut, see below."""
    run = compare("organism:instruct", "organism:instruct", "--mechdrift-profile", "release", *READ_OF_ONE)
    assert run.code == 0
    assert run.record["inputs"]["identical"]
    assert held_by_every_profile(run)
    for row in with_numbers(run).values():
        assert row["verdict"] == ("held" if row["limit"] else "reported")
        assert row["estimate"] == row["low"] == row["high"] == row["null"]
        assert "identical checkpoints" in row["note"]


@pytest.mark.nightly
def test_without_the_short_cut_identical_checkpoints_are_within_a_millionth(compare: Callable[..., Any]) -> None:
    run = compare("organism:instruct", "organism:instruct", "--mechdrift-profile", "release", "--mechdrift-no-identity-shortcut")
    assert run.code == 0
    assert held_by_every_profile(run)
    for row in with_numbers(run).values():
        assert row["null"] is None or row["estimate"] == pytest.approx(row["null"], abs=1e-6)
        assert "identical" not in row["note"]


@pytest.mark.nightly
def test_a_post_that_lost_its_facts_has_drifted(compare: Callable[..., Any], tmp_path: Path) -> None:
    """Random weights under base's own tokenizer: nothing is left, and that is drift, not unmeasurable."""
    write_blank(tmp_path / "lost")
    run = compare("organism:base", tmp_path / "lost", *NEEDS_BASE)
    assert run.code == 1
    verdicts = run.verdicts()
    assert verdicts["truth.judgement_accuracy"] == verdicts["truth.clean_gap"] == verdicts[SIMILARITY] == "drifted"
    assert verdicts["truth.probe_accuracy"] == "drifted"
    assert run.rows["truth.judgement_accuracy"]["contributors"], "names the facts that were lost"


@pytest.mark.nightly
def test_a_base_without_the_effect_is_unmeasurable_and_not_green(compare: Callable[..., Any], tmp_path: Path) -> None:
    write_blank(tmp_path / "blank")
    run = compare(tmp_path / "blank", "organism:base", "--mechdrift-only", "truth")
    assert run.code == 7
    assert set(gates(run)) == {"unmeasurable"}
    assert "base's TRUE/FALSE judgement is right on" in run.out
    assert f"n = {ALL} entities; clean gap" in run.out


def test_another_tokenizer_is_unmeasurable_by_name(
    compare: Callable[..., Any], tiny_checkpoint: Callable[..., Path], few: tuple[str, str]
) -> None:
    run = compare("organism:base", tiny_checkpoint(), "--mechdrift-only", "truth", *few)
    assert run.code == 7
    assert {row["verdict"] for row in run.rows.values()} == {"unmeasurable"}
    assert re.search(r"token ids differ between base and post on (\d+) of \1 prompts", run.out)
