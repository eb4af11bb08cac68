"""Rows of structure: medians over blocks, what cannot be measured, and the store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_adapter

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings.structure import changes as measures
from mechdrift.findings.structure import readings as suite
from mechdrift.findings.structure.changes import KINDS, NUMBERS, StructureReadings
from mechdrift.findings.tiers import TIERS
from mechdrift.stats import Spread

DOWN, UP = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.up_proj.weight"
Edit = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(tmp_path / "cache"), 4096)


@pytest.fixture
def base(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint()


@pytest.fixture
def edited(tiny_checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """The tiny checkpoint with its weights changed."""

    def make(edit: Edit, family: str = "llama", **settings: Any) -> Path:
        folder = tiny_checkpoint(family, **settings)
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def read(recorder: Recorder, base: object, post: object, shortcut: bool = True, tier: str = "nightly") -> StructureReadings:
    points = [point if isinstance(point, Checkpoint) else resolve(str(point)) for point in (base, post)]
    return suite.read_structure(Pair(*points), recorder, 0, TIERS[tier], shortcut)


def readings(**numbers: list[list[float]]) -> StructureReadings:
    """Of q, k, v and o in as many blocks as are given; numbers that are not given are 0."""
    layers = len(next(iter(numbers.values())))
    values = np.zeros((layers, len(KINDS), len(NUMBERS)))
    for name, rows in numbers.items():
        values[:, :4, NUMBERS.index(name)] = rows
    return StructureReadings(values, tuple(range(layers)), layers, ("q", "k", "v", "o"), {}, 0, {})


def test_a_median_of_all_there_is_has_no_error_and_shows_its_range() -> None:
    few, many = Spread((3.0, 1.0, 2.0)), Spread(tuple(map(float, range(41))))
    assert (few.estimate, few.interval(), few.n) == (2.0, (1.0, 3.0), 0)
    assert many.interval() == (2.0, 38.0)  # 37 of 41 are the least number that is 90%
    assert (few.p_value(2.0, "at_least"), few.p_value(2.1, "at_least"), few.p_value(1.9, "at_most")) == (1.0, 0.0, 0.0)


def test_rows_are_medians_over_blocks() -> None:
    found = readings(
        scale=[[1.0, 1.2, 1.1, 2.0], [1.0, 1.0, 1.0, 1.5], [0.5, 1.0, 0.75, 1.0]],
        change=[[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.6]],
        gap_ratio=[[0.5, 1, 1, 1], [0.7, 1, 1, 1], [0.4, 1, 1, 2]],
    )
    anomaly = measures.output_anomaly(found)
    assert (anomaly.estimate, *anomaly.interval) == pytest.approx((0.5, 0.25, 0.9))
    assert "as published" in anomaly.note
    assert [point.estimate for point in anomaly.curve] == pytest.approx([0.9, 0.5, 0.25])
    assert measures.scale(found, "o").estimate == 1.5
    largest = measures.change(found, "attention")
    assert (largest.estimate, tuple(largest.interval)) == (0.5, (0.4, 0.6))
    for kind, published in (("q", "as published"), ("o", "unlike published")):
        assert measures.gap_ratio(found, kind).note.startswith(published)


def test_blocks_that_did_not_change_are_left_out_of_the_ratio_and_counted() -> None:
    nothing = float("nan")
    found = readings(gap_ratio=[[nothing, nothing, 1, 1], [0.5, nothing, 1, 1]])
    one = measures.gap_ratio(found, "q")
    assert (one.estimate, len(one.curve)) == (0.5, 1)
    assert "1 of 2 blocks" in one.note
    with pytest.raises(Unmeasurable, match="all 2 k matrices are what they were"):
        measures.gap_ratio(found, "k")


def test_equal_weights_are_known_and_else_measured_to_be_so(recorder: Recorder, base: Path) -> None:
    for shortcut, tolerance in ((True, 0), (False, 1e-6)):
        found = read(recorder, base, base, shortcut)
        assert found.equal == 3 * len(KINDS)
        for number, expected in (("change", 0), ("scale", 1), ("uniformity", 0), ("gap", 0)):
            np.testing.assert_allclose(found.of(number, KINDS), expected, rtol=0, atol=tolerance)
        with pytest.raises(Unmeasurable, match="what they were"):
            measures.gap_ratio(found, "q")


def test_a_lower_tier_reads_some_blocks_and_says_which(recorder: Recorder, base: Path, edited: Callable[..., Path]) -> None:
    """Their numbers are those that all blocks have there: the null's draws go by the block."""
    post = edited(lambda weights: weights.update({name: value * 1.1 for name, value in weights.items() if "proj" in name}))
    some, every = read(recorder, base, post, tier="smoke"), read(recorder, base, post)
    assert (some.depth, len(some.layers), len(every.layers)) == (every.depth, 2, every.depth)
    np.testing.assert_array_equal(some.numbers, every.numbers[list(some.layers)])
    row = measures.change(some, "mlp")
    assert row.site == f"2 of {some.depth} blocks"
    assert [point.site for point in row.curve] == [f"block[{layer}]" for layer in some.layers]


def test_a_second_run_decomposes_nothing(
    recorder: Recorder, base: Path, edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = edited(lambda weights: weights.update({DOWN: 1.5 * weights[DOWN], UP: torch.zeros(48, 32)}))
    first = read(recorder, base, post)
    assert (measures.scale(first, "down").curve[1].estimate or 0) > 1.4
    monkeypatch.setattr(suite, "compare", lambda *_: pytest.fail("decomposed again"))
    second = read(recorder, base, post)
    assert (recorder.store.hits, recorder.store.misses) == (1, 1)
    np.testing.assert_array_equal(second.numbers, first.numbers)
    assert second.reasons == first.reasons  # which no cache holds
    assert set(first.reasons) == {"up"}


@pytest.mark.parametrize("side", ["base", "post"])
def test_a_matrix_of_zeros_is_named_and_spares_the_rest(
    recorder: Recorder, base: Path, edited: Callable[..., Path], side: str
) -> None:
    zeroed = edited(lambda weights: weights[DOWN].zero_())
    found = read(recorder, *((zeroed, base) if side == "base" else (base, zeroed)))
    reason = rf"model\.safetensors, {DOWN}: all zeros"
    with pytest.raises(Unmeasurable, match=reason):
        measures.scale(found, "down")
    with pytest.raises(Unmeasurable, match=reason):
        measures.change(found, "mlp")
    with pytest.raises(Unmeasurable, match=reason):
        measures.output_anomaly(found)
    assert measures.scale(found, "up").estimate == 1
    assert measures.change(found, "attention").estimate == 0


def test_other_shapes_are_named_and_other_depths_refused(
    recorder: Recorder, base: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    wider = read(recorder, base, tiny_checkpoint(intermediate_size=64))
    with pytest.raises(Unmeasurable, match=r"shapes differ: .*layers\.0\.mlp\.gate_proj\.weight 48 x 32; .* 64 x 32"):
        measures.scale(wider, "gate")
    assert measures.scale(wider, "q").estimate == pytest.approx(1, abs=0.1)  # drawn anew, of one distribution
    with pytest.raises(Unmeasurable, match="blocks differ: base 3, post 2"):
        read(recorder, base, tiny_checkpoint(num_hidden_layers=2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantised": "gptq"}, "is quantised by gptq: its matrices are not read from packed files; compare its original"),
        ({"gguf": "model.gguf"}, "is a GGUF file"),
    ],
)
def test_what_is_no_exact_checkpoint_is_refused_by_name(
    recorder: Recorder, base: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unmeasurable, match=reason):
        read(recorder, base, replace(resolve(str(base)), **change))


def test_a_family_without_a_gate_has_its_other_rows(
    recorder: Recorder, tiny_checkpoint: Callable[..., Path], edited: Callable[..., Path]
) -> None:
    post = edited(lambda weights: weights["transformer.h.1.attn.c_proj.weight"].mul_(2), "gpt2")
    found = read(recorder, tiny_checkpoint("gpt2"), post)
    with pytest.raises(Unmeasurable, match="family 'gpt2' has no gate matrix"):
        measures.scale(found, "gate")
    assert measures.change(found, "mlp").estimate == 0
    assert [point.estimate for point in measures.output_anomaly(found).curve] == pytest.approx([0, 1, 0], abs=1e-6)


def test_experts_leave_attention(recorder: Recorder, tiny_checkpoint: Callable[..., Path]) -> None:
    found = read(recorder, tiny_checkpoint("mixtral"), tiny_checkpoint("mixtral", seed=1))
    with pytest.raises(Unmeasurable, match="block 0 is a mixture of experts"):
        measures.change(found, "mlp")
    with pytest.raises(Unmeasurable, match="block 0 is a mixture of experts"):
        measures.output_anomaly(found)
    assert measures.change(found, "attention").estimate > 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapters_change_has_its_rank(recorder: Recorder, base: Path, tmp_path: Path) -> None:
    found = read(recorder, base, f"{base}+{write_adapter(tmp_path / 'adapter')}")
    changed = [kind for kind in KINDS if found.of("change", [kind]).all()]
    assert changed
    assert len(changed) < len(KINDS)
    assert recorder.pool.loads == 0
    assert found.equal == 3 * (len(KINDS) - len(changed))


def test_progress_goes_to_its_end(recorder: Recorder, base: Path) -> None:
    output: list[tuple[int, int]] = []
    recorder.progress = lambda _label: lambda done, total: output.append((done, total))
    read(recorder, base, base)
    assert output == [(done, 3 * len(KINDS)) for done in range(1, 3 * len(KINDS) + 1)]
