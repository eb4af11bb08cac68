"""The place of the refusal direction: planted ones are found by the rule, and none passes where none should."""

from typing import Any

import numpy as np
import pytest

from mechdrift.engine.generate.arms import Ablated, Added
from mechdrift.errors import Unmeasurable
from mechdrift.findings.refusal import direction as refusal_direction
from mechdrift.findings.refusal.direction import Fitted, Site, arms_of, choose

LAYERS, PLACES, WIDTH, COUNT = 5, 3, 16, 20


def fitted(seed: int = 0, kept: tuple[int, int] = (COUNT, COUNT)) -> Fitted:
    """Random outputs; so many of each side are kept."""
    draw = np.random.default_rng(seed)
    outputs: Any = {on: draw.normal(size=(COUNT, LAYERS, PLACES, WIDTH)).astype(np.float32) for on in refusal_direction.SIDES}
    outputs["harmful"] += 1.0
    masks: Any = {on: np.arange(COUNT) < count for on, count in zip(refusal_direction.SIDES, kept, strict=True)}
    return Fitted(outputs, masks, "plain", "note")


@pytest.mark.parametrize("kept", [(COUNT, COUNT), (4, 19)])
def test_contributions_have_the_difference_as_their_mean(kept: tuple[int, int]) -> None:
    of, site = fitted(kept=kept), Site(2, 1)
    by_hand = of.outputs["harmful"][: kept[0], 2, 1].mean(0) - of.outputs["harmless"][: kept[1], 2, 1].mean(0)
    np.testing.assert_allclose(of.difference(site), by_hand, rtol=1e-5)
    np.testing.assert_allclose(of.contributions(site).mean(0), by_hand, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(of.direction(site)) == pytest.approx(1.0)


def test_a_shorter_template_is_read_at_its_first_token() -> None:
    of = fitted()
    np.testing.assert_array_equal(of.difference(Site(0, 2)), of.difference(Site(0, 9)))


class RequestedRow:
    """Prompts that are of no account."""

    ids = [[0]] * COUNT
    tail = ""


class Point:
    """A checkpoint."""

    spec, layers = "a model", LAYERS


def chosen(monkeypatch: pytest.MonkeyPatch, scores: Any, spread: float = 0.0) -> Any:
    """The choice where scores(layer, place, on, ablated or added) gives log-odds and divergence, half of it more or less."""
    of = fitted()
    places = {of.direction(Site(layer, back)).tobytes(): (layer, back) for layer in range(LAYERS) for back in range(PLACES)}
    sides = iter(["harmful", "harmless", "harmless"])

    def first_token(_recorder: Any, _point: Any, ids: Any, _tokens: Any, arms: Any) -> np.ndarray:
        on = next(sides)
        rows = [scores(*places[arm.does.direction.tobytes()], on, isinstance(arm.does, Ablated)) for arm in arms]
        apart = np.where(np.arange(len(ids)) % 2, spread, -spread)[:, None] * [0, 1]
        return np.asarray(np.repeat(np.array(rows)[:, None], len(ids), 1) + apart, dtype=np.float32)

    monkeypatch.setattr(refusal_direction, "first_token_under", first_token)
    monkeypatch.setattr(refusal_direction, "openers_of", lambda *_: (1,))
    prompts: Any = dict.fromkeys(refusal_direction.SIDES, RequestedRow)
    recorder: Any = None
    point: Any = Point
    return choose(recorder, point, of, prompts)


def test_the_least_refusal_under_ablation_wins_among_those_that_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(layer: int, back: int, on: str, ablated: bool) -> tuple[float, float]:
        if ablated and on == "harmful":
            return -10.0 * layer - back, 0.0  # deeper is better
        if ablated:
            return 0.0, 0.2 if layer == 3 else 0.05  # but block 3 changes harmless replies
        return (1.0 if back != 2 else -1.0), 0.0  # and the third token from the end induces nothing

    site, note = chosen(monkeypatch, scores)
    assert site == Site(2, 1)  # block 4 is beyond the first 80% of five
    assert note.startswith("6 of 12 places pass; resid_post[2] @ end-1 bypass -21.00")


@pytest.mark.parametrize(("spread", "expected"), [(0.0, Site(0, 1)), (0.005, Site(0, 1)), (0.05, Site(0, 0))])
def test_a_divergence_is_over_its_bound_where_it_is_so_for_certain(
    monkeypatch: pytest.MonkeyPatch, spread: float, expected: Site
) -> None:
    """At .05 apart the error of the mean of 20 is .05 / 19 ** .5 = .011, and .11 less 1.645 times that is under .1.

    At .005 apart it is .0011, and .108 is not.
    """

    def scores(layer: int, back: int, on: str, ablated: bool) -> tuple[float, float]:
        if ablated and on == "harmful":
            return (-1.0 if back else -10.0), 0.0  # the last token is better
        return (1.0 if layer == 0 and back < 2 else -1.0), 0.05 if back else 0.11

    assert chosen(monkeypatch, scores, spread)[0] == expected


def test_where_no_place_passes_the_nearest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unmeasurable, match=r"a model: none of 12 places has a direction that induces .*nearest: resid_post\["):
        chosen(monkeypatch, lambda *_: (-1.0, 0.0))


def test_where_all_that_induce_change_harmless_replies_the_bound_is_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(layer: int, back: int, on: str, ablated: bool) -> tuple[float, float]:
        if ablated and on == "harmful":
            return -10.0 * layer - back, 0.0
        if ablated:
            return 0.0, 0.15 + layer / 10  # blocks 0 to 2 are under .4
        return (1.0 if layer else -1.0), 0.0  # block 0 changes least, and induces nothing

    site, note = chosen(monkeypatch, scores)
    assert site == Site(2, 2)  # block 1 is under .4 too, and block 3 is not
    assert note.startswith("6 of 12 places pass kl under 0.4, none under 0.1; resid_post[2] @ end-2 bypass -22.00")


def test_every_addition_goes_as_far_as_the_steered_models_sides_are_apart() -> None:
    """Or the other's would be less of the same the less alike the two directions are."""
    own, other, site = fitted(0), fitted(1), Site(1, 0)
    arms = {arm.name: arm for arm in arms_of(own, other, site, 3, 2)}
    added, lent = arms["own addition"].does, arms["other addition"].does
    assert isinstance(added, Added)
    assert isinstance(lent, Added)
    assert added.coefficient == pytest.approx(np.linalg.norm(own.difference(site)), rel=1e-5)
    assert lent.coefficient == added.coefficient
    assert lent.direction == pytest.approx(other.direction(site))
    assert [arms[name].requested for name in ("plain", "own ablation", "other addition")] == [None, (0, 1, 2), (3, 4)]
