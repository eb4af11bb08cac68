"""Where and how strongly a model is steered: what is asked of a stand-in whose answers follow a formula.

The stand-in reads one token a character, and judges by what is added along two known axes. So every direction, length, block and
token that it is asked for is known without the code under test.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mechdrift.checkpoints.pair import Pair
from mechdrift.engine.stored_recordings import Prompts, Steering
from mechdrift.errors import Unmeasurable
from mechdrift.findings.hand_set import LENGTHS, HandSet
from mechdrift.findings.truth.recorded import TruthReadings
from mechdrift.findings.truth.steered import SteeringReadings, read_steering, steered_prompts
from mechdrift.prompts.statements import Split, Statement

LAYERS, WIDTH = 5, 6
SPLITS: tuple[Split, ...] = ("fit", "choose", "test")
KINDS = {"a": 0, "b": 1}  # the axis along which a kind's statements differ
STATEMENTS = [
    Statement(f"{kind}-{entity} is in {value}.", label, f"{kind}-{entity}", kind, SPLITS[entity % 3], value)
    for kind in KINDS
    for entity in range(60)
    for label, value in ((True, "Oslo"), (False, "New York"))
]
SIGNS = np.array([1.0 if s.label else -1.0 for s in STATEMENTS])
LENGTH = {"base": 3.0, "post": 0.5}  # of a kind's mean difference at block 0; one more at every block above


def truth(layer: int, hand: HandSet) -> TruthReadings:
    """Truth along each kind's own axis in base, and along the next axis in post; longer at each block."""

    def streams(name: str, turned: int) -> np.ndarray:
        found = np.zeros((len(STATEMENTS), LAYERS, WIDTH))
        for row, (statement, sign) in enumerate(zip(STATEMENTS, SIGNS, strict=True)):
            for block in range(LAYERS):
                found[row, block, KINDS[statement.kind] + turned] = sign * (LENGTH[name] + block) / 2
        return found

    of_test = np.array([s.split == "test" for s in STATEMENTS])
    gap = np.where(of_test, 4 * SIGNS, np.nan)
    none = np.zeros((0, LAYERS, WIDTH))
    hand = replace(hand, truth_layer=layer)
    return TruthReadings(STATEMENTS, streams("base", 0), streams("post", 2), gap, gap, [], none, none, hand, {})


class StandIn:
    """Judges every statement right by a margin of 2; a push along any axis moves it by what is pushed, at some blocks."""

    def __init__(self, works: tuple[int, ...] | None = None, idle: str = "", wrong: int = 0) -> None:
        """Keeps the requests. works: the blocks at which a push moves it; any where None.

        idle: a model that no push moves. wrong: of how many entities in ten post judges nothing right.
        """
        self.works, self.idle, self.wrong = works, idle, wrong
        self.moves: list[tuple[str, Steering]] = []
        self.texts: dict[str, list[str]] = {}

    def answer_prompts(self, point: Any, texts: Sequence[str], answers: Any) -> Prompts:
        """Each token is a character."""
        self.texts[point.short] = list(texts)
        return Prompts([[ord(letter) for letter in text] for text in texts], [0] * len(texts), [(0, 1)] * len(texts))

    def tokens_over(self, point: Any, texts: Sequence[str], characters: Sequence[Sequence[int]]) -> list[list[int]]:
        """Each token is a character."""
        return [list(places) for places in characters]

    def logits(self, point: Any, prompts: Prompts) -> np.ndarray:
        """Of the two answers, and of any."""
        return self._said(point, prompts, np.zeros(len(prompts.ids)))

    def steered_logits(self, point: Any, prompts: Prompts, moves: Sequence[Steering]) -> np.ndarray:
        """Of each move."""
        self.moves += [(point.short, move) for move in moves]
        works = [self.works in (None, move.layers) and point.short != self.idle for move in moves]
        pushes = [on * move.shifts[:, :4].sum(1) for on, move in zip(works, moves, strict=True)]
        return np.stack([self._said(point, prompts, pushed) for pushed in pushes])

    def _said(self, point: Any, prompts: Prompts, pushed: np.ndarray) -> np.ndarray:
        last = ["".join(map(chr, ids)).rpartition("\n")[2] for ids in prompts.ids]
        gap = np.array([2.0 if "Oslo" in line else -2.0 for line in last])
        if point.short == "post":  # every third entity is of the test split
            gap *= [-1 if int(line.split(" is in ")[0].rpartition("-")[2]) // 3 % 10 < self.wrong else 1 for line in last]
        gap += pushed
        return np.stack([gap / 2, -gap / 2, np.logaddexp(gap / 2, -gap / 2)], -1)


def steered(
    layer: int, hand: HandSet, works: tuple[int, ...] | None = None
) -> tuple[SteeringReadings, dict[str, list[Steering]]]:
    """The readings, and what each model was moved by on the test split: own, transferred and random."""
    base, post = (SimpleNamespace(short=name) for name in ("base", "post"))
    requested: Any = StandIn(works)
    pair = Pair(base, post)  # type: ignore[arg-type]
    found = read_steering(pair, requested, truth(layer, hand), 0, hand)
    return found, {name: [move for of, move in requested.moves if of == name][-3:] for name in ("base", "post")}


def told(idle: str = "", wrong: int = 0) -> SteeringReadings:
    """Readings of block 1, pushed hard, where a model is not moved or judges wrongly."""
    hand = HandSet(steering_layers=(1,), steering_coefficient=4.0)
    recorder: Any = StandIn(idle=idle, wrong=wrong)
    pair = Pair(SimpleNamespace(short="base"), SimpleNamespace(short="post"))  # type: ignore[arg-type]
    return read_steering(pair, recorder, truth(2, hand), 0, hand)


def test_two_models_that_are_steered_alike_have_lost_nothing() -> None:
    found = told()
    assert not found.lost
    *_, how, _, _ = found.transfer("truth.steering_transfer")
    assert (how.post_lacks, how.fewer_left, how.sibling) == (False, False, None)


def test_a_post_that_its_own_direction_no_longer_steers_is_said_to_lack_it() -> None:
    """Whether base's steers it as well is then no question: the absolute row decides, of each way in which base is steered."""
    found = told(idle="post")
    assert found.lost == {"true-to-false", "false-to-true"}
    for flips in ("both", "true-to-false", "false-to-true"):
        *_, how, _, of = found.transfer("truth.steering_transfer", "du", flips)
        assert (how.post_lacks, of) == (True, flips)
        assert how.sibling is not None
        assert how.sibling.measure == "truth.steering_effect"
        assert how.sibling.estimate < -0.5
    assert found.how.post_lacks is False, "the absolute row itself is measured"


@pytest.mark.parametrize(("wrong", "lacks", "fewer"), [(1, False, False), (4, False, True), (10, True, False)])
def test_statements_that_fell_out_in_post_alone_are_not_passed_over(wrong: int, lacks: bool, fewer: bool) -> None:
    """More than a fifth: what is left is a selection. All: there is nothing to steer. The judgement decides."""
    how = told(wrong=wrong).how
    assert (how.post_lacks, how.fewer_left) == (lacks, fewer)
    assert (how.sibling.measure if how.sibling else None) == ("truth.judgement_accuracy" if lacks or fewer else None)


TESTED = [s for s in STATEMENTS if s.split == "test"]


@pytest.mark.parametrize(("layer", "top"), [(0, 0), (2, 2), (3, 3), (4, 3)])
def test_the_uppermost_block_is_that_of_truth_but_not_the_last(layer: int, top: int) -> None:
    """What is added to the last block's output at an earlier token is read by nothing."""
    found, moves = steered(layer, HandSet())
    used = {move.layers for of in moves.values() for move in of}
    assert len(used) == 1
    (layers,) = used
    assert layers == tuple(range(layers[0], top + 1))
    assert found.how.site.startswith(f"resid_post[{layers[0]}..{top}] @ ")


@pytest.mark.parametrize(("blocks", "enough"), [(1, False), (2, True)])
def test_one_block_cannot_be_steered_and_two_can(blocks: int, enough: bool) -> None:
    hand = HandSet(steering_layers=(0,), steering_coefficient=1.0)
    found = truth(0, hand)
    short = replace(found, base=found.base[:, :blocks], post=found.post[:, :blocks])
    pair = Pair(SimpleNamespace(short="base"), SimpleNamespace(short="post"))  # type: ignore[arg-type]
    recorder: Any = StandIn()
    with nullcontext() if enough else pytest.raises(Unmeasurable, match="one block"):
        read_steering(pair, recorder, short, 0, hand)


@pytest.mark.parametrize(("layers", "coefficient"), [((1,), 2.0), ((1, 2), 4.0)])
def test_what_is_fixed_by_hand_is_not_chosen(layers: tuple[int, ...], coefficient: float) -> None:
    """Nothing of the choose split is asked, and each model is moved three times."""
    pair = Pair(SimpleNamespace(short="base"), SimpleNamespace(short="post"))  # type: ignore[arg-type]
    recorder: Any = StandIn()
    hand = HandSet(steering_layers=layers, steering_coefficient=coefficient)
    read_steering(pair, recorder, truth(2, hand), 0, hand)
    assert [(of, move.layers) for of, move in recorder.moves] == [(name, layers) for name in ("base", "post") for _ in range(3)]


@pytest.mark.parametrize(
    ("works", "chosen"), [((3,), (3,)), ((2, 3), (2, 3)), ((1, 2, 3), (1, 2, 3)), ((0, 1, 2, 3), (3,)), ((), (3,))]
)
def test_the_blocks_that_move_it_are_chosen_and_where_none_does_the_fewest(
    works: tuple[int, ...], chosen: tuple[int, ...]
) -> None:
    """Ranges that end at block 3 and begin 0, 1/8, 1/4 or 1/2 of 3 below it, rounded: at 3, 3, 2 and 1."""
    found, moves = steered(3, HandSet(), works)
    assert {move.layers for of in moves.values() for move in of} == {chosen}
    if chosen != works:
        assert found.how.note.startswith("coefficient 1;"), "of equal ones the weaker"


@pytest.mark.parametrize("layer", [1, 4])
@pytest.mark.parametrize("length", LENGTHS)
def test_each_push_has_its_direction_its_length_and_its_sign(layer: int, length: str) -> None:
    """A kind is steered along the other kind's axis: of base 0 and 1, of post 2 and 3; a true statement the other way."""
    hand = HandSet(steering_layers=(1,), steering_coefficient=2.0, steering_length=length)
    _, moves = steered(layer, hand)
    top = min(layer, LAYERS - 2)
    for name, other, axes, other_axes in (("base", "post", 0, 2), ("post", "base", 2, 0)):
        own, transferred, random = (move.shifts for move in moves[name])
        of_own, of_other = 2 * (LENGTH[name] + top), 2 * (LENGTH[other] + top)
        for row, statement in enumerate(TESTED):
            sign, place = (-1 if statement.label else 1), 1 - KINDS[statement.kind]
            assert own[row] == pytest.approx(sign * of_own * np.eye(WIDTH)[axes + place])
            expected = of_own if length == "of the steered model" else of_other
            assert transferred[row] == pytest.approx(sign * expected * np.eye(WIDTH)[other_axes + place])
            assert np.linalg.norm(random[row]) == pytest.approx(of_own)
            assert abs(random[row] @ own[row]) < 0.9 * of_own**2


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("positions", [("object_last",), ("period",), ("object_last", "period"), ("period", "object_last")])
def test_tokens_are_the_last_of_the_object_and_the_period(positions: tuple[str, ...], value: bool) -> None:
    """Of the statement that is judged, which its few-shot examples resemble; without a known object its last word."""
    statements = STATEMENTS if value else [replace(s, value="") for s in STATEMENTS]
    recorder: Any = StandIn()
    point: Any = SimpleNamespace(short="base")
    requested = steered_prompts(recorder, point, statements, 0, "test", HandSet(steering_positions=positions))
    assert len(requested.positions) == len(TESTED)
    for index, text, places in zip(requested.indices, recorder.texts["base"], requested.positions, strict=True):
        start = text.rindex("\n") + 1
        ends = {"object_last": len(statements[index].text) - 2, "period": len(statements[index].text) - 1}
        assert places == [start + ends[name] for name in positions]
        assert {text[place] for place in places} <= set("ok.")


def test_an_object_before_the_end_is_where_it_stands() -> None:
    """`Oslo has a-1, Oslo says its mayor.`: at the end of its last mention, with more after it."""
    statements = [replace(s, text=f"{s.value} has {s.entity}, {s.value} says its mayor.") for s in STATEMENTS]
    recorder: Any = StandIn()
    point: Any = SimpleNamespace(short="base")
    requested = steered_prompts(recorder, point, statements, 0, "test", HandSet(steering_positions=("object_last",)))
    for index, text, (place,) in zip(requested.indices, recorder.texts["base"], requested.positions, strict=True):
        assert text[: place + 1].endswith(f", {statements[index].value}")
        assert text[place + 1 :].startswith(" says its mayor.")
