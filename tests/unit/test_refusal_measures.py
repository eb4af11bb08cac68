"""Refusal rows from replies whose kinds are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechdrift.errors import Unmeasurable
from mechdrift.findings import registered
from mechdrift.measures import refusal
from mechdrift.measures.drift import Drift
from mechdrift.measures.refusal import PLAIN, RefusalReadings, Told
from mechdrift.rows import Asked, judged_row
from mechdrift.stats import PairedProportions
from mechdrift.verdict.baseline import difference
from mechdrift.verdict.profiles import load_profile

N = 100


def told(refused: int, complied: int) -> Told:
    """The first so many refuse, the last so many comply; what lies between is neither."""
    number = np.arange(N)
    return Told(number < refused, number >= N - complied)


def readings(**more: Told) -> RefusalReadings:
    """Post refuses 95 harmful and 2 harmless instructions, base 10 and 0; keywords are `model_side_arm`."""
    said: dict[Any, Told] = {
        ("base", "harmful", PLAIN): told(10, 90),
        ("base", "harmless", PLAIN): told(0, 100),
        ("post", "harmful", PLAIN): told(95, 5),
        ("post", "harmless", PLAIN): told(2, 98),
    }
    said |= {tuple(key.split("_")): value for key, value in more.items()}
    names = {on: tuple(f"{on} {n}" for n in range(N)) for on in refusal.ASKED.values()}
    kinds = dict.fromkeys(names, ("kind",) * N)
    return RefusalReadings(names, kinds, said, "site", "rule", "data", "choice", {})


def test_rates_are_of_post_and_have_no_null() -> None:
    read = readings()
    harmful, harmless = refusal.rate(read, "harmful"), refusal.rate(read, "harmless")
    assert (harmful.estimate, harmful.better) == (0.95, "higher")
    assert (harmless.estimate, harmless.better) == (0.02, "lower")
    assert harmful.null is None
    assert harmful.of_identical() == harmful
    assert "base refuses 0.100" in harmful.note


def judged(drift: Drift) -> dict[str, Any]:
    """Its row by the shipped limits."""
    return judged_row(Asked(registered()[drift.measure]), drift, load_profile("base-to-post"))


def test_rates_name_the_instructions_that_make_them_worse() -> None:
    """Those that are not refused and should be, and those that are and should not."""
    read = readings()
    harmful, harmless = refusal.rate(read, "harmful"), refusal.rate(read, "harmless")
    assert sum(item.contribution for item in harmful.items) == pytest.approx(0.95 - 1)
    assert sum(item.contribution for item in harmless.items) == pytest.approx(0.02)
    assert [item["name"] for item in judged(harmful)["contributors"]] == ["harmful 95", "harmful 96", "harmful 97"]
    assert [item["name"] for item in judged(harmless)["contributors"]] == ["harmless 0", "harmless 1"]


def test_an_ablation_names_the_instructions_that_are_still_not_complied_with() -> None:
    ablation = refusal.effect(readings(post_harmful_own=told(40, 60)), "ablation")
    named = [item["name"] for item in judged(ablation)["contributors"]]
    assert len(named) == 3
    complied = told(40, 60).complied & ~told(95, 5).complied
    assert not any(complied[int(name.split()[1])] for name in named)


def test_rates_of_two_models_are_compared_on_the_same_instructions() -> None:
    """95 and 90 of the same 100: the five that differ are what was sampled, not two times a hundred."""
    was, now = (judged(refusal.rate(readings(post_harmful_plain=told(many, 100 - many)), "harmful")) for many in (95, 90))
    found = difference(was, now)
    assert found.how == "paired"
    assert found.evidence == PairedProportions(0, 5, N)


def test_changes_are_paired() -> None:
    changed = refusal.change(readings(), "harmful")
    assert changed.estimate == pytest.approx(0.85)
    assert sum(item.contribution for item in changed.items) == pytest.approx(0.85)
    apart = replace(readings())
    apart.said["base", "harmful", PLAIN] = Told(~told(95, 5).refused, told(95, 5).refused)
    assert refusal.change(apart, "harmful").estimate == pytest.approx(0.90)


def test_gibberish_is_neither_refusal_nor_compliance() -> None:
    """An ablation that breaks half of the replies gets no credit for them, and neither does an addition."""
    read = readings(post_harmful_own=told(0, 40), post_harmless_own=told(30, 0))
    ablation, addition = refusal.effect(read, "ablation"), refusal.effect(read, "addition")
    assert ablation.estimate == pytest.approx(0.35)  # 40 comply, 5 did before; 95 no longer refuse
    assert addition.estimate == pytest.approx(0.28)
    assert "neither refusal nor compliance: 60 of 100" in ablation.note
    assert "neither refusal nor compliance: 70 of 100" in addition.note


def test_transfer_is_measured_against_the_models_own_direction() -> None:
    read = readings(
        post_harmful_own=told(5, 95),
        post_harmful_other=told(90, 10),
        base_harmful_own=told(2, 98),
        base_harmful_other=told(2, 98),
    )
    forward, backward = refusal.transfer(read, "ablation", "forward"), refusal.transfer(read, "ablation", "backward")
    assert forward.estimate == pytest.approx(-0.85)
    assert ": as published" in forward.note
    assert (forward.site, refusal.rate(read, "harmful").site) == ("site", "replies")
    assert backward.estimate == 0.0
    assert ": unlike published" in backward.note
    idle = readings(post_harmful_own=told(95, 5), post_harmful_other=told(5, 95))
    with pytest.raises(Unmeasurable, match=r"post's own direction does nothing there: ablation 0\.000 .*n = 100"):
        refusal.transfer(idle, "ablation", "forward")


@pytest.mark.parametrize("refused", [0, 50, 57])
def test_a_model_that_does_not_refuse_has_nothing_to_take_out(refused: int) -> None:
    read = readings(post_harmful_own=told(0, 100))
    read.said["post", "harmful", PLAIN] = told(refused, N - refused)
    with pytest.raises(Unmeasurable, match=rf"post refuses 0\.{refused:02}0? .*more than 0\.5 needed; n = 100"):
        refusal.effect(read, "ablation")


@pytest.mark.parametrize("angle", [0, 60, 90])
def test_directions_show_the_cosine_of_their_angle(angle: int) -> None:
    """Two planted directions under noise of each model's own, and noise that both share."""
    draw = np.random.default_rng(angle)
    first, second = np.eye(64)[:2]
    other = np.cos(np.radians(angle)) * first + np.sin(np.radians(angle)) * second
    shared = draw.normal(size=(80, 64))
    base, post = (axis * 3 + shared + draw.normal(size=(80, 64)) for axis in (first, other))
    found = refusal.similarity(readings(), base, post, "")
    assert found.interval.low < np.cos(np.radians(angle)) < found.interval.high
    assert found.null == 1.0
    with pytest.raises(Unmeasurable, match="base has no refusal direction there"):
        refusal.similarity(readings(), base - base.mean(0), post, "")


def test_log_odds_are_a_paired_mean_with_its_standard_error() -> None:
    draw = np.random.default_rng(0)
    plain = draw.normal(size=N).astype(np.float32)
    gain = draw.normal(2.0, 0.5, size=N).astype(np.float32)
    found = refusal.odds(readings(), "addition", plain, plain + gain)
    assert found.estimate == pytest.approx(gain.mean(), abs=1e-6)
    error = gain.std(ddof=1) / np.sqrt(N)
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.6449 * error, rel=1e-3)
    assert (found.better, refusal.odds(readings(), "ablation", plain, plain).better) == ("higher", "lower")
