"""Post without a stage, and what the stages did to rows: against arithmetic on planted numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from recorded import changed, items, row
from safetensors.torch import load_file
from tiny import write_tiny

from mechdrift.checkpoints.chain import BASE_TO_POST, Between, compared, without
from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError
from mechdrift.stages.lineage import lineage, points_without
from mechdrift.stages.without_stage import without_stage
from mechdrift.verdict.record import StagePart
from mechdrift.verdict.row import Row

STAGES = ["sft", "dpo"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("shard", ["5GB", "20KB"], ids=["one file", "shards"])
def test_a_stages_weights_are_taken_off(tiny_checkpoint: Callable[..., Path], tmp_path: Path, shard: str) -> None:
    from mechdrift.checkpoints.tokenizer import load_tokenizer
    from mechdrift.models.load import load_model

    folders = [tiny_checkpoint(seed=seed) for seed in range(3)]
    point = resolve(str(folders[2]))
    load_model(point, torch.float32, "cpu").save_pretrained(tmp_path / "post", max_shard_size=shard)
    load_tokenizer(point).save_pretrained(tmp_path / "post")
    assert (len(list((tmp_path / "post").glob("*.safetensors"))) > 1) is (shard == "20KB")
    points = [resolve(str(folder)) for folder in (*folders[:2], tmp_path / "post")]
    made = without_stage(points[0], points[1], points[2], tmp_path / "out")
    before, after, post = (weights(point.folder) for point in points)
    found = weights(made)
    assert found.keys() == post.keys()
    for name, weight in found.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight.double(), post[name].double() - (after[name].double() - before[name].double()))
        assert not torch.equal(weight, post[name])
    again = resolve(str(made))  # reads all of it
    assert again.digests["tokenizer"] == points[2].digests["tokenizer"]


def test_without_every_step_but_one_is_a_walk_back(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Without the last stage it is the checkpoint before."""
    base, post = (resolve(str(tiny_checkpoint(seed=seed))) for seed in range(2))
    made = weights(without_stage(base, post, post, tmp_path))
    for name, weight in weights(base.folder).items():
        torch.testing.assert_close(made[name], weight, atol=1e-7, rtol=1e-6)


def test_what_cannot_be_subtracted_is_named_and_the_rest_is_there(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    base, post = (resolve(str(tiny_checkpoint(seed=seed))) for seed in range(2))
    wide = resolve(str(write_tiny(tmp_path / "wide", "llama", 0, hidden_size=48)))
    with pytest.raises(InputError, match=r"\[258, 48\] in .*wide, \[258, 32\] in .*; expected one architecture"):
        without_stage(base, wide, post, tmp_path)
    points = {"base": base, "sft": wide, "dpo": post, "post": post}
    made, absent, _ = points_without(points, ["sft", "dpo"], "post", tmp_path, resolve)
    assert not made
    assert absent.keys() == {"post~sft", "post~dpo"}
    assert "post without sft cannot be had: " in absent["post~sft"]
    made, absent, _ = points_without(points | {"sft": base}, ["sft", "dpo"], "post", tmp_path, resolve)
    assert made.keys() == {"post~sft", "post~dpo"}
    assert made["post~dpo"].spec == "post without dpo"
    assert not absent


def test_a_run_compares_base_with_post_without_each_stage() -> None:
    pairs = compared(STAGES, ["post"], lineage=True)
    steps = [("base", "sft"), ("sft", "dpo"), ("dpo", "post"), ("base", "post~sft"), ("base", "post~dpo"), ("base", "dpo")]
    assert pairs == (BASE_TO_POST, *(Between(*names, step=True) for names in steps))
    assert compared(["sft"], ["post"], lineage=True)[-1] == Between(
        "base", "post~sft", step=True
    )  # base -> sft is a step already
    assert without(STAGES, "post") == {"sft": "post~sft", "dpo": "post~dpo", "post": "dpo"}


def rows(drifted: float, *others: float | None, **more: Any) -> list[Row]:
    """A gate that drifted, and the same without sft, without dpo, without the last stage."""
    labels = [Between("base", name, step=True) for name in ("post~sft", "post~dpo", "dpo")]
    left = [
        row(between.label("a.b"), estimate, between=between.names, role="report", key=row("a.b").key, **more)
        for between, estimate in zip(labels, others, strict=False)
    ]
    return [row("a.b", drifted, "drifted", **more), *left]


def width(part: StagePart) -> float:
    """Of its interval."""
    assert part.low is not None
    assert part.high is not None
    return part.high - part.low


def test_parts_are_differences_and_shares_of_the_whole() -> None:
    (result,) = lineage(rows(0.2, 0.3, 0.8, 0.25), STAGES, "post")
    assert [part.stage for part in result.parts] == ["sft", "dpo", "post"]
    assert [part.difference for part in result.parts] == pytest.approx([-0.1, -0.6, -0.05])
    assert [part.share for part in result.parts] == pytest.approx([0.125, 0.75, 0.0625])
    assert result.sentence == "a.b moved in dpo and sft"  # the last stage's interval has 0 in it
    # Two intervals of 0.05 either way, of samples that know nothing of each other.
    for part in result.parts:
        assert part.how == "independent"
        assert width(part) == pytest.approx(2 * 0.05 * 2**0.5)


def test_parts_are_paired_where_both_rows_have_their_items() -> None:
    """Every item moves alike but for 0.002: hardly an error, where two samples would leave much."""
    post = [0.2 + 0.001 * (-1) ** n for n in range(100)]
    found = rows(0.2, 0.4, 0.2, 0.2)
    found[0] = changed(found[0], items=items([0.0] * 100, post))
    found[1] = changed(found[1], items=items([0.0] * 100, [0.4] * 100))
    (result,) = lineage(found, STAGES, "post")
    part = result.parts[0]
    assert part.how == "paired"
    assert part.difference == pytest.approx(-0.2)
    assert width(part) == pytest.approx(2 * 1.645 * 0.001 / 99**0.5, rel=1e-3)
    assert result.sentence == "a.b moved in sft"


def test_a_share_needs_a_whole() -> None:
    """Where the row's own interval has no change in it, parts of a drift are no shares of one."""
    (result,) = lineage(rows(0.2, 0.8, 0.2, 0.2, null=0.22), STAGES, "post")
    assert [part.share for part in result.parts] == [None] * 3
    (result,) = lineage(rows(0.2, 0.8, 0.2, 0.2, null=None), STAGES, "post")
    assert [part.share for part in result.parts] == [None] * 3
    assert result.sentence == "a.b moved in sft"


def test_a_stage_that_held_the_drift_back_is_not_where_it_moved() -> None:
    (result,) = lineage(rows(0.2, 0.0, 0.2, 0.2), STAGES, "post")
    assert (result.parts[0].difference or 0) > 0
    assert result.sentence == "a.b moved in no stage alone"
    upper = {"limit": {"at_least": None, "at_most": 0.1, "provenance": "by hand"}, "null": 0.0}
    (result,) = lineage(rows(0.9, 0.2, 0.9, 0.9, **upper), STAGES, "post")
    assert result.sentence == "a.b moved in sft"


def test_what_has_no_number_is_not_told() -> None:
    found = rows(0.2, None, 0.8)
    (result,) = lineage(found, STAGES, "post")
    assert [part.reason for part in result.parts] == ["because ", "", "not requested"]
    assert result.sentence == "a.b moved in dpo; not attributed for sft and post"
    found[2] = changed(found[2], key=replace(found[2].key, data="other"))
    (result,) = lineage(found, STAGES, "post")
    assert "data 'other' there" in result.parts[1].reason


@pytest.mark.parametrize(("verdict", "role"), [("held", "gate"), ("undecided", "gate"), ("drifted", "report")])
def test_only_gates_that_drifted_have_a_lineage(verdict: str, role: str) -> None:
    found = rows(0.2, 0.8, 0.2, 0.2)
    found[0] = changed(found[0], verdict=verdict, role=role)
    assert lineage(found, STAGES, "post") == []
