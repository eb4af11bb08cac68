"""How far harmful and harmless instructions lie apart, with planted directions and a leave-one-out written out by hand."""

import numpy as np
import pytest

from mechdrift.errors import Unmeasurable
from mechdrift.findings.refusal.outcomes import RefusalReadings, Which
from mechdrift.findings.refusal.separation import Separated, placed_right, separation

PAIRS, WIDTH = 40, 16
AXES = np.eye(WIDTH)


def model(axis: np.ndarray, seed: int, pairs: int = PAIRS, kept: int | None = None) -> Separated:
    """Harmful at +axis and harmless at -axis, with noise; of the harmful ones only the first so many are fitted on."""
    draw = np.random.default_rng(seed)
    outputs = {"harmful": draw.normal(size=(pairs, WIDTH)) + axis, "harmless": draw.normal(size=(pairs, WIDTH)) - axis}
    mask = np.arange(pairs) < (pairs if kept is None else kept)
    return Separated(outputs, {"harmful": mask, "harmless": np.ones(pairs, dtype=bool)})  # type: ignore[arg-type]


def read(must_refuse: Which = "base") -> RefusalReadings:
    return RefusalReadings({}, {}, {}, "site", "rule", "data", "choice", {}, must_refuse)


@pytest.mark.parametrize(("length", "kept"), [(0.0, 40), (0.5, 25), (3.0, 40)])
def test_each_pair_is_left_out_by_hand(length: float, kept: int) -> None:
    maker, reader = model(AXES[0] * length, 1, kept=kept), model(AXES[0] * length + 2 * AXES[1], 2)
    found = placed_right(reader, maker)
    for number in range(PAIRS):
        rest = np.arange(PAIRS) != number
        fitted = {on: outputs[maker.kept[on] & rest].mean(0) for on, outputs in maker.outputs.items()}
        middle = sum(outputs[rest].mean(0) for outputs in reader.outputs.values()) / 2
        along = fitted["harmful"] - fitted["harmless"]
        right = [
            (reader.outputs["harmful"][number] - middle) @ along > 0,
            (reader.outputs["harmless"][number] - middle) @ along < 0,
        ]
        assert list(found[number]) == right


def test_left_out_chance_is_chance() -> None:
    """Of a direction fitted on noise: with its own instructions among those fitted on it would tell most of them apart."""
    noise = model(0 * AXES[0], 3)
    assert 0.35 < np.mean(np.concatenate(placed_right(noise, noise))) < 0.65


def test_an_instruction_without_a_partner_is_a_pair_of_its_own() -> None:
    whole = model(3 * AXES[0], 1)
    fewer = Separated(
        {**whole.outputs, "harmless": whole.outputs["harmless"][:10]}, {**whole.kept, "harmless": np.ones(10, bool)}
    )
    assert [len(values) for values in placed_right(fewer, fewer)] == [2] * 10 + [1] * (PAIRS - 10)


def test_a_direction_that_turned_separates_by_itself_and_no_longer_by_the_earlier_one() -> None:
    base, post = model(3 * AXES[0], 1), model(3 * AXES[1], 2)
    own, earlier = separation(read(), base, post, "own"), separation(read(), base, post, "base")
    assert own.estimate == pytest.approx(0, abs=0.03)
    assert earlier.estimate == pytest.approx(-0.5, abs=0.15)
    assert earlier.interval.high < -0.3
    assert sum(item.contribution for item in earlier.items) == pytest.approx(earlier.estimate)
    assert separation(read(), base, base, "base").estimate == 0.0


def test_the_model_that_must_refuse_must_tell_them_apart() -> None:
    apart, nothing = model(3 * AXES[0], 1), model(0 * AXES[0], 2)
    with pytest.raises(Unmeasurable, match=r"base's direction tells 0\.\d+ .* n = 40 pairs"):
        separation(read(), nothing, apart, "own")
    assert separation(read("post"), nothing, apart, "own").interval.low > 0.2
    with pytest.raises(Unmeasurable, match="post's direction tells"):
        separation(read("post"), apart, nothing, "own")
    one = model(3 * AXES[0], 1, pairs=1)
    with pytest.raises(Unmeasurable, match="1 harmful instructions to fit on"):
        separation(read(), one, one, "own")
