"""Every organism and every planted drift, measured again; and the smallest family trained again from nothing."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from mechdrift.organisms.derive import SHIPPED, shipped_names
from mechdrift.organisms.plants import PLANTS
from mechdrift.organisms.recipe.families import train
from mechdrift.organisms.score import HELD_OUT, measured

STORED = json.loads((files("mechdrift.data") / "organisms" / "scores.json").read_text())


@pytest.mark.parametrize("name", [*shipped_names(), *(f"drift-{plant}" for plant in PLANTS)])
def test_the_stored_scores_are_those_of_the_weights(name: str) -> None:
    found = measured(name)
    assert found.keys() == STORED[name].keys()
    for what, kinds in found.items():
        assert kinds == pytest.approx(STORED[name][what], abs=0.012), what


# By trl, of names that transformers has replaced.
@pytest.mark.filterwarnings("ignore:.*checkpointing. is deprecated and will be removed in v6:FutureWarning:transformers")
def test_the_smallest_family_trained_again_reaches_its_cards_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine adds in another order, so weights differ; what was learnt may not."""
    monkeypatch.setattr("mechdrift.organisms.derive.SHIPPED", tmp_path)
    parent: str | None = None
    for name in ("base", "sft", "instruct"):
        train(name, tmp_path / parent if parent else None, tmp_path / name)
        parent = name
        same = (tmp_path / name / "model.safetensors").read_bytes() == (SHIPPED / name / "model.safetensors").read_bytes()
        print(f"{name}: {'byte for byte the shipped weights' if same else 'other weights than those shipped'}")
        found = measured(name)
        for what in (HELD_OUT, "judged right, test split", "question answered right"):
            assert min(found[what].values()) >= min(STORED[name][what].values()) - 0.03, (name, what, found[what])
        for what in ("refused, harmful, held out", "refused, harmless, held out"):
            assert found[what]["all"] == pytest.approx(STORED[name][what]["all"], abs=0.1), (name, what)
