"""How the truth direction is steered by: where, how strongly, and what both models then say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Prompts, Recorder, Steering
from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.hand_set import HAND_SET, LENGTHS, HandSet
from mechdrift.findings.judged_prompts import judged_questions
from mechdrift.findings.judging import data_name, require_judgement
from mechdrift.findings.truth import probes as truthfulness
from mechdrift.findings.truth import steering
from mechdrift.findings.truth.recorded import TruthReadings
from mechdrift.findings.truth.steering import Arms, How
from mechdrift.prompts.judgement import ANSWERS, judgement_prompts
from mechdrift.prompts.statements import Split, Statement

COEFFICIENTS = (1.0, 2.0, 4.0)
TIE = 1e-9
DEPTHS = (0.0, 1 / 8, 1 / 4, 1 / 2)  # of the blocks, up to the one at which truth is read
RULE = "blocks and coefficient of base's largest own effect beyond a random direction's on the choose split"

Directions = dict[str, np.ndarray]
Option = tuple[tuple[int, ...], float]  # blocks and coefficient


@dataclass(frozen=True)
class SteeringReadings:
    """What both models say, plain and steered."""

    statements: Sequence[Statement]
    """In the order of all arrays."""
    base: Arms
    """Base; its transferred direction is post's."""
    post: Arms
    """Post; its transferred direction is base's."""
    kept: steering.Kept
    """The statements that both judge right."""
    how: How
    """Blocks, positions, coefficient; what decides where post judges too little."""
    lost: frozenset[steering.Flips]
    """The ways in which base's own direction steers base, and post's no longer post."""
    base_effects: steering.Effects | None
    """steering.base_effects; None where too few statements are left."""

    def transfer(self, name: str, formula: steering.Formula = "du", flips: steering.Flips = "both") -> tuple[Any, ...]:
        """What steering.transfer is given for a row of the transfer to post, or backward to base."""
        arms = self.base if name == "truth.steering_backward" else self.post
        how = self.how
        if self.lost & set(steering.FLIPS if flips == "both" else [flips]) and not how.post_lacks:
            how = replace(how, post_lacks=True, sibling=steering.own_difference(*self.effect()))
        return name, arms, self.base_effects, self.statements, self.kept.mask, how, formula, flips

    def effect(self) -> tuple[Any, ...]:
        """What steering.own_difference is given for the absolute row."""
        return self.base, self.post, self.base_effects, self.statements, self.kept.mask, self.how


@dataclass(frozen=True)
class SteeredPrompts:
    """The judged prompts of a split as one model reads them."""

    indices: list[int]
    """Of their statements."""
    prompts: Prompts
    """The prompts."""
    positions: list[list[int]]
    """The tokens at which the stream is moved, one list a prompt."""


def read_steering(pair: Pair, recordings: Recorder, truth: TruthReadings, seed: int, hand: HandSet) -> SteeringReadings:
    """Choose blocks and coefficient on base, then steer each model along its own direction and the other's.

    Raises Unmeasurable where base cannot judge, widths differ, or there is one kind only; InterventionFailed where a model does
    not move.
    """
    require_judgement(truth.base_gap, truth.statements, truth.post_gap)
    truthfulness.require_same_shape(truth.base, truth.post)
    statements = truth.statements
    kinds = sorted({s.kind for s in statements})
    if truth.base.shape[1] < 2:
        raise Unmeasurable("one block: what is added to its output at the object or the period is never read")
    # The last block's output reaches no other token.
    top = min(truth.place.layer, truth.base.shape[1] - 2)
    own = {point.short: steering.mean_differences(blocks[:, top], statements, kinds) for point, blocks in truth.by_point(pair)}
    base_own, post_own = own[pair.base.short], own[pair.post.short]
    layers, coefficient = _chosen(pair.base, recordings, statements, base_own, top, seed, hand)

    def arms(point: Checkpoint, mine: Directions, other: Directions) -> Arms:
        steered = steered_prompts(recordings, point, statements, seed, "test", hand)
        lengths = None if hand.steering_length == LENGTHS[1] else mine
        pushes = mine, _as_long(other, lengths), _random(mine, seed)
        moves = [steering_of(steered, statements, push, layers, coefficient) for push in pushes]
        plain, own, transferred, random = answers_under(recordings, point, steered, statements, moves)
        return Arms(plain, own, transferred, random)

    base, post = arms(pair.base, base_own, post_own), arms(pair.post, post_own, base_own)
    kept = steering.kept_statements(base.plain, post.plain, statements)
    positions = "+".join(hand.steering_positions)
    how = How(
        site=f"resid_post[{layers[0]}..{layers[-1]}] @ {positions}",
        rule=HAND_SET if hand.steering_layers and hand.steering_coefficient else RULE,
        data=data_name(statements),
        note=f"coefficient {coefficient:g}; judged wrong of {kept.requested}: base {kept.base_wrong}, post {kept.post_wrong}",
    )
    if steering.too_few(kept.mask, statements):
        how = replace(how, post_lacks=True, sibling=_accuracy(truth))
        return SteeringReadings(statements, base, post, kept, how, frozenset(), None)
    needed = steering.base_effects(base, statements)
    after = steering.own_effects(post, statements, kept.mask)
    beyond = (f"{way} base {needed[way].words()}, post {after[way].words()}" for way in steering.FLIPS)
    how = replace(how, note=f"{how.note}; own beyond random: {', '.join(beyond)}")
    if kept.lost_in_post_alone:
        how = replace(how, fewer_left=True, sibling=_accuracy(truth))
    lost = frozenset(steering.working(needed)) - frozenset(steering.working(after))
    return SteeringReadings(statements, base, post, kept, how, lost, needed)


def _accuracy(truth: TruthReadings) -> Drift:
    """The absolute row where post judges too little."""
    return truthfulness.judgement_accuracy(truth.base_gap, truth.post_gap, truth.statements)


def _chosen(
    base: Checkpoint,
    recordings: Recorder,
    statements: Sequence[Statement],
    directions: Directions,
    top: int,
    seed: int,
    hand: HandSet,
) -> Option:
    """Blocks and coefficient: by hand, or by base's largest own effect on the choose split; ties go to the weaker one."""
    options = options_of(top, hand)
    if len(options) == 1:
        return options[0]
    steered = steered_prompts(recordings, base, statements, seed, "choose", hand)
    pushes = (directions, _random(directions, seed))
    moves = [steering_of(steered, statements, push, *option) for option in options for push in pushes]
    plain, *moved = answers_under(recordings, base, steered, statements, moves)
    kept = steering.kept_statements(plain, plain, statements).mask
    truthfulness.require_labels(kept, statements, "of the choose split that base judges right")
    best, found = -math.inf, options[0]
    for number, option in enumerate(options):
        own, random = moved[2 * number : 2 * number + 2]
        effect = steering.effect_over_random(plain, own, random, statements, kept).estimate
        if effect > best + TIE:
            best, found = effect, option
    return found


def options_of(top: int, hand: HandSet) -> list[Option]:
    """What is chosen among, or the one option that is fixed by hand; top: the last block that may be moved."""
    layers = hand.steering_layers
    ranges = [layers] if layers else sorted({tuple(range(top - round(depth * top), top + 1)) for depth in DEPTHS}, key=len)
    coefficients = (hand.steering_coefficient,) if hand.steering_coefficient else COEFFICIENTS
    return [(blocks, coefficient) for coefficient in coefficients for blocks in ranges]


def steered_prompts(
    recordings: Recorder, point: Checkpoint, statements: Sequence[Statement], seed: int, split: Split, hand: HandSet
) -> SteeredPrompts:
    """The judged prompts of a split, and where they are steered."""
    indices, prompts = judged_questions(recordings, point, statements, seed, split)
    texts = judgement_prompts(statements, seed, split)
    characters = []
    for index in indices:
        statement = statements[index]
        start = texts[statement].rindex(statement.text)
        places = {"period": len(statement.text) - 1, "object_last": _object_end(statement)}
        characters.append([start + places[name] for name in hand.steering_positions])
    # Encoded with an answer, as the prompts are, whose tokens are a beginning of these.
    whole = [texts[statements[index]] + ANSWERS[True] for index in indices]
    return SteeredPrompts(indices, prompts, recordings.tokens_over(point, whole, characters))


def _random(directions: Directions, seed: int) -> Directions:
    """A random direction for each kind, as long as its truth direction; the same for both models but for its length."""
    random = {}
    for number, (kind, vector) in enumerate(sorted(directions.items())):
        drawn = np.random.default_rng([seed, number]).normal(size=len(vector))
        random[kind] = drawn * (np.linalg.norm(vector) / np.linalg.norm(drawn))
    return random


def _object_end(statement: Statement) -> int:
    """Index of the last character of what is said, or of the last word before the period where that is not known."""
    place = statement.text.rfind(statement.value) if statement.value else -1
    return place + len(statement.value) - 1 if place >= 0 else len(statement.text) - 2


def _as_long(directions: Directions, as_these: Directions | None) -> Directions:
    """The directions with the lengths of others: a transfer compares directions, not the sizes of two residual streams."""
    if as_these is None:
        return directions
    return {kind: vector * (np.linalg.norm(as_these[kind]) / np.linalg.norm(vector)) for kind, vector in directions.items()}


def steering_of(
    steered: SteeredPrompts, statements: Sequence[Statement], directions: Directions, layers: tuple[int, ...], coefficient: float
) -> Steering:
    """Added to false statements, taken from true ones."""
    shifts = [
        (-coefficient if statements[index].label else coefficient) * directions[statements[index].kind]
        for index in steered.indices
    ]
    return Steering(layers, np.array(shifts, dtype=np.float32), steered.positions)


def answers_under(
    recordings: Recorder, point: Checkpoint, steered: SteeredPrompts, statements: Sequence[Statement], moves: Sequence[Steering]
) -> list[np.ndarray]:
    """P(" TRUE") - P(" FALSE") of every statement scored, NaN for the others: plain, then under each move."""
    plain = recordings.logits(point, steered.prompts)
    moved = recordings.steered_logits(point, steered.prompts, moves)
    logits = np.concatenate([plain[None], moved]).astype(np.float64)
    answers = np.full((len(logits), len(statements)), np.nan)
    answers[:, steered.indices] = np.exp(logits[..., 0] - logits[..., 2]) - np.exp(logits[..., 1] - logits[..., 2])
    return list(answers)
