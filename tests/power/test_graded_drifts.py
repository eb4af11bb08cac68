"""Planted drifts of graded strength: the row falls with the strength, as far as was planted, and crosses its limit."""

import copy
import math
from typing import Any

import pytest
import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.last_mlp import neuron_table, null_directions, read_last_mlp
from mechdrift.findings.confidence.entropy_neurons import COUNT, Chosen, choose, overlap
from mechdrift.findings.truth.directions import direction_similarity
from mechdrift.models.load import load_model
from mechdrift.organisms import plants
from mechdrift.organisms.recipe.families import MEMBERS
from mechdrift.prompts.statements import shipped_statements
from mechdrift.verdict.decide import decide
from mechdrift.verdict.profiles import load_profile

INSTRUCT = resolve("organism:instruct")
PROFILE = load_profile("base-to-post")


@pytest.mark.nightly
def test_the_truth_direction_turns_by_what_was_planted() -> None:
    """cos(90 degrees x strength), as nearly all of the direction lies in the plane that is turned; it drifts under .8."""
    model, tokenizer = load_model(INSTRUCT, torch.float32, "cpu"), load_tokenizer(INSTRUCT)
    known = MEMBERS[plants.ORIGIN].family.kinds
    statements = [each for each in shipped_statements() if each.kind in known and not each.negated]
    before = plants.period_blocks(model, tokenizer, statements).numpy()
    found = {}
    for strength in (0.35, 0.5, 1.0):
        turned = copy.deepcopy(model)
        plants.turn_truth(turned, tokenizer, strength)
        drift = direction_similarity(before, plants.period_blocks(turned, tokenizer, statements).numpy(), statements, None)
        assert drift.estimate == pytest.approx(math.cos(math.pi / 2 * strength), abs=0.02)
        found[strength] = drift.estimate, decide(drift, PROFILE).verdict
    estimates = [estimate for estimate, _ in found.values()]
    assert estimates == sorted(estimates, reverse=True)
    # .8 is crossed at 36.9 degrees, strength .41.
    assert [verdict for _, verdict in found.values()] == ["held", "drifted", "drifted"]


def test_entropy_neurons_leave_their_places_one_by_one() -> None:
    """With k of ten elsewhere the overlap is (10 - k) / (10 + k); it drifts from the sixth on, where that is under .3."""
    model = load_model(INSTRUCT, torch.float32, "cpu")

    def chosen(changed: Any) -> Chosen:
        return choose(neuron_table(read_last_mlp(changed, changed.config.vocab_size)).numpy())

    before = chosen(model)
    verdicts = []
    for moved in range(1, COUNT + 1):
        changed = copy.deepcopy(model)
        plants.swap_entropy_neurons(changed, None, moved / COUNT)
        drift = overlap(before, chosen(changed), null_directions(INSTRUCT.width))
        assert drift.estimate == pytest.approx((COUNT - moved) / (COUNT + moved))
        verdicts.append(decide(drift, PROFILE).verdict)
    assert verdicts == ["held"] * 5 + ["drifted"] * 5
