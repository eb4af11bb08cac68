"""A pair of a family that nobody listed, through the command line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from found import model_of

ORGANISM = Path(__file__).parents[2] / "fixtures" / "organisms" / "base"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Random models, with the organisms' tokenizer and so with its vocabulary."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path / f"granite-{seed}"
        model = model_of("granite", seed)
        model.resize_token_embeddings(1536)
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ORGANISM / name, folder)
        folders.append(folder)
    return folders


def test_it_is_said_before_and_found_when_loaded(pair: list[Path], compare: Callable[..., Any], tmp_path: Path) -> None:
    """And what random weights do not know is unmeasurable for that, not for the family."""
    only = ("--mechdrift-tier", "smoke", "--mechdrift-only", "truth.direction_similarity", "--mechdrift-only", "structure.change")
    run = compare(*pair, *only)
    lines = run.out.splitlines()
    place = lines.index("mechdrift: granite is not listed: its stream is found when it is loaded")
    assert lines[place + 1] == f"mechdrift:   mechdrift inspect {pair[0]}  says now what can be measured of it"
    assert run.out.count("is not listed") == 1
    expected = "4 blocks, then GraniteRMSNorm; written by self_attn, mlp times 0.22"
    assert run.record["run"]["streams"] == {str(folder): expected for folder in pair}
    changes = [row for row in run.record["rows"] if row["finding"] == "structure.change" and row["estimate"] is not None]
    assert changes, "the matrices were read"
    assert all(row["estimate"] > 1 for row in changes), "two models that share nothing"
    reasons = {row["reason"] for row in run.record["rows"] if row["verdict"] == "unmeasurable"}
    assert not [reason for reason in reasons if "family" in reason or "stream" in reason]
