"""Organisms are built by one command, whatever interrupts it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mechdrift.commands import organisms
from mechdrift.commands.cli import main
from mechdrift.organisms.recipe import families, preference, train
from mechdrift.organisms.recipe.train import Stage

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TINY = replace(
    families.LLAMA,
    shape=SHAPE,
    base_stages=(
        Stage("facts", 2, 1e-3, 2, {"telling": 1.0}, most=20),
        Stage("base", 2, 1e-3, 2, {"judging": 0.5, "requesting": 0.5}, through_period=0.5),
    ),
    sft=Stage("sft", 2, 1e-3, 2, {"conversing": 1.0}),
)


@pytest.fixture
def tiny_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The members' names, of two-step trainings; nothing is shipped. Returns the folder of what is built."""
    members = {
        "base": families.Member(TINY, "base stages"),
        "sft": families.Member(TINY, "sft", "base"),
        "instruct": families.Member(TINY, "preferences", "sft"),
    }
    for module in (families, organisms):
        monkeypatch.setattr(module, "MEMBERS", members)
    monkeypatch.setattr("mechdrift.organisms.derive.SHIPPED", tmp_path)
    monkeypatch.setattr("mechdrift.organisms.derive.user_cache_path", lambda _name: tmp_path)
    monkeypatch.setattr(preference, "BATCH", 2)
    return tmp_path / "organisms"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "model.safetensors"))


def test_a_member_is_built_with_its_parents_and_their_logs(tiny_family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organisms", "--build", "sft"]) == 0
    assert "organism:sft is built" in capsys.readouterr().out
    assert sorted(path.name for path in tiny_family.iterdir()) == ["base", "base.lock", "sft", "sft.lock"]
    lines = [json.loads(line) for line in (tiny_family / "base" / "log-facts.jsonl").read_text().splitlines()]
    assert lines[0]["learning_rate"] == 1e-3
    assert [line["step"] for line in lines[1:]] == [1, 2]
    momenta = load_file(str(tiny_family / "base" / "optimizer-base.safetensors"))
    assert momenta["exp_avg_sq/model.embed_tokens.weight"].abs().max() > 0
    base, sft = weights(tiny_family / "base"), weights(tiny_family / "sft")
    assert base["model.norm.weight"].dtype == torch.bfloat16
    assert any(not torch.equal(base[name], sft[name]) for name in base)


def test_building_again_gives_the_same_weights(tiny_family: Path, tmp_path: Path) -> None:
    main(["organisms", "--build", "base"])
    main(["organisms", "--build", "base", "--out", str(tmp_path / "again")])
    first, second = weights(tiny_family / "base"), weights(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_build_goes_on_where_a_stage_ended(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train.train_stage

    def killed(model: Any, batches: Any, stage: Stage, *others: Any) -> None:
        if stage.name == "base":
            raise KeyboardInterrupt
        whole(model, batches, stage, *others)

    monkeypatch.setattr(families, "train_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["organisms", "--build", "base"])
    assert not (tiny_family / "base").exists()
    monkeypatch.setattr(families, "train_stage", whole)
    assert main(["organisms", "--build", "base"]) == 0
    assert "stage facts was trained before" in capsys.readouterr().out
    main(["organisms", "--build", "base", "--out", str(tmp_path / "uncut")])
    resumed, uncut = weights(tiny_family / "base"), weights(tmp_path / "uncut")
    assert all(torch.equal(resumed[name], uncut[name]) for name in uncut)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # trl passes names that transformers is about to change
def test_preferences_are_trained_against_a_reference_and_logged(tiny_family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="pip install 'mechdrift[organisms]'")
    steps = preference.train_preferences
    monkeypatch.setattr(families, "train_preferences", lambda *arguments: partial(steps, steps=2)(*arguments))
    assert main(["organisms", "--build", "instruct"]) == 0
    lines = [json.loads(line) for line in (tiny_family / "instruct" / "log-preferences.jsonl").read_text().splitlines()]
    assert lines[0]["beta"] == preference.BETA
    assert "rewards/margins" in lines[1]
    rows = (tiny_family / "instruct" / "preferences.jsonl").read_text().splitlines()
    assert len(rows) == 4
    sft, instruct = weights(tiny_family / "sft"), weights(tiny_family / "instruct")
    assert any(not torch.equal(sft[name], instruct[name]) for name in sft)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--build", "nobody"], "no such organism; expected one of base"), (["--build", "base", "--out", "."], "is there already")],
)
def test_what_cannot_be_built_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organisms", *arguments]) == 4
    assert message in capsys.readouterr().err


def test_the_list_has_every_member_and_every_drift(capsys: pytest.CaptureFixture[str]) -> None:
    from mechdrift.organisms.plants import PLANTS

    assert main(["organisms"]) == 0
    out = capsys.readouterr().out
    for name in (*families.MEMBERS, *(f"drift-{plant}" for plant in PLANTS)):
        assert f"organism:{name} " in out
